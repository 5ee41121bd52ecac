"""Stories of tasks that were submitted elsewhere and are taken on by their ids, and of jobs that are named by their keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pika_async import (
    AccountStopped,
    ExchangeFailed,
    FixedInterval,
    GenerationFailed,
    GenerationRequest,
    InvalidRequest,
    Job,
    JobStatus,
    Limits,
    PikaClient,
    TaskNotFound,
    UnknownJob,
)
from pika_async._journal.sqlite import SqliteJournal
from pika_async._planning.adoption import key_of_task
from pika_async.emulator import EMULATED_GATEWAYS, Gateway
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway

S = JobStatus
often = FixedInterval(0.05)


async def submitted_elsewhere(gateway: Gateway, provider: str = "cometapi", prompt: str = "a cat") -> str:
    """Submit a prompt with a client that is gone afterwards; return the id of its task."""
    async with client(gateway, provider) as pika:
        task_id = (await pika.submit(prompt)).task_id
    assert task_id is not None
    return task_id


@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
def test_a_task_is_adopted_by_its_bare_id_and_costs_nothing(provider: str) -> None:
    """Its job is polled to its end; the ledger does not change, and the id is the key."""

    async def story() -> None:
        there = gateway()
        task_id = await submitted_elsewhere(there, provider)
        async with client(there, provider) as pika:
            job = await pika.adopt(f"  {task_id}\n")
            assert (job.key, job.task_id, job.is_in_flight, job.is_adopted) == (task_id, task_id, True, True)
            job = await pika.wait(job)
            assert (job.status, job.video is not None) == (S.SUCCEEDED, True)
        assert len(there.ledger) == 1

    virtual_clock.run(story())


def test_a_task_that_has_settled_is_known_at_once() -> None:
    """A succeeded task and a failed one are final after one poll each; a failed one has the provider's reason."""

    async def story() -> None:
        there = gateway([{"on": "create", "prompt": "bad", "do": {"fault": "fails", "reason": "moderated"}}])
        good, bad = await submitted_elsewhere(there), await submitted_elsewhere(there, prompt="bad")
        await asyncio.sleep(100)
        async with client(there) as pika:
            assert (await pika.adopt(good)).status is S.SUCCEEDED
            job = await pika.adopt(bad, key="mine")
            assert (job.key, job.status, isinstance(job.error, GenerationFailed)) == ("mine", S.FAILED, True)
            assert "moderated" in str(job.error)
            assert [job.key for job in await pika.jobs()] == [good, "mine"]
            assert pika.active_jobs() == []

    virtual_clock.run(story())


def test_a_task_is_adopted_once_however_often_and_by_however_many_callers(tmp_path: Path) -> None:
    """Two callers at once, a later one, and a later process get the same job; another key for it is refused."""

    async def story() -> None:
        there = gateway(durations="constant:0.2")
        task_id = await submitted_elsewhere(there)
        async with client(there, journal=tmp_path / "j.db") as pika:
            one, two = await asyncio.gather(pika.adopt(task_id), pika.adopt(task_id))
            assert one.key == two.key == (await pika.adopt(task_id)).key
            with pytest.raises(InvalidRequest, match=f"must be left out: task {task_id} is job"):
                await pika.adopt(task_id, key="other")
        async with client(there, journal=tmp_path / "j.db") as pika:
            job = await pika.adopt(task_id)
            assert (await pika.wait(job.key)).status is S.SUCCEEDED
            assert (await pika.adopt(task_id)).status is S.SUCCEEDED
            assert len(await pika.jobs()) == 1
        assert len(there.ledger) == 1

    asyncio.run(story())


def test_an_adopted_task_counts_neither_for_the_limit_nor_as_a_charge(tmp_path: Path) -> None:
    """With `max_charges=1` one job can still be paid, before and after the journal was opened again."""

    async def story() -> None:
        there = gateway()
        ids = [await submitted_elsewhere(there) for _ in range(3)]
        limits = Limits(max_charges=1)
        async with client(there, journal=tmp_path / "j.db", limits=limits) as pika:
            for task_id in ids:
                await pika.adopt(task_id)
            assert pika.stats().charges == 0
            await pika.submit("mine")
        async with client(there, journal=tmp_path / "j.db", limits=limits) as pika:
            assert pika.stats().charges == 1
            report = await pika.run(["another"])
            assert report.jobs[0].status is S.PLANNED
            assert all(not job.may_be_charged for job in await pika.jobs() if job.is_adopted)
        assert len(there.ledger) == 4

    asyncio.run(story())


