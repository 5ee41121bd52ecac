"""Fetches one result into one file, whole or not at all; asks no provider and trusts no server.

A file appears under its name only when every byte is on disk, its length agrees, and its MP4 boxes tile it. Nothing is
overwritten. Only public addresses are dialled, over https. Nothing here leads to a new generation.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import random
import re
import secrets
import socket
import ssl
import stat
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import aiohttp
import anyio
import attrs
from yarl import URL

from pika_async._http.addresses import forbidden_reason, redact_url, url_refusal
from pika_async._http.download_state import MAX_WAIT, REDIRECTS, AbortDownload, DownloadState, RetryDownload
from pika_async._http.transport import fail_on_connection_lost
from pika_async._planning.backoff import backoff_delay
from pika_async.errors import ConfigurationError, DownloadFailed, shorten

__all__ = ["Download", "Downloader", "sha256_of"]

T = TypeVar("T")

#: Bytes written, and hashed, in one visit to a worker thread.
BATCH: Final = 1 << 20
MAX_REDIRECTS: Final = 5
#: Fails when anything, a link included, has the name already.
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
#: What `os.link` says where a file system has no hard links.
NO_LINKS: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
#: `identity`: a compressed body has another length, and a bomb could hide in it. No cookie, no credential, ever.
HEADERS: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "pika_async"}

#: Families of errors, the first that fits: what to say, and whether another attempt may help.
FAILURES: Final[tuple[tuple[tuple[type[Exception], ...], str, bool], ...]] = (
    ((aiohttp.ClientConnectorCertificateError,), "the host's certificate is not valid", False),
    ((aiohttp.ClientSSLError,), "no TLS connection could be made", True),
    ((aiohttp.ClientConnectorDNSError,), "the host's name was not found", True),
    ((aiohttp.ClientProxyConnectionError,), "the proxy cannot be reached", True),
    ((aiohttp.ClientHttpProxyError,), "the proxy refused to connect", True),
    ((aiohttp.ClientConnectorError,), "no connection could be made", True),
    ((aiohttp.ConnectionTimeoutError,), "no connection in time", True),
    ((TimeoutError,), "nothing came for too long", True),
    ((aiohttp.ClientPayloadError,), "the connection was lost inside the body", True),
    ((aiohttp.ClientResponseError,), "the answer is no HTTP", True),
    ((aiohttp.ClientConnectionError, OSError), "the connection was lost", True),
    ((aiohttp.NonHttpUrlClientError, aiohttp.RedirectClientError, ValueError), "the address is malformed", False),
    ((aiohttp.ClientError,), "the connection failed", True),  # the root, and what a later aiohttp adds
)


@attrs.frozen(kw_only=True)
class Download:
    """A result on disk: where, the SHA-256 of its bytes in 64 hex digits, and its size in bytes."""

    file: Path
    sha256: str
    size: int


def _failure(error: Exception) -> RetryDownload | AbortDownload:
    """What an error of the connection means; its own text may hold addresses and keys and is not repeated."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    # TLS and name look-ups number their errors anew
    number = None if isinstance(cause, ssl.SSLError | socket.gaierror) else getattr(cause, "errno", None)
    if number == errno.EACCES:
        return AbortDownload(str(getattr(cause, "strerror", "")))
    said, again = next((said, again) for kinds, said, again in FAILURES if isinstance(error, kinds))
    detail = f" ({os.strerror(number)})" if number else ""
    return (RetryDownload if again else AbortDownload)(said + detail)


