"""Brings results home: the file of a settled job, with one look for a fresh address where the first has expired."""

from __future__ import annotations

from pathlib import Path

import attrs

from pika_async._downloads import Download, Downloader
from pika_async._exchange import Exchange
from pika_async._journal import Journal
from pika_async.errors import DownloadFailed, InvalidRequest
from pika_async.lifecycle import Job
from pika_async.models import TaskState, Video

__all__ = ["Collector"]


class Collector:
    """Downloads for one client. A failed download never leads to a new generation."""

    def __init__(self, exchange: Exchange, downloader: Downloader, journal: Journal) -> None:
        self._exchange = exchange
        self._downloader = downloader
        self._journal = journal

    async def collect(self, job: Job, target: Path) -> Job:
        """`job` with its file, or with the `DownloadFailed` that says why there is none.

        :raises InvalidRequest: if the job has no video.
        """
        if job.video is None:
            raise InvalidRequest(field="job", value=job.key, reason=f"is {job.status} and has no video")
        try:
            got, video = await self.fetch(job.video, target)
            done = attrs.evolve(job, video=video).fetched(got.file, got.sha256)
        except DownloadFailed as error:
            done = job.not_fetched(error)
        await self._journal.keep(done)
        return done

    async def fetch(self, video: Video, target: Path) -> tuple[Download, Video]:
        """The file of `video`, and the video with the address that served it.

        :raises DownloadFailed: also if the address has expired and no poll brought another.
        """
        try:
            return await self._downloader.fetch(video.url, target), video
        except DownloadFailed as error:
            if not error.expired or video.task_id is None:
                raise
            look = await self._exchange.poll(video.task_id)
            snapshot = look.snapshot
            if snapshot is None or snapshot.state is not TaskState.SUCCEEDED or snapshot.video is None:
                raise
            return await self._downloader.fetch(snapshot.video.url, target), snapshot.video
