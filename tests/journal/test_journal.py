"""Contract of every journal: reads return what was saved, immediately, in order, and after reopening."""

from __future__ import annotations

import asyncio
import math
import tempfile
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings

from pika_async._journal.protocol import Journal
from pika_async._journal.sqlite import SqliteJournal
from pika_async.jobs import JobStatus, utc_from_timestamp
from pika_async.polling import AdaptivePolling, DurationSample
from tests.journal.builders import INTENT, JournalPair, a_job, accepted, job_for_token, steps, with_token
from tests.journal.kinds import Journals

pytestmark = pytest.mark.anyio


async def test_an_empty_journal_returns_nothing(journal: Journal) -> None:
    assert (journal.get("a"), journal.key_for_task("p", "u", "t"), journal.get_setting("x")) == (None, None, None)
    assert (list(journal.keys()), list(journal.all()), journal.interrupted_jobs(), journal.samples()) == (
        [],
        [],
        [],
        [],
    )
    assert journal.charges() == 0


async def test_saved_jobs_can_be_read(journal: Journal) -> None:
    """By key, by task id, by status, and all of them in the order in which they were first saved."""
    await journal.save(a_job("b"), accepted("a"))
    await journal.save(a_job("b").submitting())
    await journal.save(accepted("b", "t-2"))
    assert (journal.get("a"), journal.get("b")) == (accepted("a"), accepted("b", "t-2"))
    assert list(journal.keys()) == ["b", "a"]
    assert list(journal.all()) == [accepted("b", "t-2"), accepted("a")]
    assert [job.key for job in journal.all(JobStatus.QUEUED)] == ["b", "a"]
    assert list(journal.all(JobStatus.PLANNED)) == []
    assert journal.key_for_task("p", "https://x.test", "t-1") == "a"
    assert journal.key_for_task("p", "https://y.test", "t-1") is None


async def test_saving_nothing_does_nothing(journal: Journal) -> None:
    await journal.save()
    assert list(journal.keys()) == []


async def test_an_intent_is_open_until_another_state_is_saved(journal: Journal) -> None:
    """A job interrupted in between is in doubt."""
    await journal.record_intent(a_job().submitting(), INTENT)
    assert journal.interrupted_jobs() == [(a_job().submitting(), INTENT)]
    assert journal.charges() == 1
    await journal.save(accepted())
    assert journal.interrupted_jobs() == []


async def test_a_token_names_the_job_whose_latest_submission_carried_it(journal: Journal) -> None:
    """From the intent on, in every status; the token of a newer attempt replaces it, even if that attempt has none."""
    await journal.save(a_job(), a_job("b"))
    assert job_for_token(journal, "t1") is None
    await journal.record_intent(a_job().submitting(), with_token("t1"))
    await journal.record_intent(a_job("b").submitting(), with_token("t2"))
    assert (job_for_token(journal, "t1"), job_for_token(journal, "t2")) == (
        a_job().submitting(),
        a_job("b").submitting(),
    )
    await journal.save(accepted())
    assert job_for_token(journal, "t1") == accepted()
    journal.save_later(attrs.evolve(accepted(), progress=3))
    assert job_for_token(journal, "t1") == attrs.evolve(accepted(), progress=3)
    await journal.record_intent(a_job("b").submitting(), with_token("t3"))
    assert (job_for_token(journal, "t2"), job_for_token(journal, "t3")) == (None, a_job("b").submitting())
    await journal.record_intent(a_job("b").submitting(), INTENT)
    assert job_for_token(journal, "t3") is None


async def test_an_archived_job_keeps_its_token(journals: Journals, journal: Journal) -> None:
    """The job that takes its key does not inherit the token."""
    await journal.record_intent(a_job().submitting(), with_token("t1"))
    await journal.save(accepted())
    archived = await journal.archive(accepted())
    assert job_for_token(journal, "t1") == archived
    await journal.save(a_job())
    assert job_for_token(journal, "t1") == archived
    await journal.record_intent(a_job().submitting(), with_token("t2"))
    assert (job_for_token(journal, "t1"), job_for_token(journal, "t2")) == (archived, a_job().submitting())
    again = await journals.reopen(journal)
    assert (job_for_token(again, "t1"), job_for_token(again, "t2")) == (archived, a_job().submitting())
    assert [(job.key, intent.callback_sha256) for job, intent in again.interrupted_jobs()] == [("a", "t2")]
    await again.close()