def test_an_id_that_the_gateway_denies_is_a_clear_error_and_leaves_no_job() -> None:
    """After three denials in some seconds the error names the id, the provider and what to check."""

    async def story() -> None:
        there = gateway()
        async with client(there) as pika:
            with pytest.raises(TaskNotFound, match=r"task nothing-here is not found at cometapi: .*; check the id and"):
                await pika.adopt("nothing-here")
            assert await pika.jobs() == []
        assert len(there.requests) == 3

    virtual_clock.run(story())


def test_a_task_that_appears_late_is_adopted() -> None:
    """A gateway may deny a task for a moment after it accepted it."""

    async def story() -> None:
        there = gateway([{"on": "feed", "first": 2, "do": "vanish"}])
        async with client(there) as pika:
            assert (await pika.adopt(await submitted_elsewhere(there))).is_in_flight

    virtual_clock.run(story())


def test_answers_that_cannot_be_used_are_asked_for_again_a_few_times() -> None:
    """Five lost answers do no harm; without any answer there is an error and no job; a wrong key stops at once."""

    async def story(first: int, fault: Any) -> PikaClient:
        there = gateway([{"on": "feed", "first": first, "do": fault}])
        task_id = await submitted_elsewhere(there)
        async with client(there) as pika:
            try:
                await pika.adopt(task_id)
            finally:
                assert len(await pika.jobs()) == (1 if first == 5 else 0)
        return pika

    virtual_clock.run(story(5, "drop"))
    with pytest.raises(ExchangeFailed, match="polling again is free"):
        virtual_clock.run(story(6, "drop"))
    with pytest.raises(AccountStopped):
        virtual_clock.run(story(1, {"fault": "refuse", "as": "key"}))


@pytest.mark.parametrize("task_id", ["", "  ", "two words", "a\x1b[31m", "x" * 257, None, 7])
def test_what_cannot_be_a_task_id_is_refused_before_anything_is_polled(task_id: Any) -> None:
    """The error names the field."""

    async def story() -> None:
        there = gateway()
        async with client(there) as pika:
            with pytest.raises(InvalidRequest, match=r"task_id: .* must be a provider's task id"):
                await pika.adopt(task_id)
        assert not there.requests

    virtual_clock.run(story())


def test_the_key_of_another_job_is_refused() -> None:
    """A job in doubt is resolved with the id instead."""

    async def story() -> None:
        there = gateway([{"on": "create", "prompt": "lost", "do": "drop"}])
        task_id = await submitted_elsewhere(there)
        async with client(there) as pika:
            await pika.submit("mine", key="mine")
            with pytest.raises(InvalidRequest, match="belongs to job mine already; give another key, or none"):
                await pika.adopt(task_id, key="mine")
            await pika.run([GenerationRequest("lost", key="lost")])
            with pytest.raises(InvalidRequest, match="belongs to job lost already; resolve that job"):
                await pika.adopt(task_id, key="lost")
            with pytest.raises(InvalidRequest, match=r"key: '\.\./x'"):
                await pika.adopt(task_id, key="../x")

    virtual_clock.run(story())


def test_an_adopted_job_cannot_be_paid_again() -> None:
    """Its prompt is not known: nothing would be gained by paying for the id."""

    async def story() -> None:
        there = gateway([{"on": "create", "do": "fails"}])
        task_id = await submitted_elsewhere(there)
        async with client(there) as pika:
            await pika.wait(await pika.adopt(task_id, key="k"))
            for new_seed in (False, True):
                with pytest.raises(InvalidRequest, match="cannot be paid again: it was taken on by its task id"):
                    await pika.resubmit("k", new_seed=new_seed)
        assert len(there.ledger) == 1

    virtual_clock.run(story())


@pytest.mark.parametrize(
    ("task_id", "key"),
    [
        ("64d8d683-56c2", "64d8d683-56c2"),
        ("task_1.b", "task_1.b"),
        ("a/b:c", "task-a-b-c-"),
        ("..", "task--"),
        ("-x", "task-x-"),
        ("é" * 150, "task--"),
    ],
)
def test_a_task_id_becomes_a_key_that_names_a_file(task_id: str, key: str) -> None:
    """An id that cannot be a key is shortened and gets a digest; a key that is taken gets a number."""
    made = key_of_task(task_id, ())
    assert made.startswith(key)
    assert GenerationRequest("a", key=made).key == made
    assert key_of_task(task_id, {made, f"{made}-2"}) == f"{made}-3"


# --- jobs by their keys -------------------------------------------------------------------------------------------------


