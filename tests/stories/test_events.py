"""Stories of events and hooks: in order, none lost and none twice, also for slow consumers and a closing client."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import (
    ClientNotOpen,
    ConfigurationError,
    FixedInterval,
    GenerationRequest,
    InvalidRequest,
    Job,
    JobAccepted,
    JobEvent,
    JobParked,
    JobRunning,
    JobSettled,
    JobStatus,
    Limits,
    PikaClient,
    SubmissionInDoubt,
)
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.sqlite import SqliteJournal
from pika_async.jobs import event_of
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway, requests, until, with_journal
from tests.journal.builders import a_job, stalled

S = JobStatus


def fast(**options: Any) -> PikaClient:
    """Return a client whose tasks take 20 ms, for stories in real time."""
    at = gateway(durations="constant:0.02")
    limits = Limits(max_in_flight=5000, submitting=64)
    return client(at, polling=FixedInterval(0.02), limits=limits, **options)


async def read(events: AsyncGenerator[JobEvent, None], received: list[JobEvent]) -> None:
    async with aclosing(events):
        async for event in events:
            received.append(event)  # noqa: PERF401 - one by one, so that the caller sees them at once


def names(received: list[JobEvent], key: str) -> list[str]:
    return [type(event).__name__ for event in received if event.job.key == key]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (S.PLANNED, None), (S.SUBMITTING, None), (S.QUEUED, JobAccepted), (S.RUNNING, JobRunning),
        (S.SUCCEEDED, JobSettled), (S.FAILED, JobSettled), (S.REJECTED, JobSettled), (S.CANCELED, JobSettled),
        (S.UNKNOWN, JobParked), (S.TIMED_OUT, JobParked),
    ],
)  # fmt: skip
def test_each_status_has_its_event(status: JobStatus, kind: type[JobEvent] | None) -> None:
    """A planned job has an event only if it has an error, a submitting one has none, and every other status has one."""
    job = attrs.evolve(a_job(), status=status)
    assert event_of(7, job) == (None if kind is None else kind(7, job))
    if status is S.PLANNED:
        parked = attrs.evolve(job, error=InvalidRequest(field="x", value=1, reason="y"))
        assert event_of(7, parked) == JobParked(7, parked)


def test_a_consumer_gets_every_change_of_a_job() -> None:
    """It gets accepted with the task id, running for each percentage, then settled; numbers ascend, closing ends it."""

    async def story() -> None:
        received: list[JobEvent] = []
        async with client(gateway(), "native", polling=FixedInterval(10)) as pika:
            reader = asyncio.create_task(read(pika.events(), received))
            await pika.run(requests(3))
        await reader
        for number in range(3):
            own = [event for event in received if event.job.key == f"k{number}"]
            kinds = [kind for kind, _ in itertools.groupby(own, type)]
            assert kinds == [JobAccepted, JobRunning, JobSettled]
            percents = [event.job.progress for event in own if isinstance(event, JobRunning)]
            assert len(set(percents)) == len(percents) >= 3
            assert all(event.job.task_id for event in own)
            assert own[-1].job.status is S.SUCCEEDED
        assert [event.number for event in received] == sorted({event.number for event in received})

    virtual_clock.run(story())


def test_parked_jobs_have_events() -> None:
    """A job in doubt, a timed-out one, and those that a stopped account leaves unsent are parked once each."""

    async def story() -> None:
        received: list[JobEvent] = []
        script: list[dict[str, Any]] = [
            {"on": "create", "first": 1, "do": {"fault": "drop"}},
            {"on": "create", "first": 1, "do": {"fault": "takes", "seconds": 9999}},
            {"on": "create", "do": {"fault": "refuse", "as": "quota"}},
        ]
        at = gateway(script)
        async with client(at, polling=FixedInterval(10), deadline=100) as pika:
            reader = asyncio.create_task(read(pika.events(), received))
            for one in requests(2):
                await pika.run([one])
            await pika.run(requests(4)[2:])
        await reader
        parked = [(event.job.key, event.job.status) for event in received if isinstance(event, JobParked)]
        assert parked[:2] == [("k0", S.UNKNOWN), ("k1", S.TIMED_OUT)]
        assert sorted(parked[2:]) == [("k2", S.PLANNED), ("k3", S.PLANNED)]

    virtual_clock.run(story())


def test_closing_repeats_no_event() -> None:
    """Jobs in flight get no further event when the client closes."""

    async def story() -> None:
        received: list[JobEvent] = []
        async with client(gateway(), polling=FixedInterval(10)) as pika:
            reader = asyncio.create_task(read(pika.events(), received))
            for one in requests(5):
                await pika.submit(one)
            await asyncio.sleep(15)
        await reader
        assert [names(received, f"k{number}")[0] for number in range(5)] == ["JobAccepted"] * 5
        assert max(Counter((it.job.key, it.job.status, it.job.progress) for it in received).values()) == 1

    virtual_clock.run(story())


def test_events_begin_now_or_after_a_number() -> None:
    """`events()` begins with its call, before the first read; `events(0)` with every job in the journal."""

    async def story() -> None:
        async with client(gateway()) as pika:
            await pika.run(requests(2))
            late = pika.events()
            await pika.run(requests(3)[2:])
            received: list[JobEvent] = []
            everything: list[JobEvent] = []
            rest: list[JobEvent] = []
            tasks = [asyncio.create_task(read(late, received)), asyncio.create_task(read(pika.events(0), everything))]
            await asyncio.sleep(1)
            tasks.append(asyncio.create_task(read(pika.events(everything[0].number), rest)))
        await asyncio.gather(*tasks)
        assert {event.job.key for event in received} == {"k2"}
        assert [event.job.key for event in everything[2:]] == ["k2"]
        assert len(everything) == 3
        assert rest == everything[1:]

    virtual_clock.run(story())


@pytest.mark.parametrize("after", [-1, 10**9, True, 1.0, "1"])
def test_an_invalid_number_is_refused(after: Any) -> None:
    """`events(after)` raises unless *after* is an integer from 0 to the number of the latest event."""

    async def story() -> None:
        async with client(gateway()) as pika:
            with pytest.raises(InvalidRequest, match="must be the number of an event of this journal"):
                pika.events(after)

    virtual_clock.run(story())


def test_a_client_that_is_not_open_has_no_events() -> None:
    """`events` raises ClientNotOpen before the client is opened and after it is closed."""

    async def story() -> None:
        pika = client(gateway())
        with pytest.raises(ClientNotOpen, match="not open"):
            pika.events()
        async with pika:
            pass
        with pytest.raises(ClientNotOpen, match="not open"):
            pika.events()

    virtual_clock.run(story())


def test_a_consumer_gets_only_the_events_of_its_opening() -> None:
    """A consumer that reads after the client was opened again gets the events of the first opening only."""

    async def story() -> None:
        pika = client(gateway())
        async with pika:
            early = pika.events()
            await pika.run(requests(2))
        async with pika:
            second = pika.events()
            await pika.run([GenerationRequest("another", key="x")])
            received: list[JobEvent] = []
            await read(early, received)
        assert sorted(event.job.key for event in received) == ["k0", "k1"]
        again: list[JobEvent] = []
        await read(second, again)
        assert {event.job.key for event in again} == {"x"}

    virtual_clock.run(story())


def test_consumers_are_independent() -> None:
    """Each gets all events; one that stops or is cancelled leaves no task and no waiter behind."""

    async def story() -> None:
        lists: list[list[JobEvent]] = [[], [], []]
        async with client(gateway()) as pika:
            readers = [asyncio.create_task(read(pika.events(), received)) for received in lists]
            async with aclosing(pika.events()) as events:
                batch = asyncio.create_task(pika.run(requests(3)))
                assert isinstance(await anext(events), JobAccepted)
            readers[0].cancel()
            await asyncio.wait(readers[:1])
            await batch
            assert len(pika._journal._change_signal._waiters) == 2  # type: ignore[attr-defined]
        await asyncio.gather(*readers[1:])
        assert lists[1] == lists[2]
        assert Counter(type(it) for it in lists[1])[JobSettled] == 3
        assert len(pika._journal._change_signal._waiters) == 0  # type: ignore[attr-defined]
        assert [task.get_name() for task in asyncio.all_tasks() if "pika_async" in task.get_name()] == []

    virtual_clock.run(story())


@pytest.mark.slow
def test_a_slow_consumer_misses_nothing_and_needs_no_buffer(tmp_path: Path) -> None:
    """2,000 jobs settle before the first read: each has one event, and memory does not grow with their number."""

    async def story() -> None:
        count = 2000
        async with fast(journal=tmp_path / "j.db") as pika:
            slow, never = pika.events(), pika.events()
            batch = await pika.run(requests(count))
            assert batch.ok
            del batch
            received = []
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            async for event in slow:
                received.append((event.number, event.job.key, type(event)))
                if len(received) == count:
                    break
            del event
            peak = tracemalloc.get_traced_memory()[1] - before
            tracemalloc.stop()
            await slow.aclose()
            await never.aclose()
        assert Counter(key for _, key, _ in received) == {f"k{number}": 1 for number in range(count)}
        assert {kind for *_, kind in received} == {JobSettled}
        assert peak < 1_500_000

    asyncio.run(story())


def test_an_event_is_delivered_after_its_change_is_on_disk(tmp_path: Path) -> None:
    """Another reader of the file finds the change of every event, and each job settles once."""

    async def story() -> None:
        received: list[JobEvent] = []
        other = SqliteJournal(tmp_path / "j.db")
        async with fast(journal=tmp_path / "j.db") as pika:
            events = pika.events()
            batch = asyncio.create_task(pika.run(requests(100)))
            async for event in events:
                received.append(event)
                stored = other.get(event.job.key)
                assert stored is not None
                assert stored.task_id == event.job.task_id is not None
                if Counter(map(type, received))[JobSettled] == 100:
                    break
            await batch
            await events.aclose()
        assert Counter(it.job.key for it in received if isinstance(it, JobSettled)) == {f"k{n}": 1 for n in range(100)}

    asyncio.run(story())


def test_another_process_continues_after_a_number(tmp_path: Path) -> None:
    """It gets the events after the number and none up to it."""

    async def story() -> None:
        received: list[JobEvent] = []
        async with fast(journal=tmp_path / "j.db") as pika:
            async with aclosing(pika.events()) as events:
                batch = asyncio.create_task(pika.run(requests(40)))
                async for event in events:
                    received.append(event)
                    if isinstance(event, JobSettled):
                        break
            await batch
        async with fast(journal=tmp_path / "j.db") as pika:
            reader = asyncio.create_task(read(pika.events(received[-1].number), received))
            await asyncio.sleep(0.1)
        await reader
        assert Counter(it.job.key for it in received if isinstance(it, JobSettled)) == {f"k{n}": 1 for n in range(40)}
        assert [event.number for event in received] == sorted({event.number for event in received})

    asyncio.run(story())


def test_a_consumer_ends_with_the_final_state_of_the_journal(tmp_path: Path) -> None:
    """When a client closes in the middle of a batch, the last event of each job has its status in the journal."""

    async def story() -> None:
        received: list[JobEvent] = []
        async with fast(journal=tmp_path / "j.db") as pika:
            reader = asyncio.create_task(read(pika.events(), received))
            batch = asyncio.create_task(pika.run(requests(300)))
            await asyncio.sleep(0.3)
        await asyncio.wait({batch})
        await asyncio.wait_for(reader, 10)
        last = {event.job.key: event.job.status for event in received}
        here = {job.key: job.status for job in SqliteJournal(tmp_path / "j.db").all()}
        assert {it: status for it, status in here.items() if status is not S.PLANNED} == {
            it: status for it, status in last.items() if status is not S.PLANNED
        }

    asyncio.run(story())


def test_without_a_consumer_no_change_is_numbered() -> None:
    """A journal numbers no change, not even at closing, if there was no consumer."""

    async def story() -> None:
        journal = MemoryJournal()
        async with with_journal(client(gateway()), journal) as pika:
            await pika.run(requests(3))
        assert journal._revisions is None

    virtual_clock.run(story())


# --- hooks ----------------------------------------------------------------------------------------------------------


def test_hooks_are_called_once_for_each_job_in_the_order_of_settling() -> None:
    """Hooks may be added before or after opening, may be sync or async, and are called again in the next opening."""

    async def story() -> None:
        pika = client(gateway(durations="lognormal:60,0.5"), polling=FixedInterval(5))
        first: list[str] = []
        second: list[str] = []
        order: list[str] = []

        @pika.on_settled
        def one(job: Job) -> None:
            assert job.is_final
            first.append(job.key)

        async with pika:

            async def two(job: Job) -> None:
                await asyncio.sleep(1)
                second.append(job.key)

            assert pika.on_settled(two) is two
            order += [job.key async for job in pika.as_settled(requests(10))]
        assert callable(one)
        assert first == second == order
        async with pika:
            await pika.run([GenerationRequest("x", key="x")])
        assert (first[10:], second[10:]) == (["x"], ["x"])

    virtual_clock.run(story())


def test_a_failing_hook_is_called_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is logged with the job's key, and it is called with the next job."""

    async def story() -> None:
        pika = client(gateway())
        called: list[str] = []

        @pika.on_settled
        async def fail(job: Job) -> None:
            called.append(job.key)
            if job.key == "k0":
                raise ValueError("no such thing")
            if job.key == "k1":
                raise asyncio.CancelledError

        async with pika:
            report = await pika.run(requests(3))
            assert report.ok
        assert sorted(called) == ["k0", "k1", "k2"]

    with caplog.at_level(logging.ERROR, logger="pika_async.event_stream"):
        virtual_clock.run(story())
    lines = [record.getMessage() for record in caplog.records if record.name == "pika_async.event_stream"]
    assert sorted(line.split(" ")[1] for line in lines) == ["k0", "k1"]
    assert "no such thing" in caplog.text


