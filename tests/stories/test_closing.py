"""Closing, cancelling and opening again, at any instant: nothing lost, nothing paid twice, nothing left running."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from pika_async import (
    BatchReport,
    ClientClosed,
    DownloadFailed,
    FixedInterval,
    GenerationRequest,
    Job,
    JobStatus,
    JournalFailed,
    Limits,
    PikaClient,
    Video,
    WrongEventLoop,
)
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent, Journal
from pika_async._runtime.results import ResultDownloader
from pika_async.emulator import Emulator, Gateway, Scenario
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.journals import JOURNAL_KINDS, JournalFactory, journal_factory
from tests.fakes.memory_gateway import MemoryTransport, SlowJournal, client, gateway, until, with_journal
from tests.fakes.only_account import only

S = JobStatus


@pytest.fixture(autouse=True)
def _same_chance() -> None:
    random.seed(11)


def left() -> list[str]:
    """Return the client's tasks that still run in this loop."""
    return [task.get_name() for task in asyncio.all_tasks() if "pika_async" in task.get_name()]


def requests(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"prompt {number}", key=f"key-{number}") for number in range(count)]


async def outcome(task: asyncio.Future[Any], seconds: float = 300.0) -> Any:
    """Return the result or the exception of *task*, which must end by itself."""
    done, _ = await asyncio.wait({task}, timeout=seconds)
    assert done, f"{task} does not end"
    return (await asyncio.gather(task, return_exceptions=True))[0]


