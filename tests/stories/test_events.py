"""What is told as jobs go on: events and hooks, in order, none lost and none twice, however slow and whoever ends it."""

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
)
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.sqlite import SqliteJournal
from pika_async._runtime import event_stream as room
from pika_async.jobs import event_of
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway, remembering, requests, until
from tests.journal.test_durability import stalled
from tests.journal.test_journal import a_job

S = JobStatus


def fast(**options: Any) -> PikaClient:
    """A client of tasks that take no time, for stories in real time."""
    at = gateway(durations="constant:0.02")
    limits = Limits(max_in_flight=5000, submitting=64)
    return client(at, polling=FixedInterval(0.02), limits=limits, **options)


async def read(events: AsyncGenerator[JobEvent, None], told: list[JobEvent]) -> None:
    async with aclosing(events):
        async for event in events:
            told.append(event)  # noqa: PERF401 - at once, so that others can look


def names(told: list[JobEvent], key: str) -> list[str]:
    return [type(event).__name__ for event in told if event.job.key == key]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (S.PLANNED, None), (S.SUBMITTING, None), (S.QUEUED, JobAccepted), (S.RUNNING, JobRunning),
        (S.SUCCEEDED, JobSettled), (S.FAILED, JobSettled), (S.REJECTED, JobSettled), (S.CANCELED, JobSettled),
        (S.UNKNOWN, JobParked), (S.TIMED_OUT, JobParked),
    ],
)  # fmt: skip
def test_the_event_of_each_status(status: JobStatus, kind: type[JobEvent] | None) -> None:
    """What is about to be sent is told of only where it is put aside."""
    job = attrs.evolve(a_job(), status=status)
    assert event_of(7, job) == (None if kind is None else kind(7, job))
    if status is S.PLANNED:
        parked = attrs.evolve(job, error=InvalidRequest(field="x", value=1, reason="y"))
        assert event_of(7, parked) == JobParked(7, parked)


def test_a_reader_is_told_of_each_step() -> None:
    """Accepted with its task id, running at each percent that a look saw, settled; numbers ascend; it ends at closing."""

    async def story() -> None:
        told: list[JobEvent] = []
        async with client(gateway(), "native", polling=FixedInterval(10)) as pika:
            reader = asyncio.create_task(read(pika.events(), told))
            await pika.run(requests(3))
        await reader
        for number in range(3):
            mine = [event for event in told if event.job.key == f"k{number}"]
            kinds = [kind for kind, _ in itertools.groupby(mine, type)]
            assert kinds == [JobAccepted, JobRunning, JobSettled]
            percents = [event.job.progress for event in mine if isinstance(event, JobRunning)]
            assert len(set(percents)) == len(percents) >= 3
            assert all(event.job.task_id for event in mine)
            assert mine[-1].job.status is S.SUCCEEDED
        assert [event.number for event in told] == sorted({event.number for event in told})

    virtual_clock.run(story())


def test_what_is_put_aside_is_told() -> None:
    """A doubt, a deadline, and what is not sent because the account is stopped; each once."""

    async def story() -> None:
        told: list[JobEvent] = []
        script: list[dict[str, Any]] = [
            {"on": "create", "first": 1, "do": {"fault": "drop"}},
            {"on": "create", "first": 1, "do": {"fault": "takes", "seconds": 9999}},
            {"on": "create", "do": {"fault": "refuse", "as": "quota"}},
        ]
        at = gateway(script)
        async with client(at, polling=FixedInterval(10), deadline=100) as pika:
            reader = asyncio.create_task(read(pika.events(), told))
            for one in requests(2):
                await pika.run([one])
            await pika.run(requests(4)[2:])
        await reader
        parked = [(event.job.key, event.job.status) for event in told if isinstance(event, JobParked)]
        assert parked[:2] == [("k0", S.UNKNOWN), ("k1", S.TIMED_OUT)]
        assert sorted(parked[2:]) == [("k2", S.PLANNED), ("k3", S.PLANNED)]

    virtual_clock.run(story())


def test_closing_tells_nothing_that_is_no_news() -> None:
    """What goes on at the provider is not told again because nobody looks any more."""

    async def story() -> None:
        told: list[JobEvent] = []
        async with client(gateway(), polling=FixedInterval(10)) as pika:
            reader = asyncio.create_task(read(pika.events(), told))
            for one in requests(5):
                await pika.submit(one)
            await asyncio.sleep(15)
        await reader
        assert [names(told, f"k{number}")[0] for number in range(5)] == ["JobAccepted"] * 5
        assert max(Counter((it.job.key, it.job.status, it.job.progress) for it in told).values()) == 1

    virtual_clock.run(story())


def test_from_now_on_and_from_a_number() -> None:
    """`events()` begins when it is called, before anybody reads; `after=0` with all that is known."""

    async def story() -> None:
        async with client(gateway()) as pika:
            await pika.run(requests(2))
            late = pika.events()
            await pika.run(requests(3)[2:])
            told: list[JobEvent] = []
            all_told: list[JobEvent] = []
            rest: list[JobEvent] = []
            tasks = [asyncio.create_task(read(late, told)), asyncio.create_task(read(pika.events(0), all_told))]
            await asyncio.sleep(1)
            tasks.append(asyncio.create_task(read(pika.events(all_told[0].number), rest)))
        await asyncio.gather(*tasks)
        assert {event.job.key for event in told} == {"k2"}
        assert [event.job.key for event in all_told[2:]] == ["k2"]
        assert len(all_told) == 3
        assert rest == all_told[1:]

    virtual_clock.run(story())


