"""Stories of one client in many tasks and with third-party code: no task is affected by what happens to another."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
import pytest

from pika_async import (
    AccountStopped,
    DownloadFailed,
    ExchangeFailed,
    FixedInterval,
    GenerationRequest,
    InvalidRequest,
    Job,
    JobStatus,
    Limits,
    PikaClient,
    Video,
    find_provider,
)
from pika_async._journal.protocol import Journal
from pika_async._runtime.results import ResultDownloader
from pika_async.emulator import Emulator, Gateway
from pika_async.providers import Provider
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.journals import JOURNAL_KINDS, journal_factory
from tests.fakes.memory_gateway import MemoryTransport, SlowJournal, client, gateway, until, with_journal
from tests.fakes.only_account import change_account, only
from tests.http.media_files import made

S = JobStatus
QUOTA: Final[dict[str, Any]] = {"fault": "refuse", "as": "quota"}


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    random.seed(13)


@pytest.fixture(params=JOURNAL_KINDS)
def journal(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    return journal_factory(request.param, tmp_path, monkeypatch)()


def requests(name: str, count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"{name} {number}", key=f"{name}-{number}") for number in range(count)]


def charges(at: Gateway) -> Counter[str]:
    return Counter(charge.prompt for charge in at.ledger)


def idle(pika: PikaClient) -> bool:
    """Whether the client holds no job and every counter of its planner is 0."""
    assert pika._session is not None
    table = pika._session.table
    planner = table.planner
    counts = (only(planner).submissions.submitting, only(planner).in_flight, only(planner).polling)
    return counts == (0, 0, 0) and not (only(planner).submissions.queue or list(only(planner).poll_queue) or table.jobs)


async def outcome(task: asyncio.Future[Any]) -> Any:
    return (await asyncio.gather(task, return_exceptions=True))[0]


CAT: Final = GenerationRequest("a cat", key="order-17")


# --- one key, many tasks --------------------------------------------------------------------------------------------


def test_a_key_that_many_tasks_submit_at_once_is_paid_once(journal: Journal) -> None:
    """Simultaneous submissions, waits and batches of one key all get the same task."""

    async def story() -> None:
        at = gateway(durations="constant:10")
        async with client(at, journal=journal) as pika:
            jobs = await asyncio.gather(*(pika.submit(CAT) for _ in range(5)))
            videos = await asyncio.gather(*(pika.generate(CAT) for _ in range(5)))
            report = await pika.run([CAT] * 4)
            assert {job.task_id for job in jobs} == {at.ledger[0].task_id}
            assert {video.task_id for video in videos} == {at.ledger[0].task_id}
            assert (len(report.jobs), report.counts) == (4, {S.SUCCEEDED: 4})
            assert idle(pika)
        assert charges(at) == {"a cat": 1}

    virtual_clock.run(story())


def test_a_local_image_that_many_tasks_submit_under_one_key_is_paid_once(tmp_path: Path) -> None:
    """A request that is submitted again while its file is being checked is the same job."""

    async def story() -> None:
        image = tmp_path / "cat.png"
        image.write_bytes(made("png"))
        at = gateway(durations="constant:0.1")
        async with client(at, "native", polling=FixedInterval(0.05), transport=MemoryTransport(at, latency=0)) as pika:
            request = GenerationRequest("a cat", image=str(image), key="k")
            jobs = await asyncio.gather(*(pika.submit(request) for _ in range(5)))
            assert {job.task_id for job in jobs} == {at.ledger[0].task_id}
            assert (await pika.run([request] * 3)).counts == {S.SUCCEEDED: 3}
        assert len(at.ledger) == 1

    asyncio.run(story())  # a file is read in a thread


def test_simultaneous_batches_of_equal_requests_pay_once(journal: Journal) -> None:
    """Ten batches of the same twenty requests have twenty charges and ten complete reports."""

    async def story() -> None:
        at = gateway(durations="lognormal:30,0.5")
        async with client(at, limits=Limits(max_in_flight=7), journal=journal) as pika:
            reports = await asyncio.gather(*(pika.run(requests("same", 20)) for _ in range(10)))
            assert [report.counts for report in reports] == [{S.SUCCEEDED: 20}] * 10
            assert idle(pika)
        assert charges(at) == {request.prompt: 1 for request in requests("same", 20)}

    virtual_clock.run(story())


@pytest.mark.parametrize("after", [0.0, 0.005, 0.5, 40.0, 40.07], ids=str)
def test_cancelling_one_task_does_not_cancel_a_shared_job(journal: Journal, after: float) -> None:
    """Whenever the first of three tasks with one key is cancelled, the others get the result, for one charge."""

    async def story() -> None:
        at = gateway(durations="constant:39.9")
        async with client(at, limits=Limits(max_in_flight=1), journal=journal) as pika:
            await pika.submit("one that takes all capacity")
            first = asyncio.create_task(pika.generate(CAT))
            await asyncio.sleep(0)
            second = asyncio.create_task(pika.generate(CAT))
            batch = asyncio.create_task(pika.run([CAT]))
            await asyncio.sleep(after)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert isinstance(await second, Video)
            assert (await batch).counts == {S.SUCCEEDED: 1}
            assert idle(pika)
        assert charges(at)["a cat"] == 1

    virtual_clock.run(story())


def test_a_request_repeated_during_its_withdrawal_is_a_new_job(journal: Journal) -> None:
    """A cancelled request whose withdrawal is still being written does not cancel a later equal one."""

    async def story() -> None:
        at = gateway(durations="constant:30")
        async with client(at, limits=Limits(max_in_flight=1), journal=journal) as pika:
            await pika.submit("one that takes all capacity")
            first = asyncio.create_task(pika.generate(CAT))
            await asyncio.sleep(0.1)
            first.cancel()
            await asyncio.sleep(0.005)
            assert (await pika.generate(CAT)).url
            assert first.cancelled()
            assert idle(pika)
        assert charges(at)["a cat"] == 1

    virtual_clock.run(story())


def test_a_withdrawn_request_may_be_submitted_again(journal: Journal) -> None:
    """After HTTP 429 and a cancellation nothing was accepted, so a request with the same key is sent."""

    async def story() -> None:
        at = gateway([{"on": "create", "first": 1, "do": {"fault": "refuse", "as": "rate"}}])
        async with client(at, journal=journal) as pika:
            first = asyncio.create_task(pika.generate(CAT))
            await asyncio.sleep(0.2)
            first.cancel()
            await asyncio.wait({first})
            (job,) = await pika.jobs()
            assert (job.status, job.attempts) == (S.CANCELED, 1)
            assert (await pika.generate(CAT)).url
        assert charges(at) == {"a cat": 1}

    virtual_clock.run(story())


def test_a_request_that_is_cancelled_while_it_is_being_saved_is_not_resumed() -> None:
    """`resume` does not pay for a request that was cancelled between its commit and the return of `save`."""

    class CommitsEarly(SlowJournal):
        async def save(self, *jobs: Job, linger: bool = False) -> None:
            self._jobs.update({job.key: job for job in jobs})
            await super().save(*jobs)

    async def story() -> None:
        at = gateway()
        async with with_journal(client(at), CommitsEarly(1.0)) as pika:
            generating = asyncio.create_task(pika.generate("a cat"))
            await asyncio.sleep(0.5)
            generating.cancel()
            await asyncio.wait({generating})
            assert [job.status for job in await pika.jobs()] == [S.CANCELED]
            assert (await pika.resume()).jobs == []
        assert len(at.ledger) == 0

    virtual_clock.run(story())


def test_an_accepted_job_that_is_submitted_after_reopening_returns_at_once(journal: Journal) -> None:
    """After the client is opened again, `submit` returns an accepted job without waiting for a poll."""

    async def story() -> None:
        at = gateway(durations="constant:1000")
        pika = client(at, journal=journal)
        async with pika:
            job = await pika.submit(CAT)
            await asyncio.sleep(30)
        async with pika:
            started_at = asyncio.get_running_loop().time()
            again = [await pika.submit(CAT), await pika.submit(CAT)]
            assert {one.task_id for one in again} == {job.task_id}
            assert asyncio.get_running_loop().time() - started_at < 1
        assert len(at.ledger) == 1

    virtual_clock.run(story())


# --- batches that are left ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["break", "timeout"])
def test_a_batch_that_was_left_sends_nothing_more(how: str, journal: Journal) -> None:
    """Requests that were not sent when the consumer left the batch are never sent."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, limits=Limits(max_in_flight=5), journal=journal) as pika:
            if how == "break":
                settled = pika.as_settled(f"prompt {number}" for number in range(1000))
                await anext(settled)
                await settled.aclose()
            else:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(pika.run(f"prompt {number}" for number in range(1000)), 70)
            before = len(at.ledger)
            await asyncio.sleep(1000)
            assert len(at.ledger) == before
            assert idle(pika)

    virtual_clock.run(story())


