"""Stories of journals that a later client opens: nothing is lost or paid twice, and every job in doubt is listed."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import pytest

from pika_async import (
    AcceptedElsewhere,
    AccountStopped,
    BatchReport,
    Camera,
    ChargeLimitReached,
    ClientClosed,
    DownloadFailed,
    FixedInterval,
    GenerationRequest,
    InvalidRequest,
    Job,
    JobStatus,
    JournalFailed,
    JournalInUse,
    JournalUnusable,
    Limits,
    PikaClient,
    PikaError,
    SubmissionInDoubt,
    TaskNotFound,
    Video,
)
from pika_async._journal.sqlite import SqliteJournal
from pika_async._journal.write_buffer import WriteOp
from pika_async.emulator import Emulator, Gateway
from pika_async.polling import DurationSample, PollContext, PollingPolicy
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.journals import LoopExecutor, SlowLoopExecutor, write_in_loop_time
from tests.fakes.memory_gateway import MemoryTransport, client, gateway, until
from tests.fakes.only_account import change_account, only
from tests.http.media_files import made

S = JobStatus
ONCE: Final[dict[str, Any]] = {"on": "create", "first": 1}
DROPPED: Final[dict[str, Any]] = {"fault": "drop"}
QUOTA: Final[dict[str, Any]] = {"fault": "refuse", "as": "quota"}
RATE: Final[dict[str, Any]] = {"fault": "refuse", "as": "rate"}
often: Final = FixedInterval(0.5)


@pytest.fixture(autouse=True)
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random.seed(17)
    if "writer_thread" not in request.fixturenames:
        write_in_loop_time(monkeypatch)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "j.db"


@pytest.fixture
def writer_thread() -> None:
    """Let the journal use its own thread and wait for the disk."""


def requests(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"prompt {number}", key=f"key-{number}") for number in range(count)]


CAT: Final = GenerationRequest("a cat", key="cat")


def charges(at: Gateway) -> Counter[str]:
    return Counter(charge.prompt for charge in at.ledger)


def jobs_on_disk(path: Path) -> dict[str, Job]:
    """Return the jobs that another process reads from the file at this moment."""
    return {job.key: job for job in SqliteJournal(path).all()}


async def outcome(work: Coroutine[Any, Any, Any] | asyncio.Task[Any], seconds: float = 600.0) -> Any:
    """Return what *work* returns or raises; it must end within *seconds*."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    assert done, f"{task} does not end"
    return (await asyncio.gather(task, return_exceptions=True))[0]


async def change_record(path: Path, key: str, **changes: Any) -> None:
    """Change the stored record of a job."""
    journal = SqliteJournal(path)
    await journal.open()
    job = journal.get(key)
    assert job is not None
    await journal.save(attrs.evolve(job, **changes))
    await journal.close()


class NoNetwork:
    """Transport through which nothing may be sent."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        raise AssertionError(f"{request.method} {request.url} was sent")


# --- the receipt ----------------------------------------------------------------------------------------------------


def test_the_task_id_is_on_disk_when_submit_returns(path: Path, writer_thread: None) -> None:
    """Another reader of the file finds the task id when `submit` returns, with many simultaneous submissions."""

    async def story() -> None:
        at = gateway()
        limits = Limits(max_in_flight=30)
        async with client(at, journal=path, transport=MemoryTransport(at, latency=0.001), limits=limits) as pika:

            async def one(request: GenerationRequest) -> None:
                job = await pika.submit(request)
                assert jobs_on_disk(path)[job.key].task_id == job.task_id

            await asyncio.gather(*(one(request) for request in requests(30)))
        assert {job.task_id for job in jobs_on_disk(path).values()} == {charge.task_id for charge in at.ledger}
        assert len(at.ledger) == 30

    asyncio.run(story())


@pytest.mark.parametrize("provider", ["cometapi", "yescale", "gptge", "native"])
@pytest.mark.parametrize("call", ["wait", "generate", "submit", "resume", "run", "as_settled"])
def test_a_later_client_on_the_same_file_continues_and_pays_nothing(path: Path, provider: str, call: str) -> None:
    """Whichever call continues an accepted job, it is awaited at the provider that accepted it."""

    async def story() -> None:
        at = gateway(durations="constant:30")
        async with client(at, provider, journal=path, polling=often) as pika:
            accepted = [await pika.submit(request) for request in requests(2)]
        async with client(at, provider, journal=path, polling=often) as pika:
            assert [(job.key, job.task_id) for job in await pika.jobs()] == [(j.key, j.task_id) for j in accepted]
            for job, request in zip(accepted, requests(2), strict=True):
                match call:
                    case "wait":
                        assert (await pika.wait(job)).status is S.SUCCEEDED
                    case "generate":
                        assert (await pika.generate(request)).task_id == job.task_id
                    case "submit":
                        assert (await pika.wait(await pika.submit(request))).task_id == job.task_id
                    case "resume":
                        assert set((await pika.resume()).counts) <= {S.SUCCEEDED}
                    case "run":
                        assert [one.task_id for one in (await pika.run([request])).jobs] == [job.task_id]
                    case _:
                        assert [one.task_id async for one in pika.as_settled([request])] == [job.task_id]
            assert {job.status for job in await pika.jobs()} == {S.SUCCEEDED}
        assert charges(at) == {"prompt 0": 1, "prompt 1": 1}
        assert {seen.path.split("/")[1] for seen in at.requests} == {provider}

    virtual_clock.run(story())


@pytest.mark.parametrize("status", [S.QUEUED, S.TIMED_OUT])
def test_a_job_of_another_base_url_is_neither_polled_nor_paid(path: Path, status: S) -> None:
    """It is listed as accepted elsewhere, `resume` leaves it as it is, and a client of its own URL finishes it."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        deadline = 10.0 if status is S.TIMED_OUT else None
        async with client(at, journal=path, polling=often, deadline=deadline) as pika:
            job = await pika.submit(CAT)
            await asyncio.sleep(20)
        assert jobs_on_disk(path)["cat"].status in {status, S.RUNNING}
        for provider, address in (("cometapi", "http://127.0.0.1:2/cometapi"), ("yescale", pika.base_url)):
            other = PikaClient(provider, base_url=address, journal=path, transport=NoNetwork())
            async with other:
                (report,) = [await other.run([CAT])]
                assert [one.task_id for one in report.jobs] == [job.task_id]
                assert isinstance(report.jobs[0].error, AcceptedElsewhere)
                assert [type(one.error) async for one in other.as_settled([CAT])] == [AcceptedElsewhere]
                assert isinstance((await other.wait(job)).error, AcceptedElsewhere)
                with pytest.raises(AcceptedElsewhere):
                    await other.generate(CAT)
                assert (await other.resume()).jobs == []
                assert [one.task_id for one in await other.jobs()] == [job.task_id]
        async with client(at, journal=path, polling=often) as pika:
            assert (await pika.resume()).counts == {S.SUCCEEDED: 1}
        assert charges(at) == {"a cat": 1}

    virtual_clock.run(story())


