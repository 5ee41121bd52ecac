"""Jobs a second that the database of a cluster takes: what a worker writes about each, without gateways and the queue.

    python benchmarks/cluster_database.py 3000 200 2      # jobs of each worker, at once in each, workers

Worker processes claim, intend, accept, settle and release jobs as fast as the database lets them: all on one account,
whose row every submission and every end of a job changes; on an account each; and on an account and a database each.
The three are run twice, in turn. The server of PostgreSQL is started in a temporary folder, and each commit waits for
the disk.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))
from cluster import Database as Counted
from cluster import Usage, server_pids

from pika_async._journal.protocol import Intent
from pika_async.engines import shared_statements, statements
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.engines.database import Database
from pika_async.engines.leases import Lease, new_worker_id
from pika_async.jobs import Job
from pika_async.models import GenerationRequest
from pika_async.models.results import Snapshot, TaskState, Video
from tests.engines.postgres import PostgresServer

ROUNDS = 2
#: Seconds that a lease lasts; none is extended here.
TTL_S = 3_600.0
_names = (f"bench_{number}" for number in itertools.count())


# --- a worker ---------------------------------------------------------------------------------------------------------


async def work(url: str, account: str, jobs: int, at_once: int) -> None:
    """Write about jobs, once a line comes in; print a line before, when they are saved."""
    database = Database(url)
    await database.open()
    await database.run(shared_statements.upsert_accounts, [{"name": ""}, {"name": account}])
    lease = Lease(new_worker_id(), TTL_S)
    row = {"id": lease.worker, "host": "h", "pid": 1, "version": "1", "max_jobs": at_once, "ttl": TTL_S}
    await database.run(shared_statements.insert_worker, row)
    lease.on_extended(time.monotonic())
    new = [new_job(f"{lease.worker}-{number}", account) for number in range(jobs)]
    await database.run(statements.insert_jobs, new)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    journal, waiting = ClusterJournal(database, lease), iter(new)

    async def drive_each() -> None:
        for job in waiting:
            await drive(journal, job.key)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(drive_each())
    await database.close()


def new_job(key: str, account: str) -> Job:
    request = GenerationRequest("a cat in the rain", key=key)
    return Job(key=key, request=request, provider="native", base_url="http://127.0.0.1", account=account)


async def drive(journal: ClusterJournal, key: str) -> None:
    """Write what a worker writes about a job that succeeds."""
    job = await journal.claim(key)
    assert job is not None
    job = job.submitting()
    await journal.record_intent(job, Intent(at=datetime.now(UTC), body_sha256="ab" * 32))
    assert await journal.find_task(job.provider, job.base_url, f"task-{key}") is None
    job = job.accepted(f"task-{key}", time.time())
    await journal.save(job)
    video = Video(url=f"https://videos.test/{key}.mp4")
    await journal.save(
        job.with_snapshot(Snapshot(task_id=job.task_id or "", state=TaskState.SUCCEEDED, video=video), time.time())
    )
    await journal.release(key)


# --- the measurement --------------------------------------------------------------------------------------------------


def measure(server: PostgresServer, *, accounts: int, databases: int, workers: int, jobs: int, at_once: int) -> float:
    """Print what the server did; return the jobs a second."""
    urls = [new_database(server) for _ in range(databases)]
    command = [sys.executable, __file__, "--worker"]
    running = [
        subprocess.Popen(
            [*command, urls[number % databases], f"account-{number % accounts}", str(jobs), str(at_once)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for number in range(workers)
    ]  # fmt: skip
    for worker in running:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    before, base, started = [Counted.of(url) for url in urls], Usage.of(*server_pids(server)), time.monotonic()
    own = sum(Usage.of(worker.pid).cpu for worker in running)
    for worker in running:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    cpu = 0.0
    while any(worker.poll() is None for worker in running):
        cpu = max(cpu, sum(Usage.of(worker.pid).cpu for worker in running))
        server_cpu = Usage.of(*server_pids(server)).cpu
        time.sleep(0.05)
    seconds, total = time.monotonic() - started, jobs * workers
    assert not any(worker.returncode for worker in running)
    after = [Counted.of(url) for url in urls]
    commits = sum(now.commits - then.commits for now, then in zip(after, before, strict=True))
    print(
        f"{workers} workers, {accounts} accounts, {databases} databases: {total / seconds:.0f} jobs a second, "
        f"{commits / total:.2f} commits, {(after[0].written - before[0].written) / total:,.0f} bytes of log, "
        f"{1000 * (server_cpu - base.cpu) / total:.2f} ms of the server's CPU and "
        f"{1000 * (cpu - own) / total:.2f} ms of the workers' a job",
        flush=True,
    )
    return total / seconds


def new_database(server: PostgresServer) -> str:
    name = next(_names)
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.url(name)


def main(jobs: int, at_once: int, workers: int) -> None:
    server = PostgresServer.create(fsync=True)
    try:
        for _ in range(ROUNDS):
            for accounts, databases in ((1, 1), (workers, 1), (workers, workers)):
                measure(server, accounts=accounts, databases=databases, workers=workers, jobs=jobs, at_once=at_once)
    finally:
        server.remove()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--worker", url, account, jobs, at_once]:
            asyncio.run(work(url, account, int(jobs), int(at_once)))
        case [jobs, at_once, workers]:
            main(int(jobs), int(at_once), int(workers))
        case _:
            main(3_000, 200, 2)
