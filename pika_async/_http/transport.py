"""Carries requests to one origin and answers back, as bytes; with the downloads, the only room with aiohttp's client.

Submissions get a connection of their own each (`force_close`): on a kept-alive connection that the server closes as we
write, a POST fails exactly like "accepted, then died". Polls keep their connections. Nothing is retried here, redirects
are never followed, bodies are capped, and an aiohttp exception never leaves: its `repr` prints the bearer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any, Final, Protocol
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from pika_async._http.addresses import classify_ip
from pika_async.errors import ConfigurationError
from pika_async.providers._wire import (
    MAX_BODY,
    Credential,
    DecodeError,
    HttpRequest,
    HttpResponse,
    SendPhase,
    TransportFailure,
    inflate,
)

__all__ = ["AiohttpTransport", "Transport", "classify", "fail_on_connection_lost", "is_loopback", "origin_of"]

_CHUNK: Final = 1 << 16
#: Read once, at import: the metadata is a file.
_USER_AGENT: Final = f"pika_async/{version('pika_async')}"
#: A create may carry a megabyte of base64 over a slow line and then wait for the gateway's own upstream.
_PAID: Final = aiohttp.ClientTimeout(total=180, connect=30, sock_connect=15, sock_read=120)
_FREE: Final = aiohttp.ClientTimeout(total=60, connect=30, sock_connect=15, sock_read=30)

#: Raised before a byte was handed over, unless the marker says otherwise.
_CONNECTING: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ServerFingerprintMismatch,
)
#: Raised once something was handed over, whatever the marker says.
_WAITING: Final = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientResponseError,
    aiohttp.ClientPayloadError,
    aiohttp.SocketTimeoutError,
)
#: From the most to the least special: the first that fits names the kind.
_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (aiohttp.ClientConnectorCertificateError, "certificate"),
    (aiohttp.ServerFingerprintMismatch, "certificate"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientProxyConnectionError, "proxy"),
    (aiohttp.ClientHttpProxyError, "proxy"),
    (aiohttp.ClientConnectorSSLError, "tls"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.InvalidURL, "url"),
    (aiohttp.NonHttpUrlClientError, "url"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ServerDisconnectedError, "disconnected"),
    (aiohttp.ClientPayloadError, "cut"),
    (aiohttp.ClientResponseError, "malformed"),
    (OSError, "disconnected"),
    (aiohttp.ClientError, "other"),
)


class Transport(Protocol):
    """The seam: one method, one request, one answer or the reason why there is none."""

    async def open(self) -> None:
        """Bind to the running loop."""

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        """Carry one request; raises nothing but cancellation."""

    async def close(self) -> None:
        """Free every connection; may be opened again, in another loop."""


def origin_of(base_url: str) -> URL:
    """The scheme, host and port of `base_url`.

    :raises ConfigurationError: if it is no http or https address, or carries a user, a query or a fragment.
    """
    way_out = 'give an address such as "https://gateway.example"'
    if isinstance(base_url, str) and "@" in base_url:  # not shown: what stands before it is somebody's credential
        raise ConfigurationError(setting="base_url", reason="holds a user; give the bare address, and the key apart")
    if not isinstance(base_url, str) or not base_url.isprintable() or any(mark in base_url for mark in " ?#"):
        raise ConfigurationError(
            setting="base_url", reason=f"{base_url!r} holds white space, a query or a fragment; {way_out}"
        )
    try:
        url = URL(base_url)
        origin = url.origin()
    except (ValueError, TypeError):
        raise ConfigurationError(setting="base_url", reason=f"{base_url!r} is no address; {way_out}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(setting="base_url", reason=f"{base_url!r} is no http or https address; {way_out}")
    return origin


def is_loopback(url: URL | str) -> bool:
    """Whether the address names this machine itself."""
    host = URL(url).host or ""
    try:
        return host == "localhost" or classify_ip(host) == "loopback"
    except ValueError:  # a name, whatever it begins with: only its owner knows where it leads
        return False


def classify(error: BaseException, *, sent: bool) -> TransportFailure:
    """What an exception before the status line means; where class and marker disagree, "sent" wins."""
    reached = isinstance(error, _WAITING) and not isinstance(error, _CONNECTING)
    kind = next((kind for cls, kind in _KINDS if isinstance(error, cls)), "other")
    return TransportFailure(
        phase=SendPhase.SENT if sent or reached else SendPhase.UNSENT, kind=kind, detail=_detail(error, kind)
    )


def _detail(error: BaseException, kind: str) -> str:
    """Our own words: the text of aiohttp's response errors may hold request headers."""
    words = {
        "timeout": "no answer in time", "disconnected": "the connection was closed before an answer",
        "malformed": "the answer was no valid HTTP", "cut": "the answer was cut", "url": "the address is not valid",
        "certificate": "the certificate of the host is not valid", "dns": "the host name was not found",
        "proxy": "the proxy could not be used", "tls": "the TLS handshake failed", "connect": "could not connect",
    }.get(kind, "the connection failed")  # fmt: skip
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{words}: {getattr(cause, 'verify_message', 'refused')}"  # only OpenSSL's own have a message
    if isinstance(cause, OSError) and cause.strerror and kind in {"connect", "dns", "proxy", "disconnected"}:
        return f"{words}: {cause.strerror}"
    return f"{words} ({type(error).__name__})"


