"""Addresses of uploaded files: each content is uploaded once for all jobs that need it, and remembered.

Decides not which files are uploaded. They go to the user's uploader, else to the gateway's own storage.
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
from pika_async._http.put_file import PutFailed, put_file
from pika_async._http.transport import Transport
from pika_async._journal.protocol import Journal, Upload
from pika_async._runtime.images import UploadFailed
from pika_async._runtime.tasks import was_cancelled
from pika_async.errors import InvalidRequest, JournalFailed, shorten, strip_control
from pika_async.models.addresses import unreachable_kind
from pika_async.models.fields import check_url
from pika_async.models.media import Uploader
from pika_async.providers._provider import Provider
from pika_async.providers._wire import DecodeError, HttpResponse, TransportFailure

__all__ = ["UPLOAD_TIMEOUT_S", "GatewayStorage", "Uploads", "uploads_for"]

#: The longest time of one upload, in seconds.
UPLOAD_TIMEOUT_S: Final = 120.0
#: HTTP statuses with which a gateway refuses a file for good, and those with which it refuses every file of an account.
REFUSED_FILE: Final = frozenset({400, 413, 415, 422})
REFUSED_ACCOUNT: Final = frozenset({401, 402, 403})
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
    :param storage: the name of the gateway in whose own storage the files are; their URLs are for its requests alone.
        Default: the uploader is the user's, and its URLs are for any gateway.
    """

    def __init__(
        self, uploader: Uploader, journal: Journal, lifetime: float, base_url: str, *, storage: str | None = None
    ) -> None:
        self._uploader = uploader
        self._base_url = base_url
        self._journal = journal
        self._lifetime = timedelta(seconds=lifetime)
        self._storage = storage
        #: By the digest of the content.
        self._under_way: dict[str, _UploadUnderWay] = {}

    async def url_for(self, data: bytes, kind: FileKind, name: str | None) -> str:
        """Return the URL of a content: the remembered one, else that of one upload for all who ask at the same time.

        :param name: the name of its file; None if it has none.
        :raises UploadFailed: if the uploader failed; those who waited for the same upload get the same error.
        :raises InvalidRequest: if the uploader raised it: this content is refused for good.
        :raises JournalFailed: if the URL could not be saved.
        """
        digest = await _digest_of(data)
        if self._storage is not None:
            digest = hashlib.sha256(f"{self._storage} {self._base_url} {digest}".encode()).hexdigest()
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
        except (InvalidRequest, UploadFailed):  # of the gateway's own storage
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


class GatewayStorage:
    """Uploader to a gateway's own storage: a place for the file, asked for with the key, then the file without it.

    :param provider: its `uploads` is not None.
    :param base_url: where the gateway is.
    :param transport: sends the request for the place.
    :param proxy: see `put_file`.
    """

    def __init__(self, provider: Provider, base_url: str, transport: Transport, proxy: str | None = None) -> None:
        self._provider = provider
        self._base_url = base_url
        self._transport = transport
        self._proxy = proxy

    async def __call__(self, data: bytes, name: str, content_type: str) -> str:
        """Store the content of a file and return its URL; see `Uploader`.

        :raises InvalidRequest: if the gateway does not take this file.
        :raises UploadFailed: if it could not be stored now, or the account is refused.
        """
        uploads, title = self._provider.uploads, self._provider.title
        if uploads is None:
            raise TypeError(f"{title} has no storage for files")
        request = uploads.create(self._base_url, name, content_type, len(data))
        response = await self._transport.send(request)
        what = f"the upload of {strip_control(name)} ({len(data):,} bytes) to {title} failed"
        if isinstance(response, TransportFailure):
            raise UploadFailed(f"{what}: {response.detail}")
        try:
            place = uploads.read(response)
        except DecodeError as error:
            raise self._refusal(response, what, name, str(error)) from None
        try:
            await put_file(place, data, base_url=self._base_url, proxy=self._proxy)
        except PutFailed as error:
            raise UploadFailed(f"{what}: {error}", lasting=error.lasting) from None
        return place.url

    def _refusal(self, response: HttpResponse, what: str, name: str, detail: str) -> Exception:
        """Return the error for an answer without a place: the file is refused, the account is, or it may come later."""
        failure = self._provider.read_failure(response)
        reason = strip_control((failure.message if failure else "")[:200]) or response.excerpt() or detail
        if response.status in REFUSED_FILE:
            reason = f"must be a file that {self._provider.title} takes: {reason}; put it elsewhere and give its URL"
            return InvalidRequest(field="file", value=name, reason=reason)
        return UploadFailed(f"{what}: HTTP {response.status}: {reason}", lasting=response.status in REFUSED_ACCOUNT)


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


def uploads_for(
    provider: Provider,
    base_url: str,
    *,
    uploader: Uploader | None,
    lifetime: float,
    journal: Journal,
    transport: Transport,
    proxy: str | None,
) -> Uploads | None:
    """Return the uploads of an account: by the user's uploader, else to the gateway's own storage; None without both.

    :param uploader: the user's, None without one.
    :param lifetime: see `Uploads`.
    :param proxy: see `put_file`.
    """
    if uploader is not None:
        return Uploads(uploader, journal, lifetime, base_url)
    if provider.uploads is None:
        return None
    storage = GatewayStorage(provider, base_url, transport, proxy)
    return Uploads(storage, journal, min(lifetime, provider.uploads.lifetime), base_url, storage=provider.name)


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
