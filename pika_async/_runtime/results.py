"""Downloads of results: a young result may be late, and an expired URL is polled for once.

Never submits anything.
"""

from __future__ import annotations

import abc
import contextlib
import glob
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Protocol, Self

import anyio
import attrs

from pika_async._http.addresses import is_loopback
from pika_async._http.downloads import Deliver, Downloader
from pika_async._http.media import MEDIA_SUFFIXES
from pika_async._http.partial_file import Download, sha256_of
from pika_async._journal.protocol import Journal
from pika_async._runtime.job_files import find_job
from pika_async._runtime.open_accounts import OpenAccounts
from pika_async.config.client import ClientConfig
from pika_async.errors import ConfigurationError, DownloadFailed, InvalidRequest, JournalFailed
from pika_async.jobs import Job, utc_from_timestamp
from pika_async.logs import log_job
from pika_async.models import Snapshot, TaskState, Video

__all__ = [
    "BatchDownload", "Downloaders", "FolderDownload", "ResultCalls", "ResultDownloader", "is_url", "require_video",
    "route_refusal",
]  # fmt: skip

#: Host of results that the gateways document. If its name leads into a tunnel here, those of other hosts do too.
RESULT_HOST: Final = "cdn.pika.art"
#: Seconds after settling in which a host that has no result may not have it yet.
LATE_RESULT_S: Final = 120.0

#: The beginning of a URL, also as `pathlib` keeps it, and of no path, not even one with the letter of a drive.
URL_START: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")

_log = logging.getLogger("pika_async.results")


def is_url(target: str | os.PathLike[str]) -> bool:
    """Return whether *target* is a URL rather than a path of this machine."""
    return URL_START.match(os.fspath(target)) is not None


def _possible_files(target: Path) -> list[Path]:
    """Return *target* under the ending of each kind of result, its own first."""
    if target.suffix.lower() not in MEDIA_SUFFIXES:
        return [target]
    return [target, *(target.with_suffix(suffix) for suffix in MEDIA_SUFFIXES if suffix != target.suffix)]


def _unlink_archived(target: Path) -> None:
    """Remove each file of *target* that is a second link to the archived file of an earlier job.

    `resubmit` links a file to its archive name before it removes the old name; a crash leaves both.
    """
    for file in _possible_files(target):
        if file.is_file():
            others = file.parent.glob(f"{glob.escape(file.stem)}~*{file.suffix}")
            if any(other.samefile(file) for other in others):
                file.unlink()


async def _find_file(target: Path, sha256: str | None) -> Path | None:
    """Return the file of *target* with these bytes: it was renamed into place just before a crash."""
    if sha256 is not None:
        for file in _possible_files(target):
            if await sha256_of(file) == sha256:
                return file
    return None


def require_video(job: Job) -> Video:
    """Return the video of *job*.

    :raises InvalidRequest: if it has none.
    """
    if job.video is None:
        reason = f"is {job.status.label} and has no video; only a succeeded job can be downloaded"
        raise InvalidRequest(field="job", value=job.key, reason=reason)
    return job.video


def patience_for(settled_at: datetime | None, now: float) -> float:
    """Return the seconds in which the result of a job may still be published, 0 to `LATE_RESULT_S`.

    :param settled_at: when the job settled; None if that is not known, which counts as now.
    :param now: unix time in seconds.
    """
    age = 0.0 if settled_at is None else now - settled_at.timestamp()
    return min(max(LATE_RESULT_S - age, 0.0), LATE_RESULT_S)


async def route_refusal(base_url: str, *, allow: Collection[str], proxy: str | None) -> str | None:
    """Return why no result of this gateway could be fetched from this machine, as far as it can be known before.

    :param allow: kinds of results to fetch as well; see `Downloader`.
    :param proxy: see `Downloader`.
    """
    downloader = Downloader(loopback=is_loopback(base_url), allow=allow, proxy=proxy)
    return await downloader.route_refusal(RESULT_HOST)


