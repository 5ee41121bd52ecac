"""Addresses of uploaded files: each content is uploaded once for all jobs that need it, and remembered.

Decides neither which files are uploaded nor where.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import attrs

from pika_async._http.marks import JPEG, FileKind
from pika_async._journal.protocol import Journal, Upload
from pika_async._runtime.images import UploadFailed
from pika_async._runtime.tasks import was_cancelled
from pika_async.errors import InvalidRequest, JournalFailed, shorten, strip_control
from pika_async.models.addresses import unreachable_kind
from pika_async.models.fields import check_url
from pika_async.models.media import Uploader

__all__ = ["UPLOAD_TIMEOUT_S", "Uploads"]

#: The longest time of one upload, in seconds.
UPLOAD_TIMEOUT_S: Final = 120.0
#: Bytes that are hashed in the event loop; more of them are hashed in a thread.
MAX_HASH_BYTES: Final = 1 << 20


class _TookTooLong(Exception):  # noqa: N818 - not an error of the uploader's own, such as a TimeoutError
    """An upload did not end in time."""


@attrs.define(eq=False)
class _UploadUnderWay:
    ended: asyncio.Event = attrs.Factory(asyncio.Event)
    #: Why it failed, for those who wait; None if it succeeded or was cancelled.
    error: Exception | None = None


class Uploads:
    """Uploads of one client.

    :param uploader: the user's function.
    :param journal: remembers the address of each content.
    :param lifetime: seconds after which an address is not used any more.
    :param base_url: where the gateway is that must be able to fetch the files.
    """

    def __init__(self, uploader: Uploader, journal: Journal, lifetime: float, base_url: str) -> None:
        self._uploader = uploader
        self._base_url = base_url
        self._journal = journal
        self._lifetime = timedelta(seconds=lifetime)
        #: By the SHA-256 of the content.
        self._under_way: dict[str, _UploadUnderWay] = {}

    async def url_for(self, data: bytes, kind: FileKind, name: str | None) -> str:
        """Return the URL of a content: the remembered one, else that of one upload for all who ask at the same time.

        :param name: the name of its file; None if it has none.
        :raises UploadFailed: if the uploader failed; those who waited for the same upload get the same error.
        :raises InvalidRequest: if the uploader raised it: this content is refused for good.
        :raises JournalFailed: if the URL could not be saved.
        """
        digest = await _digest_of(data)
        while True:
            known = self._known_url(digest)
            if known is not None:
                return known
            other = self._under_way.get(digest)
            if other is None:
                return await self._upload(digest, data, _file_name(name, kind, digest), kind.content_type)
            await other.ended.wait()
            if other.error is not None:
                raise other.error

    def _known_url(self, digest: str) -> str | None:
        upload = self._journal.get_upload(digest)
        if upload is None:
            return None
        return upload.url if upload.at > datetime.now(UTC) - self._lifetime else None

    async def _upload(self, digest: str, data: bytes, name: str, content_type: str) -> str:
        under_way = self._under_way[digest] = _UploadUnderWay()
        try:
            began = datetime.now(UTC)
            url = await self._call(data, name, content_type)
            await self._journal.save_upload(Upload(sha256=digest, url=url, at=began))
            return url
        except (UploadFailed, InvalidRequest, JournalFailed) as error:
            under_way.error = error
            raise
        finally:
            del self._under_way[digest]
            under_way.ended.set()

    async def _call(self, data: bytes, name: str, content_type: str) -> str:
        """Call the uploader in a task of its own, which is left behind after `UPLOAD_TIMEOUT_S`."""
        shown = f"the upload of {strip_control(name)} ({len(data):,} bytes)"
        try:
            answer: Any = self._uploader(data, name, content_type)
            url = await _within(answer, UPLOAD_TIMEOUT_S) if inspect.isawaitable(answer) else answer
        except InvalidRequest:
            raise
        except _TookTooLong:
            raise UploadFailed(f"{shown} failed: the uploader did not return within {UPLOAD_TIMEOUT_S:g} s") from None
        except (Exception, asyncio.CancelledError) as error:
            if was_cancelled(error):
                raise
            raise UploadFailed(f"{shown} failed: {strip_control(repr(error))}") from error
        if not inspect.isawaitable(answer):
            reason = f"{shown} failed: the uploader must be an async function, but returned {shorten(answer)}"
            raise UploadFailed(reason, lasting=True)
        try:
            check_url("uploader", url)
        except InvalidRequest:
            reason = f"{shown} failed: the uploader must return a complete http(s) URL, not {shorten(url)}"
            raise UploadFailed(reason, lasting=True) from None
        kind = unreachable_kind(url, self._base_url)
        if kind is not None:
            reason = (
                f"the uploader must return a public URL, not {shorten(url)}: no gateway can reach this {kind} address"
            )
            raise UploadFailed(f"{shown} failed: {reason}", lasting=True)
        return str(url)


async def _within(answer: Awaitable[Any], seconds: float) -> Any:
    """Return the result of an awaitable; after `seconds` it is cancelled and not waited for.

    :raises _TookTooLong: after `seconds`.
    """
    task = asyncio.ensure_future(answer)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # also of one that is left behind
    try:
        await asyncio.wait({task}, timeout=seconds)
    except BaseException:
        task.cancel()
        raise
    if not task.done():
        task.cancel()
        raise _TookTooLong
    return task.result()


async def _digest_of(data: bytes) -> str:
    if len(data) <= MAX_HASH_BYTES:
        return hashlib.sha256(data).hexdigest()
    return await anyio.to_thread.run_sync(lambda: hashlib.sha256(data).hexdigest())


def _file_name(name: str | None, kind: FileKind, digest: str) -> str:
    """Return the name for an upload, whose ending fits the content."""
    if name is None:
        return f"{digest[:16]}{kind.suffix}"
    stem, dot, suffix = name.rpartition(".")
    fits = f"{dot}{suffix}".lower() in {kind.suffix, ".jpeg" if kind is JPEG else kind.suffix}
    return name if fits else f"{stem or suffix}{kind.suffix}"
