"""Closing that waits for accepted jobs: nothing more is sent, every waiter gets its result, and nothing is lost."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pika_async import (
    BatchReport,
    ClientClosed,
    ConfigurationError,
    FixedInterval,
    GenerationRequest,
    Job,
    JobSettled,
    JobStatus,
    Limits,
    PikaClient,
    Video,
)
from pika_async.emulator import Emulator
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import SlowJournal, client, gateway, requests, until, with_journal

S = JobStatus


async def accepted(pika: PikaClient, count: int) -> None:
    await until(lambda: sum(job.task_id is not None for job in pika.active_jobs()) == count)


def test_accepted_jobs_settle_and_unsent_requests_end_at_once() -> None:
    """Every waiter gets the result; the next opening sends the planned jobs."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        at = gateway(durations="constant:60")
        outcomes: list[tuple[float, Any]] = []

        async def generate(number: int) -> None:
            try:
                outcome: Any = await pika.generate(requests(6)[number])
            except ClientClosed as error:
                outcome = error
            outcomes.append((loop.time() - began, outcome))

        pika = client(at, polling=FixedInterval(2), limits=Limits(max_in_flight=4))
        await pika.__aenter__()
        calls = [asyncio.create_task(generate(number)) for number in range(6)]
        await accepted(pika, 4)
        began = loop.time()
        await pika.aclose(drain=True)
        await asyncio.gather(*calls)
        assert [type(outcome) for _, outcome in outcomes] == [ClientClosed] * 2 + [Video] * 4
        assert [at < 1 for at, _ in outcomes] == [True] * 2 + [False] * 4
        assert Counter(job.status for job in await pika.jobs()) == {S.SUCCEEDED: 4, S.PLANNED: 2}
        assert all(isinstance(job.error, ClientClosed) for job in await pika.jobs("planned"))
        assert len(at.ledger) == 4
        async with pika:
            assert (await pika.resume()).counts == {S.SUCCEEDED: 2}
        assert len(at.ledger) == 6

    virtual_clock.run(story())


def test_nothing_is_taken_in_while_it_drains() -> None:
    """New jobs are refused, others may be asked about; a job that is parked gets no new deadline."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        pika = client(at, polling=FixedInterval(2))
        await pika.__aenter__()
        job = await pika.submit(requests(1)[0])
        closing = asyncio.create_task(pika.aclose(drain=100))
        await asyncio.sleep(1)
        for call in (pika.submit("new"), pika.generate("new"), pika.run(["new"]), anext(pika.as_settled(["new"]))):
            with pytest.raises(ClientClosed):
                await call
        with pytest.raises(RuntimeError, match="open already"):
            await pika.__aenter__()
        assert (await pika.poll(job)).state is not None
        assert [it.key for it in pika.active_jobs()] == ["k0"]
        assert (await pika.wait(job)).status is S.SUCCEEDED
        await closing
        assert [it.key for it in await pika.jobs()] == ["k0"]
        assert len(at.ledger) == 1

    virtual_clock.run(story())


@pytest.mark.parametrize("seconds", [0, 0.0, 5, 30.5])
def test_it_waits_no_longer_than_it_may(seconds: float) -> None:
    """What has not settled by then stays accepted, with its task id."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        pika = client(gateway(durations="constant:600"))
        await pika.__aenter__()
        await pika.submit(requests(1)[0])
        began = loop.time()
        await pika.aclose(drain=seconds)
        assert loop.time() - began == pytest.approx(seconds, abs=0.2)
        (job,) = await pika.jobs()
        assert job.is_in_flight
        assert job.task_id is not None

    virtual_clock.run(story())


def test_each_job_has_its_deadline() -> None:
    """A drain without an end of its own ends when the last is settled or parked."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        pika = client(gateway(durations="constant:9999"), deadline=300)
        await pika.__aenter__()
        await pika.submit(requests(1)[0])
        await pika.aclose(drain=True)
        assert 299 < loop.time() < 305
        assert [job.status for job in await pika.jobs()] == [S.TIMED_OUT]

    virtual_clock.run(story())


def test_without_accepted_jobs_closing_does_not_wait() -> None:
    """Also where it was not open, or is closed already."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        pika = client(gateway())
        await pika.aclose(drain=True)
        async with pika:
            await pika.aclose(drain=True)
            await pika.aclose(drain=True)
        assert loop.time() < 0.5

    virtual_clock.run(story())


@pytest.mark.parametrize("drain", [-1, -0.5, float("nan"), "5", None, [1]])
def test_a_bad_time_limit_is_refused(drain: Any) -> None:
    """Before anything is closed."""

    async def story() -> None:
        async with client(gateway()) as pika:
            with pytest.raises(ConfigurationError, match=r"drain: .* must be True, False or a number of seconds"):
                await pika.aclose(drain)
            assert await pika.generate("a cat")

    virtual_clock.run(story())


@pytest.mark.parametrize("drain", [float("inf"), 10**400])
def test_a_time_without_an_end_is_as_long_as_it_takes(drain: float) -> None:
    async def story() -> None:
        pika = client(gateway(durations="constant:60"))
        await pika.__aenter__()
        await pika.submit("a cat")
        await pika.aclose(drain)
        assert [job.status for job in await pika.jobs()] == [S.SUCCEEDED]

    virtual_clock.run(story())