def test_a_request_that_is_saved_while_its_batch_is_left_is_not_sent() -> None:
    """A request whose `save` returns after the consumer left is not sent either."""

    class Blocking(SlowJournal):
        written: asyncio.Future[None] | None = None

        async def save(self, *jobs: Job, linger: bool = False) -> None:
            await super().save(*jobs)
            if any(job.status is S.PLANNED and job.key == "left-2" for job in jobs):
                self.written = asyncio.get_running_loop().create_future()
                await self.written

    async def story() -> None:
        at = gateway()
        journal = Blocking(0.0)
        async with with_journal(client(at), journal) as pika:
            running = asyncio.create_task(pika.run(requests("left", 5)))
            await until(lambda: journal.written is not None)
            await asyncio.sleep(1)
            running.cancel()
            assert journal.written is not None
            journal.written.set_result(None)
            await asyncio.wait({running})
            await asyncio.sleep(300)
            assert charges(at) == {"left 0": 1, "left 1": 1}
            assert idle(pika)

    virtual_clock.run(story())


# --- third-party iterables ------------------------------------------------------------------------------------------


async def _only_its_own_batch_fails(pika: PikaClient, source: Any, error: type[Exception]) -> None:
    single = asyncio.create_task(pika.generate("single"))
    other = asyncio.create_task(pika.run(requests("other", 3)))
    await asyncio.sleep(1)
    with pytest.raises(error):
        await asyncio.wait_for(pika.run(source), 600)
    assert isinstance(await asyncio.wait_for(single, 600), Video)
    assert (await asyncio.wait_for(other, 600)).counts == {S.SUCCEEDED: 3}
    assert (await pika.generate("the next")).url
    assert idle(pika)


