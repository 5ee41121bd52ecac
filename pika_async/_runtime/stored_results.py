"""Results that are kept in a store: verified on the local disk, then stored whole under one name. Submits nothing.

A result whose record was lost after it was stored is recognized by its SHA-256, and not fetched again.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import attrs

from pika_async._http.download_state import AbortDownload
from pika_async._http.partial_file import Download
from pika_async._http.stores import ObjectPlace, ObjectStore, StoreFailed, possible_places
from pika_async._journal.protocol import Journal
from pika_async._planning.repetition import latest_archived
from pika_async._planning.resolution import archive_key
from pika_async._runtime.results import ResultDownloader, require_video
from pika_async.errors import ConfigurationError, DownloadFailed, InvalidRequest, shorten
from pika_async.jobs import Job, utc_from_timestamp
from pika_async.models import Video

__all__ = ["BucketDownload", "StoredResults"]

_log = logging.getLogger("pika_async.stored_results")


@attrs.frozen
class StoredResults:
    """Results of one client in a store.

    :param results: fetches and verifies them.
    :param store: keeps them.
    :param journal: has the jobs.
    :param spool: folder of a result until it is stored.
    """

    results: ResultDownloader
    store: ObjectStore
    journal: Journal
    spool: Path

    async def batch(self, target: str | os.PathLike[str]) -> BucketDownload:
        """Return the downloads of a batch below the URL *target*, once the store would take them.

        :raises ConfigurationError: if it would not; nothing was sent.
        """
        prefix = ObjectPlace.parse(target, setting="download_to").as_prefix
        try:
            await self.store.check(prefix)
        except StoreFailed as failure:
            reason = f"{prefix} must be a place where results can be stored: {failure}; nothing was sent"
            raise ConfigurationError(setting="download_to", reason=reason) from None
        return BucketDownload(self, prefix)

    async def collect(self, job: Job, place: ObjectPlace, *, overwrite: bool = False) -> Job:
        """Store the result of *job* as *place*, with the ending of its kind, unless it is there already.

        :param overwrite: whether to replace another object of that name.
        :return: the job with the URL of the object, or with the `DownloadFailed` that explains why it is missing.
        :raises InvalidRequest: if the job has no video.
        """
        video = require_video(job)
        try:
            stored = await self._find(place, job.sha256)
        except StoreFailed as failure:
            return await self.results.record(
                job.with_download_error(DownloadFailed(url=str(place), reason=str(failure)))
            )
        if stored is not None and job.sha256 is not None:
            return await self.results.record(job.with_file(str(stored), job.sha256, utc_from_timestamp(time.time())))

        async def before_delivery(sha256: str) -> None:
            await self.results.save(job.with_pending_file(sha256))

        earlier = latest_archived(self.journal, job.key)
        replaces = None if earlier is None or earlier.object_url == str(place) else earlier.sha256
        delivery = _Delivery(self.store, place, overwrite=overwrite, replaces=replaces)
        target = self.spool / f"{job.key}{place.suffix}"
        try:
            download, video = await self.results.fetch(
                video, target, before_delivery, job=job, deliver=delivery.deliver
            )
        except DownloadFailed as error:
            return await self.results.record(job.with_download_error(error))
        at = utc_from_timestamp(time.time())
        done = attrs.evolve(job, video=video).with_file(str(delivery.stored), download.sha256, at)
        return await self.results.record(done)

    async def store_job(self, job: Job, url: str, *, overwrite: bool = False) -> str:
        """Store the result of *job*; see `PikaClient.store`."""
        done = await self.collect(job, _parse_object(url), overwrite=overwrite)
        if done.object_url is None or done.error is not None:
            raise done.to_exception()
        return done.object_url

    async def store_video(self, video: Video, url: str, *, overwrite: bool = False) -> str:
        """Store a video that need not be of a job; see `PikaClient.store`."""
        place = _parse_object(url)
        delivery = _Delivery(self.store, place, overwrite=overwrite)
        await self.results.fetch(video, self.spool / f"result{place.suffix}", deliver=delivery.deliver)
        return str(delivery.stored)

    async def archive(self, job: Job) -> Job:
        """Save a stored *job* under an archive key, and its object under a name of that key; return it.

        A removed object does not hinder it.

        :raises InvalidRequest: if the object cannot be copied, or another one has the name; nothing is changed.
        """
        key = archive_key(job.key, self.journal)
        place = ObjectPlace.parse(job.object_url or "", setting="object_url")
        target = place.with_name(f"{key}{place.suffix}")
        try:
            found = await self.store.find(target)
            if found is None:
                await self.store.copy(place, target)
        except StoreFailed as failure:
            reason = f"cannot be copied to {target}: {failure}"
            raise InvalidRequest(field="file", value=str(place), reason=reason) from None
        if found is not None and found.sha256 != job.sha256:
            reason = f"cannot be copied to {target}, which exists already; remove one of them"
            raise InvalidRequest(field="file", value=str(place), reason=reason)
        archived = await self.journal.archive(attrs.evolve(job, object_url=str(target)))
        try:
            await self.store.delete(place)
        except StoreFailed as failure:  # the next result of the key takes its place
            _log.warning("%s was copied to %s and not removed: %s", place, target, failure)
        return archived

    async def _find(self, place: ObjectPlace, sha256: str | None) -> ObjectPlace | None:
        for each in possible_places(place) if sha256 is not None else ():
            found = await self.store.find(each)
            if found is not None and found.sha256 == sha256:
                return each
        return None


def _parse_object(url: str) -> ObjectPlace:
    place = ObjectPlace.parse(url, setting="url")
    if not place.key or place.key.endswith("/"):
        raise ConfigurationError(setting="url", reason=f"must be s3://BUCKET/KEY, not {shorten(url)}; name the object")
    return place


@attrs.define
class _Delivery:
    """Takes one whole file to the store.

    :param replaces: SHA-256 of an object of that name which may be replaced; None: of no object.
    """

    store: ObjectStore
    place: ObjectPlace
    overwrite: bool
    replaces: str | None = None
    #: Where it was stored, with the ending of its kind.
    stored: ObjectPlace | None = None

    async def deliver(self, file: Path, download: Download) -> None:
        """Store `file`; see `Deliver`."""
        place = self.place if not self.place.suffix else self.place.with_suffix(download.file.suffix)
        try:
            await self.store.put(file, place, sha256=download.sha256, overwrite=self.overwrite, replaces=self.replaces)
        except StoreFailed as failure:
            raise AbortDownload(f"it was fetched whole and not stored: {failure}") from None
        self.stored = place


@attrs.frozen
class BucketDownload:
    """Downloads of the results of one batch into a store, each as KEY with the ending of its kind."""

    stored: StoredResults
    prefix: ObjectPlace

    async def fetch(self, job: Job) -> Job:
        """Store the result of *job*; see `StoredResults.collect`."""
        return await self.stored.collect(job, self.prefix.with_name(f"{job.key}.mp4"))

    def refusal(self, job: Job) -> str | None:
        """See `ResultDownloader.refusal`."""
        return self.stored.results.refusal(job)
