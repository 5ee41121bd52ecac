"""Control of a client that runs: pause, room, cancellation. Nothing is paid twice, and no task id is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pika_async import (
    ClientNotOpen,
    ConfigurationError,
    FixedInterval,
    Job,
    JobCanceled,
    JobStatus,
    Limits,
    PikaClient,
)
from pika_async.emulator import Gateway
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import SlowJournal, client, gateway, requests, until, with_journal
from tests.http.media_files import made

S = JobStatus


def in_flight(pika: PikaClient, count: int) -> bool:
    return pika.stats().in_flight == count


def test_a_pause_sends_nothing_and_follows_what_is_in_flight() -> None:
    """The batch does not end although nothing is in flight any more, and goes on after the pause."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, polling=FixedInterval(2), limits=Limits(max_in_flight=3)) as pika:
            run = asyncio.create_task(pika.run(requests(8)))
            await until(lambda: in_flight(pika, 3))
            pika.pause_submitting()
            pika.pause_submitting()
            assert pika.stats().paused
            await asyncio.sleep(1000)
            assert (len(at.ledger), in_flight(pika, 0), run.done()) == (3, True, False)
            pika.resume_submitting()
            assert not pika.stats().paused
            assert (await run).counts == {S.SUCCEEDED: 8}
        assert len(at.ledger) == 8

    virtual_clock.run(story())


def test_a_paused_batch_ends_with_its_client() -> None:
    """Its planned jobs are sent by a later opening, which is not paused; every task id is kept."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        pika = client(at, polling=FixedInterval(2), limits=Limits(max_in_flight=3))
        await pika.open()
        run = asyncio.create_task(pika.run(requests(8)))
        await until(lambda: in_flight(pika, 3))
        pika.pause_submitting()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await pika.aclose()
        assert sum(job.task_id is not None for job in await pika.jobs()) == 3
        with pytest.raises(ClientNotOpen):
            pika.resume_submitting()
        async with pika:
            assert not pika.stats().paused
            assert (await pika.run(requests(8))).counts == {S.SUCCEEDED: 8}
        assert len(at.ledger) == 8

    virtual_clock.run(story())


def test_the_room_changes_while_a_batch_runs() -> None:
    """A larger one is used at once; a smaller one ends nothing and holds from then on."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, polling=FixedInterval(2), limits=Limits(max_in_flight=2)) as pika:
            run = asyncio.create_task(pika.run(requests(20)))
            await until(lambda: in_flight(pika, 2))
            pika.set_max_in_flight(6)
            assert pika.stats().max_in_flight == 6
            await until(lambda: in_flight(pika, 6))
            pika.set_max_in_flight(1)
            assert pika.stats().max_in_flight == 1
            await until(lambda: pika.stats().in_flight <= 1)
            for _ in range(100):
                await asyncio.sleep(1)
                assert pika.stats().in_flight <= 1
            with pytest.raises(ConfigurationError):
                pika.set_max_in_flight(0)
            pika.set_max_in_flight(20)
            assert (await run).counts == {S.SUCCEEDED: 20}
        assert len(at.ledger) == 20

    virtual_clock.run(story())


async def cancel_a_batch(pika: PikaClient, at: Gateway) -> None:
    run = asyncio.create_task(pika.run(requests(40)))
    await until(lambda: in_flight(pika, 3), 0.01)
    pika.pause_submitting()
    await until(lambda: not pika.stats().submitting, 0.01)
    sent = len(at.ledger)
    assert await pika.cancel_planned() > 0
    report = await run
    assert report.counts == {S.SUCCEEDED: sent, S.CANCELED: 40 - sent}
    assert all(isinstance(job.error, JobCanceled) for job in report.jobs if job.status is S.CANCELED)
    assert not report.ok
    assert await pika.cancel_planned() == 0
    assert (await pika.resume()).counts == {}
    assert len(at.ledger) == sent
    pika.resume_submitting()
    assert (await pika.run(requests(40))).counts == {S.SUCCEEDED: 40}
    assert len(at.ledger) == 40


