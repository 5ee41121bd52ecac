"""Two workers beside each other, without the queue: what they use and learn of an account is that of both together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import sqlalchemy as sa

from pika_async import Account, FixedInterval
from pika_async._planning.limits import Limits
from pika_async._planning.planner import Planner
from pika_async._runtime.session import Session
from pika_async.config.accounts import checked_accounts
from pika_async.config.client import ClientConfig
from pika_async.emulator import Emulator
from pika_async.engines import shared_statements, statements
from pika_async.engines.account_sharing import AccountSharing
from pika_async.engines.bounds import StopKind
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.engines.job_driver import JobDriver
from pika_async.engines.leases import Lease
from pika_async.engines.tables import workers
from pika_async.engines.worker_bounds import account_rows, without_bounds
from pika_async.errors import ProviderUnreachable
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.polling import DurationSample
from tests.journal.kinds import new_lease

pytestmark = pytest.mark.anyio

#: What the account runs at a time.
PLACES = 3


@attrs.define
class Side:
    """One worker: its session, and what keeps it in step with the other."""

    lease: Lease
    journal: ClusterJournal
    session: Session
    sharing: AccountSharing
    driver: JobDriver

    @property
    def account(self) -> Any:
        return self.session.table.planner.accounts["native"]

    async def sync(self) -> None:
        await self.journal.flush()
        await self.sharing.sync()
        self.session.table.wake()


@contextlib.asynccontextmanager
async def side(database: Database, emulator: Emulator, name: str, **options: Any) -> AsyncIterator[Side]:
    lease = await new_lease(database, name)
    journal = ClusterJournal(database, lease)
    account = Account("native", api_key=emulator.api_key, base_url=emulator.url, **options)
    given = ClientConfig.create(
        checked_accounts([account]), api_key=None, api_key_file=None, base_url=None, callbacks=None,
        new_journal=lambda _limits: journal, ambiguous="strict", session=None, allow_results=(), proxy=None,
        transport=None, uploader=None, upload_lifetime=None, price=None, limits=Limits(), routing=None,
        polling=FixedInterval(0.05), deadline=None, budget=None,
    )  # fmt: skip
    await database.run(shared_statements.upsert_accounts, account_rows(given))
    session = await Session.open(without_bounds(given), hooks=(), load_history=True)
    sharing = AccountSharing(database, session.table.planner, journal)
    driver = JobDriver(session.admission, session.table.intake, journal, lease, downloads=None, downloading=1)
    made = Side(lease, journal, session, sharing, driver)
    try:
        yield made
    finally:
        made.driver.close()
        await session.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url)
    await made.open()
    yield made
    await made.close()


async def add_jobs(database: Database, emulator: Emulator, *keys: str) -> None:
    await database.run(
        statements.insert_jobs,
        [
            Job(key=key, request=GenerationRequest(key, key=key), provider="native", base_url=emulator.url, account="native")
            for key in keys
        ],
    )  # fmt: skip


async def test_both_workers_learn_what_the_account_runs_and_every_job_is_paid_once(database: Database) -> None:
    """It refuses more than it has places for, and gives no number."""
    keys = [f"job-{number}" for number in range(10)]
    options: dict[str, Any] = {
        "durations": "constant:0.2",
        "video_seconds": 1,
        "render": False,
        "in_flight": PLACES,
        "retry_after": None,
    }
    async with (
        Emulator(**options) as emulator,
        side(database, emulator, "w") as one,
        side(database, emulator, "v") as other,
        asyncio.TaskGroup() as background,
    ):
        await add_jobs(database, emulator, *keys)

        async def keep_in_step(each: Side) -> None:
            while True:
                await each.sync()
                await asyncio.sleep(0.05)

        beside = [
            background.create_task(work)
            for each in (one, other)
            for work in (keep_in_step(each), each.sharing.keep_reporting())
        ]
        async with asyncio.timeout(100), asyncio.TaskGroup() as runs:
            for number, key in enumerate(keys):
                runs.create_task((one, other)[number % 2].driver.drive(key))
        copies = [each.account.submissions.concurrency for each in (one, other)]
        while any(copy.answers for copy in copies):
            await asyncio.sleep(0.01)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await one.sync()
        await other.sync()
        row = (await database.run(shared_statements.select_accounts))["native"]
        assert (row["in_flight"], row["charges"]) == (0, len(keys))
        assert copies[0].estimated_limit == copies[1].estimated_limit is not None
        assert 1.0 <= copies[0].estimated_limit < PLACES + 1, "a place more is tried only once that is reached"
        assert max(Counter(charge.prompt for charge in emulator.ledger).values()) == 1
        assert len(emulator.ledger) == len(keys)


async def test_a_worker_takes_over_what_the_other_uses_and_has_learned(database: Database) -> None:
    options: dict[str, Any] = {"durations": "constant:3600", "video_seconds": 1, "render": False, "in_flight": 1}
    async with (
        Emulator(**options) as emulator,
        side(database, emulator, "w", max_in_flight=5) as one,
        side(database, emulator, "v", max_in_flight=5) as other,
        asyncio.TaskGroup() as background,
    ):
        await add_jobs(database, emulator, "a", "b")
        reporting = background.create_task(other.sharing.keep_reporting())
        running = [background.create_task(one.driver.drive("a"))]
        while one.account.in_flight == 0:
            await asyncio.sleep(0.01)
        await other.sync()
        concurrency = other.account.submissions.concurrency
        assert (concurrency.ceiling, concurrency.others, concurrency.others_submitting) == (5, 1, 0)
        assert other.account.load(5.0) == 2 / 5
        assert other.session.table.planner.shared.submitting_limit == 4, "of eight for two workers"

        # A refusal is none of a full account for a worker that runs nothing there itself, unless it knows of the others.
        running.append(background.create_task(other.driver.drive("b")))
        async with asyncio.timeout(15):
            while (await database.run(shared_statements.select_accounts))["native"]["concurrency"] is None:
                await asyncio.sleep(0.01)
        assert concurrency.estimated_limit == 1.0
        assert other.account.submissions.throttle.unsent == 0
        await one.sync()
        assert one.account.submissions.concurrency.estimated_limit == 1.0
        assert one.account.submissions.concurrency._window == 1.0

        for task in (*running, reporting):
            task.cancel()
        await asyncio.gather(*running, reporting, return_exceptions=True)
        assert len(emulator.ledger) == 1
    jobs = {key: await database.run(statements.select_job, key) for key in ("a", "b")}
    assert {key: job.status for key, job in jobs.items() if job} == {"a": JobStatus.QUEUED, "b": JobStatus.PLANNED}


@pytest.mark.parametrize("end", ["closed", "expired"])
async def test_what_stops_one_worker_is_shown_until_that_worker_goes_on_or_ends(database: Database, end: str) -> None:
    """A worker that is not stopped does not take the reason of another away, nor one that is stopped for another."""

    async def saved() -> str | None:
        row = (await database.run(shared_statements.select_accounts))["native"]
        return None if row["stop_reason"] is None else str(row["stop_reason"])

    async with Emulator() as emulator, side(database, emulator, "one") as one, side(database, emulator, "two") as two:
        reasons = []
        for worker, reason in ((one, "down"), (two, "slow")):
            stop = ProviderUnreachable(provider="native", reason=reason, attempts=6)
            reasons.append(stop.message)
            worker.session.table.planner.stop_submitting(stop, "native")
            await worker.sync()
            await (two if worker is one else one).sync()
            assert await saved() == stop.message
        two.session.table.intake.allow_submitting()
        await two.sync()
        assert await saved() is None
        await one.sync()
        assert await saved() == reasons[0]
        if end == "closed":
            await database.run(shared_statements.end_lease, "one", end)
        else:
            late = sa.update(workers).where(workers.c.id == "one").values(expires_at=1.0)
            await database.run(lambda connection: connection.execute(late) and None)
            assert await database.run(shared_statements.end_expired) == ["one"]
        assert await saved() is None
        await two.sync()
        assert await saved() is None


async def test_a_stop_and_a_sample_of_one_worker_are_known_to_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the kind of the stop, and until it has ended."""
    async with Emulator() as emulator, side(database, emulator, "w") as one, side(database, emulator, "v") as other:
        stop = ProviderUnreachable(provider="native", reason="down", attempts=6)
        one.session.table.planner.stop_submitting(stop, "native")
        one.journal.add_sample(DurationSample("x", lower=1.0, upper=2.0))
        await one.sync()
        row = (await database.run(shared_statements.select_accounts))["native"]
        assert (row["stop_reason"], row["stop_kind"]) == (stop.message, StopKind.ACCOUNT.value)
        learned: list[Any] = []
        monkeypatch.setattr(Planner, "load_history", lambda _, samples: learned.extend(samples))
        one.session.table.planner.allow_submitting()
        await other.sync()
        await one.sync()
        assert learned == [DurationSample("x", lower=1.0, upper=2.0)]
        row = (await database.run(shared_statements.select_accounts))["native"]
        assert (row["stop_reason"], row["stop_kind"]) == (None, None)
