"""Jobs of a worker that closes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pika_async import Job, JobStatus
from pika_async._runtime.results import FolderDownload
from pika_async.emulator import Emulator
from tests.engines.worker_process import account, opened, settled

pytestmark = pytest.mark.anyio


async def test_a_download_that_fails_because_the_worker_closes_is_done_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is not seen as finished without its file."""
    fetch, fetching, closing = FolderDownload.fetch, asyncio.Event(), asyncio.Event()

    async def fail_when_closed(self: FolderDownload, job: Job) -> Job:
        fetching.set()
        while not closing.is_set():
            try:
                await closing.wait()
            except asyncio.CancelledError:  # as of a client that was closed: a failure of the download
                return job
        return await fetch(self, job)

    options: dict[str, Any] = {"download_to": tmp_path / "videos", "lease_ttl": 3.0}
    url = f"sqlite:///{tmp_path}/cluster.db"
    async with (
        Emulator(durations="constant:0.1", video_seconds=1) as emulator,
        opened(url, account(emulator)) as cluster,
    ):
        keys = await cluster.submit_many(["a cat"])
        with monkeypatch.context() as patched:
            patched.setattr(FolderDownload, "fetch", fail_when_closed)
            first = asyncio.create_task(cluster.run_worker(**options))
            await fetching.wait()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        assert [worker.jobs for worker in await cluster.workers()] == [1]
        second = asyncio.create_task(cluster.run_worker(**options))
        (job,) = await settled(cluster, keys)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert (job.status, job.file) == (JobStatus.SUCCEEDED, tmp_path / "videos" / f"{job.key}.mp4")