def test_a_poll_of_a_job_of_another_base_url_is_refused(path: Path) -> None:
    """`poll` raises AcceptedElsewhere instead of polling a gateway that did not accept the task."""

    async def story() -> None:
        at = gateway()
        async with client(at, journal=path) as pika:
            job = await pika.submit(CAT)
        async with client(at, "yescale", journal=path) as other:
            before = len(at.requests)
            with pytest.raises(AcceptedElsewhere):
                await other.poll(job)
            assert len(at.requests) == before

    virtual_clock.run(story())


@pytest.mark.parametrize("how", ["planned", "withdrawn"])
@pytest.mark.parametrize("call", ["run", "generate"])
def test_an_unsent_job_may_be_sent_by_another_client(path: Path, how: str, call: str) -> None:
    """A planned or withdrawn job is sent by the next client that submits it, whichever provider that uses."""

    async def story() -> None:
        at = gateway([{**ONCE, "do": QUOTA if how == "planned" else {"fault": "takes", "seconds": 50}}])
        async with client(at, journal=path, limits=Limits(max_in_flight=1)) as pika:
            if how == "planned":
                assert isinstance((await pika.run([CAT])).stopped, AccountStopped)
            else:
                await pika.submit("one that takes all the room")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(pika.generate(CAT), 5)
        assert jobs_on_disk(path)["cat"].status is (S.PLANNED if how == "planned" else S.CANCELED)
        async with client(at, "yescale", journal=path) as other:
            if call == "run":
                assert (await other.run([CAT])).counts == {S.SUCCEEDED: 1}
            else:
                assert (await other.generate(CAT)).url
        assert [charge.provider for charge in at.ledger if charge.prompt == "a cat"] == ["yescale"]
        assert (jobs_on_disk(path)["cat"].provider, jobs_on_disk(path)["cat"].error) == ("yescale", None)

    virtual_clock.run(story())


# --- enrolment ------------------------------------------------------------------------------------------------------


class ReadingTransport(MemoryTransport):
    """Transport that reads the journal file whenever a request is sent."""

    def __init__(self, of: Gateway, path: Path) -> None:
        super().__init__(of)
        self.path = path
        self.seen: list[int] = []

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        self.seen.append(len(list(SqliteJournal(self.path).keys())))
        return await super().send(request)


@pytest.mark.parametrize("call", ["run", "as_settled"])
@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_a_list_is_saved_before_any_of_it_is_sent(
    path: Path, call: str, kind: Callable[[Iterable[str]], Iterable[str]]
) -> None:
    """If the process dies, `resume` has the whole list; of a generator only the requests that were pulled."""

    async def story() -> None:
        at = gateway(durations="constant:20")
        transport = ReadingTransport(at, path)
        prompts = [f"prompt {number % 30}" for number in range(40)]
        async with client(at, journal=path, transport=transport, limits=Limits(max_in_flight=2)) as pika:
            if call == "run":
                using = asyncio.create_task(pika.run(kind(prompts)))
                await asyncio.sleep(1)
                using.cancel()
                await outcome(using)
            else:
                settled = pika.as_settled(kind(prompts))
                await anext(settled)
                await settled.aclose()
        assert transport.seen[0] == (40 if kind is not iter else transport.seen[0])
        assert kind is not iter or transport.seen[0] <= 8
        async with client(at, journal=path) as pika:
            report = await pika.resume()
            assert (kind is iter) is (len(report.jobs) < 30)
            assert {job.status for job in await pika.jobs()} == {S.SUCCEEDED}
            assert (await pika.run(prompts)).counts == {S.SUCCEEDED: 40}
        assert charges(at) == Counter(prompts)

    virtual_clock.run(story())


def test_rows_without_keys_are_found_again_in_another_order(path: Path) -> None:
    """Rows are moved, added and removed between two processes, and each content is paid as often as it occurs."""
    lists = [["a", "b", "a"], ["b", "a", "new", "a"], ["a", "a", "a", "b"], ["new"], ["a", "b", "a"]]

    async def story() -> None:
        at = gateway(durations="constant:1")
        wanted: Counter[str] = Counter()
        for prompts in lists:
            async with client(at, journal=path, polling=often) as pika:
                report = await pika.run(prompts)
            assert [job.request.prompt for job in report.jobs] == prompts
            assert len({job.key for job in report.jobs}) == len(prompts)
            wanted |= Counter(prompts)
            assert charges(at) == wanted

    virtual_clock.run(story())


def test_an_unsaved_row_is_reported_under_its_key(path: Path) -> None:
    """After a stop every reported job that is in the journal has its key there, and no content is in it twice."""

    async def story(number: int) -> None:
        journal = FailingJournal(path.with_name(f"{number}.db"))
        async with client(gateway(), journal=journal, limits=Limits(submitting=2)) as pika:
            journal.fail(number)
            report = await pika.run(prompt for prompt in ["a", "a", "b"])
            assert isinstance(report.stopped, JournalFailed)
            known = {job.key: job.request.prompt for job in await pika.jobs()}
        reported = {job.key: job.request.prompt for job in report.jobs}
        assert known.items() <= reported.items()

    for number in range(1, 5):
        virtual_clock.run(story(number))


# --- doubts ---------------------------------------------------------------------------------------------------------


def copied(path: Path, name: str) -> Path:
    """Copy the journal, as a process that dies now would leave it."""
    copy = path.with_name(name)
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    return copy


