"""With many known jobs: no operation holds the event loop longer than with few, however it is called."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final, cast

import attrs
import pytest

from pika_async import (
    BatchReport,
    FixedInterval,
    GenerationRequest,
    Job,
    JobStatus,
    Limits,
    PikaClient,
    SubmissionsStopped,
    Video,
)
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Journal
from pika_async._journal.sqlite import SqliteJournal
from pika_async._runtime import pacing
from pika_async.errors import InvalidRequest, SubmissionInDoubt
from pika_async.jobs import utc_from_timestamp
from pika_async.models import Snapshot, TaskState
from pika_async.polling import DurationSample
from pika_async.providers._wire import HttpRequest, HttpResponse
from tests.fakes import virtual_clock
from tests.fakes.container_meter import ContainerMeter
from tests.fakes.work_meter import WorkMeter

pytestmark = pytest.mark.anyio

S = JobStatus
FEW: Final = 40
MANY: Final = 120
BASE_URL: Final = "http://127.0.0.1:1"


class FinishedTransport:
    """Transport to a gateway on which every task has finished."""

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, request: HttpRequest) -> HttpResponse:
        await asyncio.sleep(0)
        task_id = request.url.rpartition("/")[2]
        video = {"id": task_id, "status": "finished", "resultUrl": f"{BASE_URL}/{task_id}.mp4", "progress": 100}
        body = json.dumps({"id": task_id, "promptText": "", "videos": [video]}).encode()
        return HttpResponse(status=200, headers={"content-type": "application/json"}, body=body)


def prompts(count: int) -> list[str]:
    return [f"prompt {number}" for number in range(count)]


def known_job(number: int, prompt: str) -> Job:
    """Return a job of a batch of prompts: in turn succeeded and in doubt, and one accepted."""
    request = GenerationRequest(prompt)
    key = f"{number + 1:05d}-{request.fingerprint()[:8]}"
    job = Job(key=key, request=request, provider="native", base_url=BASE_URL, index=number).submitting()
    if number == 1:
        return job.accepted(f"task-{number}", 1_700_000_000)
    if number % 2:
        return job.in_doubt(
            SubmissionInDoubt(key=key, provider="native", reason="no answer"), utc_from_timestamp(1_700_000_000)
        )
    video = Video(url=f"{BASE_URL}/{key}.mp4", task_id=f"task-{number}")
    accepted = job.accepted(f"task-{number}", 1_700_000_000)
    snapshot = Snapshot(task_id=f"task-{number}", state=TaskState.SUCCEEDED, video=video)
    return accepted.with_snapshot(snapshot, 1_700_000_060)


async def filled(journal: Journal, count: int) -> Journal:
    await journal.open()
    await journal.save(*(known_job(number, prompt) for number, prompt in enumerate(prompts(count))))
    await journal.close()
    return journal


def client(journal: Journal, max_charges: int | None = None) -> PikaClient:
    return PikaClient(
        "native", api_key="none", base_url=BASE_URL, journal=journal, transport=FinishedTransport(),
        limits=Limits(submitting=2, polling=2, max_charges=max_charges), polling=FixedInterval(600),
    )  # fmt: skip


async def list_jobs(pika: PikaClient, count: int) -> None:
    assert len([job async for job in pika.jobs()]) == count


async def list_jobs_at_once(pika: PikaClient, count: int) -> None:
    assert len(await pika.jobs()) == count


async def list_doubts(pika: PikaClient, count: int) -> None:
    found = [job.status async for job in pika.jobs("unknown")]
    assert found == [S.UNKNOWN] * (count // 2 - 1)


async def find_no_failure(pika: PikaClient, _: int) -> None:
    assert [job async for job in pika.jobs("failed")] == []


async def read_events(pika: PikaClient, count: int) -> None:
    async with aclosing(pika.events(after=0)) as events:
        for _ in range(count):
            await anext(events)


async def run_known(pika: PikaClient, count: int) -> None:
    report = await pika.run(prompts(count))
    assert [job.index for job in report.jobs] == list(range(count))


async def estimate_known(pika: PikaClient, count: int) -> None:
    estimate = await pika.estimate(prompts(count))
    assert (estimate.known, estimate.new_charges) == (count, 0)


async def estimate_new(pika: PikaClient, count: int) -> None:
    assert (await pika.estimate([f"new {number}" for number in range(count)])).new_charges == count


async def run_known_iterated(pika: PikaClient, count: int) -> None:
    report = await pika.run(iter(prompts(count)))
    assert sum(report.counts.values()) == count


async def settle_known(pika: PikaClient, count: int) -> None:
    assert len([job async for job in pika.as_settled(prompts(count))]) == count


async def settle_one(pika: PikaClient, _: int) -> None:
    assert [job.index async for job in pika.as_settled(["prompt 0"])] == [0]


async def resume(pika: PikaClient, count: int) -> None:
    report = await pika.resume()
    assert report.counts == {S.UNKNOWN: count // 2 - 1, S.SUCCEEDED: 1}


async def read_stats(pika: PikaClient, count: int) -> None:
    assert pika.stats().charges == count


async def run_wrong_items(pika: PikaClient, count: int) -> None:
    with pytest.raises(InvalidRequest):
        await pika.run(cast("list[str]", iter(range(count))))


async def run_refused(pika: PikaClient, count: int) -> None:
    report = await pika.run(GenerationRequest(f"new {number}", model="of, another, make") for number in range(count))
    assert report.counts == {S.REJECTED: count}


OPERATIONS: Final[list[Callable[[PikaClient, int], Awaitable[None]]]] = [
    list_jobs,
    list_jobs_at_once,
    list_doubts,
    find_no_failure,
    read_events,
    run_known,
    run_known_iterated,
    settle_known,
    estimate_known,
    estimate_new,
    settle_one,
    resume,
    read_stats,
    run_wrong_items,
    run_refused,
]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every page and every turn small, so that few jobs fill several of them."""
    for name in (
        "pika_async._journal.queries.PAGE_KEYS",
        "pika_async._journal.queries.ROWS_AT_ONCE",
        "pika_async._journal.protocol.MAX_CHANGES",
        "pika_async._journal.queries.MAX_CHANGES",
        "pika_async._journal.memory.MAX_CHANGES",
        "pika_async._runtime.admission.ENROLLED_AT_ONCE",
        "pika_async._runtime.batch.MAX_UNDELIVERED",
        "pika_async._runtime.pacing.ITEMS_PER_TURN",
    ):
        monkeypatch.setattr(name, 4)


