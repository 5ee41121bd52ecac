"""Records of jobs that were settled long ago are deleted, and nothing that a job still needs."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
import sqlalchemy as sa

from pika_async import Cluster, ConfigurationError, GenerationRequest
from pika_async.engines import pruning, statements, tables
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.rows import Rows, accepted, sent
from tests.journal.builders import a_job

OLD = utc_from_timestamp(1_700_000_000.5)


def settled(key: str, at: float = 1_700_000_000.5, status: JobStatus = JobStatus.SUCCEEDED) -> Job:
    return attrs.evolve(accepted(key), status=status, settled_at=utc_from_timestamp(at))


def with_image(job: Job, image: bytes) -> Job:
    return attrs.evolve(job, request=GenerationRequest("a cat", key=job.key, image=image))


def stored_contents(rows: Rows) -> set[bytes]:
    return set(rows.run(lambda connection: connection.execute(sa.select(tables.contents.c.content)).scalars().all()))


def prune(url: str, older_than: float, *, dry_run: bool = False) -> int:
    async def run() -> int:
        async with Cluster(url) as cluster:
            return await cluster.prune(older_than=older_than, dry_run=dry_run)

    return asyncio.run(run())


def test_only_idle_jobs_that_were_settled_before_are_deleted(rows: Rows, database_url: str) -> None:
    rows.add_worker("w")
    kept = [
        settled("later", 1_780_000_000.0), settled("owned"), settled("queued"), accepted("followed"), sent("sent"),
        a_job("planned"), attrs.evolve(accepted("unknown"), status=JobStatus.UNKNOWN, settled_at=OLD),
        attrs.evolve(accepted("timed-out"), status=JobStatus.TIMED_OUT, settled_at=OLD),
    ]  # fmt: skip
    final = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.REJECTED, JobStatus.CANCELED)
    old = [settled(f"old-{status}", status=status) for status in final]
    rows.run(statements.insert_jobs, [*kept, *old])
    assert rows.claim("w", "owned") is not None
    rows.run(statements.take_run, ["queued"])
    between = time.time() - 1_750_000_000.0
    assert prune(database_url, between, dry_run=True) == len(old)
    assert len(rows.jobs()) == len(kept) + len(old)
    assert prune(database_url, between) == len(old)
    assert set(rows.jobs()) == {job.key for job in kept}
    assert prune(database_url, 0) == 1
    assert set(rows.jobs()) == {job.key for job in kept} - {"later"}


def test_more_than_one_transaction_deletes_is_deleted(
    rows: Rows, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "DELETED_AT_ONCE", 3)
    rows.run(statements.insert_jobs, [settled(f"k{number}") for number in range(8)])
    assert prune(database_url, 0) == 8
    assert rows.jobs() == {}


def test_the_bytes_of_a_request_are_kept_while_another_job_has_them(rows: Rows, database_url: str) -> None:
    new = [with_image(settled("a"), b"shared"), with_image(settled("b"), b"alone"), with_image(a_job("c"), b"shared")]
    rows.run(statements.insert_jobs, new)
    assert stored_contents(rows) == {b"shared", b"alone"}
    assert prune(database_url, 0) == 2
    assert stored_contents(rows) == {b"shared"}
    assert rows.job("c").request.image == b"shared"


def test_bytes_that_a_job_refers_to_by_then_are_not_deleted(postgres: PostgresServer) -> None:
    """A process inserts a job with them, and has not committed it when the unused ones are selected."""
    rows = Rows.create(new_database(postgres))
    rows.run(statements.insert_jobs, [with_image(a_job("old"), b"bytes")])
    rows.run(lambda connection: connection.execute(sa.delete(tables.jobs)))
    with ThreadPoolExecutor(1) as threads, rows.engine.begin() as inserting:
        statements.insert_jobs(inserting, [with_image(a_job("new"), b"bytes")])
        pruned = threads.submit(rows.run, pruning._delete_unused_contents)
        assert rows.waits_for_lock(pruned)
        inserting.commit()
        pruned.result(60)
    assert rows.job("new").request.image == b"bytes"
    rows.engine.dispose()


@pytest.mark.parametrize("older_than", [-1.0, float("nan")])
def test_an_age_that_cannot_be_one_is_refused(older_than: float) -> None:
    with pytest.raises(ConfigurationError, match=r"older_than: must be seconds >= 0, not (-1\.0|nan)"):
        asyncio.run(Cluster("sqlite:////nonexistent/jobs.db").prune(older_than=older_than))
