"""Storm over a cluster: workers that are killed, stopped and terminated while they have jobs, and a restarted database."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from pika_async import Cluster, JobStatus
from pika_async.emulator import Charge, Emulator
from pika_async.jobs import Job
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.storm_rows import StormRows
from tests.engines.worker_process import WorkerProcess, Workers, eventually, opened, settled, workers

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(600)]

TTL_S: Final = 6.0
#: Number of jobs at least: the short form, or the long one.
JOBS: Final = int(os.environ.get("PIKA_CLUSTER_JOBS", "60"))
IS_LONG: Final = JOBS > 100
#: How many jobs each account may have in flight.
CAPS: Final = {
    name: cap if IS_LONG else cap // 5
    for name, cap in (("cometapi", 5), ("yescale", 10), ("gptge", 15), ("native", 20))
}
#: A task takes long enough that a strike meets it, and has settled by the time that the lease of a killed worker has
#: ended, so that its place at the gateway is free when the job, which is in doubt by then, has given it back.
OPTIONS: Final[dict[str, Any]] = {
    "durations": "bimodal:1.2,0.5,2.2", "video_seconds": 1, "render": False,
    "scenario": [{"on": "create", "share": 0.3, "do": {"fault": "delay", "seconds": 0.4}}],
}  # fmt: skip
#: Strikes, those of a row at once: SIGKILL; "zombie": SIGSTOP until others have all of its jobs; "pause": SIGSTOP for
#: less than a lease; SIGTERM; a restart of the database.
STRIKES: Final = (
    ("kill",), ("zombie",), ("pause",), ("term",), ("kill", "term"), ("zombie", "pause"), ("restart", "kill"),
)  # fmt: skip
#: Those of the long form beside the short one's.
MORE_STRIKES: Final = (*STRIKES[:-1], ("zombie", "kill")) * 2
SIGNALS: Final = {
    "kill": signal.SIGKILL, "zombie": signal.SIGSTOP, "pause": signal.SIGSTOP, "term": signal.SIGTERM,
}  # fmt: skip
#: The extensions of a worker's own lease within which it takes over: TTL + 5 s, in thirds of a TTL.
MAX_BEATS: Final = 6


@attrs.define
class Storm:
    """Strikes against the workers of a cluster, in an order and at victims that a seed chooses."""

    server: PostgresServer
    rows: StormRows
    cluster: Cluster
    processes: Workers
    random: random.Random
    #: Number of the strikes of each kind, each of which met jobs in flight.
    strikes: Counter[str] = attrs.field(factory=Counter)
    keys: list[str] = attrs.field(factory=list)
    #: Who follows the jobs, from when they were submitted.
    followers: list[asyncio.Task[list[Job]]] = attrs.field(factory=list)

    async def rage(self) -> list[Job]:
        """Strike while jobs are submitted and under way; return them all once they are finished."""
        groups = [*STRIKES, *(MORE_STRIKES if IS_LONG else ())]
        self.random.shuffle(groups)
        for _ in range(3):
            self.processes.start()
        number = JOBS // len(groups)
        for group in groups:
            await self._submit(number)
            await self._strike(group, number)
        await self._submit(max(0, JOBS - len(self.keys)))
        return [job for jobs in await asyncio.gather(*self.followers) for job in jobs]

    async def _submit(self, number: int) -> None:
        start = len(self.keys)
        keys = await self.cluster.submit_many([f"a cat {start + each}" for each in range(number)])
        self.keys += keys
        self.followers.append(asyncio.create_task(settled(self.cluster, keys, 280)))

    async def _strike(self, group: Sequence[str], number: int) -> None:
        """Send the signals of a group at once, and wait for what follows from each; replace what has ended."""
        kinds = [kind for kind in group if kind in SIGNALS]
        async with asyncio.timeout(120):
            victims = await self._choose(len(kinds), number)
        for kind, (process, _) in zip(kinds, victims, strict=True):
            process.send(SIGNALS[kind])
        live = await self.rows.live()  # without those that have closed by now
        assert all(live.get(process.pid, ("", 1))[1] > 0 for process, _ in victims), f"{group} met no jobs in flight"
        self.strikes.update(group)
        async with asyncio.TaskGroup() as tasks:
            for kind, (process, worker) in zip(kinds, victims, strict=True):
                tasks.create_task(self._follow(kind, process, worker))
            if "restart" in group:
                tasks.create_task(self._restart())

    async def _choose(self, wanted: int, number: int) -> list[tuple[WorkerProcess, str]]:
        """Return as many of three workers with jobs in flight; submit `number` more jobs if there are too few."""
        while True:
            live = await self.rows.live()
            running = [each for each in self.processes.processes if each.code is None]
            if len(running) < 3:  # a pause took longer than a lease, or the database was away when one started
                self.processes.start()
            there = [each for each in running if each.pid in live]
            busy = [each for each in there if live[each.pid][1] > 1]
            if len(there) >= 3:
                if len(busy) >= wanted:
                    return [(each, live[each.pid][0]) for each in self.random.sample(busy, wanted)]
                if await self.rows.unfinished() < 2 * number:
                    await self._submit(number)
            await asyncio.sleep(0.1)

    async def _follow(self, kind: str, process: WorkerProcess, worker: str) -> None:
        """Wait until a strike has had its effect, and start another worker in place of one that has ended."""
        if kind == "zombie":
            await eventually(lambda: self.rows.is_taken_over(worker), 120)
            process.send(signal.SIGCONT)
            assert await process.ended() == 1
            assert "the lease of this worker has ended" in process.text
        elif kind == "pause":
            await asyncio.sleep(self.random.uniform(0.2, 0.5) * TTL_S)
            process.send(signal.SIGCONT)
            return
        elif kind == "term":
            assert await process.ended() == 0
        else:
            await process.ended()
        self.processes.start()

    async def _restart(self) -> None:
        await asyncio.to_thread(self.server.stop)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(self.server.start)


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


async def verify(storm: Storm, emulator: Emulator, jobs: list[Job]) -> None:
    """Check that each job ended, was charged once at most and within the caps, and by workers with a lease."""
    cluster, charges = storm.cluster, {charge.prompt: charge for charge in emulator.ledger}
    assert len(charges) == len(emulator.ledger), "a job was paid twice"
    assert {job.key for job in jobs} == set(storm.keys)
    assert len(storm.keys) >= JOBS
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
    print(f"{len(jobs)} jobs, most in flight {most}, in doubt {len(doubts)}, orphans {len(await cluster.orphans())}")
    assert await storm.rows.breaches() == []


async def verify_take_overs(storm: Storm) -> None:
    """Check that the jobs of every worker that ended were taken over in time, as its heirs' own leases count it."""
    found = await storm.rows.take_overs()
    for reason in ("expired", "closed"):
        each = sorted((round(one.seconds, 1), one.beats) for one in found if one.reason == reason)
        print(f"{reason}: seconds from the end of the lease to the last job taken over, and extensions: {each}")
    killed = storm.strikes["kill"] + storm.strikes["zombie"]
    assert sum(one.reason == "expired" for one in found) >= killed
    assert [one for one in found if one.beats > MAX_BEATS] == []


async def test_workers_die_at_random_and_every_job_ends_once(tmp_path: Path) -> None:
    seed = os.environ.get("PIKA_STORM_SEED") or str(time.time_ns())
    print(f"PIKA_STORM_SEED={seed}")
    server = PostgresServer.create()
    try:
        url = new_database(server)
        async with Emulator(**OPTIONS) as emulator:
            key = emulator.api_key
            accounts = [
                {"provider": name, "api_key": key, "base_url": f"{emulator.url}/{name}", "max_in_flight": cap}
                for name, cap in CAPS.items()
            ]
            rows, begin = StormRows(url), time.monotonic()
            given = {"download_to": str(tmp_path / "videos"), "lease_ttl": TTL_S, "max_jobs": 30 if IS_LONG else 8}
            async with opened(url, *accounts) as cluster:
                await rows.create()
                with workers(tmp_path, url, accounts, **given) as processes:
                    storm = Storm(server, rows, cluster, processes, random.Random(seed))
                    jobs = await storm.rage()
                    print(f"{time.monotonic() - begin:.0f} s, {dict(storm.strikes)}")
                    await verify(storm, emulator, jobs)
                    await verify_take_overs(storm)
    finally:
        server.remove()