async def test_only_the_hash_of_a_token_is_stored(tmp_path: Path) -> None:
    """A reader of the files cannot find a callback URL in them."""
    token, path = "GmXk0q4bQ8ZrT2vYw1N3sL6dJ9hPcF5e", tmp_path / "j.sqlite"
    journal = SqliteJournal(path)
    await journal.open()
    await journal.record_intent(a_job().submitting(), with_token(sha256(token.encode()).hexdigest()))
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert (token.encode() in written, sha256(token.encode()).hexdigest().encode() in written) == (False, True)
    assert job_for_token(journal, sha256(token.encode()).hexdigest()) == a_job().submitting()
    await journal.close()


async def test_a_deferred_save_is_readable_at_once(journal: Journal) -> None:
    """Only the latest state of a job is returned."""
    await journal.save(a_job("b"), accepted())
    journal.save_later(attrs.evolve(accepted(), progress=10))
    journal.save_later(attrs.evolve(accepted(), progress=20))
    assert journal.get("a") == attrs.evolve(accepted(), progress=20)
    assert list(journal.keys()) == ["b", "a"]
    await journal.save(a_job("c"))
    assert journal.get("a") == attrs.evolve(accepted(), progress=20)
    assert list(journal.keys()) == ["b", "a", "c"]


async def test_charges_are_submissions_that_were_or_may_have_been_accepted(journal: Journal) -> None:
    """An intent, a receipt, a job in doubt and one given up as in doubt count; an unsent job does not."""
    doubt = a_job("b").submitting().in_doubt(error := _error(), utc_from_timestamp(1.0))
    await journal.save(a_job("planned"), accepted(), doubt, attrs.evolve(doubt, key="c").canceled(error, 2.0))
    await journal.record_intent(a_job("d").submitting(), INTENT)
    assert journal.charges() == 4


async def test_costs_and_unfinished_jobs_are_counted_by_account(journal: Journal) -> None:
    """Jobs without an account count as those of their provider; counts follow every change, and unknown costs are kept."""
    main = attrs.evolve(accepted("a"), account="main", cost=0.28)
    await journal.save(main, attrs.evolve(accepted("b", "t-2"), account="main", cost=0.28), accepted("c", "t-3"))
    doubt = attrs.evolve(a_job("d"), account="spare").submitting(0.5)
    await journal.record_intent(doubt, INTENT)
    await journal.save(attrs.evolve(a_job("planned"), account="main"))
    provider = a_job("c").provider
    assert journal.costs() == {("main", 0.28): 2, (provider, None): 1, ("spare", 0.5): 1}
    assert journal.unfinished_by_account() == {"main": 2, provider: 1, "spare": 1}
    journal.save_later(attrs.evolve(main, cost=0.3))
    await journal.save(doubt.requeued())
    settled = attrs.evolve(main, cost=0.3, status=JobStatus.FAILED, settled_at=utc_from_timestamp(2.0))
    await journal.save(settled)
    assert journal.costs() == {("main", 0.28): 1, ("main", 0.3): 1, (provider, None): 1}
    assert journal.unfinished_by_account() == {"main": 1, provider: 1}


async def test_the_jobs_of_a_status_are_counted_as_they_are_listed(journal: Journal) -> None:
    """The counts agree after jobs were changed, given another key, or replaced."""
    await journal.save(a_job("a"), a_job("b"), a_job("c"))
    await journal.record_intent(a_job("a").submitting(), INTENT)
    await journal.save(accepted("a"))
    journal.save_later(attrs.evolve(accepted("a"), progress=50))
    await journal.save(a_job("b").submitting().in_doubt(_error(), utc_from_timestamp(1.0)))
    await journal.archive(accepted("a"))
    await journal.save(a_job("a"))
    counts = {status: journal.count(status) for status in JobStatus}
    assert counts == {status: len(list(journal.all(status))) for status in JobStatus}
    assert {status: count for status, count in counts.items() if count} == {
        JobStatus.PLANNED: 2, JobStatus.QUEUED: 1, JobStatus.UNKNOWN: 1,
    }  # fmt: skip


def _error() -> Any:
    from pika_async.errors import SubmissionInDoubt

    return SubmissionInDoubt(key="a", provider="p", reason="cut", at=utc_from_timestamp(1.25), attempt=1)