@pytest.mark.parametrize("kind", ["a cancelled task", "a bare CancelledError", "a synchronous one", "a bad row"])
def test_an_error_of_an_iterable_is_raised_by_its_own_batch(kind: str, journal: Journal) -> None:
    """Also a `CancelledError` of the iterable itself is an error of its batch, and other tasks are not cancelled."""

    async def rows() -> AsyncIterator[str]:
        yield "row 0"
        yield "row 1"
        if kind == "a cancelled task":
            producer = asyncio.create_task(asyncio.sleep(100))
            await asyncio.sleep(3)
            producer.cancel()
            await producer
        if kind == "a bad row":
            raise ValueError("row 2 is bad")
        raise asyncio.CancelledError

    def sync_rows() -> Iterator[str]:
        yield "row 0"
        yield "row 1"
        raise asyncio.CancelledError

    async def story() -> None:
        at = gateway()
        transport, limits = MemoryTransport(at, latency=2.0), Limits(max_in_flight=50)
        async with client(at, transport=transport, limits=limits, journal=journal) as pika:
            source = sync_rows() if kind == "a synchronous one" else rows()
            await _only_its_own_batch_fails(pika, source, ValueError if kind == "a bad row" else RuntimeError)
        assert set(charges(at).values()) == {1}
        assert len(at.ledger) == 2 + 2 + 3

    virtual_clock.run(story())


# --- stops ----------------------------------------------------------------------------------------------------------