class Downloaders:
    """Downloaders of one client: one for gateways on this machine, whose results are on it too, one for all others."""

    def __init__(self, config: ClientConfig) -> None:
        self._by_loopback = {
            loopback: Downloader(loopback=loopback, allow=config.allow_results, proxy=config.proxy)
            for loopback in {is_loopback(account.base_url) for account in config.accounts}
        }
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for downloader in self._by_loopback.values():
            await self._stack.enter_async_context(downloader)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def of(self, base_url: str) -> Downloader:
        """Return the downloader for results of the gateway at this base URL; without one of its own, the strict one."""
        return self._by_loopback.get(is_loopback(base_url), self._by_loopback[min(self._by_loopback)])


class ResultDownloader:
    """Downloads of the results of one client. A failed download never leads to a new submission.

    :param accounts: poll for a new URL when one has expired.
    :param downloaders: fetch and verify files.
    :param journal: gets the file name and the hash of each result.
    """

    def __init__(self, accounts: OpenAccounts, downloaders: Downloaders, journal: Journal) -> None:
        self._accounts = accounts
        self._downloaders = downloaders
        self._journal = journal

    def refusal(self, job: Job) -> str | None:
        """Return why the address of the result of *job* is refused, as far as its text shows."""
        return None if job.video is None else self._downloaders.of(job.base_url).refusal(job.video.url)

    async def collect(self, job: Job, target: Path, *, overwrite: bool = False) -> Job:
        """Download the result of *job* to *target*, with the ending of its kind, unless the file is there already.

        :param overwrite: whether to replace another file of that name.
        :return: the job with its file, or with the `DownloadFailed` that explains why there is none.
        :raises InvalidRequest: if the job has no video.
        """
        video = require_video(job)
        if any(file.exists() for file in _possible_files(target)):
            await anyio.to_thread.run_sync(_unlink_archived, target)
        file = await _find_file(target, job.sha256)
        if file is not None and job.sha256 is not None:
            finished = job.with_file(file, job.sha256, utc_from_timestamp(time.time()))
        else:
            finished = await self._fetched(job, video, target, overwrite=overwrite)
        return await self.record(finished)

    async def _fetched(self, job: Job, video: Video, target: Path, *, overwrite: bool) -> Job:
        async def before_publish(sha256: str) -> None:
            await self.save(job.with_pending_file(sha256))

        try:
            download, video = await self.fetch(video, target, before_publish, job=job, overwrite=overwrite)
            now = utc_from_timestamp(time.time())
            return attrs.evolve(job, video=video).with_file(download.file, download.sha256, now)
        except DownloadFailed as error:
            return job.with_download_error(error)

    async def record(self, job: Job) -> Job:
        """Save and log *job* after the attempt to download its result; return it."""
        await self.save(job)
        log_job(_log, logging.INFO, job, "downloaded" if job.is_downloaded else "not downloaded")
        return job

    async def save(self, job: Job) -> None:
        """Save *job*, with others that come within moments."""
        # A journal that fails keeps the record in its fallback file, and fails the next submission as well.
        with contextlib.suppress(JournalFailed):
            await self._journal.save(job, linger=True)

    async def fetch(
        self,
        video: Video,
        target: Path,
        before_publish: Callable[[str], Awaitable[None]] | None = None,
        *,
        job: Job | None = None,
        overwrite: bool = False,
        deliver: Deliver | None = None,
    ) -> tuple[Download, Video]:
        """Download *video* to *target*, with the ending of its kind.

        :param before_publish: called with the SHA-256 of the verified file before it gets its final name.
        :param job: its job; until two minutes after it settled the result may be late. Default: not known, as if now.
        :param overwrite: whether to replace another file of that name. Default: False.
        :param deliver: takes the file elsewhere, see `Downloader.fetch`. Default: none.
        :return: the download, and the video with the URL that served it.
        :raises DownloadFailed: also if the URL has expired and a poll returned no new one.
        """
        settled_at = None if job is None else job.settled_at
        job = job or self._job_of(video)
        base_url = next(iter(self._accounts)).base_url if job is None else job.base_url
        downloader = self._downloaders.of(base_url)
        fetch = partial(
            downloader.fetch, target=target, before_publish=before_publish, overwrite=overwrite, deliver=deliver
        )
        try:
            return await fetch(video.url, patience=patience_for(settled_at, time.time())), video
        except DownloadFailed as error:
            snapshot = await self._poll_again(video, job) if error.expired else None
            if snapshot is None or snapshot.state is not TaskState.SUCCEEDED or snapshot.video is None:
                raise
            return await fetch(snapshot.video.url), snapshot.video

    async def _poll_again(self, video: Video, job: Job | None) -> Snapshot | None:
        """Poll the task of a video; None if no account of this client has it."""
        account = next(iter(self._accounts)) if job is None else self._accounts.find(job)
        if video.task_id is None or account is None:
            return None
        handle = None if job is None else job.handle
        return (await account.gateway.poller.poll(video.task_id, handle=handle)).snapshot

    def _job_of(self, video: Video) -> Job | None:
        """Return the job whose task made a video; None if the journal has none."""
        for account in self._accounts if video.task_id is not None else ():
            key = self._journal.key_for_task(account.provider.name, account.base_url, video.task_id or "")
            if key is not None:
                return self._journal.get(key)
        return None