async def _mark(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    marker = context.trace_request_ctx
    if isinstance(marker, _SendMarker):
        marker.sent = True


class _SendMarker:
    """Whether the headers of one request were handed to its connection."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        self.sent = False


@contextmanager
def fail_on_connection_lost(response: aiohttp.ClientResponse) -> Iterator[None]:
    """See that whoever reads the body hears when its connection ends.

    After a malformed later chunk aiohttp (3.14.5) closes the connection, drops its timer for silence and lets go of the
    body without a word, so that the reader would wait for the total timeout.
    """
    content, protocol = response.content, response.connection and response.connection.protocol
    closed = protocol.closed if protocol is not None else None
    if closed is None:
        yield
        return

    def tell(end: asyncio.Future[None]) -> None:
        if not end.cancelled():
            end.exception()  # seen: nobody else looks at it
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection ended within the body"))

    closed.add_done_callback(tell)
    try:
        yield
    finally:
        closed.remove_done_callback(tell)  # a kept connection outlives many answers


class AiohttpTransport:
    """The real transport, for one origin and one credential.

    `session`: the user's own, used for every call and left open; its connections may be reused for submissions, so a
    lost one is in doubt more often. `proxy`: an address; None takes `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` from the
    environment, except for loopback. `paid_timeout`, `free_timeout`: for a submission (180 s in all) and a poll (60 s).

    :raises ConfigurationError: if `base_url` is no origin, or `proxy` is no http or https address.
    """

    def __init__(
        self,
        base_url: str,
        credential: Credential,
        *,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        connections: int = 32,
        paid_timeout: aiohttp.ClientTimeout = _PAID,
        free_timeout: aiohttp.ClientTimeout = _FREE,
    ) -> None:
        self._origin = origin_of(base_url)
        self._credential = credential
        self._given = session
        self._proxy = _checked_proxy(proxy) if proxy is not None else _environment_proxy(self._origin)
        self._connections = connections
        self._paid_timeout = paid_timeout
        self._free_timeout = free_timeout
        self._paid: aiohttp.ClientSession | None = None
        self._free: aiohttp.ClientSession | None = None
        self._tracing = aiohttp.TraceConfig()
        self._tracing.on_request_headers_sent.append(_mark)
        self._tracing.freeze()

    def __repr__(self) -> str:
        return f"<AiohttpTransport to {self._origin}>"

    async def open(self) -> None:
        """Make the sessions in the running loop.

        :raises ConfigurationError: if the user's session is closed, or adds a credential of its own.
        """
        if self._given is not None:
            if not isinstance(self._given, aiohttp.ClientSession):
                raise ConfigurationError(setting="session", reason=f"{self._given!r} is no aiohttp.ClientSession")
            if self._given.closed:
                raise ConfigurationError(setting="session", reason="is closed; give an open ClientSession")
            if self._given.auth is not None or "Authorization" in self._given.headers:
                raise ConfigurationError(setting="session", reason="adds a credential of its own; give one without")
            self._given.trace_configs.append(self._tracing)
            self._paid = self._free = self._given
            return
        self._paid = self._session(aiohttp.TCPConnector(force_close=True, limit=0))
        self._free = self._session(aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60))

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[self._tracing],
            auto_decompress=False,
            trust_env=False,  # it would read ~/.netrc and replace the bearer
        )

    async def close(self) -> None:
        """Close what was opened here; the user's session stays open, without our marker."""
        if self._given is not None:
            if self._tracing in self._given.trace_configs:
                self._given.trace_configs.remove(self._tracing)
        else:
            for session in (self._paid, self._free):
                if session is not None:
                    await session.close()
        self._paid = self._free = None

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        """Carry one request. `NoAnswer` says whether anything left this machine."""
        session = self._paid if request.paid else self._free
        if session is None:
            raise RuntimeError("the transport is not open")
        if not self._is_ours(request.url):
            detail = f"the address is not at {self._origin}, so the key is not sent to it"
            return TransportFailure(phase=SendPhase.UNSENT, kind="url", detail=detail)
        marker = _SendMarker()
        try:
            response = await session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=self._headers(request),
                allow_redirects=False,
                raise_for_status=False,
                proxy=self._proxy,
                timeout=self._paid_timeout if request.paid else self._free_timeout,
                auto_decompress=False,
                middlewares=(),  # one that the user's session has might send again
                trace_request_ctx=marker,
            )
        except Exception as error:
            return classify(error, sent=marker.sent)
        return await self._read(response)

    def _is_ours(self, address: str) -> bool:
        try:
            return URL(address, encoded=True).origin() == self._origin
        except ValueError:
            return False

    def _headers(self, request: HttpRequest) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {self._credential.reveal()}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": _USER_AGENT,
        }
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        return headers

    async def _read(self, response: aiohttp.ClientResponse) -> HttpResponse:
        """The answer with as much of its body as came, at most `MAX_BODY` bytes."""
        body = bytearray()
        complete = True
        try:
            with fail_on_connection_lost(response):
                async for chunk in response.content.iter_chunked(_CHUNK):
                    body += chunk
                    if len(body) > MAX_BODY:
                        del body[MAX_BODY:]
                        complete = False
                        break
        except Exception:
            complete = False
        finally:
            if complete:
                response.release()
            else:
                response.close()
        headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            plain, whole = inflate(bytes(body), headers.get("content-encoding", "").strip().lower())
        except DecodeError:  # or the front end has decoded it and left the header: an id may stand there in the clear
            plain, whole = bytes(body), False
        return HttpResponse(
            status=response.status,
            headers={name: self._redacted(value) for name, value in headers.items()},
            body=self._credential.redact(plain),
            complete=complete and whole,
        )

    def _redacted(self, text: str) -> str:
        return self._credential.redact(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def _checked_proxy(proxy: str) -> str:
    try:
        good = URL(proxy).scheme in {"http", "https"} and bool(URL(proxy).host)
    except (ValueError, TypeError):
        good = False
    if not good:  # not shown: it may hold a password
        raise ConfigurationError(setting="proxy", reason="is no http or https address; other kinds are not supported")
    return proxy


def _environment_proxy(origin: URL) -> str | None:
    """The proxy that the environment names for `origin` (not `trust_env`, which also reads `~/.netrc`)."""
    if is_loopback(origin) or origin.host is None or proxy_bypass(origin.host):
        return None
    return getproxies().get(origin.scheme)