def test_a_stopped_batch_has_its_stop_even_if_another_call_submits_again() -> None:
    """The report of a batch that a stopped account has ended keeps `stopped` after another call has succeeded."""

    async def story() -> None:
        at = gateway([{"on": "create", "prompt": "batch", "do": QUOTA}])
        async with client(at, limits=Limits(max_in_flight=50)) as pika:

            async def rows() -> AsyncIterator[str]:
                yield "one that takes long"
                for number in range(100):
                    yield f"batch {number}"

            running = asyncio.create_task(pika.run(rows()))
            await asyncio.sleep(5)
            assert (await pika.generate("another's")).url
            report = await running
            assert isinstance(report.stopped, AccountStopped)
            assert (len(report.jobs), report.counts) == (101, {S.SUCCEEDED: 1, S.PLANNED: 100})
            assert idle(pika)
        assert charges(at) == {"one that takes long": 1, "another's": 1}

    virtual_clock.run(story())


def test_calls_that_retry_after_a_stop_all_succeed_once_the_account_accepts(journal: Journal) -> None:
    """A hundred tasks retry after each refusal: each is charged once, and every counter returns to 0."""

    async def story() -> None:
        at = gateway([{"on": "create", "first": 20, "do": QUOTA}], durations="constant:10")
        limits = Limits(max_in_flight=50)
        pika = client(at, limits=limits, polling=FixedInterval(1.0), journal=journal)

        async def persistent(number: int) -> None:
            await asyncio.sleep(0.02 * number)
            for _ in range(40):
                try:
                    await pika.generate(GenerationRequest(f"prompt {number}", key=f"key-{number}"))
                except AccountStopped:
                    await asyncio.sleep(0.3)
                else:
                    return
            raise AssertionError("never accepted")

        async with pika:
            await asyncio.gather(*(persistent(number) for number in range(100)))
            assert idle(pika)
        assert charges(at) == {f"prompt {number}": 1 for number in range(100)}

    virtual_clock.run(story())


def test_the_report_after_a_stop_includes_jobs_that_were_paid_before(journal: Journal) -> None:
    """Requests after the stop that succeeded in an earlier run are reported as succeeded."""

    async def story() -> None:
        at = gateway([{"on": "create", "prompt": "new", "do": QUOTA}], durations="constant:10")
        async with client(at, journal=journal) as pika:
            assert (await pika.run(requests("old", 30))).counts == {S.SUCCEEDED: 30}
            report = await pika.run(requests("new", 20) + requests("old", 30))
        assert isinstance(report.stopped, AccountStopped)
        assert report.counts == {S.PLANNED: 20, S.SUCCEEDED: 30}
        assert {job.status for job in report.jobs if job.error is not None} == {S.PLANNED}
        assert [job.key for job in report.jobs] == [one.key for one in requests("new", 20) + requests("old", 30)]

    virtual_clock.run(story())


@pytest.mark.parametrize("scope", ["asyncio", "anyio"])
def test_a_source_with_a_cancel_scope_is_read_to_its_end_after_a_stop(scope: str) -> None:
    """The rest of a generator is read in the task that read its first items."""

    async def rows() -> AsyncIterator[str]:
        if scope == "asyncio":
            async with asyncio.timeout(1000):
                for number in range(100):
                    yield f"row {number}"
        else:
            with anyio.fail_after(1000):
                for number in range(100):
                    yield f"row {number}"

    async def story() -> None:
        at = gateway([{"on": "create", "do": QUOTA}])
        async with client(at) as pika:
            report = await pika.run(rows())
        assert (len(report.jobs), report.counts, len(at.ledger)) == (100, {S.PLANNED: 100}, 0)

    virtual_clock.run(story())


# --- third-party providers and transports ---------------------------------------------------------------------------

_BASE = find_provider("cometapi")
_FIELDS = {field.name: getattr(_BASE, field.name) for field in attrs.fields(Provider) if field.init}
CALLS: Final = ("check", "encode_submission", "decode_receipt", "encode_poll", "decode_snapshot")


