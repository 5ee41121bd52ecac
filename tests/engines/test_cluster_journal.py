"""Journal of a worker: in order, within its lease, and what it does with writes that fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import sqlalchemy as sa

from pika_async._journal.protocol import SubmissionHeldError
from pika_async.engines import cluster_journal, job_reads, shared_statements, statements, tables
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.engines.job_writes import write_all
from pika_async.errors import JournalFailed, LeaseEnded
from pika_async.jobs import Job, JobStatus
from pika_async.polling import DurationSample
from tests.engines.rows import accepted, sent
from tests.journal.builders import INTENT, a_job, with_token
from tests.journal.kinds import new_lease

pytestmark = pytest.mark.anyio


class UnsureDatabase(Database):
    """A database that does not answer some commits of jobs, though they take place."""

    unanswered = 0
    #: Set once jobs may be written; None: they may.
    gate: asyncio.Event | None = None

    async def run(self, statements: Any, *args: Any, **kwargs: Any) -> Any:
        if statements is write_all and self.gate is not None:
            await self.gate.wait()
        result = await super().run(statements, *args, **kwargs)
        if statements is write_all and self.unanswered:
            self.unanswered -= 1
            raise JournalFailed(provider="", reason="cut", path=self.text)
        return result


@pytest.fixture
async def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[UnsureDatabase]:
    monkeypatch.setattr(cluster_journal, "UNSAVED_S", 0.01)
    made = UnsureDatabase(database_url)
    await made.open()
    bounds: dict[str, Any] = dict.fromkeys(("submits_per_second", "max_charges", "budget"))
    await made.run(shared_statements.upsert_accounts, [{"name": "", "max_in_flight": 1, **bounds}])
    yield made
    await made.close()


async def working(database: Database, worker: str, *keys: str) -> ClusterJournal:
    """Return the journal of a new worker that has jobs, which are new unless they exist."""
    journal = ClusterJournal(database, await new_lease(database, worker))
    await database.run(statements.insert_jobs, [a_job(key) for key in keys])
    for key in keys:
        assert await journal.claim(key) is not None
    return journal


async def stored(database: Database) -> dict[str, Job]:
    return {job.key: job for _, job in await database.run(job_reads.select_page, 0, 99)}


async def orphans(database: Database) -> list[tuple[str, str, str]]:
    columns = (tables.orphans.c.key, tables.orphans.c.task_id, tables.orphans.c.worker)
    return await database.run(lambda connection: [tuple(row) for row in connection.execute(sa.select(*columns))])


async def in_flight(database: Database) -> int:
    return int((await database.run(shared_statements.select_accounts))[""]["in_flight"])


async def test_a_job_is_stored_as_sent_before_the_call_returns(database: UnsureDatabase) -> None:
    journal = await working(database, "w", "a", "b")
    await journal.record_intent(sent("a"), with_token("t"))
    assert await stored(database) == {"a": sent("a"), "b": a_job("b")}
    with pytest.raises(SubmissionHeldError, match="1 jobs in flight, its maximum") as held:
        await journal.record_intent(sent("b"), INTENT)
    assert (held.value.seconds, held.value.stop) == (0.5, None)
    assert await stored(database) == {"a": sent("a"), "b": a_job("b")}
    assert (journal.get("b"), journal.intent("b")) == (a_job("b"), None)


async def test_an_intent_whose_commit_stays_unanswered_is_undone(database: UnsureDatabase) -> None:
    """Nothing is sent for it, so the job neither keeps a place nor becomes a doubt of the next worker."""
    journal = await working(database, "w", "a", "b")
    database.unanswered = 1
    with pytest.raises(SubmissionHeldError, match="cannot be written: cut"):
        await journal.record_intent(sent("a"), INTENT)
    await journal.flush()
    assert await stored(database) == {"a": attrs.evolve(a_job("a"), account="main"), "b": a_job("b")}
    assert await in_flight(database) == 0
    await journal.record_intent(sent("b"), INTENT)


async def test_a_save_is_tried_until_it_is_answered_and_stays_before_later_ones(database: UnsureDatabase) -> None:
    journal = await working(database, "w", "a")
    await journal.record_intent(sent("a"), INTENT)
    database.unanswered = 3
    first = asyncio.create_task(journal.save(accepted("a")))
    await asyncio.sleep(0)
    journal.save_later(attrs.evolve(accepted("a"), progress=10))
    second = asyncio.create_task(journal.flush())
    await asyncio.sleep(0)
    third = asyncio.create_task(journal.save(attrs.evolve(accepted("a"), progress=20)))
    await asyncio.gather(first, second, third)
    assert await stored(database) == {"a": attrs.evolve(accepted("a"), progress=20)}
    assert (database.unanswered, await in_flight(database)) == (0, 1)
    database.unanswered = 1
    states = [attrs.evolve(accepted("a"), progress=number) for number in (30, 40, 50)]
    await asyncio.gather(*(journal.save(state) for state in states))
    assert await stored(database) == {"a": states[-1]}


async def test_a_task_id_that_comes_after_the_end_is_kept_as_an_orphan_once(
    database: UnsureDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """The job is another worker's by then, and stays as that one has it."""
    journal = await working(database, "w", "a", "b")
    await journal.record_intent(sent("a"), INTENT)
    await database.run(shared_statements.end_lease, "w", "expired")
    other = await working(database, "v", "a")
    with caplog.at_level(logging.ERROR):
        await asyncio.gather(journal.save(accepted("a")), journal.save(a_job("b")))
    for _ in range(2):
        await journal.save(accepted("a"))
        with pytest.raises(SubmissionHeldError) as held:
            await journal.record_intent(sent("b"), INTENT)
        assert isinstance(held.value.stop, LeaseEnded)
        with pytest.raises(LeaseEnded):
            await journal.claim("b")
    await journal.close()
    assert await orphans(database) == [("a", "task-a", "w")]
    assert "task-a could not be saved" in caplog.text
    assert await stored(database) == {"a": sent("a"), "b": a_job("b")}
    assert other.interrupted_jobs() == [(sent("a"), INTENT)]


