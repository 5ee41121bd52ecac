"""Crashes of workers: each a process of its own, killed or stopped at a named place, whose jobs another one ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pika_async import Cluster, JobStatus
from pika_async.emulator import Emulator
from tests.engines.worker_process import (
    Workers,
    account,
    ended,
    eventually,
    opened,
    recorded,
    settled,
    verify,
    workers,
)

pytestmark = pytest.mark.anyio

OPTIONS: dict[str, Any] = {"durations": "constant:0.3", "video_seconds": 1, "render": False}


@pytest.mark.slow
async def test_a_worker_killed_before_the_answer_leaves_one_doubt(database_url: str, tmp_path: Path) -> None:
    """The request whose answer was not read is not sent again; all others are generated and downloaded."""
    slow = {"on": "create", "prompt": "the slow one", "do": {"fault": "delay", "seconds": 600.0}}
    async with Emulator(**OPTIONS, scenario=[slow]) as emulator, opened(database_url, account(emulator)) as cluster:
        keys = await cluster.submit_many(["the slow one", *(f"a cat {number}" for number in range(5))])
        with workers(tmp_path, database_url, [account(emulator)], download_to=str(tmp_path / "videos")) as processes:
            first = processes.start()
            await eventually(lambda: any(charge.prompt == "the slow one" for charge in emulator.ledger))
            await recorded(cluster, 5)
            first.kill()
            processes.start()
            jobs = await settled(cluster, keys)
            verify(emulator, jobs, in_doubt=1)
            assert await ended(cluster) == ["expired"]
            assert "in doubt: an earlier worker ended before it saved the response" in processes.texts
        assert [job.request.prompt async for job in cluster.jobs(JobStatus.UNKNOWN)] == ["the slow one"]


async def take_over(cluster: Cluster, emulator: Emulator, keys: list[str], processes: Workers, in_doubt: int) -> None:
    """Start another worker, and check what it makes of the jobs of one that is not there any more."""
    processes.start()
    jobs = await settled(cluster, keys)
    verify(emulator, jobs, in_doubt)
    assert sum(job.file is not None for job in jobs) == len(keys) - in_doubt
    stats = await cluster.stats()
    assert [each.in_flight for each in stats.accounts.values()] == [0]
    assert sum(each.charges for each in stats.accounts.values()) == len(keys)


async def test_a_worker_killed_between_the_answer_and_the_record_leaves_one_doubt(
    database_url: str, tmp_path: Path
) -> None:
    async with Emulator(**OPTIONS) as emulator, opened(database_url, account(emulator)) as cluster:
        keys = await cluster.submit_many([f"a cat {number}" for number in range(4)])
        given = [account(emulator, max_in_flight=1)]
        with workers(tmp_path, database_url, given, download_to=str(tmp_path / "videos")) as processes:
            first = processes.start(stops_at="id")
            await eventually(lambda: first.is_stopped)
            assert len(emulator.ledger) == 1
            first.kill()
            await take_over(cluster, emulator, keys, processes, in_doubt=1)


async def test_a_worker_killed_while_it_polls_is_followed_by_one_that_polls(database_url: str, tmp_path: Path) -> None:
    options = OPTIONS | {"durations": "constant:5"}
    async with Emulator(**options) as emulator, opened(database_url, account(emulator)) as cluster:
        keys = await cluster.submit_many([f"a cat {number}" for number in range(6)])
        given = [account(emulator)]
        with workers(tmp_path, database_url, given, download_to=str(tmp_path / "videos")) as processes:
            first = processes.start()
            await recorded(cluster, 6)
            await eventually(lambda: emulator.polls.total >= 6)
            first.kill()
            await take_over(cluster, emulator, keys, processes, in_doubt=0)
            assert len(emulator.ledger) == 6


@pytest.mark.slow
async def test_a_worker_killed_while_it_downloads_leaves_whole_files(database_url: str, tmp_path: Path) -> None:
    """The downloads begin again, without a second charge."""
    videos = tmp_path / "videos"
    halves = [{"on": "cdn", "first": 3, "do": {"fault": "body-stall", "fraction": 0.5, "seconds": None}}]
    async with Emulator(**OPTIONS, scenario=halves) as emulator, opened(database_url, account(emulator)) as cluster:
        keys = await cluster.submit_many([f"a cat {number}" for number in range(3)])
        with workers(tmp_path, database_url, [account(emulator)], download_to=str(videos)) as processes:
            first = processes.start()
            await eventually(lambda: len(emulator.cdn_requests) == 3)
            first.kill()
            assert [*videos.glob("[!.]*")] == []
            await take_over(cluster, emulator, keys, processes, in_doubt=0)
        assert {path.name for path in videos.glob("[!.]*")} == {f"{key}.mp4" for key in keys}