@pytest.fixture(params=JOURNAL_KINDS)
def journal(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JournalFactory:
    return journal_factory(request.param, tmp_path, monkeypatch)


def charged_ids_are_kept(at: Gateway, jobs: Sequence[Job]) -> None:
    held = {job.request.prompt: job.task_id for job in jobs}
    assert {charge.prompt: charge.task_id for charge in at.ledger}.items() <= held.items()


# --- at many instants -----------------------------------------------------------------------------------------------


class Story:
    """Run two batches that share keys and two single calls, end them at one instant, then open again and finish."""

    def __init__(self, journal: Journal) -> None:
        self.at = gateway(durations="constant:3")
        transport = MemoryTransport(self.at, latency=0.4)
        limits = Limits(max_in_flight=4, submitting=2, polling=2)
        self.pika = client(self.at, transport=transport, polling=FixedInterval(0.7), limits=limits, journal=journal)
        self.calls: list[asyncio.Task[Any]] = []

    async def _settled(self) -> None:
        async for _ in self.pika.as_settled(requests(6)[2:]):
            await asyncio.sleep(0.05)

    async def use(self) -> None:
        async with self.pika, asyncio.TaskGroup() as group:
            single = [GenerationRequest(f"single {number}", key=f"single-{number}") for number in range(2)]
            calls = [self.pika.run(requests(6)), self._settled(), *(self.pika.generate(one) for one in single)]
            for call in calls:
                self.calls.append(group.create_task(call))

    async def end(self, how: str, moment: float) -> None:
        using = asyncio.create_task(self.use())
        await asyncio.sleep(moment)
        scheduler = None if self.pika._session is None else self.pika._session.table
        if how == "aclose":
            await asyncio.wait_for(self.pika.aclose(), 30)
        else:
            using.cancel()
        if how == "cancel twice":
            await asyncio.sleep(0.11)
            using.cancel()
        ended = await outcome(using, 60)
        whole = ended.exceptions if isinstance(ended, BaseExceptionGroup) else [ended]
        assert [error for error in whole if not isinstance(error, ClientClosed | asyncio.CancelledError | None)] == []
        ends = [await outcome(call) for call in self.calls]
        said = (BatchReport, Video, ClientClosed, asyncio.CancelledError, type(None))
        assert [end for end in ends if not isinstance(end, said)] == []
        assert left() == []
        if scheduler is not None:
            assert (only(scheduler.planner).submissions.submitting, len(scheduler.jobs)) == (0, 0)

    async def finish(self) -> None:
        jobs = await self.pika.jobs()
        assert [job for job in jobs if job.status in {S.SUBMITTING, S.UNKNOWN}] == []
        charged_ids_are_kept(self.at, jobs)
        async with self.pika as pika:
            assert set((await pika.resume()).counts) <= {S.SUCCEEDED}
            assert (await pika.run(requests(6))).counts == {S.SUCCEEDED: 6}
            assert pika._session is not None
            scheduler = pika._session.table
            planner = scheduler.planner
            assert (only(planner).submissions.submitting, only(planner).in_flight, only(planner).polling) == (0, 0, 0)
            assert (len(only(planner).submissions.queue), len(list(only(planner).poll_queue)), len(scheduler.jobs)) == (
                0,
                0,
                0,
            )
            assert only(planner).submissions.spending.charges == len(self.at.ledger)
        assert set(Counter(charge.prompt for charge in self.at.ledger).values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["aclose", "cancel", "cancel twice"])
def test_whenever_it_ends_nothing_is_lost_and_nothing_is_paid_twice(how: str, journal: JournalFactory) -> None:
    """At each of many instants: all calls end, every charge has its task id, and opening again settles the rest."""

    async def story(moment: float) -> None:
        tale = Story(journal())
        await tale.end(how, moment)
        await tale.finish()

    for step in range(0, 60, 1 if journal().path is None else 4):
        virtual_clock.run(story(0.003 + 0.151 * step))


@pytest.mark.parametrize("moment", [0.1, 0.3, 0.5, 1.1, 2.2, 3.4, 4.1])
def test_a_loop_torn_down_over_an_open_client_pays_nothing_twice(moment: float, journal: JournalFactory) -> None:
    """When every task is cancelled at once, what was sent is accepted or in doubt in the journal, never planned."""
    tale = Story(journal())

    async def leave() -> None:
        task = asyncio.create_task(tale.use())
        await asyncio.sleep(moment)
        assert not task.done()

    async def later() -> None:
        await tale.pika.aclose()
        jobs = {job.request.prompt: job for job in await tale.pika.jobs()}
        assert S.SUBMITTING not in {job.status for job in jobs.values()}
        for charge in tale.at.ledger:
            job = jobs[charge.prompt]
            assert job.task_id == charge.task_id or job.status is S.UNKNOWN
        async with tale.pika as pika:
            await pika.resume()
            assert set((await pika.run(requests(6))).counts) <= {S.SUCCEEDED, S.UNKNOWN}
        assert set(Counter(charge.prompt for charge in tale.at.ledger).values()) == {1}

    virtual_clock.run(leave())
    virtual_clock.run(later())


# --- results of pending calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [0.05, 4.0], ids=["accepted", "on its way"])
@pytest.mark.parametrize("call", ["generate", "submit", "wait", "run", "as_settled"])
def test_a_pending_call_ends_when_its_client_is_closed(call: str, latency: float, journal: JournalFactory) -> None:
    """A call that is pending when the client closes raises `ClientClosed` or returns the receipt; the task id is saved."""

    async def story() -> None:
        at = gateway(durations="constant:1000")
        pika = client(at, transport=MemoryTransport(at, latency=latency), journal=journal())
        await pika.__aenter__()

        async def use() -> Any:
            match call:
                case "generate":
                    return await pika.generate("a cat")
                case "submit":
                    return await pika.submit("a cat")
                case "wait":
                    return await pika.wait(await pika.submit("a cat"))
                case "run":
                    return await pika.run(["a cat"])
            return [job async for job in pika.as_settled(["a cat"])]

        using = asyncio.create_task(use())
        await asyncio.sleep(1.0)
        await pika.aclose()
        end = await outcome(using)
        if call in {"submit", "wait"}:
            accepted = isinstance(end, Job) and end.task_id == at.ledger[0].task_id
            assert accepted or (call, latency) == ("wait", 4.0)
        else:
            assert isinstance(end, ClientClosed)
        (job,) = await pika.jobs()
        assert job.task_id == at.ledger[0].task_id
        assert left() == []

    virtual_clock.run(story())


def test_a_call_that_is_being_planned_ends_when_the_client_is_closed() -> None:
    """A request that is still being written to the journal when the client closes is not sent, and its caller gets an error."""

    async def story() -> None:
        at = gateway()
        pika = with_journal(client(at), SlowJournal(3.0))
        await pika.__aenter__()
        using = asyncio.create_task(pika.generate("a cat"))
        await asyncio.sleep(1.0)
        await pika.aclose()
        assert isinstance(await outcome(using), ClientClosed)
        assert (left(), len(at.ledger)) == ([], 0)

    virtual_clock.run(story())


def test_a_held_generator_yields_every_job_and_then_raises(journal: JournalFactory) -> None:
    """`as_settled` whose client is closed between two steps still gives every job, and then raises."""

    async def story() -> None:
        at = gateway(durations="constant:10")
        pika = client(at, limits=Limits(max_in_flight=3), journal=journal())
        await pika.__aenter__()
        settled = pika.as_settled(requests(9))
        first = await anext(settled)
        await pika.aclose()
        rest: list[Job] = []

        async def take() -> None:
            async for job in settled:
                rest.append(job)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(ClientClosed):
            await take()
        assert first.key not in {job.key for job in rest}
        assert {job.key for job in (first, *rest)} >= {job.key for job in await pika.jobs()}
        await settled.aclose()

    virtual_clock.run(story())


# --- opening and closing side by side -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(7))
def test_an_opening_that_is_cancelled_leaves_nothing_and_may_be_tried_again(
    steps: int, journal: JournalFactory
) -> None:
    """Cancelled after any number of steps, `async with` leaves no task; the next one works."""

    async def story() -> None:
        at = gateway()
        pika = client(at, journal=journal())

        async def use() -> None:
            async with pika:
                await asyncio.sleep(0)

        using = asyncio.create_task(use())
        for _ in range(steps):
            await asyncio.sleep(0)
        using.cancel()
        await outcome(using)
        await asyncio.sleep(1)
        assert left() == []
        async with pika:
            assert (await pika.generate("a cat")).url

    virtual_clock.run(story())


def test_of_two_openings_at_once_one_is_refused(journal: JournalFactory) -> None:
    """A client that is being opened cannot be opened a second time, and nothing of a second one is left."""

    async def story() -> None:
        pika = client(gateway(), journal=journal())
        ends = await asyncio.gather(pika.__aenter__(), pika.__aenter__(), return_exceptions=True)
        assert [type(end) for end in ends] == [PikaClient, RuntimeError]
        await pika.aclose()
        assert left() == []

    virtual_clock.run(story())


def test_a_timeout_inside_the_closing_does_not_cut_it_short(journal: JournalFactory) -> None:
    """`asyncio.timeout` around the block fires while a receipt is awaited: it is raised, after the receipt is kept."""

    async def story() -> None:
        at = gateway(durations="constant:1000")
        pika = client(at, transport=MemoryTransport(at, latency=5.0), journal=journal())
        submitting: list[asyncio.Task[Job]] = []

        async def use() -> None:
            async with asyncio.timeout(1.0), pika:
                submitting.append(asyncio.create_task(pika.submit("a cat")))
                await asyncio.sleep(0.5)

        with pytest.raises(TimeoutError):
            await use()
        assert (await outcome(submitting[0])).task_id == at.ledger[0].task_id
        assert left() == []
        seen = len(at.requests)
        await asyncio.sleep(100)
        assert len(at.requests) == seen

    virtual_clock.run(story())


def test_every_aclose_and_every_opening_waits_for_the_closing_under_way(journal: JournalFactory) -> None:
    """A second `aclose` returns no earlier than the first, and what is opened meanwhile is not closed by it."""

    async def story() -> None:
        at = gateway(durations="constant:20")
        pika = client(at, transport=MemoryTransport(at, latency=4.0), journal=journal())
        await pika.__aenter__()
        submitting = asyncio.create_task(pika.submit("a cat"))
        await asyncio.sleep(1.0)
        first = asyncio.create_task(pika.aclose())
        await asyncio.sleep(0)

        async def again() -> Video:
            async with pika:
                assert first.done()
                return await pika.generate("a dog")

        opening = asyncio.create_task(again())
        await pika.aclose()
        assert [name for name in left() if "closing" in name] == []
        assert (await outcome(submitting)).task_id
        assert isinstance(await outcome(opening), Video)
        assert left() == []

    virtual_clock.run(story())


def test_a_transport_that_fails_to_close_says_so_once() -> None:
    """An error of `close` is raised by that closing, and the client can be opened again."""

    class Odd(MemoryTransport):
        closings = 0

        async def close(self) -> None:
            self.closings += 1
            if self.closings == 1:
                raise OSError("cannot close")

    async def story() -> None:
        at = gateway()
        pika = client(at, transport=Odd(at))
        with pytest.raises(OSError, match="cannot close"):
            async with pika:
                pass
        await pika.aclose()
        async with pika:
            assert (await pika.generate("a cat")).url
        assert left() == []

    virtual_clock.run(story())


@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_iterable_cannot_close_the_client_that_reads_it(asynchronous: bool) -> None:
    """`aclose` inside the source of a batch is refused, not waited for; the batch says so, the client stays open."""

    async def story() -> None:
        at = gateway()
        pika = client(at)

        async def source() -> AsyncIterator[str]:
            yield "a cat"
            await pika.aclose()
            yield "a dog"

        def steps() -> Iterator[str]:
            yield "a cat"
            pika.aclose().send(None)
            yield "a dog"

        async with pika:
            with pytest.raises(RuntimeError, match="cannot be closed by the iterable"):
                await pika.run(source() if asynchronous else steps())
            assert (await pika.generate("a bird")).url
        assert {charge.prompt for charge in at.ledger} == {"a cat", "a bird"}
        assert left() == []

    virtual_clock.run(story())


# --- downloads ------------------------------------------------------------------------------------------------------


class Fetches:
    """A stand-in for the downloader: each download takes *seconds*, and *cleanup* more when it is cancelled."""

    def __init__(self, seconds: float, cleanup: float = 0.0) -> None:
        self.seconds, self.cleanup = seconds, cleanup
        self.active_requests = 0

    async def __call__(self, job: Job, target: Path) -> Job:
        self.active_requests += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):  # as a call in a thread: it cannot be interrupted
                await asyncio.sleep(self.cleanup)
            raise
        finally:
            self.active_requests -= 1
        return job.with_file(target, "0" * 64)