def foreign(call: str, does: str) -> Provider:
    """Return CometAPI's provider with one function that raises, or returns None, for every request."""

    def failing(self: Provider, *arguments: Any) -> Any:
        if call == "check" and does == "None":
            return Provider.check(self, *arguments)
        if does == "None":
            return None
        raise KeyError("a third party's mistake")

    kind: type[Provider] = type("Foreign", (Provider,), {call: failing})
    return kind(**_FIELDS)


def served_by(pika: PikaClient, provider: Provider) -> None:
    pika.provider = provider
    change_account(pika, provider=provider)


@pytest.mark.parametrize("does", ["None", "raise"])
@pytest.mark.parametrize("call", CALLS)
def test_a_failing_third_party_provider_pays_nothing_twice(call: str, does: str, journal: Journal) -> None:
    """Whichever function fails, the batch ends, the client stays usable, and a repaired provider resumes the jobs."""

    async def story() -> None:
        at = gateway(durations="constant:20")
        limits = Limits(max_in_flight=50)
        pika = client(at, polling=FixedInterval(1.0), limits=limits, deadline=200, journal=journal)
        served_by(pika, foreign(call, does))
        async with pika:
            report = await asyncio.wait_for(pika.run(requests("prompt", 10)), 3000)
            assert len(report.jobs) == 10
            expected = {
                "check": S.SUCCEEDED if does == "None" else S.REJECTED, "encode_submission": S.REJECTED,
                "decode_receipt": S.SUCCEEDED,  # the task id is found in the bytes of the answer
                "encode_poll": S.TIMED_OUT, "decode_snapshot": S.TIMED_OUT,
            }  # fmt: skip
            assert report.counts == {expected[call]: 10}
            assert idle(pika)
        served_by(pika, _BASE)
        async with pika:
            again = await pika.resume()
            assert set(again.counts) <= {S.SUCCEEDED, S.UNKNOWN}
            assert (await pika.generate("the next")).url
        assert set(charges(at).values()) == {1}

    virtual_clock.run(story())


def test_a_failing_check_is_an_invalid_request() -> None:
    """A request is refused with InvalidRequest if the provider's `check` raises any other error."""

    async def story() -> None:
        at = gateway()
        pika = client(at)
        served_by(pika, foreign("check", "raise"))
        async with pika:
            with pytest.raises(InvalidRequest, match="could not be checked"):
                await pika.generate("a cat")
        assert len(at.ledger) == 0

    virtual_clock.run(story())


class Faulty(MemoryTransport):
    """A transport whose every third call raises or returns None, after the gateway has handled the request."""

    def __init__(self, of: Gateway, error: BaseException | None) -> None:
        super().__init__(of)
        self.error = error
        self.calls = 0

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        answer = await super().send(request)
        self.calls += 1
        if self.calls % 3:
            return answer
        if self.error is not None:
            raise self.error
        return None  # type: ignore[return-value]


@pytest.mark.parametrize("error", [ZeroDivisionError(), asyncio.CancelledError(), None], ids=repr)
def test_a_failing_transport_puts_only_its_own_jobs_in_doubt(error: BaseException | None, journal: Journal) -> None:
    """A job whose submission fails is in doubt, a failed poll is repeated, and the other jobs succeed."""

    async def story() -> None:
        at = gateway(durations="constant:20")
        async with client(at, transport=Faulty(at, error), polling=FixedInterval(3), journal=journal) as pika:
            report = await asyncio.wait_for(pika.run(requests("prompt", 12)), 3000)
            assert set(report.counts) == {S.SUCCEEDED, S.UNKNOWN}
            assert report.counts[S.SUCCEEDED] >= 6
            assert idle(pika)
            job = next(job for job in report.jobs if job.status is S.SUCCEEDED)
            polls = [await outcome(asyncio.ensure_future(pika.poll(job))) for _ in range(3)]
            (failed,) = [poll for poll in polls if isinstance(poll, Exception)]
            assert isinstance(failed, ExchangeFailed)
            assert "the transport failed" in str(failed)
        assert set(charges(at).values()) == {1}
        assert len(at.ledger) == 12

    virtual_clock.run(story())