def test_an_intent_without_a_verdict_is_in_doubt(path: Path) -> None:
    """A process that dies while sending leaves a job in doubt, with the time and the number of its attempt."""

    async def story() -> None:
        at = gateway([{**ONCE, "do": RATE}])
        transport = MemoryTransport(at, latency=4.0)
        async with client(at, journal=path, transport=transport) as pika:
            sending = asyncio.create_task(pika.submit(CAT))
            await until(lambda: len(at.requests) == 2)
            began, copy = datetime.now(UTC), copied(path, "copy.db")
            await sending
        for _ in range(3):
            async with client(at, journal=copy) as later:
                (job,) = await later.jobs(S.UNKNOWN)
                assert isinstance(job.error, SubmissionInDoubt)
                assert (job.error.attempt, job.attempts, job.task_id) == (2, 2, None)
                assert job.error.at is not None
                assert abs(job.error.at - began) < timedelta(seconds=10)
                assert job.submitted_at is not None
                assert abs(job.submitted_at - job.error.at) < timedelta(milliseconds=1)
                assert (await later.resume()).counts == {S.UNKNOWN: 1}
                with pytest.raises(SubmissionInDoubt):
                    await later.generate(CAT)
        assert len(at.ledger) == 1

    virtual_clock.run(story())


def journal_with_a_doubt(path: Path, **options: Any) -> Callable[[], Coroutine[Any, Any, Gateway]]:
    """Write a closed journal with one job in doubt and one that succeeded."""

    async def make() -> Gateway:
        at = gateway([{**ONCE, "do": {"fault": "drop", **options}}], durations="constant:5")
        async with client(at, journal=path, polling=often) as pika:
            assert (await pika.run([CAT])).counts == {S.UNKNOWN: 1}
            assert (await pika.run([GenerationRequest("other", key="other")])).counts == {S.SUCCEEDED: 1}
        return at

    return make


@pytest.mark.parametrize("reopened", [False, True])
@pytest.mark.parametrize("way", ["task_id", "not charged", "abandon"])
def test_a_job_in_doubt_is_resolved_in_three_ways(path: Path, way: str, reopened: bool) -> None:
    """With a task id it is polled, if not charged it is sent, if abandoned neither, also by a later process."""

    async def story() -> None:
        at = await journal_with_a_doubt(path, charge=way != "not charged")()
        pika = client(at, journal=path, polling=often)
        async with pika:
            match way:
                case "task_id":
                    job = await pika.resolve("cat", task_id=f" {at.ledger[0].task_id}\n")
                    assert (job.status, job.task_id) == (S.QUEUED, at.ledger[0].task_id)
                case "not charged":
                    assert (await pika.resolve("cat", charged=False)).status is S.PLANNED
                case _:
                    assert (await pika.resolve("cat", abandon=True)).status is S.CANCELED
            if not reopened:
                await pika.resume()
        async with client(at, journal=path, polling=often) as later:
            await later.resume()
            report = await later.run([CAT])
        expected = S.CANCELED if way == "abandon" else S.SUCCEEDED
        assert (report.counts, charges(at)["a cat"]) == ({expected: 1}, 1)
        assert jobs_on_disk(path)["cat"].attempts == (2 if way == "not charged" else 1)

    virtual_clock.run(story())


@pytest.mark.parametrize(
    "key, resolution",
    [
        ("cat", {}), ("cat", {"charged": True}), ("cat", {"charged": True, "abandon": True}),
        ("cat", {"charged": False, "abandon": True}), ("cat", {"task_id": "t", "abandon": True}),
        ("cat", {"task_id": "t", "charged": False}), ("cat", {"task_id": " "}), ("cat", {"task_id": "another's"}),
        ("other", {"abandon": True}), ("none", {"abandon": True}),
    ],
)  # fmt: skip
def test_an_invalid_resolution_changes_nothing(path: Path, key: str, resolution: dict[str, Any]) -> None:
    """No or two answers, a job that is not in doubt, no job, or the task of another job: `resolve` raises."""

    async def story() -> None:
        at = await journal_with_a_doubt(path)()
        before = repr(jobs_on_disk(path))
        if resolution.get("task_id") == "another's":
            resolution["task_id"] = at.ledger[1].task_id
        async with client(at, journal=path) as pika:
            with pytest.raises(InvalidRequest):
                await pika.resolve(key, **resolution)
        assert repr(jobs_on_disk(path)) == before

    virtual_clock.run(story())


FATES: Final[dict[str, dict[str, Any]]] = {
    "succeeded": {"fault": "takes", "seconds": 1}, "failed": {"fault": "fails"}, "unknown": DROPPED,
    "timed_out": {"fault": "takes", "seconds": 500}, "rejected": {"fault": "refuse", "as": "invalid"},
    "planned": QUOTA,
}  # fmt: skip


@pytest.mark.parametrize("fate", list(FATES))
def test_resubmit_pays_once_more_and_keeps_the_earlier_job(path: Path, fate: str) -> None:
    """Whatever the status of the first job, the next request of its key is one more charge; `resume` continues both."""

    async def story() -> None:
        at = gateway([{**ONCE, "do": FATES[fate]}], durations="constant:5")
        async with client(at, journal=path, polling=often, deadline=100) as pika:
            first = (await pika.run([CAT])).jobs[0]
            assert first.status == fate
            paid = len(at.ledger)
            archived = await outcome(pika.resubmit("cat"))
            if fate != "planned":
                assert isinstance(archived, Job)
                assert (archived.task_id, archived.status) == (first.task_id, first.status)
            await pika.resume()
            assert (await pika.run([CAT])).counts == {S.SUCCEEDED: 1}
        async with client(at, journal=path, polling=often) as later:
            report = await later.resume()
            assert set(report.counts) <= ({S.UNKNOWN} if fate == "unknown" else {S.SUCCEEDED, S.FAILED})
            assert (await later.run([CAT])).counts == {S.SUCCEEDED: 1}
        assert len(at.ledger) == paid + 1
        assert {job.task_id for job in jobs_on_disk(path).values()} >= {first.task_id} - {None}

    virtual_clock.run(story())


# --- charges --------------------------------------------------------------------------------------------------------


def test_the_charge_limit_counts_charges_of_earlier_processes(path: Path) -> None:
    """A job in doubt counts as charged until it is resolved as not charged; then one more may be sent."""

    async def story() -> None:
        at = gateway([{**ONCE, "do": {"fault": "drop", "charge": False}}], durations="constant:2")
        for opening, accepted in ((1, 2), (2, 2), (3, 2)):
            async with client(at, journal=path, polling=often, limits=Limits(max_charges=3)) as pika:
                report = await pika.run(requests(6))
                assert isinstance(report.stopped, ChargeLimitReached), opening
                assert report.counts == {S.UNKNOWN: 1, S.SUCCEEDED: accepted, S.PLANNED: 3}
        async with client(at, journal=path, polling=often, limits=Limits(max_charges=3)) as pika:
            (doubt,) = await pika.jobs(S.UNKNOWN)
            await pika.resolve(doubt.key, charged=False)
            assert (await pika.run(requests(6))).counts == {S.SUCCEEDED: 3, S.PLANNED: 3}
        async with client(at, journal=path, polling=often, limits=Limits(max_charges=6)) as pika:
            assert (await pika.resume()).counts == {S.SUCCEEDED: 3}
        assert set(charges(at).values()) == {1}

    virtual_clock.run(story())


