"""Stories of journals whose accounts have changed: removed, renamed or moved to another address."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path

import attrs
import pytest

from pika_async import AcceptedElsewhere, Account, AccountStopped, FixedInterval, JobStatus, PikaClient
from pika_async._journal.memory import MemoryJournal
from pika_async.emulator import Gateway
from tests.fakes import virtual_clock
from tests.fakes.journals import write_in_loop_time
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, gateway, requests

S = JobStatus


@pytest.fixture(autouse=True)
def journal_in_loop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    write_in_loop_time(monkeypatch)


def account(provider: str, *, name: str | None = None, origin: str = ORIGIN) -> Account:
    return Account(provider, name=name, base_url=f"{origin}/{provider}", max_in_flight=3)


def client(at: Gateway, accounts: list[Account], journal: Path | MemoryJournal) -> PikaClient:
    return PikaClient(
        accounts, transport=MemoryTransport(at), journal=journal, polling=FixedInterval(5.0), deadline=5000
    )


async def leave_planned_jobs(at: Gateway, journal: Path, count: int) -> None:
    """Run a batch over two accounts until each has its room full, and close the client."""
    async with client(at, [account("native"), account("gptge")], journal) as pika:
        batch = asyncio.create_task(pika.run(requests(count)))
        while len(at.ledger) < 6:
            await asyncio.sleep(0.1)
        batch.cancel()
        await asyncio.gather(batch, return_exceptions=True)


@pytest.mark.parametrize("left", [("gptge",), ("gptge", "yescale")])
def test_resume_sends_what_was_planned_for_no_account_although_one_is_removed(
    left: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Planned jobs of several accounts have none yet, so those that are left take them; sent ones wait for theirs."""
    at = gateway()

    async def story() -> None:
        await leave_planned_jobs(at, tmp_path / "j.db", 20)
        async with client(at, [account(name) for name in left], tmp_path / "j.db") as pika:
            with caplog.at_level(logging.INFO, "pika_async.journal_views"):
                assert (await pika.resume()).counts == {S.SUCCEEDED: 17}
            jobs = await pika.jobs()
            assert Counter(job.status for job in jobs) == {S.SUCCEEDED: 17, S.QUEUED: 3}
            assert {job.account for job in jobs if job.status is S.QUEUED} == {"native"}

    virtual_clock.run(story())
    assert len(at.ledger) == len({charge.prompt for charge in at.ledger}) == 20
    assert (
        f"3 jobs are left as they are: this client does not have their account native at {ORIGIN}/native" in caplog.text
    )


@pytest.mark.parametrize(
    "changed",
    [account("native", name="other"), account("native", origin="http://127.0.0.1:2")],
    ids=["renamed", "moved"],
)
def test_jobs_of_an_account_that_is_renamed_or_moved_wait_for_it(
    changed: Account, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are named with the account and its address, and neither polled nor paid again; the account back, they end."""
    at, batch = gateway(), requests(4)
    both = [account("native"), account("gptge")]

    async def story() -> None:
        async with client(at, both, tmp_path / "j.db") as pika:
            sent = [await pika.submit(request) for request in batch]
        waiting = {job.key for job in sent if job.account == "native"}
        assert len(waiting) == 2
        async with client(at, [changed, both[1]], tmp_path / "j.db") as pika:
            with caplog.at_level(logging.INFO, "pika_async.journal_views"):
                assert (await pika.resume()).counts == {S.SUCCEEDED: 2}
            report = await pika.run(batch)
            assert {job.key for job in report.jobs if isinstance(job.error, AcceptedElsewhere)} == waiting
        async with client(at, both, tmp_path / "j.db") as pika:
            assert (await pika.run(batch)).counts == {S.SUCCEEDED: 4}

    virtual_clock.run(story())
    assert len(at.ledger) == 4
    assert (
        f"2 jobs are left as they are: this client does not have their account native at {ORIGIN}/native" in caplog.text
    )


def test_a_success_of_a_removed_account_needs_it_for_its_file_alone(tmp_path: Path) -> None:
    """A batch without downloads has it as a success; one with downloads names the account that it waits for."""
    at, batch = gateway(), requests(4)

    async def story() -> None:
        async with client(at, [account("native"), account("gptge")], tmp_path / "j.db") as pika:
            assert (await pika.run(batch)).counts == {S.SUCCEEDED: 4}
        async with client(at, [account("yescale")], tmp_path / "j.db") as pika:
            report = await pika.run(batch)
            assert report.ok
            assert [job.error for job in report.jobs] == [None] * 4
            report = await pika.run(batch, download_to=tmp_path)
            assert not report.ok
            assert {type(job.error) for job in report.jobs} == {AcceptedElsewhere}

    virtual_clock.run(story())
    assert len(at.ledger) == 4


def test_a_refused_poll_stops_the_account_of_a_job_from_before_there_were_accounts() -> None:
    """Such a job has no account in the journal; the account at its address has a name of its own now."""
    at, journal = gateway([{"on": "feed", "do": {"fault": "refuse", "as": "key"}}]), MemoryJournal()

    async def story() -> None:
        async with client(at, [account("native")], journal) as pika:
            sent = [await pika.submit(request) for request in requests(2)]
        await journal.save(*(attrs.evolve(job, account=None) for job in sent))
        async with client(at, [account("native", name="main"), account("gptge")], journal) as pika:
            report = await pika.resume()
            assert {type(job.error) for job in report.jobs} == {AccountStopped}
            assert [name for name, each in pika.stats().accounts.items() if each.stopped] == ["main"]

    virtual_clock.run(story())
