"""Stories of what the journal says of one payment: the order of its records, their times, and whose it is."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from pika_async import JobStatus, Limits, PikaClient, SubmissionInDoubt
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent
from pika_async._journal.sqlite import SqliteJournal
from pika_async.jobs import Job
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.callback_delivery import callback_urls, post, receiver
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, client, gateway, prompts, with_journal

S = JobStatus


class CommitsAndHangs(MemoryJournal):
    """Journal that has saved an intent long before it says so."""

    hangs = True

    async def record_intent(self, job: Job, intent: Intent) -> None:
        await super().record_intent(job, intent)
        if self.hangs:
            await asyncio.sleep(1000)


class HangsOnDisk(SqliteJournal):
    """The same in a file: the intent is committed and synced."""

    hangs = True

    async def record_intent(self, job: Job, intent: Intent) -> None:
        await super().record_intent(job, intent)
        if self.hangs:
            await asyncio.Event().wait()


def test_the_intent_of_a_send_that_never_happened_is_deleted() -> None:
    """A client that is closed between the intent and the send leaves its jobs planned; the next run sends each once."""

    async def story() -> None:
        at, journal = gateway(), CommitsAndHangs()
        async with with_journal(client(at), journal) as pika:
            running = asyncio.create_task(pika.run(prompts(3)))
            await asyncio.sleep(1.0)
            assert len(journal.interrupted_jobs()) == 3
            running.cancel()
        assert journal.interrupted_jobs() == []
        assert [job.status for job in await pika.jobs()] == [S.PLANNED] * 3
        assert not at.requests
        journal.hangs = False
        async with pika:
            assert (await pika.run(prompts(3))).counts == {S.SUCCEEDED: 3}
        assert len(at.ledger) == 3

    virtual_clock.run(story())


@pytest.mark.anyio
async def test_the_intent_of_a_send_that_never_happened_is_deleted_on_disk(tmp_path: Path) -> None:
    """The next process finds no doubt in the file."""
    at, journal = gateway(durations="constant:0.01"), HangsOnDisk(tmp_path / "journal.db")
    limits = Limits(grace=0.05)
    async with client(at, journal=journal, limits=limits) as pika:
        running = asyncio.create_task(pika.run(["a cat"]))
        while not journal.interrupted_jobs():
            await asyncio.sleep(0.01)
        running.cancel()
    async with client(at, journal=tmp_path / "journal.db") as later:
        assert [job.status for job in await later.jobs()] == [S.PLANNED]
    assert not at.ledger


@pytest.mark.parametrize("seconds", [5.0, 90.0])
def test_a_doubt_carries_the_time_of_its_sending(seconds: float) -> None:
    """However late its answer is: a person searches the provider's list of charges for that time."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "stall", "seconds": seconds}}])
        began = time.time()
        async with client(at, transport=DropsAfter(at, seconds)) as pika:
            [job] = (await pika.run(["a cat"])).jobs
        assert job.status is S.UNKNOWN
        assert isinstance(job.error, SubmissionInDoubt)
        assert job.error.at is not None
        assert job.submitted_at is not None
        # The loop's clock is virtual and the calendar's is not: the answer came now, and the sending was earlier.
        for sent_at in (job.error.at, job.submitted_at):
            assert sent_at.timestamp() <= time.time() - seconds
            assert sent_at.timestamp() >= began - seconds - 1.0

    virtual_clock.run(story())


class DropsAfter(MemoryTransport):
    """Transport that answers 502 after a number of seconds."""

    def __init__(self, at: object, seconds: float) -> None:
        super().__init__(at)  # type: ignore[arg-type]
        self.seconds = seconds

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        await asyncio.sleep(self.seconds)
        return HttpResponse(status=502, headers={}, body=b"bad gateway")


class Silent(MemoryTransport):
    """Transport that counts what is sent and answers 404."""

    sent = 0

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        self.sent += 1
        return HttpResponse(status=404, headers={}, body=b"{}")


@pytest.mark.parametrize("lost", [False, True], ids=["accepted", "in doubt"])
def test_a_callback_for_a_job_of_another_base_url_polls_nothing(lost: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The client at the other address polls, changes and logs nothing; that at the job's own address polls at once."""

    async def story() -> None:
        rules = [{"on": "create", "do": "drop"}] if lost else []
        at, journal = gateway(rules, durations="constant:600"), MemoryJournal()
        async with with_journal(client(at, callbacks=receiver()), journal) as pika:
            running = asyncio.create_task(pika.run(["a cat"]))
            await asyncio.sleep(5.0)
            running.cancel()
        [job] = journal.all()
        assert job.status is (S.UNKNOWN if lost else S.QUEUED)
        [url], [task] = callback_urls(at).values(), at.tasks.values()
        body = f'{{"task_id": "{task.id}"}}'.encode()
        transport, to = Silent(at), receiver()
        other = PikaClient("cometapi", base_url=f"{ORIGIN}/elsewhere", transport=transport, callbacks=to)
        async with with_journal(other, journal):
            caplog.clear()
            await post(to, url, body)
            await asyncio.sleep(30)
            assert (transport.sent, caplog.messages) == (0, [])
            assert [entry.status for entry in journal.all()] == [job.status]
        before = len(at.requests)
        async with with_journal(client(at, callbacks=(own := receiver())), journal):
            await post(own, url, body)
            await asyncio.sleep(5)
        assert len(at.requests) > before

    virtual_clock.run(story())