@pytest.mark.parametrize("after", [-1, 10**9, True, 1.0, "1"])
def test_a_number_that_was_not_given_is_refused(after: Any) -> None:
    """It would wait for what never comes, or miss what does."""

    async def story() -> None:
        async with client(gateway()) as pika:
            with pytest.raises(InvalidRequest, match="no number of an event of this journal"):
                pika.events(after)

    virtual_clock.run(story())


def test_a_client_that_is_not_open_has_no_events() -> None:
    async def story() -> None:
        pika = client(gateway())
        with pytest.raises(RuntimeError, match="not open"):
            pika.events()
        async with pika:
            pass
        with pytest.raises(RuntimeError, match="not open"):
            pika.events()

    virtual_clock.run(story())


def test_a_reader_of_one_opening_is_told_nothing_of_the_next() -> None:
    """However late it reads."""

    async def story() -> None:
        pika = client(gateway())
        async with pika:
            early = pika.events()
            await pika.run(requests(2))
        async with pika:
            second = pika.events()
            await pika.run([GenerationRequest("another", key="x")])
            told: list[JobEvent] = []
            await read(early, told)
        assert sorted(event.job.key for event in told) == ["k0", "k1"]
        again: list[JobEvent] = []
        await read(second, again)
        assert {event.job.key for event in again} == {"x"}

    virtual_clock.run(story())


def test_many_readers_one_of_them_leaves() -> None:
    """Each is told all; the one that leaves early, or is cancelled, leaves nothing behind."""

    async def story() -> None:
        lists: list[list[JobEvent]] = [[], [], []]
        async with client(gateway()) as pika:
            readers = [asyncio.create_task(read(pika.events(), told)) for told in lists]
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


def test_a_slow_reader_loses_nothing_and_holds_nothing(tmp_path: Path) -> None:
    """2,000 jobs settle while it sleeps: each is told once, settled, and what it holds meanwhile is one number."""

    async def story() -> None:
        count = 2000
        async with fast(journal=tmp_path / "j.db") as pika:
            slow, never = pika.events(), pika.events()
            batch = await pika.run(requests(count))
            assert batch.ok
            del batch
            told = []
            gc.collect()
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            async for event in slow:
                told.append((event.number, event.job.key, type(event)))
                if len(told) == count:
                    break
            del event
            peak = tracemalloc.get_traced_memory()[1] - before
            tracemalloc.stop()
            await slow.aclose()
            await never.aclose()
        assert Counter(key for _, key, _ in told) == {f"k{number}": 1 for number in range(count)}
        assert {kind for *_, kind in told} == {JobSettled}
        assert peak < 1_500_000

    asyncio.run(story())


def test_a_reader_in_real_time_is_told_what_is_on_disk(tmp_path: Path) -> None:
    """Each event is in the file by then, and each job settles once."""

    async def story() -> None:
        told: list[JobEvent] = []
        other = SqliteJournal(tmp_path / "j.db")
        async with fast(journal=tmp_path / "j.db") as pika:
            events = pika.events()
            batch = asyncio.create_task(pika.run(requests(100)))
            async for event in events:
                told.append(event)
                stored = other.get(event.job.key)
                assert stored is not None
                assert stored.task_id == event.job.task_id is not None
                if Counter(map(type, told))[JobSettled] == 100:
                    break
            await batch
            await events.aclose()
        assert Counter(it.job.key for it in told if isinstance(it, JobSettled)) == {f"k{n}": 1 for n in range(100)}

    asyncio.run(story())


def test_another_process_goes_on_from_a_number(tmp_path: Path) -> None:
    """What settled behind it is told, what was told before it is not."""

    async def story() -> None:
        told: list[JobEvent] = []
        async with fast(journal=tmp_path / "j.db") as pika:
            async with aclosing(pika.events()) as events:
                batch = asyncio.create_task(pika.run(requests(40)))
                async for event in events:
                    told.append(event)
                    if isinstance(event, JobSettled):
                        break
            await batch
        async with fast(journal=tmp_path / "j.db") as pika:
            reader = asyncio.create_task(read(pika.events(told[-1].number), told))
            await asyncio.sleep(0.1)
        await reader
        assert Counter(it.job.key for it in told if isinstance(it, JobSettled)) == {f"k{n}": 1 for n in range(40)}
        assert [event.number for event in told] == sorted({event.number for event in told})

    asyncio.run(story())