def test_a_resolution_during_a_submission_counts_no_charge_twice(path: Path) -> None:
    """A submission in progress is counted once, so that as many jobs as the limit allows are sent."""

    async def story() -> None:
        at = gateway([{**ONCE, "do": {"fault": "drop", "charge": False}}], durations="constant:2")
        transport = MemoryTransport(at, latency=2.0)
        async with client(at, journal=path, transport=transport, limits=Limits(max_charges=3)) as pika:
            assert (await pika.run([CAT])).counts == {S.UNKNOWN: 1}
            sending = asyncio.create_task(pika.submit("a dog"))
            await asyncio.sleep(1)
            await pika.resolve("cat", charged=False)
            await sending
            assert (await pika.run(requests(3))).counts == {S.SUCCEEDED: 2, S.PLANNED: 1}
        assert len(at.ledger) == 3

    virtual_clock.run(story())


# --- cancelled at any utc_from_timestamp ---------------------------------------------------------------------------------------


async def _interrupted_story(pika: PikaClient) -> None:
    """Run a program that is ended at some instant."""
    async with pika, asyncio.TaskGroup() as group:
        group.create_task(pika.run(requests(4)))
        group.create_task(pika.generate(GenerationRequest("single", key="single")))
        group.create_task(_settled(pika))


async def _settled(pika: PikaClient) -> None:
    async for _ in pika.as_settled(iter(requests(5)[3:])):
        await asyncio.sleep(0.05)


async def _ended(how: str, pika: PikaClient, moment: float) -> None:
    match how:
        case "asyncio.timeout":
            async with asyncio.timeout(moment):
                await _interrupted_story(pika)
        case "cancel scope":
            with anyio.move_on_after(moment):
                await _interrupted_story(pika)
        case "sibling fails":
            async with anyio.create_task_group() as group:
                group.start_soon(_interrupted_story, pika)
                await asyncio.sleep(moment)
                raise ZeroDivisionError
        case "aclose is cancelled":
            using = asyncio.create_task(_interrupted_story(pika))
            await asyncio.sleep(moment)
            closing = asyncio.create_task(pika.aclose())
            await asyncio.sleep(0.01)
            closing.cancel()
            await asyncio.wait({using, closing})
        case _:
            async with pika:
                calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
                    lambda: pika.run(requests(4)), lambda: _settled(pika),
                    lambda: pika.submit(requests(5)[4]), lambda: pika.generate(GenerationRequest("single", key="single")),
                ]  # fmt: skip
                tasks = [asyncio.create_task(call()) for call in calls]
                for number, task in enumerate(tasks):
                    await asyncio.sleep(moment if number == 0 else 0.04)
                    task.cancel()
                await asyncio.wait(tasks)


WAYS: Final = ["asyncio.timeout", "cancel scope", "sibling fails", "aclose is cancelled", "each call"]


@pytest.mark.parametrize("writer", [LoopExecutor, SlowLoopExecutor])
@pytest.mark.parametrize("how", WAYS)
def test_the_journal_is_right_however_the_client_ends(
    path: Path, monkeypatch: pytest.MonkeyPatch, how: str, writer: type[LoopExecutor]
) -> None:
    """At each instant every charge has its id in the file, no job is in doubt, and a later client pays once."""
    write_in_loop_time(monkeypatch, writer)

    async def story(number: int) -> None:
        file = path.with_name(f"{number}.db")
        at = gateway(durations="constant:1")
        pika = client(
            at, journal=file, transport=MemoryTransport(at, latency=0.2), polling=FixedInterval(0.3),
            limits=Limits(max_in_flight=3, submitting=2),
        )  # fmt: skip
        ended = await outcome(_ended(how, pika, 0.003 + 0.1451 * number), 100)
        errors = ended.exceptions if isinstance(ended, BaseExceptionGroup) else [ended]
        assert {type(error) for error in errors} <= {TimeoutError, ZeroDivisionError, ClientClosed, type(None)}
        known = jobs_on_disk(file)
        assert {job.status for job in known.values()} & {S.SUBMITTING, S.UNKNOWN} == set()
        held = {job.task_id for job in known.values()}
        assert {charge.task_id for charge in at.ledger} <= held
        async with client(at, journal=file, polling=often) as later:
            await later.resume()
            report = await later.run([*requests(5), GenerationRequest("single", key="single")])
            assert report.counts == {S.SUCCEEDED: 6}
        assert set(charges(at).values()) == {1}

    for number in range(16):
        virtual_clock.run(story(number))


@pytest.mark.parametrize("number", range(12))
def test_a_loop_that_ends_leaves_only_unanswered_submissions_in_doubt(path: Path, number: int) -> None:
    """If `asyncio.run` ends with an open client, only the jobs that were being sent are in doubt."""
    at = gateway(durations="constant:1")
    transport = MemoryTransport(at, latency=0.2)
    pika = client(at, journal=path, transport=transport, polling=FixedInterval(0.3), limits=Limits(max_in_flight=3))
    sending = 0

    async def leave() -> None:
        nonlocal sending
        using = asyncio.create_task(_interrupted_story(pika))
        await asyncio.sleep(0.003 + 0.0967 * number)
        sending = 0 if pika._session is None else only(pika._session.table.planner).submissions.submitting
        assert not using.done()

    async def later() -> None:
        await pika.aclose()
        known = {job.request.prompt: job for job in jobs_on_disk(path).values()}
        doubts = [job for job in known.values() if job.status is S.UNKNOWN]
        assert len(doubts) <= sending
        for charge in at.ledger:
            assert known[charge.prompt].task_id == charge.task_id or known[charge.prompt].status is S.UNKNOWN
        async with client(at, journal=path, polling=often) as mine:
            await mine.resume()
            report = await mine.run(requests(5))
            assert report.counts[S.SUCCEEDED] >= 5 - len(doubts)
        assert set(charges(at).values()) == {1}

    virtual_clock.run(leave())
    virtual_clock.run(later())