def test_waiting_polling_and_downloading_take_a_key() -> None:
    """A key of no job is an error that is also a KeyError, and nothing is polled."""

    async def story() -> None:
        there = gateway()
        async with client(there) as pika:
            await pika.submit("a cat", key="k")
            assert (await pika.poll("k")).task_id == (await pika.poll(await _job(pika, "k"))).task_id
            assert (await pika.wait("k")).status is S.SUCCEEDED
            polled = len(there.requests)
            for call in (pika.wait("x"), pika.poll("x"), pika.download("x", "x.mp4"), pika.resubmit("x")):
                with pytest.raises(UnknownJob, match="has no job 'x'"):
                    await call
            assert issubclass(UnknownJob, KeyError)
            assert len(there.requests) == polled

    virtual_clock.run(story())


async def _job(pika: PikaClient, key: str) -> Job:
    job = await pika.job(key)
    assert job is not None
    return job


# --- repetitions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [0.0, 0.5, 1 - 2**-53])
def test_a_job_is_paid_again_with_another_seed(monkeypatch: pytest.MonkeyPatch, drawn: float) -> None:
    """The new seed is never the old one, whatever is drawn; it is recorded, and `resume` pays for it once."""
    monkeypatch.setattr("pika_async._runtime.resolution.random.random", lambda: drawn)
    old = int(drawn * 2**31)

    async def story() -> None:
        there = gateway([{"on": "create", "first": 1, "do": "fails"}])
        async with client(there) as pika:
            await pika.run([GenerationRequest("a cat", key="k", seed=old)])
            earlier = await pika.resubmit("k", new_seed=True)
            planned = await _job(pika, "k")
            assert (earlier.key, earlier.status, earlier.request.seed) == ("k~1", S.FAILED, old)
            assert (planned.status, planned.request.prompt) == (S.PLANNED, "a cat")
            assert planned.request.seed not in {None, old}
            report = await pika.resume()
            assert [(job.key, job.status) for job in report.jobs] == [("k", S.SUCCEEDED)]
            assert (await _job(pika, "k")).request.seed == planned.request.seed
        assert len(there.ledger) == 2

    virtual_clock.run(story())


def test_a_repetition_that_was_cut_in_half_is_completed(tmp_path: Path) -> None:
    """A process that ended between archiving the old record and planning the new one loses nothing."""

    async def story() -> None:
        there = gateway([{"on": "create", "first": 1, "do": "fails"}], durations="constant:0.1")
        path = tmp_path / "j.db"
        async with client(there, journal=path, polling=FixedInterval(0.05)) as pika:
            await pika.run([GenerationRequest("a cat", key="k", seed=4)])
        journal = SqliteJournal(path)
        await journal.open()
        job = journal.get("k")
        assert job is not None
        await journal.archive(job)
        await journal.close()
        async with client(there, journal=path, polling=FixedInterval(0.05)) as pika:
            assert (await pika.resubmit("k", new_seed=True)).key == "k~1"
            assert (await _job(pika, "k")).status is S.PLANNED
            await pika.resume()
            assert [job.key for job in await pika.jobs()] == ["k~1", "k"]
        assert len(there.ledger) == 2

    asyncio.run(story())


@pytest.mark.parametrize("key", ["k", None])
def test_a_repetition_is_found_by_the_row_that_it_repeats(tmp_path: Path, key: str | None) -> None:
    """The same batch pays nothing for what was repeated once with another seed, and once more with that one."""

    async def story() -> None:
        there = gateway([{"on": "create", "first": 2, "do": "fails"}], durations="constant:0.1")
        rows = [GenerationRequest("a cat", key=key), GenerationRequest("a dog", seed=3)]
        async with client(there, journal=tmp_path / "j.db", limits=Limits(submitting=1), polling=often) as pika:
            made = (await pika.run(rows)).jobs[0].key
            await pika.resubmit(made, new_seed=True)
            await pika.resume()
            repeated = await _job(pika, made)
            await pika.resubmit(made)
            await pika.run([repeated.request])
        async with client(there, journal=tmp_path / "j.db", polling=often) as pika:
            estimate = await pika.estimate(rows)
            assert (estimate.new_charges, estimate.known) == (0, 2)
            report = await pika.run(rows)
            assert [job.index for job in report.jobs] == [0, 1]
            assert report.jobs[0].request == repeated.request
        assert len(there.ledger) == 4

    asyncio.run(story())


def test_another_content_is_not_taken_for_what_was_repeated() -> None:
    """A row whose key has a repetition and whose prompt was edited is refused as before."""

    async def story() -> None:
        async with client(gateway()) as pika:
            await pika.run([GenerationRequest("a cat", key="k")])
            await pika.resubmit("k", new_seed=True)
            await pika.resume()
            with pytest.raises(InvalidRequest, match="another content"):
                await pika.submit("a dog", key="k")

    virtual_clock.run(story())
