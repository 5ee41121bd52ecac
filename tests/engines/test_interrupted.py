"""A job whose worker has ended: continued from its row, and never sent again without proof that it was not sent."""

from __future__ import annotations

import asyncio

import attrs
import pytest

from pika_async import Account, Cluster, FixedInterval
from pika_async.emulator import Emulator
from pika_async.engines import job_writes, shared_statements
from pika_async.engines.database import Database
from pika_async.engines.job_writes import Write
from pika_async.errors import SubmissionInDoubt
from pika_async.jobs import JobStatus
from tests.journal.builders import INTENT
from tests.journal.kinds import new_lease

pytestmark = pytest.mark.anyio


async def test_what_was_sent_by_an_ended_worker_is_in_doubt_and_not_sent_again(database_url: str) -> None:
    """Though nothing is known to have come of it; what it had only claimed is sent, once."""
    async with Emulator(durations="constant:0.2", video_seconds=1) as emulator:
        account = Account("native", api_key=emulator.api_key, base_url=emulator.url)
        async with Cluster(database_url, [account], polling=FixedInterval(0.2)) as cluster:
            sent, claimed = await cluster.submit_many(["sent", "claimed"])
            database = Database(database_url)
            await database.open()
            await new_lease(database, "earlier")
            await database.run(job_writes.claim_all, [sent, claimed], "earlier")
            job = attrs.evolve(await cluster.job(sent), account="native").submitting()
            await database.run(job_writes.write_all, "earlier", [Write((job,), INTENT)])
            await database.run(shared_statements.end_lease, "earlier", "expired")
            await database.close()
            working = asyncio.create_task(cluster.run_worker(lease_ttl=6.0))
            try:
                async with asyncio.timeout(100):
                    jobs = {job.key: job async for job in cluster.as_settled([sent, claimed])}
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
        assert jobs[sent].status is JobStatus.UNKNOWN
        assert isinstance(jobs[sent].error, SubmissionInDoubt)
        assert jobs[sent].submitted_at == INTENT.at
        assert (jobs[claimed].status, jobs[claimed].attempts) == (JobStatus.SUCCEEDED, 1)
        assert [task.prompt for task in emulator.gateway.ledger] == ["claimed"]