@pytest.fixture(params=["in memory", "on disk"])
def new_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Journal]:
    return lambda name: MemoryJournal() if request.param == "in memory" else SqliteJournal(tmp_path / f"{name}.db")


async def works(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[int], Awaitable[PikaClient]],
    act: Callable[[PikaClient, int], Awaitable[None]],
) -> tuple[WorkMeter, WorkMeter]:
    """Return what `act` took at most between two turns, with few jobs and with many."""
    meters = []
    for count in (FEW, MANY):
        meter = WorkMeter()
        with monkeypatch.context() as patch:
            meter.watch_reads(patch)
            pika = await make(count)
            async with meter.measure():
                await act(pika, count)
        await pika.aclose()
        meters.append(meter)
    return meters[0], meters[1]


def assert_no_growth(few: WorkMeter, many: WorkMeter) -> None:
    assert many.calls <= 2 * few.calls + 100, (few, many)
    assert many.instructions <= 1.6 * few.instructions + 20, (few, many)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
async def test_no_operation_holds_the_loop_longer_with_more_jobs(
    operation: Callable[[PikaClient, int], Awaitable[None]],
    new_journal: Callable[[str], Journal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between two turns of the loop an operation does no more work with three times the jobs in the journal."""

    async def opened(count: int) -> PikaClient:
        return await client(await filled(new_journal(str(count)), count)).open()

    assert_no_growth(*await works(monkeypatch, opened, operation))


async def test_opening_does_not_read_the_jobs(
    new_journal: Callable[[str], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening and the state of a client that is not open take the same work for any number of jobs."""

    async def closed(count: int) -> PikaClient:
        return client(await filled(new_journal(str(count)), count))

    async def read_and_open(pika: PikaClient, count: int) -> None:
        assert pika.stats().unknown == count // 2 - 1
        await pika.open()

    assert_no_growth(*await works(monkeypatch, closed, read_and_open))


async def test_planning_and_reporting_a_new_batch_take_turns(
    new_journal: Callable[[str], Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of which nothing may be sent is planned and reported without holding the loop."""

    async def at_its_limit(count: int) -> PikaClient:
        return await client(await filled(new_journal(str(count)), 20), max_charges=1).open()

    assert_no_growth(*await works(monkeypatch, at_its_limit, run_new))


async def run_new(pika: PikaClient, count: int) -> None:
    report = await pika.run([f"new {number}" for number in range(count)])
    assert report.counts == {S.PLANNED: count}


@pytest.mark.parametrize(
    "operation", [list_jobs_at_once, run_known, run_known_iterated, resume, run_new], ids=lambda it: it.__name__
)
async def test_no_operation_keeps_objects_that_a_collection_of_garbage_traverses(
    operation: Callable[[PikaClient, int], Awaitable[None]], tmp_path: Path
) -> None:
    """Jobs that are known, returned or not sent are kept as bytes: three times as many add hardly any object."""
    meters = []
    for count in (FEW, MANY):
        journal = await filled(SqliteJournal(tmp_path / f"{count}.db"), count)
        async with client(journal, max_charges=1) as pika:
            meters.append(ContainerMeter())
            async with meters[-1].measure():
                await operation(pika, count)
    few, many = meters
    assert many.objects - few.objects < (MANY - FEW) / 4, (few, many)


class HangingTransport:
    """Transport to a gateway that answers nothing until it refuses the key."""

    def __init__(self) -> None:
        self.refused = asyncio.Event()

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, request: HttpRequest) -> HttpResponse:
        await self.refused.wait()
        body = json.dumps({"error": {"message": "invalid api key"}}).encode()
        return HttpResponse(status=401, headers={"content-type": "application/json"}, body=body)


async def refuse(pika: PikaClient, transport: HangingTransport) -> None:
    transport.refused.set()


async def close(pika: PikaClient, _: HangingTransport) -> None:
    await pika.aclose()


async def drain(pika: PikaClient, _: HangingTransport) -> None:
    await pika.aclose(drain=0.01)


@pytest.mark.parametrize("end", [refuse, close, drain], ids=lambda it: it.__name__)
async def test_a_stop_parks_jobs_in_pieces(
    end: Callable[[PikaClient, HangingTransport], Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused key and closing end hundreds of accepted and queued jobs, a few between two turns."""
    meters = []
    for run, count in enumerate((FEW, FEW, MANY)):  # what is made once, in the first run, counts for nothing
        journal = SqliteJournal(tmp_path / f"{run}.db")
        await journal.open()
        jobs = [known_job(1, prompt) for prompt in prompts(count)]
        await journal.save(*(attrs.evolve(it, key=f"k{n}", task_id=f"task-{n}") for n, it in enumerate(jobs)))
        await journal.close()
        transport = HangingTransport()
        pika = PikaClient(
            "native", api_key="none", base_url=BASE_URL, journal=journal, transport=transport, polling=FixedInterval(600),
            limits=Limits(submitting=1, polling=1, grace=0.01),
        )  # fmt: skip
        await pika.open()
        resumed = asyncio.create_task(pika.resume())
        singles = [asyncio.create_task(pika.submit(f"new {number}")) for number in range(count)]
        ended = asyncio.gather(resumed, *singles, return_exceptions=True)
        while len(pika.active_jobs()) < 2 * count or pika.stats().polling < 1:
            await asyncio.sleep(0.01)
        # Submissions whose planned jobs share a commit wake together, which is not the work of the end.
        await journal.set_setting("written after all of them", {})
        meters.append(WorkMeter())
        async with meters[-1].measure():
            await end(pika, transport)
            ends = await ended
        await pika.aclose()
        assert all(isinstance(one, BatchReport | SubmissionsStopped | SubmissionInDoubt) for one in ends), ends
        assert len(await pika.jobs("queued")) == count
        assert len(await pika.jobs("planned")) >= count - 1
    assert_no_growth(*meters[1:])


async def test_the_rest_of_a_stopped_batch_is_read_in_pieces(new_journal: Callable[[str], Journal]) -> None:
    """Once nothing more may be sent, a few requests are read between two turns of other tasks, of any iterable."""
    in_turn = most = 0

    async def take_turns() -> None:
        nonlocal in_turn
        while True:
            in_turn = 0
            await asyncio.sleep(0)

    def requests() -> Iterator[str]:
        nonlocal in_turn, most
        for number in range(FEW):
            in_turn += 1
            most = max(most, in_turn)
            yield f"new {number}"

    async with client(new_journal("j"), max_charges=1) as pika:
        await pika.submit("the only charge")
        turns = asyncio.create_task(take_turns())
        report = await pika.run(requests())
        turns.cancel()
    assert report.counts == {S.PLANNED: FEW}
    assert most <= pacing.ITEMS_PER_TURN


async def test_the_durations_of_many_strata_are_learned_in_pieces(tmp_path: Path) -> None:
    """Opening passes the samples of the journal to the policy, a few between two turns."""
    in_turn = most = 0

    class CountingPolicy(FixedInterval):
        def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
            nonlocal in_turn, most
            in_turn += 1
            most = max(most, in_turn)

    async def take_turns() -> None:
        nonlocal in_turn
        while True:
            in_turn = 0
            await asyncio.sleep(0)

    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    for number in range(FEW):
        journal.add_sample(DurationSample(f"stratum {number}", 10.0, 12.0, accepted_at=1_700_000_000.0 + number))
    await journal.close()
    turns = asyncio.create_task(take_turns())
    async with PikaClient("native", api_key="none", base_url=BASE_URL, journal=journal, polling=CountingPolicy(600)):
        turns.cancel()
    assert 0 < most <= pacing.ITEMS_PER_TURN


def test_an_item_that_takes_long_is_followed_by_a_turn() -> None:
    """Work whose items are large gives a turn after each item, however few there were."""

    async def handle_five() -> int:
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(count_turns())
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_clock.VirtualLoop)
        pace = pacing.Pace()
        for _ in range(5):
            loop.selector.now += 2 * pacing.SECONDS_PER_TURN
            await pace.step()
        task.cancel()
        return turns

    assert virtual_clock.run(handle_five()) == 5