# --- a disk that fails ----------------------------------------------------------------------------------------------


class FailingJournal(SqliteJournal):
    """Journal that commits until a chosen commit, and then fails."""

    left = 10**9
    times = 0

    def fail(self, number: int, times: int = 10**9) -> None:
        """Let the commit *number* from now and those after it fail, *times* times."""
        self.left, self.times = number, times

    def _commit(self, group: list[WriteOp]) -> None:
        self.left -= 1
        if self.left <= 0 < self.times:
            self.times -= 1
            raise sqlite3.OperationalError("database or disk is full")
        super()._commit(group)


@pytest.mark.parametrize("once", [False, True], ids=["for good", "once"])
@pytest.mark.parametrize("refused", [False, True], ids=["", "after a refusal"])
def test_a_failing_write_loses_nothing_and_leaves_no_doubt(path: Path, once: bool, refused: bool) -> None:
    """Nothing is sent without an intent, each id is there after reopening, and every caller gets an error."""

    async def story(number: int) -> None:
        file = path.with_name(f"{number}.db")
        at = gateway([{**ONCE, "do": RATE}] if refused else None, durations="constant:20")
        journal = FailingJournal(file)
        async with client(at, journal=journal, polling=often) as pika:
            journal.fail(number, 1 if once else 10**9)
            singles = [asyncio.create_task(pika.generate(one)) for one in requests(4)[2:]]
            batch = asyncio.create_task(pika.run(requests(2)))
            ends = [await outcome(call) for call in (*singles, batch)]
            assert [end for end in ends if not isinstance(end, Video | BatchReport | JournalFailed)] == []
            assert all(isinstance(end.stopped, JournalFailed | None) for end in ends if isinstance(end, BatchReport))
            assert {charge.task_id for charge in at.ledger} <= {job.task_id for job in await pika.jobs()}
        async with client(at, journal=file, polling=often) as later:
            known = await later.jobs()
            assert {charge.task_id for charge in at.ledger} <= {job.task_id for job in known}
            assert [job for job in known if job.status is S.UNKNOWN] == [], number
            await later.resume()
            assert (await later.run(requests(4))).counts == {S.SUCCEEDED: 4}
        assert set(charges(at).values()) == {1}

    for number in range(1, 12):
        virtual_clock.run(story(number))


@pytest.mark.parametrize("kind", [list, iter])
def test_a_batch_that_a_full_disk_stops_has_a_complete_report(
    path: Path, kind: Callable[[list[GenerationRequest]], Iterable[GenerationRequest]]
) -> None:
    """`run` returns `stopped` and a job for each request, whichever write was the first to fail."""

    async def story(number: int) -> None:
        at = gateway(durations="constant:5")
        journal = FailingJournal(path.with_name(f"{number}.db"))
        async with client(at, journal=journal, polling=often) as pika:
            journal.fail(number)
            report = await pika.run(kind(requests(5)))
            assert isinstance(report.stopped, JournalFailed) or set(report.counts) == {S.SUCCEEDED}
            assert [job.key for job in report.jobs] == [one.key for one in requests(5)]
            assert {job.status for job in report.jobs} <= {S.PLANNED, S.SUCCEEDED}
            journal.times = 0
            assert (await pika.run(requests(5))).counts == {S.SUCCEEDED: 5}
        assert set(charges(at).values()) == {1}

    for number in range(1, 4):
        virtual_clock.run(story(number))


def test_a_task_id_is_kept_if_the_file_cannot_be_read(path: Path) -> None:
    """A received task id is in the fallback file, although reading the journal fails."""

    class Unreadable(SqliteJournal):
        def key_for_task(self, provider: str, base_url: str, task_id: str) -> str | None:
            raise JournalUnusable(setting="journal", reason=f"{self.path} cannot be read: disk I/O error")

    async def story() -> None:
        at = gateway(durations="constant:5")
        with contextlib.suppress(PikaError, RuntimeError):
            async with client(at, journal=Unreadable(path)) as pika:
                await pika.generate(CAT)
        async with client(at, journal=path) as later:
            assert [job.task_id for job in await later.jobs()] == [charge.task_id for charge in at.ledger]

    virtual_clock.run(story())


# --- one owner ------------------------------------------------------------------------------------------------------


def test_a_second_client_on_one_file_is_refused(path: Path) -> None:
    """Also in the same loop; once the first client is closed, the second may open the file."""

    async def story() -> None:
        at = gateway(durations="constant:20")
        first, second = (client(at, journal=path, polling=often) for _ in range(2))
        async with first:
            generating = asyncio.create_task(first.generate(CAT))
            await asyncio.sleep(1)
            for _ in range(3):
                with pytest.raises(JournalInUse):
                    await second.__aenter__()
            assert [job.key for job in await second.jobs()] == ["cat"]
            with pytest.raises(RuntimeError, match="not open"):
                await second.generate(CAT)
            assert (await generating).url
            await first.submit("a dog")
        async with second:
            with pytest.raises(JournalInUse):
                await first.__aenter__()
            assert (await second.resume()).counts == {S.SUCCEEDED: 1}
            assert (await second.generate(CAT)).url
        assert charges(at) == {"a cat": 1, "a dog": 1}

    virtual_clock.run(story())


def test_a_client_may_be_opened_again_in_another_loop(path: Path, writer_thread: None) -> None:
    """A client that is closed and opened in three event loops continues its jobs in one file."""
    at = gateway(durations="constant:0.2")
    pika = client(at, journal=path, transport=MemoryTransport(at, latency=0.001), polling=FixedInterval(0.02))

    async def opened(number: int) -> None:
        at._scenario_run.started = None
        async with pika:
            await pika.submit(requests(3)[number])
            assert len(await pika.jobs()) == number + 1

    for number in range(3):
        asyncio.run(opened(number))
    assert len(jobs_on_disk(path)) == len(at.ledger) == 3


def test_a_cancelled_opening_may_be_repeated_at_once(path: Path, writer_thread: None) -> None:
    """The journal that it was opening is not in use."""

    async def story() -> None:
        at = gateway()
        pika = client(at, journal=path)
        for steps in range(1, 5):
            opening = asyncio.create_task(pika.__aenter__())
            for _ in range(steps):
                await asyncio.sleep(0)
            opening.cancel()
            ended = (await asyncio.gather(opening, return_exceptions=True))[0]
            assert isinstance(ended, asyncio.CancelledError)
            async with pika:
                assert await pika.jobs() == []

    asyncio.run(story())


