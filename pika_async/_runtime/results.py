"""Downloads of results, with one poll for a new URL if the first has expired.

Never submits anything.
"""

from __future__ import annotations

import contextlib
import glob
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import attrs

from pika_async._http.downloads import Downloader
from pika_async._http.partial_file import Download, sha256_of
from pika_async._journal.protocol import Journal
from pika_async._runtime.gateway import GatewayClient
from pika_async.errors import DownloadFailed, InvalidRequest, JournalFailed
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job
from pika_async.models import TaskState, Video

__all__ = ["ResultDownloader", "needs_download"]

_log = logging.getLogger("pika_async.results")


def needs_download(job: Job) -> bool:
    """Whether *job* succeeded and its file was not downloaded or no longer exists."""
    return job.status is JobStatus.SUCCEEDED and (job.file is None or not job.file.exists())


def _unlink_archived(target: Path) -> None:
    """Remove *target* if it is a second link to the archived file of an earlier job.

    `resubmit` links a file to its archive name before it removes the old name; a crash leaves both.
    """
    if target.is_file():
        others = target.parent.glob(f"{glob.escape(target.stem)}~*{target.suffix}")
        if any(other.samefile(target) for other in others):
            target.unlink()


class ResultDownloader:
    """Downloads of the results of one client. A failed download never leads to a new submission.

    :param gateway: polls for a new URL when one has expired.
    :param downloader: fetches and verifies files.
    :param journal: gets the file name and the hash of each result.
    """

    def __init__(self, gateway: GatewayClient, downloader: Downloader, journal: Journal) -> None:
        self._gateway = gateway
        self._downloader = downloader
        self._journal = journal

    def into(self, folder: Path) -> Callable[[Job], Awaitable[Job]]:
        """Return a function that downloads a job's result to KEY.mp4 in *folder*."""

        async def collect(job: Job) -> Job:
            return await self.collect(job, folder / f"{job.key}.mp4")

        return collect

    async def collect(self, job: Job, target: Path) -> Job:
        """Download the result of *job* to *target*, unless the file is there already.

        :return: the job with its file, or with the `DownloadFailed` that explains why there is none.
        :raises InvalidRequest: if the job has no video.
        """
        if job.video is None:
            raise InvalidRequest(
                field="job",
                value=job.key,
                reason=f"is {job.status} and has no video; only a succeeded job can be downloaded",
            )
        await anyio.to_thread.run_sync(_unlink_archived, target)
        if job.sha256 is not None and await sha256_of(target) == job.sha256:  # renamed into place just before a crash
            finished = job.with_file(target, job.sha256)
        else:
            finished = await self._fetched(job, job.video, target)
        await self._save(finished)
        log_job(_log, logging.INFO, finished, "not downloaded" if finished.file is None else "downloaded")
        return finished

    async def _fetched(self, job: Job, video: Video, target: Path) -> Job:
        async def before_publish(sha256: str) -> None:
            await self._save(job.with_pending_file(sha256))

        try:
            download, video = await self.fetch(video, target, before_publish)
            return attrs.evolve(job, video=video).with_file(download.file, download.sha256)
        except DownloadFailed as error:
            return job.with_download_error(error)

    async def _save(self, job: Job) -> None:
        # A journal that fails keeps the record in its fallback file, and fails the next submission as well.
        with contextlib.suppress(JournalFailed):
            await self._journal.save(job)

    async def fetch(
        self, video: Video, target: Path, before_publish: Callable[[str], Awaitable[None]] | None = None
    ) -> tuple[Download, Video]:
        """Download *video* to *target*.

        :param before_publish: called with the SHA-256 of the verified file before it gets its final name.
        :return: the download, and the video with the URL that served it.
        :raises DownloadFailed: also if the URL has expired and a poll returned no new one.
        """
        try:
            return await self._downloader.fetch(video.url, target, before_publish), video
        except DownloadFailed as error:
            if not error.expired or video.task_id is None:
                raise
            snapshot = (await self._gateway.poll(video.task_id)).snapshot
            if snapshot is None or snapshot.state is not TaskState.SUCCEEDED or snapshot.video is None:
                raise
            return await self._downloader.fetch(snapshot.video.url, target, before_publish), snapshot.video