def test_what_is_planned_is_canceled_and_the_batch_ends() -> None:
    """What was sent is followed. Nothing else is sent by this batch or by `resume`, but by a new batch."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, polling=FixedInterval(2), limits=Limits(max_in_flight=3)) as pika:
            await cancel_a_batch(pika, at)

    virtual_clock.run(story())


def test_what_the_journal_has_planned_is_canceled_too(tmp_path: Path) -> None:
    """A batch whose requests are all in the journal file does not send those that it has not reached."""

    async def story() -> None:
        at = gateway(durations="constant:0.3")
        polling = FixedInterval(0.05)
        async with client(at, polling=polling, limits=Limits(max_in_flight=3), journal=tmp_path / "j.db") as pika:
            await cancel_a_batch(pika, at)

    asyncio.run(story())


@pytest.mark.parametrize("after", [0.02, 0.07, 0.12, 0.17, 0.22, 1.0])
def test_a_resumed_batch_is_canceled_with_what_it_has_not_reached(after: float) -> None:
    """At any moment, also while a job is being saved: nothing is sent after the cancellation began."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        limits = Limits(max_in_flight=3)
        pika = with_journal(client(at, polling=FixedInterval(2), limits=limits), SlowJournal(0.05))
        async with pika:
            stopped = asyncio.create_task(pika.run(requests(12)))
            await until(lambda: in_flight(pika, 3))
        await asyncio.gather(stopped, return_exceptions=True)
        async with pika:
            resumed = asyncio.create_task(pika.resume())
            await asyncio.sleep(after)
            canceling = asyncio.create_task(pika.cancel_planned())
            await asyncio.sleep(0)
            sending = pika.stats().submitting
            sent = len(at.ledger)
            await canceling
            report = await resumed
            assert report.counts[S.PLANNED] == 0
            assert (await pika.resume()).counts == {}
        assert sent <= len(at.ledger) <= sent + sending
        assert len(at.ledger) == sum(job.task_id is not None for job in await pika.jobs())

    virtual_clock.run(story())


def test_a_job_that_is_being_saved_is_canceled() -> None:
    """Its write ends first; it is not sent."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        pika = with_journal(client(at, polling=FixedInterval(2)), SlowJournal(5.0))
        async with pika:
            call = asyncio.create_task(pika.submit("a cat", key="cat"))
            await asyncio.sleep(1)
            assert await pika.cancel_planned() == 1
            with pytest.raises(JobCanceled):
                await call
            assert (await pika.run([])).counts == {}
        assert len(at.ledger) == 0

    virtual_clock.run(story())


def test_planned_jobs_of_an_earlier_run_are_canceled() -> None:
    """No batch runs: `resume` sends none of them afterwards."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        pika = client(at, polling=FixedInterval(2), limits=Limits(max_in_flight=3))
        async with pika:
            stopped = asyncio.create_task(pika.run(requests(8)))
            await until(lambda: in_flight(pika, 3))
        await asyncio.gather(stopped, return_exceptions=True)
        waiting = len(await pika.jobs("planned"))
        async with pika:
            assert await pika.cancel_planned() == waiting > 0
            assert (await pika.resume()).counts == {S.SUCCEEDED: 3}
        assert len(at.ledger) == 3

    virtual_clock.run(story())


def test_a_waiting_call_gets_the_cancellation() -> None:
    """`submit` raises it; the same request is sent by a later call."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, polling=FixedInterval(2)) as pika:
            pika.pause_submitting()
            call = asyncio.create_task(pika.submit("a cat", key="cat"))
            await asyncio.sleep(1)
            assert await pika.cancel_planned() == 1
            with pytest.raises(JobCanceled) as caught:
                await call
            assert caught.value.charged is False
            pika.resume_submitting()
            assert (await pika.submit("a cat", key="cat")).task_id
        assert len(at.ledger) == 1

    virtual_clock.run(story())


def test_a_file_that_is_being_uploaded_is_not_sent_after_a_pause_or_a_cancellation() -> None:
    """The upload ends; the paused job waits and is sent later, the canceled one is settled."""
    started, finish = asyncio.Event(), asyncio.Event()

    async def upload(*_: Any) -> str:
        started.set()
        await finish.wait()
        return "https://files.example/big.png"

    async def uploading(pika: PikaClient, key: str) -> asyncio.Task[Job]:
        started.clear()
        finish.clear()
        picture = made("png").ljust(900_000, b"\0") + key.encode()
        call = asyncio.create_task(pika.submit(f"a {key}", image=picture, key=key))
        await started.wait()
        return call

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, polling=FixedInterval(2), uploader=upload) as pika:
            paused = await uploading(pika, "cat")
            pika.pause_submitting()
            finish.set()
            await until(lambda: not pika.stats().submitting, 0.01)
            assert (len(at.ledger), paused.done(), pika.stats().planned) == (0, False, 1)
            pika.resume_submitting()
            assert (await paused).task_id
            canceled = await uploading(pika, "dog")
            assert await pika.cancel_planned() == 1
            finish.set()
            with pytest.raises(JobCanceled):
                await canceled
            assert [job.key async for job in pika.jobs(S.CANCELED)] == ["dog"]
        assert len(at.ledger) == 1

    virtual_clock.run(story())