def test_a_failed_opening_releases_the_file(path: Path) -> None:
    """A record that cannot be read raises and leaves no lock behind."""

    class Odd(SqliteJournal):
        def costs(self) -> Counter[tuple[str, float | None]]:
            raise JournalUnusable(setting="journal", reason=f"{self.path} cannot be read")

    async def story() -> None:
        at = gateway()
        with pytest.raises(JournalUnusable, match="cannot be read"):
            await client(at, journal=Odd(path)).__aenter__()
        async with client(at, journal=path) as pika:
            assert (await pika.generate(CAT)).url

    virtual_clock.run(story())


# --- what was learned -----------------------------------------------------------------------------------------------


def test_the_concurrency_limit_of_an_account_is_saved(path: Path) -> None:
    """It is saved with its probe interval for each account, and the API key is not in the file."""

    async def story() -> None:
        at = gateway(durations="lognormal:30,0.3", in_flight=6)
        async with client(at, journal=path) as pika:
            await pika.run(requests(60))
            learned = only(pika._require_session().table.planner).submissions.concurrency
        assert learned.estimated_limit is not None
        assert 5 <= learned.estimated_limit <= 9
        (name,) = facts(path)
        assert name.startswith("slots cometapi http")
        async with client(at, journal=path) as again:
            slots = only(again._require_session().table.planner).submissions.concurrency
            assert slots.estimated_limit == pytest.approx(learned.estimated_limit, rel=0.1)
            assert slots.probe_interval == pytest.approx(learned.probe_interval, rel=0.5)
        other = client(at, journal=path)
        change_account(other, digest="another")
        async with other:
            assert only(other._require_session().table.planner).submissions.concurrency.estimated_limit is None

    virtual_clock.run(story())