async def test_an_archived_job_frees_its_key(journal: Journal) -> None:
    """The archived job comes last and keeps its task id, and a new job takes the key."""
    await journal.save(accepted(), a_job("b"))
    first = await journal.archive(accepted())
    assert first == attrs.evolve(accepted(), key="a~1")
    assert (journal.get("a"), list(journal.keys())) == (None, ["b", "a~1"])
    await journal.save(accepted("a", "t-2"))
    second = await journal.archive(accepted("a", "t-2"))
    await journal.save(a_job("a"))
    assert second.key == "a~2"
    assert list(journal.keys()) == ["b", "a~1", "a~2", "a"]
    assert (journal.get("a"), journal.get("a~1")) == (a_job("a"), first)
    assert journal.key_for_task("p", "https://x.test", "t-1") == "a~1"
    assert journal.charges() == 2


@pytest.mark.parametrize("value", [None, 1, 2.5, "ü", [1, {"a": None}], {"b": [True]}])
async def test_facts_are_values_of_json(journal: Journal, value: Any) -> None:
    await journal.set_setting("x", "before")
    await journal.set_setting("x", value)
    assert (journal.get_setting("x"), journal.get_setting("y")) == (value, None)


async def test_observations_are_the_latest_accepted_of_each_stratum(tmp_path: Path) -> None:
    """In the order of acceptance, whenever they settled; 256 at most, also before they are written and after reopening."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    seen = [
        DurationSample("x", lower=n, upper=n + 1.5, progress_age=0.5 * n, progress=n % 100, accepted_at=1e9 + n)
        for n in range(300)
    ]
    other = DurationSample("y", lower=0.0, upper=1.0, accepted_at=7.0)
    journal.add_sample(other)
    for observation in Random(4).sample(seen, 300):
        journal.add_sample(observation)
    assert journal.samples() == [other, *seen[-256:]]
    await journal.save(a_job())
    assert journal.samples() == [other, *seen[-256:]]
    await journal.close()
    await journal.open()
    (count,) = journal._write_connection.execute("SELECT count(*) FROM samples").fetchone()
    assert (journal.samples(), count) == ([other, *seen[-256:]], 257)
    await journal.close()


async def test_a_simultaneous_batch_gives_unbiased_observations(tmp_path: Path) -> None:
    """The slowest 256 of 1,000 jobs settle last; the durations that a later start learns from them are still right."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    random = Random(2)
    durations = [60 * math.exp(0.5 * random.gauss(0, 1)) for _ in range(1000)]
    for accepted_at, seconds in sorted(enumerate(durations), key=lambda each: each[1]):
        journal.add_sample(DurationSample("x", 0.97 * seconds, 1.03 * seconds, accepted_at=accepted_at))
    policy = AdaptivePolling()
    for seen in journal.samples():
        policy.observe(seen)
    belief = policy.describe()["x"]
    await journal.close()
    assert belief.median == pytest.approx(60, rel=0.15)
    assert belief.spread[0] < 40
    assert belief.spread[1] < 160


@pytest.mark.slow
@settings(max_examples=60)
@given(steps)
def test_both_journals_give_the_same_answers(steps: list[tuple[str, Any]]) -> None:
    """Before the writes are committed, after that, and after reopening."""

    async def run_scenario(path: Path) -> None:
        pair = JournalPair(path)
        await pair.sqlite.open()
        try:
            for name, what in [*steps, ("release", None), ("reopen", None)]:
                await pair.step(name, what)
                pair.compare()
        finally:
            if pair.stalled is not None:
                pair.stalled.set()
            await pair.sqlite.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_scenario(Path(folder, "j.sqlite")))


async def test_many_jobs_are_iterated_while_more_are_saved(tmp_path: Path) -> None:
    """Each job is returned once, in order, including those saved in the meantime."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    await journal.save(*[a_job(f"k{number}") for number in range(1200)])
    walked = []
    for number, job in enumerate(journal.all()):
        walked.append(job.key)
        if number == 10:
            journal.save_later(a_job("k5").submitting())
            journal.save_later(a_job("k900").submitting())
        if number == 700:
            await journal.save(a_job("late"), a_job("k1100").submitting())
    assert walked == [*(f"k{number}" for number in range(1200)), "late"]
    assert [job.key for job in journal.all(JobStatus.SUBMITTING)] == ["k5", "k900", "k1100"]
    assert len(list(journal.all(JobStatus.PLANNED))) == 1198
    await journal.close()