async def test_a_worker_that_lost_a_job_ends(database: UnsureDatabase) -> None:
    """Another has it although the lease holds, so this one does not know what it has; the rest of the group is saved."""
    journal = await working(database, "w", "a", "b")
    take = sa.update(tables.jobs).where(tables.jobs.c.key == "a").values(owner="v")
    await database.run(lambda connection: connection.execute(take))
    saves = (journal.save(accepted("a")), journal.save(accepted("b")))
    await asyncio.gather(*saves)
    assert journal._lease.ended == "another worker has the job a"
    assert await stored(database) == {"a": a_job("a"), "b": accepted("b")}
    assert await orphans(database) == [("a", "task-a", "w")]


async def test_nothing_is_sent_once_the_lease_may_have_ended(database: UnsureDatabase) -> None:
    """Its process was stopped between the commit and the sending, or before."""
    journal = await working(database, "w", "a")
    journal._lease.valid_until = 0.0
    with pytest.raises(SubmissionHeldError, match="has not been extended in time"):
        await journal.record_intent(sent("a"), INTENT)
    assert [job.status for job in (await stored(database)).values()] == [JobStatus.PLANNED]
    assert await in_flight(database) == 0


async def test_a_write_that_is_refused_fails_alone(database: UnsureDatabase, caplog: pytest.LogCaptureFixture) -> None:
    """Its task id is in the log, and where possible among the orphans; those beside it are saved."""
    journal = await working(database, "w", "a", "b", "c")
    bad = attrs.evolve(accepted("b"), handle="\ud800")
    saves = (journal.save(accepted("a")), journal.save(bad), journal.save(accepted("c")))
    first, second, third = await asyncio.wait_for(asyncio.gather(*saves, return_exceptions=True), 60)
    assert (first, type(second), third) == (None, JournalFailed, None)
    assert await stored(database) == {"a": accepted("a"), "b": a_job("b"), "c": accepted("c")}
    assert await orphans(database) == [("b", "task-b", "w")]
    assert "task-b could not be saved" in caplog.text
    await journal.save(accepted("b"))


async def test_a_job_is_released_after_its_writes(database: UnsureDatabase) -> None:
    journal = await working(database, "w", "a")
    database.gate = asyncio.Event()
    saving = asyncio.create_task(journal.save(accepted("a")))
    await asyncio.sleep(0)
    releasing = asyncio.create_task(journal.release("a"))
    done, _ = await asyncio.wait([releasing], timeout=0.2)
    database.gate.set()
    await asyncio.gather(saving, releasing)
    assert not done
    other = await working(database, "v", "a")
    assert other.get("a") == accepted("a")


async def test_a_late_state_of_an_archived_job_is_saved_with_it(database: UnsureDatabase) -> None:
    """And not under its earlier key, which is another job's by then."""
    journal = await working(database, "w", "a")
    await journal.save(accepted("a"))
    journal.save_later(later := attrs.evolve(accepted("a"), progress=50))
    archived = await journal.archive(later)
    await journal.flush()
    assert await stored(database) == {"a~1": archived}


async def test_a_released_job_is_forgotten_and_another_worker_has_it_as_it_was(database: UnsureDatabase) -> None:
    """Also what was passed to `save_later`, and a save whose call was cancelled."""
    journal = await working(database, "w", "a")
    await journal.record_intent(sent("a"), INTENT)
    saving = asyncio.create_task(journal.save(accepted("a")))
    await asyncio.sleep(0)
    saving.cancel()
    journal.save_later(attrs.evolve(accepted("a"), progress=30))
    await journal.release("a")
    assert ("a" in journal, journal.charges(), list(journal.all())) == (False, 0, [])
    other = await working(database, "v", "a")
    assert other.get("a") == attrs.evolve(accepted("a"), progress=30)
    assert await journal.claim("a") is None


async def test_what_one_worker_learned_others_read(database: UnsureDatabase) -> None:
    journal, other = await working(database, "w"), await working(database, "v")
    samples = [DurationSample("x", lower=1.0, upper=2.0, accepted_at=float(number)) for number in range(3)]
    journal.add_sample(samples[0])
    await journal.flush()
    await journal.set_setting("limit", {"a": 1})
    assert await other.new_samples() == samples[:1]
    for sample in samples[1:]:
        journal.add_sample(sample)
    await journal.flush()
    assert await other.new_samples() == samples[1:]
    assert await other.new_samples() == []
    await other.load()
    assert other.get_setting("limit") == {"a": 1}
    assert other.samples() == samples


async def test_a_worker_learns_each_sample_once(database: UnsureDatabase) -> None:
    """Its own when it made them, those from before its start when it started."""
    journal, other = await working(database, "w"), await working(database, "v")
    for number, each in enumerate((journal, other)):
        each.add_sample(DurationSample("x", lower=1.0, upper=2.0, accepted_at=float(number)))
        await each.flush()
    assert [sample.accepted_at for sample in await journal.new_samples()] == [1.0]
    assert [sample.accepted_at for sample in await other.new_samples()] == [0.0]
    late = await working(database, "u")
    await late.load()
    assert [sample.accepted_at for sample in late.samples()] == [0.0, 1.0]
    assert await late.new_samples() == []
