"""Cost of a job in a cluster on PostgreSQL, beside a client with a journal file, at the same gateway.

    python benchmarks/cluster.py 50000 5000 60        # jobs, at most so many in flight, median seconds of a task

First the client runs one job in ten of the others, then one worker process runs them all. Both poll by the default
policy and download nothing. The server of PostgreSQL is started in a temporary folder, with its defaults: each commit
waits for the disk. CPU is user and system time, of the worker and of the server's processes; memory is the largest
resident set.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import psycopg
from lean_gateway import LeanServer, run_lean_server

sys.path.insert(0, str(Path(__file__).parent.parent))
from pika_async import Account, Cluster, Limits, PikaClient
from tests.engines.postgres import PostgresServer

#: Seconds between two readings of the counts.
SAMPLED_EVERY_S = 1.0
TICKS = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Usage:
    """What a process, or several, have used so far."""

    cpu: float
    memory: int

    @classmethod
    def of(cls, *pids: int) -> Usage:
        cpu, memory = 0.0, 0
        for pid in pids:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            cpu += sum(map(int, fields[11:15])) / TICKS  # also of children that have ended
            memory = max(memory, int(status.split("VmHWM:")[1].split()[0]) * 1024 if "VmHWM:" in status else 0)
        return cls(cpu, memory)


def account(url: str, in_flight: int) -> Account:
    return Account("native", api_key="key", base_url=url, max_in_flight=in_flight)


def prompts(jobs: int) -> list[str]:
    return [f"a cat in the rain, take {number}" for number in range(jobs)]


# --- a client with a journal file -------------------------------------------------------------------------------------


async def run_client(url: str, jobs: int, in_flight: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        limits = Limits(max_in_flight=in_flight, submitting=64)
        async with PikaClient([account(url, in_flight)], journal=f"{folder}/jobs.db", limits=limits) as pika:
            usage, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
            report = await pika.run(prompts(jobs))
            now = resource.getrusage(resource.RUSAGE_SELF)
        cpu = now.ru_utime + now.ru_stime - usage.ru_utime - usage.ru_stime
        assert report.ok
        print(
            f"client with a journal file: {jobs:,} jobs, {1000 * cpu / jobs:.2f} ms of CPU a job, "
            f"{jobs / (time.monotonic() - started):.0f} a second, {now.ru_maxrss / 1024:.0f} MB",
            flush=True,
        )
        print(f"client {cpu / jobs}", file=sys.stderr)


# --- a cluster --------------------------------------------------------------------------------------------------------


@contextmanager
def running_worker(database: str, url: str, in_flight: int) -> Iterator[int]:
    command = [sys.executable, __file__, "--worker", database, url, str(in_flight)]
    with subprocess.Popen(command) as worker:
        try:
            yield worker.pid
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)


async def work(database: str, url: str, in_flight: int) -> None:
    limits = Limits(submitting=64)
    async with Cluster(database, [account(url, in_flight)], limits=limits) as cluster:
        task = asyncio.create_task(cluster.run_worker(max_jobs=2 * in_flight))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await asyncio.wait([task])


@attrs.frozen
class Database:
    """What a database has done so far."""

    commits: int
    written: int
    #: Bytes of the jobs, and of the queue's history, which is deleted after a day; both with their indexes.
    jobs: int
    queue: int

    @classmethod
    def of(cls, url: str) -> Database:
        with psycopg.connect(url, autocommit=True) as connection:
            row = connection.execute(
                "SELECT xact_commit, pg_current_wal_lsn() - '0/0', pg_total_relation_size('pika_jobs'), "
                "(SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace = 'dbos'::regnamespace) "
                "FROM pg_stat_database WHERE datname = current_database()"
            ).fetchone()
        assert row is not None
        return cls(*map(int, row))


def server_pids(server: PostgresServer) -> list[int]:
    first = int((server.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return [first, *map(int, children)]


async def run_cluster(server: PostgresServer, gateway: LeanServer, jobs: int, in_flight: int) -> float:
    """Return the CPU seconds of the worker for a job."""
    url = server.url("postgres")
    async with Cluster(url, [account(gateway.url, in_flight)]) as cluster:
        before, started = Database.of(url), time.monotonic()
        await cluster.submit_many(prompts(jobs))
        seconds, after = time.monotonic() - started, Database.of(url)
        print(
            f"enqueued: {jobs:,} jobs, {jobs / seconds:.0f} a second, {(after.commits - before.commits) / jobs:.3f} "
            f"commits and {(after.written - before.written) / jobs:,.0f} bytes of log a job",
            flush=True,
        )
        before, base, highest = after, Usage.of(*server_pids(server)), 0
        with running_worker(url, gateway.url, in_flight) as pid:
            started = first = time.monotonic()
            while True:
                await asyncio.sleep(SAMPLED_EVERY_S)
                stats = await cluster.stats()
                counts, flying = stats.counts, stats.accounts["native"].in_flight if stats.accounts else 0
                highest = max(highest, flying)
                usage, server_usage = Usage.of(pid), Usage.of(*server_pids(server))
                if not counts.get("succeeded"):
                    first = time.monotonic()
                if counts.get("succeeded", 0) + counts.get("unknown", 0) == jobs:
                    break
        seconds, after = time.monotonic() - started, Database.of(url)
        print(
            f"one worker: {jobs:,} jobs, at most {highest:,} in flight, {1000 * usage.cpu / jobs:.2f} ms of CPU a job "
            f"and {1000 * (server_usage.cpu - base.cpu) / jobs:.2f} ms of the server's, {jobs / seconds:.0f} a second "
            f"from its start, {jobs / (time.monotonic() - first):.0f} from the first settled on; "
            f"{usage.memory / 2**20:.0f} MB; "
            f"{(after.commits - before.commits) / jobs:.2f} commits and {(after.written - before.written) / jobs:,.0f} "
            f"bytes of log a job; tables of {after.jobs / jobs:,.0f} bytes a job and {after.queue / jobs:,.0f} of the "
            f"queue's history; counts {counts}",
            flush=True,
        )
    return usage.cpu / jobs


def main(jobs: int, in_flight: int, median: float) -> None:
    few = max(1, jobs // 10)
    with run_lean_server(median) as gateway:
        command = [sys.executable, __file__, "--client", gateway.url, str(few), str(min(in_flight, few))]
        done = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
        alone = float(done.stderr.split()[-1])
    server = PostgresServer.create(fsync=True)
    try:
        with run_lean_server(median) as gateway:
            together = asyncio.run(run_cluster(server, gateway, jobs, in_flight))
            figures = gateway.figures()
    finally:
        server.remove()
    print(f"gateway: {figures['tasks']:,.0f} charges for {jobs:,} jobs, {figures['polls']:.1f} polls a job", flush=True)
    print(f"CPU of a job in a worker over that of a client with a journal: {together / alone:.2f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--worker", database, url, in_flight]:
            asyncio.run(work(database, url, int(in_flight)))
        case ["--client", url, jobs, in_flight]:
            asyncio.run(run_client(url, int(jobs), int(in_flight)))
        case [jobs, in_flight, median]:
            main(int(jobs), int(in_flight), float(median))
        case _:
            main(50_000, 5_000, 60.0)
