"""Download of one result into one file, complete or not at all. Calls no provider, so it never starts a generation.

A file gets its name, with the ending of its kind, only after every byte is on disk and its structure or its length
shows that it is complete. Existing files are not overwritten. Only public addresses are connected to, over https; see
`addresses` for the reasons.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import aiohttp
import anyio
import anyio.lowlevel
from yarl import URL

from pika_async._http.addresses import allowable_kind, forbidden_reason, forbidden_url_reason, redact_url
from pika_async._http.connector import Connector, open_socket
from pika_async._http.download_state import (
    MAX_RETRY_DELAY_S,
    REDIRECT_STATUSES,
    AbortDownload,
    DownloadState,
    NotThereYet,
    RetryDownload,
)
from pika_async._http.file_threads import FileThreads
from pika_async._http.media import MEDIA_SUFFIXES
from pika_async._http.partial_file import Download, PartialFile, TargetFolders
from pika_async._http.proxies import environment_proxy, proxy_url
from pika_async._http.transport import MAX_LINE_BYTES, fail_on_connection_lost
from pika_async._planning.backoff import backoff_delay
from pika_async.errors import ConfigurationError, DownloadFailed, ErrorKind

__all__ = ["Deliver", "Downloader"]

#: Takes a whole file elsewhere; raises `AbortDownload` if that fails.
Deliver: TypeAlias = Callable[[Path, Download], Awaitable[None]]

#: Redirects followed by one attempt, so that a loop of them ends.
MAX_REDIRECTS: Final = 5
#: `identity`, because a compressed body has another length and could expand without limit. No cookie and no credential
#: is sent: the address comes from the gateway and may lead to any host.
REQUEST_HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "pika_async"}

#: Seconds between two requests for a result that is not there yet; the last one repeats.
ABSENCE_DELAYS_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)

#: Bytes that are checked at once, unless more are skipped in one step, and seconds after which other tasks get a turn.
PIECE_BYTES: Final = 1 << 14
MAX_TURN_S: Final = 0.01
#: Seconds for the resolution of a name before anything is paid.
RESOLVE_TIMEOUT_S: Final = 5.0

#: Exception classes, their description, and whether another attempt may succeed; the first match counts.
FAILURE_KINDS: Final[tuple[tuple[tuple[type[Exception], ...], str, bool], ...]] = (
    ((aiohttp.ClientConnectorCertificateError,), "the host's certificate is not valid", False),
    ((aiohttp.ClientSSLError,), "no TLS connection could be made", True),
    ((aiohttp.ClientConnectorDNSError,), "the host's name was not found", True),
    ((aiohttp.ClientProxyConnectionError,), "the proxy cannot be reached", True),
    ((aiohttp.ClientHttpProxyError,), "the proxy refused to connect", True),
    ((aiohttp.ClientConnectorError,), "no connection could be made", True),
    ((aiohttp.ConnectionTimeoutError,), "no connection in time", True),
    ((TimeoutError,), "no data for too long", True),
    ((aiohttp.ClientPayloadError,), "the connection was lost inside the body", True),
    ((aiohttp.ClientResponseError,), "the answer is not valid HTTP", True),
    ((aiohttp.ClientConnectionError, OSError), "the connection was lost", True),
    ((aiohttp.NonHttpUrlClientError, aiohttp.RedirectClientError, ValueError), "the address is malformed", False),
    ((aiohttp.ClientError,), "the connection failed", True),  # the base class, and errors that a later aiohttp adds
)


def _classify_error(error: Exception) -> RetryDownload | AbortDownload:
    """Return the signal for an error of the connection, without its text, which may hold addresses and keys."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    # `errno` of TLS and name resolution errors has another meaning
    number = None if isinstance(cause, ssl.SSLError | socket.gaierror) else getattr(cause, "errno", None)
    if number == errno.EACCES:
        return AbortDownload(str(getattr(cause, "strerror", "")))
    text, can_retry = next((text, retry) for kinds, text, retry in FAILURE_KINDS if isinstance(error, kinds))
    detail = f" ({os.strerror(number)})" if number else ""
    kind: ErrorKind = "timeout" if isinstance(error, TimeoutError) else "network"
    return RetryDownload(text + detail, kind=kind) if can_retry else AbortDownload(text + detail, kind=kind)