class BatchDownload(Protocol):
    """Downloads of the results of one batch."""

    async def fetch(self, job: Job) -> Job:
        """Download the result of *job*; return it with the result or the `DownloadFailed`."""

    def refusal(self, job: Job) -> str | None:
        """See `ResultDownloader.refusal`."""


@attrs.frozen
class FolderDownload:
    """Downloads of the results of one batch into a folder, each as KEY with the ending of its kind."""

    results: ResultDownloader
    folder: Path

    async def fetch(self, job: Job) -> Job:
        """Download the result of *job*; see `ResultDownloader.collect`."""
        return await self.results.collect(job, self.folder / f"{job.key}.mp4")

    def refusal(self, job: Job) -> str | None:
        """See `ResultDownloader.refusal`."""
        return self.results.refusal(job)


class StoreCalls(Protocol):
    """The part of `StoredResults` that these calls use; see there."""

    async def store_job(self, job: Job, url: str, *, overwrite: bool = False) -> str: ...

    async def store_video(self, video: Video, url: str, *, overwrite: bool = False) -> str: ...


class SessionWithResults(Protocol):
    """The part of `Session` that these calls use; see there."""

    @property
    def results(self) -> ResultDownloader: ...

    @property
    def stored(self) -> StoreCalls: ...


class ResultCalls(abc.ABC):
    """The downloads of single results, while the client is open."""

    _journal: Journal

    @abc.abstractmethod
    def _require_session(self, *, accepting: bool = False) -> SessionWithResults: ...

    async def download(
        self, video: Video | Job | str, path: str | os.PathLike[str], *, overwrite: bool = False
    ) -> Path:
        """Download a result to `path`, whole and verified. A URL that has expired is requested anew once.

        :param video: a video, a job that has one, or the key of such a job.
        :param path: the new file.
        :param overwrite: whether another file at `path` is replaced, in one step and only once the new one is whole;
            default: False, an existing file stays and the download fails.
        :raises DownloadFailed: says what was wrong; the video remains available and can be downloaded again.
        :raises InvalidRequest: if the job has no video.
        :raises UnknownJob: if no job has that key.
        :raises ConfigurationError: if `path` is a URL; see `store`.
        """
        results = self._require_session().results
        if is_url(path):
            raise ConfigurationError(setting="path", reason="must be a path; store(video, url) takes an s3:// URL")
        if isinstance(video, Video):
            return (await results.fetch(video, Path(path), overwrite=overwrite))[0].file
        done = await results.collect(find_job(self._journal, video), Path(path), overwrite=overwrite)
        if done.file is None:
            raise done.to_exception()
        return done.file

    async def store(self, video: Video | Job | str, url: str, *, overwrite: bool = False) -> str:
        """Store a result as the object `url`, whole and verified; return its URL, with the ending of its kind.

        Needs the extra `s3`. Credentials, region and endpoint are found as by every tool of AWS.

        :param video: a video, a job that has one, or the key of such a job.
        :param url: `s3://BUCKET/KEY` of the new object.
        :param overwrite: whether it replaces another object; default: False, an existing object stays and the call
            fails.
        :raises DownloadFailed: says what was wrong; the video remains available and can be stored again.
        :raises InvalidRequest: if the job has no video.
        :raises UnknownJob: if no job has that key.
        :raises ConfigurationError: if `url` is not such a URL, or the extra is missing.
        """
        stored = self._require_session().stored
        if isinstance(video, Video):
            return await stored.store_video(video, url, overwrite=overwrite)
        return await stored.store_job(find_job(self._journal, video), url, overwrite=overwrite)