def test_a_reader_ends_with_what_was_on_its_way(tmp_path: Path) -> None:
    """A closing in the middle of a batch: the reader's last word of each job is the journal's."""

    async def story() -> None:
        told: list[JobEvent] = []
        async with fast(journal=tmp_path / "j.db") as pika:
            reader = asyncio.create_task(read(pika.events(), told))
            batch = asyncio.create_task(pika.run(requests(300)))
            await asyncio.sleep(0.3)
        await asyncio.wait({batch})
        await asyncio.wait_for(reader, 10)
        last = {event.job.key: event.job.status for event in told}
        here = {job.key: job.status for job in SqliteJournal(tmp_path / "j.db").all()}
        assert {it: status for it, status in here.items() if status is not S.PLANNED} == {
            it: status for it, status in last.items() if status is not S.PLANNED
        }

    asyncio.run(story())


def test_nobody_listens_at_no_cost() -> None:
    """Without a reader nothing is numbered, not even at closing."""

    async def story() -> None:
        journal = MemoryJournal()
        async with remembering(client(gateway()), journal) as pika:
            await pika.run(requests(3))
        assert journal._revisions is None

    virtual_clock.run(story())


# --- hooks ----------------------------------------------------------------------------------------------------------


def test_hooks_are_called_once_for_each_job_in_the_order_of_settling() -> None:
    """Given before or after opening, sync or async, as a decorator; again in the next opening."""

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


def test_a_hook_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises is logged with the job's key; the next job is given to it all the same."""

    async def story() -> None:
        pika = client(gateway())
        given: list[str] = []

        @pika.on_settled
        async def fail(job: Job) -> None:
            given.append(job.key)
            if job.key == "k0":
                raise ValueError("no such thing")
            if job.key == "k1":
                raise asyncio.CancelledError

        async with pika:
            report = await pika.run(requests(3))
            assert report.ok
        assert sorted(given) == ["k0", "k1", "k2"]

    with caplog.at_level(logging.ERROR, logger="pika_async.jobs"):
        virtual_clock.run(story())
    words = [record.getMessage() for record in caplog.records if record.name == "pika_async.jobs"]
    assert sorted(word.split(" ")[1] for word in words) == ["k0", "k1"]
    assert "no such thing" in caplog.text


def test_a_slow_hook_delays_no_job_and_is_given_all_at_closing() -> None:
    """It is as late as it likes; closing waits for it."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        pika = client(gateway())
        given: list[str] = []

        @pika.on_settled
        async def slow(job: Job) -> None:
            await asyncio.sleep(1.5)
            given.append(job.key)

        async with pika:
            await pika.run(requests(10))
            settled_at = loop.time()
            assert len(given) < 9
        assert len(given) == 10
        assert 5 < loop.time() - settled_at < 15

    virtual_clock.run(story())


def test_closing_waits_for_hooks_20_seconds_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """Also for one that will not be cancelled."""

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
            began = loop.time()
        assert loop.time() - began == pytest.approx(21, abs=0.5)
        assert (await pika.jobs("succeeded")) != []

    virtual_clock.run(story())
    assert "has not finished after 20 s" in caplog.text


def test_a_hook_cannot_close_the_client() -> None:
    """It would wait for itself."""

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


def test_a_hook_may_ask_for_more() -> None:
    """A job that settles leads to the next."""

    async def story() -> None:
        pika = client(gateway())
        given: list[str] = []

        @pika.on_settled
        async def chain(job: Job) -> None:
            given.append(job.key)
            if len(given) < 3:
                await pika.submit(f"after {job.key}", key=f"next-{len(given)}")

        async with pika:
            await pika.submit("first", key="first")
            await until(lambda: len(given) == 3)
        assert given == ["first", "next-1", "next-2"]

    virtual_clock.run(story())


def test_what_cannot_be_called_is_no_hook() -> None:
    with pytest.raises(ConfigurationError, match="on_settled"):
        client(gateway()).on_settled(3)  # type: ignore[type-var]


def test_a_journal_that_cannot_be_read_ends_the_hook_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """And nothing else."""

    class Odd(MemoryJournal):
        async def changes(self, after: int) -> list[tuple[int, Job]]:
            raise OSError("gone")

    async def story() -> None:
        pika = remembering(client(gateway()), Odd())
        pika.on_settled(print)
        async with pika:
            assert (await pika.run(requests(1))).ok

    virtual_clock.run(story())
    assert "ended" in caplog.text
    assert "gone" in caplog.text
    assert room.HOOKS_GRACE_S == 20


def test_a_job_that_settles_as_the_client_closes_is_told(tmp_path: Path) -> None:
    """What the disk has not taken yet is waited for."""

    async def story() -> None:
        journal = SqliteJournal(tmp_path / "j.db")
        hooked: list[str] = []
        pika = fast(journal=journal)
        pika.on_settled(lambda job: hooked.append(job.key))
        async with pika:
            told: list[JobEvent] = []
            reader = asyncio.create_task(read(pika.events(), told))
            await pika.submit(requests(1)[0])
            with stalled(journal):
                while not (job := journal.get("k0")) or not job.is_final:
                    await asyncio.sleep(0.01)
                closing = asyncio.create_task(pika.aclose())
                await asyncio.sleep(0.2)
                assert hooked == []
            await closing
            assert hooked == ["k0"]
        await reader
        assert names(told, "k0")[-1] == "JobSettled"

    asyncio.run(story())