def test_a_slow_hook_delays_no_job_and_gets_all_before_closing_ends() -> None:
    """The batch ends before the hook has been called with all jobs; closing waits for the rest."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        pika = client(gateway(), limits=Limits(grace=20))
        called: list[str] = []

        @pika.on_settled
        async def slow(job: Job) -> None:
            await asyncio.sleep(1.5)
            called.append(job.key)

        async with pika:
            await pika.run(requests(10))
            settled_at = loop.time()
            assert len(called) < 9
        assert len(called) == 10
        assert 5 < loop.time() - settled_at < 15

    virtual_clock.run(story())


def test_closing_waits_at_most_6_seconds_for_hooks(caplog: pytest.LogCaptureFixture) -> None:
    """A hook that ignores its cancellation delays closing by one second more."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        pika = client(gateway())

        @pika.on_settled
        async def endless(job: Job) -> None:
            while loop.time() < 1000:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(100)

        async with pika:
            await pika.run(requests(2))
            closing_at = loop.time()
        assert loop.time() - closing_at == pytest.approx(7, abs=0.1)
        assert (await pika.jobs("succeeded")) != []

    virtual_clock.run(story())
    assert "has not finished after 6.0 s" in caplog.text


def test_hooks_have_the_rest_of_the_grace_and_a_second_in_any_case() -> None:
    """A submission without a response takes all of the grace and the margin; a hook that never ends adds 1 s, and 1 s to clean up."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        at = gateway([{"on": "create", "prompt": "stuck", "do": {"fault": "stall", "seconds": 1000}}])
        pika = client(at)

        @pika.on_settled
        async def endless(job: Job) -> None:
            while loop.time() < 1000:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(100)

        async with pika:
            await pika.run(requests(1))
            stuck = asyncio.create_task(pika.submit("stuck"))
            await asyncio.sleep(1)
            closing_at = loop.time()
        assert loop.time() - closing_at == pytest.approx(8.25, abs=0.1)
        with pytest.raises(SubmissionInDoubt):
            await stuck

    virtual_clock.run(story())


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_in_a_hook_keeps_the_receipts_under_way(end: type[BaseException]) -> None:
    """The loop ends with the exception of the hook after the pending receipts are saved; none is in doubt."""
    at = gateway([{"on": "create", "prompt": "slow", "do": {"fault": "delay", "seconds": 5}}], durations="constant:1")
    pika = client(at, polling=FixedInterval(0.5))

    async def story() -> None:
        @pika.on_settled
        def stop(_: Job) -> None:
            raise end("stop")

        async with pika:
            slow = [asyncio.create_task(pika.submit(f"slow {number}")) for number in range(3)]
            await pika.generate("quick")
            await asyncio.gather(*slow)

    with pytest.raises(end, match="stop"):
        virtual_clock.run(story())
    jobs = list(pika._journal.all())
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED, JobStatus.QUEUED}
    assert {job.task_id for job in jobs} == {charge.task_id for charge in at.ledger}
    assert len(at.ledger) == 4


def test_a_hook_must_not_close_the_client() -> None:
    """`aclose` raises RuntimeError in a hook, because closing waits for hooks."""

    async def story() -> None:
        pika = client(gateway())
        raised: list[BaseException] = []

        @pika.on_settled
        async def close(_: Job) -> None:
            try:
                await pika.aclose()
            except RuntimeError as error:
                raised.append(error)

        async with pika:
            await pika.run(requests(1))
            await until(lambda: bool(raised))
        assert "its own hook" in str(raised[0])

    virtual_clock.run(story())


def test_a_hook_may_submit_requests() -> None:
    """The jobs that a hook submits settle and reach the hook as well."""

    async def story() -> None:
        pika = client(gateway())
        called: list[str] = []

        @pika.on_settled
        async def chain(job: Job) -> None:
            called.append(job.key)
            if len(called) < 3:
                await pika.submit(f"after {job.key}", key=f"next-{len(called)}")

        async with pika:
            await pika.submit("first", key="first")
            await until(lambda: len(called) == 3)
        assert called == ["first", "next-1", "next-2"]

    virtual_clock.run(story())


def test_a_hook_must_be_callable() -> None:
    """`on_settled` raises ConfigurationError for an object that cannot be called."""
    with pytest.raises(ConfigurationError, match="on_settled"):
        client(gateway()).on_settled(3)  # type: ignore[type-var]


def test_a_journal_that_cannot_be_read_ends_hooks_only(caplog: pytest.LogCaptureFixture) -> None:
    """The hook's end is logged, and the batch succeeds."""

    class Unreadable(MemoryJournal):
        async def changes(self, after: int) -> list[tuple[int, Job]]:
            raise OSError("gone")

    async def story() -> None:
        pika = with_journal(client(gateway()), Unreadable())
        pika.on_settled(print)
        async with pika:
            assert (await pika.run(requests(1))).ok

    virtual_clock.run(story())
    assert "ended" in caplog.text
    assert "gone" in caplog.text


def test_a_job_that_settles_while_the_client_closes_has_its_event(tmp_path: Path) -> None:
    """Closing waits until pending writes are committed and their events delivered."""

    async def story() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        called: list[str] = []
        pika = fast(journal=journal)
        pika.on_settled(lambda job: called.append(job.key))
        async with pika:
            received: list[JobEvent] = []
            reader = asyncio.create_task(read(pika.events(), received))
            await pika.submit(requests(1)[0])
            with stalled(journal):
                while not (job := journal.get("k0")) or not job.is_final:
                    await asyncio.sleep(0.01)
                closing = asyncio.create_task(pika.aclose())
                await asyncio.sleep(0.2)
                assert called == []
            await closing
            assert called == ["k0"]
        await reader
        assert names(received, "k0")[-1] == "JobSettled"

    asyncio.run(story())