def test_closing_yields_jobs_that_wait_for_their_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With downloads queued, closing ends the batch; its jobs have succeeded and are downloaded later."""
    fetches = Fetches(1e6)
    monkeypatch.setattr(ResultDownloader, "collect", staticmethod(fetches))

    async def story() -> None:
        at = gateway(durations="constant:5")
        pika = client(at, limits=Limits(max_in_flight=20, downloading=2))
        await pika.__aenter__()
        running = asyncio.create_task(pika.run(requests(10), download_to=tmp_path))
        await asyncio.sleep(60)
        await pika.aclose()
        report = await outcome(running)
        assert isinstance(report, BatchReport)
        assert (report.counts, {job.file for job in report.jobs}) == ({S.SUCCEEDED: 10}, {None})
        assert (left(), fetches.active_requests) == ([], 0)
        fetches.seconds = 1.0
        async with pika:
            again = await pika.resume(download_to=tmp_path)
        assert (len(again.jobs), again.ok, len(at.ledger)) == (10, True, 10)

    virtual_clock.run(story())


@pytest.mark.parametrize("how", ["break", "cancel"])
def test_nothing_is_written_once_a_batch_was_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    """Leaving `as_settled` or `run` waits for the downloads that cannot stop at once."""
    fetches = Fetches(8.0, cleanup=2.0)
    monkeypatch.setattr(ResultDownloader, "collect", staticmethod(fetches))

    async def story() -> None:
        at = gateway(durations="lognormal:20,0.5")
        async with client(at, limits=Limits(max_in_flight=20), polling=FixedInterval(1)) as pika:
            if how == "break":
                settled = pika.as_settled(requests(10), download_to=tmp_path)
                await anext(settled)
                assert fetches.active_requests
                await settled.aclose()
            else:
                running = asyncio.create_task(pika.run(requests(10), download_to=tmp_path))
                await until(lambda: fetches.active_requests > 0)
                running.cancel()
                await asyncio.wait({running})
            assert fetches.active_requests == 0

    virtual_clock.run(story())


async def _download_under_way(emulator: Emulator, folder: Path) -> tuple[PikaClient, asyncio.Task[Path]]:
    pika = PikaClient(
        "cometapi", api_key=emulator.api_key, base_url=emulator.base_url("cometapi"), polling=FixedInterval(0.05)
    )
    await pika.__aenter__()
    video = await pika.generate("a cat")
    downloading = asyncio.create_task(pika.download(video, folder / "cat.mp4"))
    await asyncio.sleep(0.5)
    return pika, downloading


def test_a_download_whose_client_is_closed_fails_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    """`client.download` in a task of the user ends with `DownloadFailed` when another task closes the client."""

    async def story() -> None:
        stalls = Scenario.of([{"on": "cdn", "do": {"fault": "body-stall", "fraction": 0.5}}])
        async with Emulator(render=False, durations="constant:0.1", scenario=stalls) as emulator:
            pika, downloading = await _download_under_way(emulator, tmp_path)
            assert not downloading.done()
            await asyncio.wait_for(pika.aclose(), 5)
            with pytest.raises(DownloadFailed, match="closed"):
                await asyncio.wait_for(downloading, 5)
        assert list(tmp_path.iterdir()) == []

    asyncio.run(story())


# --- defects --------------------------------------------------------------------------------------------------------


@attrs.define
class Full(MemoryJournal):
    """A journal that fails at its *at*-th call, and at each later one if *full*."""

    at: int
    full: bool
    calls: int = 0

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.at or (self.full and self.calls > self.at):
            raise JournalFailed(provider="", path="journal.db", reason="the disk is full")

    async def record_intent(self, job: Job, intent: Intent) -> None:
        self._count()
        await super().record_intent(job, intent)

    async def save(self, *jobs: Job, linger: bool = False) -> None:
        await super().save(*jobs)  # what could not be kept is read back all the same
        if jobs:
            self._count()


def healed(journal: Journal) -> MemoryJournal:
    """Return a journal with the same content that does not fail."""
    assert isinstance(journal, MemoryJournal)
    whole = MemoryJournal()
    whole.__dict__.update(journal.__dict__)
    return whole


@pytest.mark.parametrize("full", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("at", range(1, 16))
def test_when_the_journal_fails_every_call_ends(at: int, full: bool) -> None:
    """Whichever call to the journal fails, every call ends with an error; nothing is lost or paid twice."""

    async def story() -> None:
        provider = gateway(durations="constant:20")
        pika = with_journal(client(provider), Full(at, full))
        await pika.__aenter__()
        calls = [asyncio.create_task(pika.generate(one)) for one in requests(4)[2:]]
        batch = asyncio.create_task(pika.run(requests(2)))
        ends = [await outcome(call) for call in (*calls, batch)]
        assert [end for end in ends if not isinstance(end, Video | BatchReport | JournalFailed)] == []
        await pika.aclose()
        assert left() == []
        charged_ids_are_kept(provider, await pika.jobs())
        async with with_journal(pika, healed(pika._journal)):
            assert set((await pika.run(requests(4))).counts) == {S.SUCCEEDED}
        assert set(Counter(charge.prompt for charge in provider.ledger).values()) <= {1}

    virtual_clock.run(story())


def test_a_worker_that_is_cancelled_from_outside_fails_every_call(journal: JournalFactory) -> None:
    """Cancelling a worker from outside ends the scheduler: every waiting call raises, and the task ids are saved."""

    class Slow(MemoryTransport):
        async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
            self.latency = 0.05 if "feed" in request.url else 2.0
            return await super().send(request)

    async def story() -> None:
        at = gateway(durations="constant:60")
        pika = client(at, transport=Slow(at), limits=Limits(max_in_flight=4, submitting=2), journal=journal())
        async with pika:
            calls = [asyncio.create_task(pika.generate(one)) for one in requests(4)]
            await asyncio.sleep(3.0)
            next(task for task in asyncio.all_tasks() if task.get_name() == "pika_async poll 0").cancel()
            for call in calls:
                with pytest.raises(RuntimeError, match="the scheduler failed"):
                    await asyncio.wait_for(call, 60)
            with pytest.raises(RuntimeError, match="the scheduler failed"):
                await pika.generate("another")
        jobs = await pika.jobs()
        charged_ids_are_kept(at, jobs)
        assert len(at.ledger) == 4
        async with pika:
            assert (await pika.resume()).counts == {S.SUCCEEDED: 4}
        assert (left(), len(at.ledger)) == ([], 4)

    virtual_clock.run(story())


def test_another_librarys_event_loop_is_refused_in_a_sentence() -> None:
    """Opening without a loop of asyncio, as under trio, says so; nothing of asyncio is shown."""
    with pytest.raises(WrongEventLoop, match="must be opened in an event loop of asyncio, not of trio") as caught:
        client(gateway()).open().send(None)
    assert caught.value.__suppress_context__