async def _take(chunk: bytes, state: DownloadState, partial: PartialFile, files: FileThreads) -> None:
    """Check and store the next bytes, in pieces: a file may be made so that each of its bytes costs a step."""
    time_of = asyncio.get_running_loop().time
    turn_ends = time_of() + MAX_TURN_S
    start = 0
    while start < len(chunk):
        piece = chunk[start : start + max(PIECE_BYTES, state.skippable)]
        start += len(piece)
        state.on_chunk(piece)
        if partial.append(piece, state.restarts):
            await files.write(partial)
        if time_of() > turn_ends:
            await anyio.lowlevel.checkpoint()
            turn_ends = time_of() + MAX_TURN_S


class Downloader:
    """Concurrent downloads over sessions of their own, without cookies or credentials.

    :param loopback: whether 127.0.0.0/8, ::1 and `localhost` are allowed too, these also over http. Default: no.
    :param allow: kinds of results to fetch as well, of `ALLOWABLE_RESULTS`. Default: none.
    :param max_bytes: the largest file. Default: 2 GiB.
    :param connect_timeout: seconds for name resolution, connection and TLS together. Default: 15.
    :param stall_timeout: seconds without data. Default: 30. A download has no limit on its total time.
    :param attempts: attempts of one `fetch`. Default: 5.
    :param first_delay: seconds; the delay before the second attempt is random up to this, and doubles with each
        further one. Default: 1.
    :param proxy: an http(s) URL. Default: the environment's proxy, except for loopback addresses. A proxy resolves
        names and connects by itself, so only what stands in an address is checked then, at each redirect too: scheme,
        user information, IP addresses, `localhost`. The proxy must keep names from leading inside.
    :raises ConfigurationError: if `proxy` is not an http(s) URL.
    """

    def __init__(
        self,
        *,
        loopback: bool = False,
        allow: Collection[str] = (),
        max_bytes: int = 2 << 30,
        connect_timeout: float = 15.0,
        stall_timeout: float = 30.0,
        attempts: int = 5,
        first_delay: float = 1.0,
        proxy: str | None = None,
    ) -> None:
        self._loopback = loopback
        self._allow_http = "http" in allow
        self._allow_tunnel = "tunnel" in allow
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_read=stall_timeout)
        self._attempts = attempts
        self._first_delay = first_delay
        self._proxy = None if proxy is None else proxy_url(proxy)
        self._session: aiohttp.ClientSession | None = None
        self._proxied_session: aiohttp.ClientSession | None = None
        self._files: FileThreads | None = None
        self._folders = TargetFolders()
        self._scopes: set[anyio.CancelScope] = set()
        self._idle = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._session = self._new_session(self._open_socket)
        self._proxied_session = self._new_session(None)  # a proxy may be at any address
        self._files = FileThreads(self._folders)
        return self

    def _new_session(self, open_socket: Callable[[Any], socket.socket] | None) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=Connector(socket_factory=open_socket, limit=0),  # the caller limits concurrency
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=self._timeout,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
        )

    async def __aexit__(self, *_: object) -> None:
        sessions = (self._session, self._proxied_session)
        self._session = self._proxied_session = None
        while self._scopes:  # downloads in the user's tasks, which aiohttp would not end with their session
            self._idle.clear()
            for scope in self._scopes:
                scope.cancel()
            await self._idle.wait()
        files, self._files = self._files, None
        if files is not None:
            files.close()  # every `fetch` waits for its own calls, so none is running
        with anyio.CancelScope(shield=True):  # a canceled caller closes both
            for session in sessions:
                if session is not None:
                    await session.close()

    async def fetch(
        self,
        url: str,
        target: Path,
        before_publish: Callable[[str], Awaitable[None]] | None = None,
        *,
        patience: float = 0.0,
        overwrite: bool = False,
        deliver: Deliver | None = None,
    ) -> Download:
        """Download `url` into the new file `target`, whose folder is created if missing.

        If `target` has the ending of another kind of result than the one that arrives, the file gets its own ending. A
        file of that name that already holds the same bytes counts as a success.

        :param before_publish: awaited with the SHA-256 once every byte is on disk, before the file gets its name.
        :param patience: seconds in which 403, 404, a page or an empty body mean that the result is not there yet, and
            the same address is requested again after growing delays. Default: 0, the address has expired.
        :param overwrite: whether the file replaces another one of its name, once it is whole. Default: False.
        :param deliver: awaited with the whole file, which has no name yet and gets none, and with what it would have
            been; the file is removed then. Default: none, it gets its name.
        :raises DownloadFailed: with the reason, and the address without its query; `expired` if the host has no result
            at the address. No file is left behind.
        :raises RuntimeError: outside `async with`.
        """
        if self._files is None:
            raise RuntimeError("a Downloader fetches inside `async with`")
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                partial = PartialFile(target, self._folders, overwrite=overwrite)
                return await self._fetch(url, partial, self._files, before_publish, patience=patience, deliver=deliver)
        finally:
            self._scopes.discard(scope)
            if not self._scopes:
                self._idle.set()
        raise DownloadFailed(url=redact_url(url), reason="the client was closed")

    async def _fetch(
        self,
        url: str,
        partial: PartialFile,
        files: FileThreads,
        before_publish: Callable[[str], Awaitable[None]] | None,
        *,
        patience: float,
        deliver: Deliver | None,
    ) -> Download:
        try:
            suffix = await self._fetch_with_retries(self._parse_url(url), partial, files, patience)
            if partial.target.suffix.lower() in MEDIA_SUFFIXES:
                partial.target = partial.target.with_suffix(suffix)
            if before_publish is None and deliver is None:
                return await files.publish(partial, finish=True)
            sha256 = await files.finish(partial)
            if before_publish is not None:
                await before_publish(sha256)
            if deliver is None:
                return await files.publish(partial)
            await deliver(partial.temporary, partial.download)
            await files.discard(partial)
            return partial.download
        except BaseException as error:
            await files.discard(partial)
            if isinstance(error, AbortDownload):
                reason = str(error)
                raise DownloadFailed(
                    url=redact_url(url), reason=reason, expired=error.expired, kind=error.kind
                ) from None
            raise

    def refusal(self, url: str) -> str | None:
        """Return why the text of `url` alone forbids a download; None if it does not."""
        try:
            self._parse_url(url)
        except AbortDownload as stop:
            return str(stop)
        return None

    async def route_refusal(self, host: str) -> str | None:
        """Return why results at `host` would be refused: its name resolves to the addresses of a tunnel only.

        None if that is allowed, if a proxy serves them, or if the name cannot be resolved now.
        """
        if self._allow_tunnel or self._loopback or self._proxy or environment_proxy(f"https://{host}/"):
            return None
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError):
            return None
        reasons = [forbidden_reason(str(entry[4][0]), loopback=False) or "" for entry in found]
        if not reasons or not all(map(allowable_kind, reasons)):
            return None
        return f"{host} resolves to {found[0][4][0]}, which {reasons[0]}"

    def _open_socket(self, info: Any) -> socket.socket:
        """See `open_socket`."""
        return open_socket(info, loopback=self._loopback, tunnel=self._allow_tunnel)

    async def _fetch_with_retries(self, url: URL, partial: PartialFile, files: FileThreads, patience: float) -> str:
        """Request the file until it is complete; return the ending of its kind."""
        state = DownloadState(self._max_bytes)
        time_of = asyncio.get_running_loop().time
        until = time_of() + patience
        absences = itertools.chain(ABSENCE_DELAYS_S, itertools.repeat(ABSENCE_DELAYS_S[-1]))
        failures = 0
        while True:
            try:
                await self._fetch_once(url, state, partial, files)
                return state.suffix
            except NotThereYet as absence:
                if time_of() >= until:
                    reason = f"{absence}: the address has expired"
                    raise AbortDownload(reason, expired=True, kind="provider") from None
                delay = min(next(absences), until - time_of())
            except RetryDownload as failure:
                failures += 1
                if failures >= self._attempts:
                    reason = f"{failure} (attempt {failures}, the last)"
                    raise AbortDownload(reason, kind=failure.kind) from None
                backoff = backoff_delay(failures - 1, random.random(), first=self._first_delay, cap=MAX_RETRY_DELAY_S)
                delay = max(failure.min_delay, backoff)
            await asyncio.sleep(delay)

    async def _fetch_once(self, url: URL, state: DownloadState, partial: PartialFile, files: FileThreads) -> None:
        try:
            response = await self._open_response(url, state)
            async with response:
                with fail_on_connection_lost(response):
                    async for chunk in response.content.iter_any():
                        await _take(chunk, state, partial, files)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if state.is_whole:  # a wrong length, or a last chunk that is missing
                return
            raise _classify_error(error) from None
        state.on_body_end(terminated="chunked" in response.headers.get("Transfer-Encoding", "").lower())

    async def _open_response(self, url: URL, state: DownloadState) -> aiohttp.ClientResponse:
        """Follow redirects, and return the answer after `DownloadState.on_response` accepted it; its body is unread.

        Each redirect is checked like the first address: a public host could redirect to one inside the network.

        :raises NotThereYet: if the host has no result at the address.
        :raises RetryDownload: if another attempt may succeed.
        :raises AbortDownload: if no further attempt will, or there are too many redirects.
        """
        for _ in range(MAX_REDIRECTS + 1):
            source = str(url.with_query(None).with_fragment(None))
            range_headers = state.range_headers(source)
            headers = REQUEST_HEADERS | range_headers
            response = await self._get(url, headers)
            with contextlib.ExitStack() as unless_returned:
                unless_returned.callback(response.close)
                if response.status not in REDIRECT_STATUSES:
                    state.on_response(
                        response.status, response.headers, source=source, length=response.content_length,
                        range_requested=bool(range_headers), now=time.time(),
                    )  # fmt: skip
                    unless_returned.pop_all()
                    return response
                url = self._parse_url(response.headers.get("Location", ""), url)
        raise AbortDownload(f"redirected more than {MAX_REDIRECTS} times")

    async def _get(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        assert self._session is not None and self._proxied_session is not None  # noqa: S101, PT018 - `fetch` has checked
        try:
            proxy = self._proxy or environment_proxy(url)
        except ConfigurationError as error:
            raise AbortDownload(error.message) from None
        session = self._session if proxy is None else self._proxied_session
        return await session.get(url, headers=headers, allow_redirects=False, proxy=proxy)

    def _parse_url(self, text: str, base: URL | None = None) -> URL:
        """Parse the address, relative to `base` if that is given.

        :raises AbortDownload: if it is malformed, or forbidden by its text; see `forbidden_url_reason`.
        """
        try:
            # Keep the text as it is where possible: a signed address is invalid once a character is quoted differently.
            url = URL(text, encoded=re.fullmatch(r"[!-~]+", text) is not None)
            url = url if base is None else base.join(url)
            secret = url.raw_user is not None or url.raw_password is not None  # parsed only now
        except ValueError:
            raise AbortDownload("the address is malformed") from None
        reason = forbidden_url_reason(
            url.scheme, url.raw_host, userinfo=secret, loopback=self._loopback, tunnel=self._allow_tunnel,
            http=self._allow_http,
        )  # fmt: skip
        if reason is not None:
            raise AbortDownload(reason)
        return url