def facts(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM settings WHERE name != 'pika_async.place'")]


class RecordingPolicy(PollingPolicy):
    """Policy that polls every five seconds and records its samples."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []

    def next_delay(self, context: PollContext, u: float) -> float:
        return 5.0

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
        self.seen.append((sample.lower, sample.upper))


def test_a_policy_gets_the_samples_of_earlier_processes_once(path: Path) -> None:
    """It gets them at the first opening of its client, and not again when the client is opened again."""

    async def story() -> None:
        at = gateway(durations="constant:12")
        first, second = RecordingPolicy(), RecordingPolicy()
        pika = client(at, journal=path, polling=first)
        async with pika:
            await pika.run(requests(3))
        assert len(first.seen) == 3
        later = client(at, journal=path, polling=second)
        async with later:
            assert second.seen == first.seen
            await later.run(requests(5))
        for _ in range(2):
            async with later:
                assert len(second.seen) == 5
            async with pika:
                assert len(first.seen) == 3
        assert SqliteJournal(path).samples() != []

    virtual_clock.run(story())


def test_unreadable_samples_leave_nothing_open(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The opening fails as a whole, and the next one succeeds."""

    async def story() -> None:
        at = gateway(durations="constant:0.3")
        async with client(at, journal=path, polling=FixedInterval(0.1)) as pika:
            await pika.run(requests(3))
        policy = RecordingPolicy()
        later = client(at, journal=path, polling=policy)
        with monkeypatch.context() as damaged:
            damaged.setattr("pika_async._journal.queries.select_samples", unreadable)
            with pytest.raises(JournalUnusable, match="damaged"):
                await later.__aenter__()
        assert [task.get_name() for task in asyncio.all_tasks() - {asyncio.current_task()}] == []
        async with client(at, journal=path):
            pass
        async with later:
            assert len(policy.seen) == 3

    def unreadable(_connection: sqlite3.Connection) -> list[DurationSample]:
        raise sqlite3.DatabaseError("the disk image is damaged")

    asyncio.run(story())


@pytest.mark.parametrize("away", [0.0, 10.0, 95.0, 300.0], ids=lambda it: f"away {it:g}s")
@pytest.mark.parametrize("moved", [0, -1, 1], ids=["", "a day back", "a day ahead"])
def test_a_resumed_job_gives_no_wrong_sample(path: Path, away: float, moved: int) -> None:
    """Whatever the clock and the time without polls, the bounds of a sample contain the duration of the task."""

    async def story() -> None:
        at = gateway(durations="constant:400")
        async with client(at, journal=path) as pika:
            accepted_at = asyncio.get_running_loop().time() + 0.025
            job = await pika.submit(CAT)
        await asyncio.sleep(away)
        assert job.submitted_at is not None
        gone = timedelta(seconds=asyncio.get_running_loop().time() - accepted_at)
        await change_record(path, "cat", submitted_at=datetime.now(UTC) - gone - timedelta(days=moved))
        policy = RecordingPolicy()
        async with client(at, journal=path, polling=policy, deadline=600) as later:
            began = asyncio.get_running_loop().time()
            resuming = asyncio.create_task(later.resume())
            await until(lambda: at.requests[-1].method == "GET" or len(at.requests) > 1, 0.01)
            assert asyncio.get_running_loop().time() - began < 1.5
            assert (await resuming).counts == {S.SUCCEEDED: 1}
        for after, before in policy.seen:
            assert after - 1 <= 400 <= before + 1

    virtual_clock.run(story())


def test_a_job_older_than_its_deadline_gives_no_wrong_sample(path: Path) -> None:
    """Its age is limited to a deadline, so no duration is derived from it."""

    async def story() -> None:
        at = gateway(durations="constant:1000")
        async with client(at, journal=path) as pika:
            await pika.submit(CAT)
        await change_record(path, "cat", submitted_at=datetime.now(UTC) - timedelta(seconds=900))
        await asyncio.sleep(900)
        policy = RecordingPolicy()
        async with client(at, journal=path, polling=policy, deadline=300) as later:
            assert (await later.resume()).counts == {S.SUCCEEDED: 1}
        for after, before in policy.seen:
            assert after - 1 <= 1000 <= before + 1

    virtual_clock.run(story())


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_a_resumed_job_has_a_whole_deadline(path: Path, days: int) -> None:
    """A job with a timestamp of a changed clock is polled within seconds and has its whole deadline."""

    async def story() -> None:
        at = gateway(durations="constant:90")
        async with client(at, journal=path) as pika:
            await pika.submit(CAT)
        await change_record(path, "cat", submitted_at=datetime.now(UTC) + timedelta(days=days))
        async with client(at, journal=path, polling=often, deadline=100) as later:
            assert (await later.resume()).counts == {S.SUCCEEDED: 1}
        async with client(at, journal=path) as pika:
            await pika.submit(GenerationRequest("a dog", key="dog"))
        await change_record(path, "dog", submitted_at=datetime.now(UTC) + timedelta(days=days))
        async with client(at, journal=path, polling=often, deadline=50) as later:
            assert (await later.resume()).counts == {S.TIMED_OUT: 1}

    virtual_clock.run(story())


# --- parked ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["resume", "wait", "run", "generate"])
def test_a_job_that_timed_out_is_waited_for_again(path: Path, call: str) -> None:
    """A later process gives it a new deadline each time, and it is never paid again."""

    async def use(pika: PikaClient) -> Job:
        match call:
            case "resume":
                return (await pika.resume()).jobs[0]
            case "wait":
                return await pika.wait((await pika.jobs())[0])
            case "run":
                return (await pika.run([CAT])).jobs[0]
        await outcome(pika.generate(CAT))
        return (await pika.jobs())[0]

    async def story() -> None:
        at = gateway(durations="constant:100")
        async with client(at, journal=path, polling=often, deadline=30) as pika:
            assert (await pika.run([CAT])).counts == {S.TIMED_OUT: 1}
        polls = 0
        for status in (S.TIMED_OUT, S.TIMED_OUT, S.SUCCEEDED):
            async with client(at, journal=path, polling=often, deadline=30) as pika:
                job = await use(pika)
                assert job.status is status
            assert jobs_on_disk(path)["cat"].polls > polls
            polls = jobs_on_disk(path)["cat"].polls
        assert jobs_on_disk(path)["cat"].error is None
        assert charges(at) == {"a cat": 1}

    virtual_clock.run(story())


def test_a_task_that_is_not_found_is_parked_and_polled_later(path: Path) -> None:
    """`TaskNotFound` is saved; a provider that finds the task again settles the job."""

    async def story() -> None:
        at = gateway([{"on": "feed", "between": [0, 2000], "do": "vanish"}], durations="constant:10")
        async with client(at, journal=path) as pika:
            job = await pika.submit(CAT)
            assert isinstance((await pika.wait(job)).error, TaskNotFound)
        (parked,) = jobs_on_disk(path).values()
        assert (parked.status, parked.task_id, type(parked.error)) == (S.TIMED_OUT, job.task_id, TaskNotFound)
        await asyncio.sleep(2000)
        async with client(at, journal=path) as pika:
            assert (await pika.resume()).counts == {S.SUCCEEDED: 1}
        assert charges(at) == {"a cat": 1}

    virtual_clock.run(story())


def test_an_account_that_is_stopped_by_a_poll_parks_its_jobs(path: Path) -> None:
    """HTTP 401 for a poll fails no job: they stay accepted in the file, and a valid key settles them."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        transport = RecordingTransport(at)
        transport.shut = False
        async with client(at, journal=path, polling=often, transport=transport) as pika:
            running = asyncio.create_task(pika.run(requests(8)))
            await asyncio.sleep(10)
            transport.shut = True
            report = await running
            assert isinstance(report.stopped, AccountStopped)
            assert set(report.counts) <= {S.QUEUED, S.RUNNING, S.PLANNED}
        assert {charge.task_id for charge in at.ledger} <= {job.task_id for job in jobs_on_disk(path).values()}
        transport.shut = False
        async with client(at, journal=path, polling=often, transport=transport) as pika:
            assert (await pika.resume()).counts == {S.SUCCEEDED: 8}
        assert set(charges(at).values()) == {1}

    virtual_clock.run(story())


# --- files ----------------------------------------------------------------------------------------------------------


def real_client(emulator: Emulator, path: Path) -> PikaClient:
    return PikaClient(
        "cometapi", api_key=emulator.api_key, base_url=emulator.base_url("cometapi"), journal=path,
        polling=FixedInterval(0.02),
    )  # fmt: skip


@pytest.mark.parametrize("what", ["deleted", "never named", "named", "another content"])
def test_a_file_is_downloaded_again_only_if_it_is_missing(path: Path, tmp_path: Path, what: str) -> None:
    """A missing file is downloaded again, one with the saved hash is not, and another file is not overwritten."""
    folder = tmp_path / "videos"

    async def story() -> None:
        async with Emulator(render=False, durations="constant:0.01") as emulator:
            async with real_client(emulator, path) as pika:
                (job,) = (await pika.run([CAT], download_to=folder)).jobs
                assert job.file == folder / "cat.mp4"
            content = job.file.read_bytes()
            served = len(emulator.cdn_requests)
            if what != "deleted":  # the process ended before it saved that the file is there
                await change_record(path, "cat", file=None)
            if what in {"deleted", "never named"}:
                job.file.unlink()
            if what == "another content":
                job.file.write_bytes(b"somebody's")
            async with real_client(emulator, path) as later:
                (again,) = (await later.resume(download_to=folder)).jobs
            fetched = len(emulator.cdn_requests) - served
            assert charges(emulator.gateway) == {"a cat": 1}
            if what == "another content":
                assert (again.status, again.file, type(again.error)) == (S.SUCCEEDED, None, DownloadFailed)
                assert job.file.read_bytes() == b"somebody's"
            else:
                assert (again.file, again.sha256, again.error) == (job.file, job.sha256, None)
                assert job.file.read_bytes() == content
                assert (fetched > 0) is (what != "named")
                assert jobs_on_disk(path)["cat"] == again

    asyncio.run(story())


def test_a_relative_folder_is_found_again(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`download_to` is relative to the working directory, and a later process elsewhere finds the files."""
    (tmp_path / "journals").mkdir()
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "journals" / "j.db"

    async def story() -> None:
        async with Emulator(render=False, durations="constant:0.01") as emulator:
            async with real_client(emulator, file) as pika:
                assert (await pika.run([CAT], download_to="videos")).ok
            where = jobs_on_disk(file)["cat"].file
            assert where is not None
            assert where.exists()
            served = len(emulator.cdn_requests)
            async with real_client(emulator, file) as later:
                assert (await later.resume(download_to="videos")).jobs == []
                assert (await later.run([CAT], download_to="videos")).ok
            assert len(emulator.cdn_requests) == served

    asyncio.run(story())


# --- what is sent ---------------------------------------------------------------------------------------------------


class RecordingTransport(MemoryTransport):
    """Transport that records every body and sends none while `shut` is true."""

    shut = True

    def __init__(self, of: Gateway) -> None:
        super().__init__(of, latency=0)
        self.bodies: list[bytes | None] = []

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        if request.method == "POST":
            self.bodies.append(request.body)
        if self.shut:
            return HttpResponse(status=402, headers={}, body=b'{"error": {"message": "no balance"}}')
        return await super().send(request)


PICTURE: Final = made("png")


def _requests_of_all_kinds(folder: Path) -> dict[str, GenerationRequest]:
    (folder / "cat.png").write_bytes(PICTURE)
    camera = Camera(pan="left", zoom="in")
    return {
        "plain": GenerationRequest("Katze \u00fc \U0001f408", key="k", negative_prompt="dog", seed=2**63 - 1, motion=0),
        "bytes": GenerationRequest("a cat", key="k", image=PICTURE, metadata={"row": [1, {"of": None}]}),
        "path": GenerationRequest("a cat", key="k", image=folder / "cat.png"),
        "text path": GenerationRequest("a cat", key="k", image=str(folder / "cat.png")),
        "camera": GenerationRequest("a cat", key="k", camera=camera, guidance_scale=7, frame_rate=24, metadata={}),
        "ratio": GenerationRequest("a cat", key="k", aspect_ratio=1.5, effect="inflate", model="1.5"),
        "number": GenerationRequest("a cat", key="k", aspect_ratio=1),
    }


@pytest.mark.parametrize("name", ["plain", "bytes", "path", "text path", "camera", "ratio", "number"])
def test_a_resumed_request_has_the_same_body(path: Path, tmp_path: Path, name: str) -> None:
    """The body that a later process sends is byte for byte the one of the first process."""

    async def story() -> None:
        at = gateway(durations="constant:0.01")
        request = _requests_of_all_kinds(tmp_path)[name]
        transport = RecordingTransport(at)
        for _ in range(2):
            async with client(at, "native", journal=path, transport=transport) as pika:
                assert isinstance((await pika.run([request])).stopped, AccountStopped)
        (job,) = jobs_on_disk(path).values()
        assert job.request == request
        transport.shut = False
        async with client(at, "native", journal=path, transport=transport, polling=FixedInterval(0.02)) as pika:
            assert (await pika.resume()).counts == {S.SUCCEEDED: 1}
        assert len(set(transport.bodies)) == 1
        assert len(transport.bodies) == 3
        assert [charge.raw_body for charge in at.ledger] == transport.bodies[:1]

    asyncio.run(story())  # files are read in threads


def test_a_missing_image_is_a_rejection_and_costs_nothing(path: Path, tmp_path: Path) -> None:
    """`resume` names the file, pays nothing for its job, and continues the others."""

    async def story() -> None:
        at = gateway(durations="constant:0.01")
        transport = RecordingTransport(at)
        batch = [GenerationRequest("gone", key="gone", image=tmp_path / "cat.png"), GenerationRequest("dog", key="dog")]
        _requests_of_all_kinds(tmp_path)
        async with client(at, "native", journal=path, transport=transport, limits=Limits(submitting=1)) as pika:
            await pika.run(batch)
        assert len(transport.bodies) == 1
        (tmp_path / "cat.png").unlink()
        transport.shut = False
        async with client(at, "native", journal=path, transport=transport, polling=FixedInterval(0.02)) as pika:
            assert (await pika.resume()).counts == {S.REJECTED: 1, S.SUCCEEDED: 1}
        gone = jobs_on_disk(path)["gone"]
        assert (gone.status, type(gone.error), gone.attempts) == (S.REJECTED, InvalidRequest, 1)
        assert str(tmp_path / "cat.png") in str(gone.error)
        assert charges(at) == {"dog": 1}

    asyncio.run(story())


# --- many -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, iter])
def test_hundreds_of_requests_need_few_commits(path: Path, kind: Callable[[list[str]], Iterable[str]]) -> None:
    """A list is planned in two commits; each job is read and written a few times, however many there are."""

    async def story() -> None:
        at = gateway(durations="constant:5")
        prompts = [f"prompt {number % 300}" for number in range(400)]
        statements: list[str] = []
        async with client(at, journal=path, polling=often, limits=Limits(max_in_flight=400)) as pika:
            pika._journal._write_connection.set_trace_callback(statements.append)  # type: ignore[attr-defined]
            assert (await pika.run(kind(prompts))).counts == {S.SUCCEEDED: 400}
            pika._journal._write_connection.set_trace_callback(None)  # type: ignore[attr-defined]
        assert len(at.ledger) == 400
        assert len(list(groupby(statements))) < 20 * 400  # the trace repeats a statement for those of its triggers
        async with client(at, journal=path, polling=often) as later:
            assert (await later.run(prompts[::-1])).counts == {S.SUCCEEDED: 400}
        assert len(at.ledger) == 400

    virtual_clock.run(story())


async def _prompts(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"prompt {number}"


def test_an_endless_source_is_pulled_as_capacity_allows(path: Path) -> None:
    """Few requests are planned and unsent when the process ends."""

    async def story() -> None:
        at = gateway(durations="constant:30")
        async with client(at, journal=path, limits=Limits(max_in_flight=5, submitting=3)) as pika:
            settled = pika.as_settled(_prompts(10**6))
            await anext(settled)
            await settled.aclose()
        known = Counter(job.status for job in jobs_on_disk(path).values())
        assert known[S.PLANNED] <= 3
        assert known[S.SUCCEEDED] + known[S.QUEUED] + known[S.RUNNING] == len(at.ledger)

    virtual_clock.run(story())


def test_a_bad_request_with_the_key_of_a_planned_job_does_not_change_it(path: Path) -> None:
    """A request with other content is refused for its key first; the planned job is sent later."""

    async def story() -> None:
        at = gateway([{**ONCE, "do": QUOTA}], durations="constant:5")
        async with client(at, journal=path, polling=often) as pika:
            assert (await pika.run([CAT])).counts == {S.PLANNED: 1}
            with pytest.raises(InvalidRequest, match="another content"):
                await pika.run([attrs.evolve(CAT, image="nowhere.png")])
            assert jobs_on_disk(path)["cat"].status is S.PLANNED
            assert (await pika.run([CAT])).counts == {S.SUCCEEDED: 1}

    virtual_clock.run(story())
