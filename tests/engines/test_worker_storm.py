"""Storm over a cluster: workers that are killed, stopped and terminated at random, and one restart of the database."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import attrs
import psycopg
import pytest

from pika_async import Cluster, JobStatus
from pika_async.emulator import Charge, Emulator
from pika_async.jobs import Job
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.worker_process import WorkerProcess, Workers, eventually, opened, settled, workers

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

TTL_S: Final = 4.0
#: Number of jobs: the short form, or the long one.
JOBS: Final = int(os.environ.get("PIKA_CLUSTER_JOBS", "60"))
#: How many jobs each account may have in flight.
CAPS: Final = {
    name: cap if JOBS > 100 else cap // 5
    for name, cap in (("cometapi", 5), ("yescale", 10), ("gptge", 15), ("native", 20))
}
#: A task has settled by the time that the lease of a worker which was killed has ended, so that its place at the
#: gateway is free when the job, which is in doubt by then, has given it back.
OPTIONS: Final[dict[str, Any]] = {
    "durations": "bimodal:0.6,0.5,2.0", "video_seconds": 1, "render": False,
    "scenario": [{"on": "create", "share": 0.3, "do": {"fault": "delay", "seconds": 0.4}}],
}  # fmt: skip
#: Workers whose lease has expired while they still own jobs, each with the seconds since.
LATE: Final = """
    SELECT w.id, extract(epoch FROM clock_timestamp()) - coalesce(w.ended_at, w.expires_at), count(*)
    FROM pika_workers w JOIN pika_jobs j ON j.owner = w.id
    WHERE w.ended_at IS NOT NULL OR w.expires_at < extract(epoch FROM clock_timestamp())
    GROUP BY w.id, w.ended_at, w.expires_at
"""


@attrs.define
class Storm:
    """What happens to the workers."""

    server: PostgresServer
    url: str
    cluster: Cluster
    processes: Workers
    random: random.Random
    #: Number of the strikes of each kind.
    strikes: Counter[str] = attrs.field(factory=Counter)
    #: The seconds between the end of the lease of a worker and the moment at which others had all of its jobs.
    take_overs: dict[str, float] = attrs.field(factory=dict)

    async def rage(self) -> None:
        """Strike one worker after the other, each replaced at once, and restart the database in the middle."""
        alive = [self.processes.start() for _ in range(3)]
        while True:
            await asyncio.sleep(self.random.uniform(0.5, 2.0))
            await eventually(self._are_working)
            alive = [process for process in alive if process.code is None]
            if self.strikes.total() == 4 and not self.strikes["restart"]:
                self.strikes["restart"] += 1
                await asyncio.to_thread(self.server.stop)
                await asyncio.sleep(2.0)
                await asyncio.to_thread(self.server.start)
            elif alive:
                await self._strike(self.random.choice(alive))
            alive += [self.processes.start() for _ in range(3 - sum(each.code is None for each in alive))]

    async def _are_working(self) -> bool:
        workers = await self.cluster.workers()
        return len([each for each in workers if (each.expires_in or 0.0) > 0.0]) >= 3

    async def _strike(self, process: WorkerProcess) -> None:
        kind = self.random.choice(("kill", "stop", "term"))
        self.strikes[kind] += 1
        if kind == "kill":
            process.kill()
        elif kind == "term":
            process.send(signal.SIGTERM)
        else:
            process.send(signal.SIGSTOP)
            await asyncio.sleep(self.random.uniform(0.5, 3.0 * TTL_S))
            process.send(signal.SIGCONT)

    async def watch(self) -> None:
        """Record how long the jobs of workers that have ended stay theirs."""
        while True:
            try:
                rows = await asyncio.to_thread(self._late)
            except psycopg.OperationalError:
                rows = []
            for worker, seconds, _ in rows:
                self.take_overs[worker] = max(self.take_overs.get(worker, 0.0), float(seconds))
            await asyncio.sleep(0.3)

    def _late(self) -> list[Any]:
        with psycopg.connect(self.url, connect_timeout=5) as connection:
            return connection.execute(LATE).fetchall()


def most_in_flight(charges: Iterable[Charge]) -> dict[str, int]:
    """Return the largest number of tasks that ran at once, by provider."""
    steps = sorted(
        step
        for charge in charges
        for step in ((charge.charged_at, 1, charge.provider), (charge.settles_at, -1, charge.provider))
    )
    running: Counter[str] = Counter()
    most: dict[str, int] = {}
    for _, step, provider in steps:
        running[provider] += step
        most[provider] = max(most.get(provider, 0), running[provider])
    return most


async def verify(cluster: Cluster, emulator: Emulator, jobs: list[Job]) -> None:
    charges = {charge.prompt: charge for charge in emulator.ledger}
    assert len(charges) == len(emulator.ledger), "a job was paid twice"
    assert {job.status for job in jobs} <= {JobStatus.SUCCEEDED, JobStatus.UNKNOWN}
    for job in jobs:
        if job.status is JobStatus.SUCCEEDED:
            assert job.task_id == charges.pop(job.request.prompt).task_id
            assert job.file is not None
            assert job.file.read_bytes()[4:8] == b"ftyp"
        else:
            charges.pop(job.request.prompt, None)
    assert charges == {}, "a task was paid that no job has"
    assert [charge for charge in emulator.ledger if charge.fails] == []
    most = most_in_flight(emulator.ledger)
    assert {name: number for name, number in most.items() if number > CAPS[name]} == {}
    stats = await cluster.stats()
    assert {name: each.in_flight for name, each in stats.accounts.items()} == dict.fromkeys(CAPS, 0)
    assert sum(each.charges for each in stats.accounts.values()) == len(jobs)
    doubts = {job.key for job in jobs if job.status is JobStatus.UNKNOWN}
    assert {orphan.key for orphan in await cluster.orphans()} <= doubts
    print(f"most in flight {most}, in doubt {len(doubts)}, orphans {len(await cluster.orphans())}")


async def test_workers_die_at_random_and_every_job_ends_once(tmp_path: Path) -> None:
    seed = os.environ.get("PIKA_STORM_SEED") or str(time.time_ns())
    server = PostgresServer.create()
    try:
        url = new_database(server)
        async with Emulator(**OPTIONS) as emulator:
            accounts = [
                {
                    "provider": name,
                    "api_key": emulator.api_key,
                    "base_url": f"{emulator.url}/{name}",
                    "max_in_flight": cap,
                }
                for name, cap in CAPS.items()
            ]
            async with opened(url, *accounts) as cluster:
                keys = await cluster.submit_many([f"a cat {number}" for number in range(JOBS)])
                given = {"download_to": str(tmp_path / "videos"), "lease_ttl": TTL_S}
                with workers(tmp_path, url, accounts, **given) as processes:
                    storm = Storm(server, url, cluster, processes, random.Random(seed))
                    tasks = [asyncio.create_task(storm.rage()), asyncio.create_task(storm.watch())]
                    begin = time.monotonic()
                    jobs = await settled(cluster, keys, 280)
                    for task in tasks:
                        task.cancel()
                    results = await asyncio.gather(*tasks, return_exceptions=True)
                    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
                    print(f"seed {seed}: {time.monotonic() - begin:.0f} s, {dict(storm.strikes)}")
                    print("taken over after", sorted(round(value, 1) for value in storm.take_overs.values()))
                    await verify(cluster, emulator, jobs)
                    assert max(storm.take_overs.values(), default=0.0) < 60.0
    finally:
        server.remove()