# --- downloads ------------------------------------------------------------------------------------------------------


def test_an_unexpected_download_error_fails_one_job_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The job of a download that raises an unexpected error has it as DownloadFailed; the others are downloaded."""

    async def collect(self: ResultDownloader, job: Job, target: Path) -> Job:
        await asyncio.sleep(1)
        if job.key.endswith("3"):
            raise ValueError(f"cannot open {job.video and job.video.url}?sig=secret at //me:secret@h")
        return job.with_file(target, "0" * 64)

    monkeypatch.setattr(ResultDownloader, "collect", collect)

    async def story() -> None:
        at = gateway(durations="constant:10")
        async with client(at, limits=Limits(max_in_flight=20, downloading=2)) as pika:
            report = await pika.run(requests("prompt", 8), download_to=tmp_path)
            failed = [job for job in report.jobs if job.file is None]
            assert ([job.key for job in failed], report.counts) == (["prompt-3"], {S.SUCCEEDED: 8})
            assert isinstance(failed[0].error, DownloadFailed)
            assert "cannot open https://" in failed[0].error.reason
            assert "secret" not in failed[0].error.message
            assert (await pika.generate("the next")).url

    virtual_clock.run(story())


@pytest.mark.parametrize("folder", ["a file", "a\0b"])
def test_an_impossible_folder_fails_downloads_only(tmp_path: Path, folder: str) -> None:
    """Every job succeeds, without a file and with a DownloadFailed, and no download worker hangs or ends."""

    async def story() -> None:
        (tmp_path / "a file").write_bytes(b"")
        limits = Limits(max_in_flight=20, downloading=2)
        async with Emulator(render=False, durations="constant:0.1") as emulator:
            key, address = emulator.api_key, emulator.base_url("cometapi")
            async with PikaClient("cometapi", api_key=key, base_url=address, limits=limits, polling=often) as pika:
                running = pika.run(requests("prompt", 5), download_to=tmp_path / folder)
                report = await asyncio.wait_for(running, 30)
                assert report.counts == {S.SUCCEEDED: 5}
                assert {type(job.error) for job in report.jobs} == {DownloadFailed}

    often = FixedInterval(0.05)
    asyncio.run(story())  # files are written in threads


# --- doubts and charges ---------------------------------------------------------------------------------------------


def test_a_task_id_that_two_jobs_get_belongs_to_the_first(journal: Journal) -> None:
    """A job whose response contains another job's task id is in doubt and does not get the other's video."""

    async def story() -> None:
        at = gateway([{"on": "create", "nth": 2, "do": "duplicate-id"}], durations="constant:10")
        async with client(at, journal=journal) as pika:
            report = await pika.run(requests("prompt", 2))
            assert report.counts == {S.SUCCEEDED: 1, S.UNKNOWN: 1}
            (in_doubt,) = await pika.jobs(S.UNKNOWN)
            assert in_doubt.task_id is None
            assert in_doubt.error is not None
            assert at.ledger[0].task_id in str(in_doubt.error)
            assert idle(pika)

    virtual_clock.run(story())


def test_a_job_in_doubt_that_was_not_charged_frees_its_charge(journal: Journal) -> None:
    """With `max_charges=1` nothing is sent while a job is in doubt; after `resolve(charged=False)` it is sent again."""

    async def story() -> None:
        at = gateway([{"on": "create", "first": 1, "do": {"fault": "drop", "charge": False}}], durations="constant:10")
        async with client(at, limits=Limits(max_charges=1), journal=journal) as pika:
            assert (await pika.run([CAT])).counts == {S.UNKNOWN: 1}
            assert (await pika.run(["another"])).counts == {S.PLANNED: 1}
            assert CAT.key is not None
            await pika.resolve(CAT.key, charged=False)
            report = await pika.run([CAT])
            assert (report.counts, report.stopped) == ({S.SUCCEEDED: 1}, None)
        assert charges(at) == {"a cat": 1}

    virtual_clock.run(story())