@pytest.mark.parametrize("how", ["cancel", "another", "timeout"])
def test_a_drain_that_is_cut_short_closes_properly(how: str) -> None:
    """By its own cancellation, or by somebody who closes without a drain."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        pika = client(gateway(durations="constant:600"))
        await pika.__aenter__()
        waiting = asyncio.create_task(pika.generate(requests(1)[0]))
        await accepted(pika, 1)
        began = loop.time()
        if how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await pika.aclose(drain=True)
        else:
            closing = asyncio.create_task(pika.aclose(drain=True))
            await asyncio.sleep(5)
            if how == "cancel":
                closing.cancel()
            else:
                await pika.aclose()
            await asyncio.wait({closing})
            assert closing.cancelled() == (how == "cancel")
        assert loop.time() - began == pytest.approx(5, abs=0.5)
        with pytest.raises(ClientClosed):
            await waiting
        assert [task.get_name() for task in asyncio.all_tasks() if "pika_async" in task.get_name()] == []
        async with pika:
            assert [job.is_in_flight for job in await pika.jobs()] == [True]

    virtual_clock.run(story())


def test_submissions_on_their_way_are_awaited() -> None:
    """One that is refused meanwhile comes to rest as planned; one that is accepted is followed."""

    async def story() -> None:
        script: list[dict[str, Any]] = [{"on": "create", "first": 1, "do": {"fault": "refuse", "as": "rate"}}]
        at = gateway(script, durations="constant:30")
        pika = client(at, polling=FixedInterval(2))
        pika._config.accounts[0].transport.latency = 4.0  # type: ignore[attr-defined]
        await pika.__aenter__()
        calls = [asyncio.create_task(pika.generate(one)) for one in requests(2)]
        await asyncio.sleep(1)
        await pika.aclose(drain=True)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ClientClosed", "Video"]
        assert Counter(job.status for job in await pika.jobs()) == {S.SUCCEEDED: 1, S.PLANNED: 1}
        assert len(at.ledger) == 1

    virtual_clock.run(story())


def test_a_job_that_is_being_planned_holds_nothing_up() -> None:
    """Its caller gets an error; the drain does not wait for a job that was not added."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        pika = with_journal(client(gateway()), SlowJournal(5))
        await pika.__aenter__()
        call = asyncio.create_task(pika.generate("a cat", key="k"))
        await asyncio.sleep(1)
        assert pika.active_jobs() != []
        await pika.aclose(drain=True)
        assert loop.time() < 12
        with pytest.raises(ClientClosed):
            await call
        assert [job.status for job in await pika.jobs()] in ([S.PLANNED], [S.CANCELED], [])

    virtual_clock.run(story())


def endless() -> Iterator[GenerationRequest]:
    return (GenerationRequest(f"prompt {number}", key=f"k{number}") for number in itertools.count())


async def held_open() -> AsyncGenerator[GenerationRequest, None]:
    for one in requests(2):
        yield one
    await asyncio.sleep(10**6)


@pytest.mark.parametrize("whole", [False, True], ids=["as_settled", "run"])
@pytest.mark.parametrize("source", [endless, held_open], ids=["endless", "held open"])
def test_a_batch_gets_what_settles(source: Any, whole: bool) -> None:
    """An endless iterable is pulled no more; the batch then ends with ClientClosed."""

    async def story() -> None:
        given: list[Job] = []
        pika = client(gateway(durations="constant:60"), polling=FixedInterval(2), limits=Limits(max_in_flight=5))

        async def take() -> BatchReport | None:
            if whole:
                return await pika.run(source())
            async for job in pika.as_settled(source()):
                given.append(job)  # noqa: PERF401 - what was given before the error counts
            return None

        await pika.__aenter__()
        batch = asyncio.create_task(take())
        await asyncio.sleep(20)
        await pika.aclose(drain=True)
        with pytest.raises(ClientClosed):
            await batch
        known = Counter(job.status for job in await pika.jobs())
        assert known[S.SUCCEEDED] >= 2
        assert set(known) <= {S.SUCCEEDED, S.PLANNED}
        if not whole:
            assert Counter(job.status for job in given)[S.SUCCEEDED] == known[S.SUCCEEDED]

    virtual_clock.run(story())


def test_a_batch_that_was_taken_in_whole_has_its_report() -> None:
    """They end as without a closing; so do hooks and readers of events."""

    async def story() -> None:
        pika = client(gateway(durations="constant:60"))
        hooked: list[str] = []
        pika.on_settled(lambda job: hooked.append(job.key))
        await pika.__aenter__()
        batch = asyncio.create_task(pika.run(requests(5)))
        events = pika.events()
        await accepted(pika, 5)
        await pika.aclose(drain=True)
        report = await batch
        assert (report.ok, report.stopped, len(report.jobs)) == (True, None, 5)
        assert sorted(hooked) == [f"k{number}" for number in range(5)]
        settled = [event.job.key async for event in events if isinstance(event, JobSettled)]
        assert settled == hooked

    virtual_clock.run(story())


def test_a_batch_has_its_files_before_the_client_is_closed(tmp_path: Path) -> None:
    """A drain waits for downloads too."""

    async def story() -> None:
        slow = Emulator(durations="constant:0.3", video_seconds=1)
        async with slow as emulator:
            pika = PikaClient(
                "native", api_key=emulator.api_key, base_url=emulator.base_url("native"),
                polling=FixedInterval(0.1), limits=Limits(downloading=1), journal=tmp_path / "j.db",
            )  # fmt: skip
            await pika.__aenter__()
            batch = asyncio.create_task(pika.run(requests(6), download_to=tmp_path / "videos"))
            while sum(job.task_id is not None for job in pika.active_jobs()) < 6:
                await asyncio.sleep(0.02)
            await pika.aclose(drain=30)
            report = await batch
        assert report.ok
        assert len(list((tmp_path / "videos").glob("*.mp4"))) == 6
        assert all(job.file is not None for job in await pika.jobs())

    asyncio.run(story())
