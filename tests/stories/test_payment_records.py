"""Order and time of the records of a payment: the intent that is withdrawn, and the doubt."""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pika_async import FixedInterval, GenerationRequest, JobStatus, Limits, SubmissionInDoubt
from pika_async._journal.sqlite import SqliteJournal
from pika_async._planning.actions import ActiveJob
from pika_async._planning.submissions import Submissions
from pika_async._runtime.job_table import JobTable
from pika_async.jobs import utc_from_timestamp
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.journals import LoopExecutor
from tests.fakes.memory_gateway import MemoryTransport, client, gateway
from tests.fakes.only_account import only

S = JobStatus
CAT = GenerationRequest("a cat", key="cat")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "j.db"


class HalfMinuteExecutor(LoopExecutor):
    """A `LoopExecutor` whose work takes 30 s: longer than a closing client waits for its submissions."""

    seconds = 30.0


def test_the_intent_of_a_send_that_never_happened_is_withdrawn(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is closed while the disk still writes the intent leaves the job planned: the next client sends it."""
    at = gateway(durations="constant:1")

    async def close_while_the_intent_is_written() -> None:
        pika = client(at, journal=path)
        await pika.open()
        sending = asyncio.create_task(pika.generate(CAT))
        while pika._session is None or not only(pika._session.table.planner).submissions.submitting:
            await asyncio.sleep(1)
        await pika.aclose()
        await asyncio.gather(sending, return_exceptions=True)
        assert (await pika.jobs())[0].status is S.PLANNED

    async def send_it_later() -> None:
        journal = SqliteJournal(path)
        assert (journal.interrupted_jobs(), journal.charges()) == ([], 0)
        async with client(at, journal=path) as later:
            assert (await later.run([CAT])).counts == {S.SUCCEEDED: 1}

    with monkeypatch.context() as patch:
        patch.setattr("pika_async._journal.sqlite.ThreadPoolExecutor", HalfMinuteExecutor)
        virtual_clock.run(close_while_the_intent_is_written())
    assert at.ledger == []
    monkeypatch.setattr("pika_async._journal.sqlite.ThreadPoolExecutor", LoopExecutor)
    virtual_clock.run(send_it_later())
    assert len(at.ledger) == 1


def test_a_send_that_fails_before_its_first_byte_is_planned_on_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its intent is withdrawn there before anything else happens to the job: a kill right then leaves no doubt."""
    at = gateway(durations="constant:1")
    monkeypatch.setattr("pika_async._journal.sqlite.ThreadPoolExecutor", LoopExecutor)
    notify, on_rolled_back = JobTable.notify, Submissions.on_rolled_back
    failed: list[str] = []
    on_disk: list[tuple[JobStatus, int]] = []

    def fail_once(active: ActiveJob, **facts: Any) -> None:
        if active.job.status is S.SUBMITTING and not failed:
            failed.append(active.job.key)
            raise RuntimeError("a defect between the intent and the send")
        notify(active, **facts)

    def read_disk(self: Submissions, active: ActiveJob) -> None:
        journal = SqliteJournal(path)
        on_disk.append((next(journal.all()).status, journal.charges()))
        on_rolled_back(self, active)

    monkeypatch.setattr(JobTable, "notify", staticmethod(fail_once))
    monkeypatch.setattr(Submissions, "on_rolled_back", read_disk)

    async def story() -> None:
        async with client(at, journal=path) as pika:
            await pika.run([CAT])

    virtual_clock.run(story())
    assert (failed, on_disk) == (["cat"], [(S.PLANNED, 0)])


def test_a_doubt_carries_the_time_of_its_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the answer came a minute later: that time finds the charge in the provider's list."""
    at = gateway([{"on": "create", "do": {"fault": "stall", "seconds": 60}}])

    async def story() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(time, "time", lambda: 1_700_000_000 + loop.time())
        async with client(at, limits=Limits(max_in_flight=1)) as pika:
            await asyncio.sleep(100)
            sent_at = utc_from_timestamp(time.time())
            with pytest.raises(SubmissionInDoubt) as caught:
                await pika.generate(CAT)
            assert utc_from_timestamp(time.time()) - sent_at > timedelta(seconds=50)
            job = await pika.job("cat")
            assert job is not None
            assert job.submitted_at is not None
            assert caught.value.at is not None
            for at_ in (caught.value.at, job.submitted_at):
                assert abs(at_ - sent_at) < timedelta(seconds=1)

    virtual_clock.run(story())


def test_no_task_is_polled_before_its_receipt_is_on_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that takes half a minute for each write, the first poll finds the task id in the file."""
    on_disk: list[str | None] = []
    at = gateway(durations="constant:1")

    class Reading(MemoryTransport):
        async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
            if not request.paid:
                on_disk.extend(job.task_id for job in SqliteJournal(path).all())
            return await super().send(request)

    async def main() -> None:
        async with client(at, journal=path, transport=Reading(at), polling=FixedInterval(1.0)) as pika:
            waiting = asyncio.create_task(pika.generate(CAT))
            while not waiting.done():
                assert pika._session is not None
                pika._session.table.wake()  # as any other job or callback does
                await asyncio.sleep(1)
            assert set(on_disk) == {(await waiting).task_id}

    monkeypatch.setattr("pika_async._journal.sqlite.ThreadPoolExecutor", HalfMinuteExecutor)
    virtual_clock.run(main())