def _digest_of(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return hashlib.file_digest(file, "sha256").hexdigest()
    return None


async def sha256_of(path: Path) -> str | None:
    """The SHA-256 of a regular file in hex digits; None if there is none that can be read."""
    return await anyio.to_thread.run_sync(_digest_of, path)


class _Partial:
    """The bytes of one fetch on disk: a hidden file beside the target, and its digest.

    Methods block, and run in a worker thread, but for `add`.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self._temp = target.parent / f".pika-{secrets.token_hex(12)}.part"
        self._fd: int | None = None
        self._round = self._size = 0
        self._pending = bytearray()
        self._digest = hashlib.sha256()

    def add(self, chunk: bytes, round_: int) -> bool:
        """Takes the next bytes; another `round_` begins at zero. True when it is time for `write`."""
        if round_ != self._round:
            self._round, self._size = round_, 0
            self._pending.clear()
            self._digest = hashlib.sha256()
        self._pending += chunk
        return len(self._pending) >= BATCH

    def write(self) -> None:
        if self._fd is None:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._temp, NEW_FILE, 0o600)
        pending, self._pending = bytes(self._pending), bytearray()
        if not self._size:
            os.ftruncate(self._fd, 0)
        self._digest.update(pending)
        view = memoryview(pending)
        while view:
            written = os.pwrite(self._fd, view, self._size)
            self._size, view = self._size + written, view[written:]

    def finish(self) -> str:
        """Makes the bytes safe on disk, readable as any other file of the user's; gives their SHA-256."""
        self.write()
        assert self._fd is not None  # noqa: S101 - `write` opened it
        os.fchmod(self._fd, self._usual_mode())
        os.fsync(self._fd)
        return self._digest.hexdigest()

    def publish(self) -> Download:
        """Gives the finished file its name."""
        self._link()
        self._temp.unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            folder = os.open(self.target.parent, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            os.fsync(folder)
        return Download(file=self.target, sha256=self._digest.hexdigest(), size=self._size)

    def discard(self) -> None:
        """Closes the temporary file and removes it, if it is still there."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                self._temp.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                os.close(fd)

    def _usual_mode(self) -> int:
        # The umask can only be read by setting it, for every thread of the process at once. So the kernel applies it,
        # and the folder's default ACL with it, to an empty file that lives for this moment.
        probe = self._temp.with_suffix(".mode")
        fd = os.open(probe, NEW_FILE, 0o666)
        try:
            return stat.S_IMODE(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
            probe.unlink()

    def _link(self) -> None:
        try:
            os.link(self._temp, self.target, follow_symlinks=False)
        except FileExistsError:
            self._accept_existing()
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            self._move()

    def _move(self) -> None:
        """Without hard links: claims the name with an empty file, then replaces that. A crash between leaves it."""
        try:
            os.close(os.open(self.target, NEW_FILE, 0o600))
        except FileExistsError:
            found = self.target.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size:
                self._accept_existing()
                return
        try:
            self._temp.replace(self.target)
        except OSError:
            self.target.unlink(missing_ok=True)
            raise

    def _accept_existing(self) -> None:
        """The very same bytes are a success that was not recorded; anything else stays as it is."""
        if _digest_of(self.target) == self._digest.hexdigest():
            return
        raise AbortDownload(f"{shorten(str(self.target))} exists with other content and is not overwritten")


class Downloader:
    """Fetches results, many at once, on a session of its own: no cookie, no credential, no proxy of the environment.

    `loopback` also allows 127.0.0.0/8, ::1 and `localhost`, these over http too. `max_bytes` is the largest file.
    `connect_timeout` (name, connection and TLS together) and `stall_timeout` (nothing read) are seconds; there is no
    limit on the whole but `max_bytes`. `attempts` in one `fetch`; the wait between them is random up to `first_wait`
    seconds, doubling. With `proxy` the proxy resolves names and dials for us: then hosts are judged only where the
    address spells an IP address or `localhost`, and keeping names from leading inside is the proxy's work.

    :raises ConfigurationError: if `proxy` is no http or https address.
    """

    def __init__(
        self,
        *,
        loopback: bool = False,
        max_bytes: int = 2 << 30,
        connect_timeout: float = 15.0,
        stall_timeout: float = 30.0,
        attempts: int = 5,
        first_wait: float = 1.0,
        proxy: str | None = None,
    ) -> None:
        if proxy is not None and not re.fullmatch(r"https?://[!-~]+", proxy):
            raise ConfigurationError(setting="proxy", reason="is no http or https address")
        self._loopback = loopback
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_read=stall_timeout)
        self._attempts = attempts
        self._first_wait = first_wait
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._scopes: set[anyio.CancelScope] = set()
        self._idle = asyncio.Event()

    async def __aenter__(self) -> Self:
        dial = None if self._proxy else self._dial
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(socket_factory=dial, limit=0),  # how many at once is the caller's to say
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            timeout=self._timeout,
        )
        # more threads gain nothing on a disk, and name look-ups keep asyncio's own
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="pika-download")
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        while self._scopes:  # fetches of the user's own tasks: aiohttp would not tell them that their session is gone
            self._idle.clear()
            for scope in self._scopes:
                scope.cancel()
            await self._idle.wait()
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown(wait=False)  # every fetch waits for its own calls, so none is running
        if session is not None:
            await session.close()

    async def fetch(
        self, url: str, target: Path, about_to_name: Callable[[str], Awaitable[None]] | None = None
    ) -> Download:
        """Fetches `url` into the new file `target`; its folder is made when missing.

        A `target` that already holds the very same bytes is a success. `about_to_name` is awaited with the SHA-256
        once every byte is safe on disk, before the file gets its name.

        :raises DownloadFailed: with what was wrong and the address without its query; `expired` after 401, 403, 404
            or 410. Nothing is left behind.
        """
        if self._session is None:
            raise RuntimeError("a Downloader fetches inside `async with`")
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                return await self._fetch(url, target, about_to_name)
        finally:
            self._scopes.discard(scope)
            if not self._scopes:
                self._idle.set()
        raise DownloadFailed(url=redact_url(url), reason="the client was closed")

    async def _fetch(self, url: str, target: Path, about_to_name: Callable[[str], Awaitable[None]] | None) -> Download:
        partial = _Partial(target)
        try:
            await self._persist(self._checked(url), partial)
            sha256 = await self._in_thread(partial.finish)
            if about_to_name is not None:
                await about_to_name(sha256)
            return await self._in_thread(partial.publish)
        except AbortDownload as stop:
            raise DownloadFailed(url=redact_url(url), reason=str(stop), expired=stop.expired) from None
        finally:
            await self._in_thread(partial.discard)

    def _dial(self, info: Any) -> socket.socket:
        """The socket for one address that is about to be dialled; literals pass here too, unlike at a resolver."""
        reason = forbidden_reason(str(info[4][0]), loopback=self._loopback)
        if reason is not None:
            raise OSError(errno.EACCES, f"{info[4][0]} {reason}")  # an OSError: aiohttp then tries the host's next
        return socket.socket(*info[:3])

    async def _persist(self, url: URL, partial: _Partial) -> None:
        progress = DownloadState(self._max_bytes)
        for attempt in itertools.count():
            try:
                await self._attempt(url, progress, partial)
                break
            except RetryDownload as failure:
                if attempt + 1 >= self._attempts:
                    raise AbortDownload(f"{failure} (attempt {attempt + 1}, the last)") from None
                wait = max(failure.wait, backoff_delay(attempt, random.random(), first=self._first_wait, cap=MAX_WAIT))
            await asyncio.sleep(wait)

    async def _attempt(self, url: URL, progress: DownloadState, partial: _Partial) -> None:
        try:
            response = await self._follow(url, progress)
            async with response:
                with fail_on_connection_lost(response):
                    async for chunk in response.content.iter_any():
                        progress.feed(chunk)
                        if partial.add(chunk, progress.rounds):
                            await self._in_thread(partial.write)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _failure(error) from None
        progress.complete(terminated="chunked" in response.headers.get("Transfer-Encoding", "").lower())

    async def _follow(self, url: URL, progress: DownloadState) -> aiohttp.ClientResponse:
        """The answer behind at most `MAX_REDIRECTS` redirects, judged; its body is not read yet."""
        assert self._session is not None  # noqa: S101 - `fetch` looked
        for _ in range(MAX_REDIRECTS + 1):
            source = str(url.with_query(None).with_fragment(None))
            asked = progress.range_headers(source)
            headers = HEADERS | asked
            response = await self._session.get(url, headers=headers, allow_redirects=False, proxy=self._proxy)
            with contextlib.ExitStack() as unless_returned:
                unless_returned.callback(response.close)
                status, head, length = response.status, response.headers, response.content_length
                if status not in REDIRECTS:
                    progress.judge(status, head, source=source, length=length, asked=bool(asked), now=time.time())
                    unless_returned.pop_all()
                    return response
                url = self._checked(head.get("Location", ""), url)
        raise AbortDownload(f"redirected more than {MAX_REDIRECTS} times")

    def _checked(self, text: str, base: URL | None = None) -> URL:
        """:raises Stop: unless this address, seen from `base`, may be asked, as far as its text tells."""
        try:
            # as it stands where that can be: a signature breaks when a quoted character is quoted otherwise
            url = URL(text, encoded=re.fullmatch(r"[!-~]+", text) is not None)
            url = url if base is None else base.join(url)
            secret = url.raw_user is not None or url.raw_password is not None  # the parts are parsed only now
        except ValueError:
            raise AbortDownload("the address is malformed") from None
        reason = url_refusal(url.scheme, url.raw_host, userinfo=secret, loopback=self._loopback)
        if reason is not None:
            raise AbortDownload(reason)
        return url

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """`call()` in a worker thread. A cancellation waits for its end, or files would appear after the clean-up."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, call)
        canceled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not work.done():
                try:
                    await asyncio.wait([work])
                except asyncio.CancelledError as error:
                    canceled = error
        if canceled is not None:
            work.exception()  # looked at, or asyncio would log it
            raise canceled
        try:
            return work.result()
        except OSError as error:
            raise AbortDownload(f"the file cannot be written: {error.strerror or error}") from None
