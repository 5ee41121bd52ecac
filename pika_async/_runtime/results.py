"""Brings results home: the file of a settled job, with one look for a fresh address where the first has expired."""

from __future__ import annotations

import contextlib
import glob
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import attrs

from pika_async._http.downloads import Download, Downloader, sha256_of
from pika_async._journal.protocol import Journal
from pika_async._runtime.gateway import GatewayClient
from pika_async.errors import DownloadFailed, InvalidRequest, JournalFailed
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job
from pika_async.models import TaskState, Video

__all__ = ["ResultDownloader", "needs_download"]

_log = logging.getLogger("pika_async.results")


def needs_download(job: Job) -> bool:
    """Whether it succeeded, and its file was not fetched or is not where it was put."""
    return job.status is JobStatus.SUCCEEDED and (job.file is None or not job.file.exists())


def _let_go(target: Path) -> None:
    """An earlier job's file that was being put aside, and has both names still, keeps the other only."""
    if target.is_file():
        others = target.parent.glob(f"{glob.escape(target.stem)}~*{target.suffix}")
        if any(other.samefile(target) for other in others):
            target.unlink()


class ResultDownloader:
    """Downloads for one client. A failed download never leads to a new generation."""

    def __init__(self, gateway: GatewayClient, downloader: Downloader, journal: Journal) -> None:
        self._gateway = gateway
        self._downloader = downloader
        self._journal = journal

    def into(self, folder: Path) -> Callable[[Job], Awaitable[Job]]:
        """Collects each job as KEY.mp4 in `folder`."""

        async def collect(job: Job) -> Job:
            return await self.collect(job, folder / f"{job.key}.mp4")

        return collect

    async def collect(self, job: Job, target: Path) -> Job:
        """`job` with its file, or with the `DownloadFailed` that says why there is none.

        :raises InvalidRequest: if the job has no video.
        """
        if job.video is None:
            raise InvalidRequest(field="job", value=job.key, reason=f"is {job.status} and has no video")
        await anyio.to_thread.run_sync(_let_go, target)
        if job.sha256 is not None and await sha256_of(target) == job.sha256:  # it was named, and this was not kept
            done = job.with_file(target, job.sha256)
        else:
            done = await self._fetched(job, job.video, target)
        await self._keep(done)
        log_job(_log, logging.INFO, done, "not downloaded" if done.file is None else "downloaded")
        return done

    async def _fetched(self, job: Job, video: Video, target: Path) -> Job:
        async def about_to_name(sha256: str) -> None:
            await self._keep(job.with_pending_file(sha256))

        try:
            got, video = await self.fetch(video, target, about_to_name)
            return attrs.evolve(job, video=video).with_file(got.file, got.sha256)
        except DownloadFailed as error:
            return job.with_download_error(error)

    async def _keep(self, job: Job) -> None:
        with contextlib.suppress(JournalFailed):  # the record is in the fallback file; the next submission hears of it
            await self._journal.save(job)

    async def fetch(
        self, video: Video, target: Path, about_to_name: Callable[[str], Awaitable[None]] | None = None
    ) -> tuple[Download, Video]:
        """The file of `video`, and the video with the address that served it.

        :raises DownloadFailed: also if the address has expired and no poll brought another.
        """
        try:
            return await self._downloader.fetch(video.url, target, about_to_name), video
        except DownloadFailed as error:
            if not error.expired or video.task_id is None:
                raise
            look = await self._gateway.poll(video.task_id)
            snapshot = look.snapshot
            if snapshot is None or snapshot.state is not TaskState.SUCCEEDED or snapshot.video is None:
                raise
            return await self._downloader.fetch(snapshot.video.url, target, about_to_name), snapshot.video
