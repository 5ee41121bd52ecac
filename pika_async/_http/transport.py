"""Transport of requests to one gateway. Sends no submission twice and follows no redirect.

Each submission gets a connection of its own: if a server closes a kept-alive connection while a POST is written, the
failure is the same as after a lost answer to an accepted job. Over TLS it may have been opened ahead. Polls keep their
connections; one that a server has closed costs one more request at once. Bodies and header lines are limited in size.
No aiohttp exception leaves this module, because its `repr` may show the key.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

import aiohttp
import attrs
from yarl import URL

from pika_async import __version__
from pika_async._http.answer_timeout import AnswerTimeout
from pika_async._http.bodies import BodyReader
from pika_async._http.connector import Connector, SubmissionConnector, on_connected
from pika_async._http.failures import classify_exception
from pika_async._http.proxies import environment_proxy, proxy_url
from pika_async._http.send_marker import SendMarker, marking_trace_config
from pika_async.errors import ConfigurationError, shorten
from pika_async.providers._abilities import BEARER, Authorization
from pika_async.providers._wire import (
    Credential,
    HttpRequest,
    HttpResponse,
    SendPhase,
    TransportFailure,
    inflate,
)

__all__ = [
    "MAX_LINE_BYTES",
    "AiohttpTransport",
    "InterruptedAnswer",
    "Transport",
    "fail_on_connection_lost",
    "origin_of",
]

#: Bytes of one header line: a policy or a set of cookies may be longer than the 8,190 that aiohttp reads by default.
MAX_LINE_BYTES: Final = 1 << 16
#: Read once, at import: the metadata is a file.
_USER_AGENT: Final = f"pika_async/{__version__}"
#: In seconds. A submission may carry a megabyte of base64 over a slow line, and then wait for the gateway's upstream.
_PAID_TIMEOUT: Final = aiohttp.ClientTimeout(total=180, connect=30, sock_connect=15, sock_read=120)
#: In seconds.
_FREE_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, connect=30, sock_connect=15, sock_read=30)


@functools.cache
def _connect_timeout(bounds: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
    """Return the part of `bounds` that aiohttp keeps; `AnswerTimeout` keeps the total and the time without a byte."""
    return attrs.evolve(bounds, total=None, sock_read=None)


class Transport(Protocol):
    """Interface of a transport: one request, and its answer or the failure."""

    async def open(self) -> None:
        """Open the transport in the running loop."""

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        """Send one request; raises no exception but a cancellation."""

    async def close(self) -> None:
        """Close every connection; the transport may be opened again, in another loop."""


def origin_of(base_url: str) -> URL:
    """Return the scheme, host and port of `base_url`.

    :raises ConfigurationError: if it is not an http(s) URL, or holds a user, a query or a fragment.
    """
    way_out = 'give an address such as "https://gateway.example"'
    if isinstance(base_url, str) and "@" in base_url:  # the text is not repeated: it holds a credential
        raise ConfigurationError(setting="base_url", reason="holds a user; give the bare address, and the key apart")
    if not isinstance(base_url, str) or not base_url.isprintable() or any(mark in base_url for mark in " ?#"):
        raise ConfigurationError(
            setting="base_url", reason=f"{base_url!r} holds white space, a query or a fragment; {way_out}"
        )
    try:
        url = URL(base_url)
        origin = url.origin()
    except (ValueError, TypeError):
        raise ConfigurationError(setting="base_url", reason=f"{base_url!r} must be an http(s) URL; {way_out}") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise ConfigurationError(setting="base_url", reason=f"{base_url!r} must be an http(s) URL; {way_out}")
    return origin


@contextmanager
def fail_on_connection_lost(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Let a read of the body fail when its connection is lost.

    After a malformed later chunk aiohttp (3.14.5) closes the connection and cancels its read timeout, but does not end
    the body, so that a reader would wait for the total timeout.
    """
    content, protocol = response.content, response.connection and response.connection.protocol
    closed = protocol.closed if protocol is not None else None
    if closed is None:
        yield
        return

    def fail_body(end: asyncio.Future[None]) -> None:
        _mark_retrieved(end)
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection ended within the body"))

    closed.add_done_callback(fail_body)
    try:
        yield
    except RuntimeError:  # from a read between the loss and the callback
        if not closed.done():
            raise
        raise aiohttp.ClientPayloadError("the connection ended within the body") from None
    finally:  # a kept connection serves many answers, and the error with which it ends later belongs to none of them
        closed.remove_done_callback(fail_body)
        closed.remove_done_callback(_mark_retrieved)
        closed.add_done_callback(_mark_retrieved)


def _mark_retrieved(end: asyncio.Future[None]) -> None:
    """Retrieve the error of a connection that has ended; asyncio would print it as never retrieved."""
    if not end.cancelled():
        end.exception()


class InterruptedAnswer(asyncio.CancelledError):
    """Cancellation within the body of the answer to a submission.

    :param response: the part that had been read; it may hold the task id.
    """

    def __init__(self, *args: object, response: HttpResponse) -> None:
        super().__init__(*args)
        self.response = response


class AiohttpTransport:
    """Transport over aiohttp, for one origin and one credential.

    :param base_url: an http(s) URL; requests to any origin but this and `origins` are refused.
    :param credential: the key.
    :param authorization: the header that carries the key. Default: `Authorization`, as a bearer token.
    :param origins: further origins of the same gateway, to which the key is sent as well. Default: none.
    :param session: the user's own session, used for every request and left open. It may reuse connections for
        submissions, so that more of them end in doubt. Default: sessions of the transport's own.
    :param proxy: see `proxies.proxy_url`. Default: `HTTPS_PROXY` or `HTTP_PROXY`, else `ALL_PROXY`, and `NO_PROXY` of
        the environment, except for loopback addresses.
    :param connections: the limit for polls; submissions have none. Default: 32.
    :param paid_timeout: for a submission. Default: 180 s in total.
    :param free_timeout: for a poll and every other request. Default: 60 s in total.
    :raises ConfigurationError: if `base_url` is not an http(s) URL, or the proxy cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        credential: Credential,
        *,
        authorization: Authorization = BEARER,
        origins: Iterable[str] = (),
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        connections: int = 32,
        paid_timeout: aiohttp.ClientTimeout = _PAID_TIMEOUT,
        free_timeout: aiohttp.ClientTimeout = _FREE_TIMEOUT,
    ) -> None:
        self._origin = origin_of(base_url)
        self._origins = {self._origin, *map(origin_of, origins)}
        self._credential = credential
        self._authorization = authorization
        self._user_session = session
        self._proxy = proxy_url(proxy) if proxy is not None else environment_proxy(self._origin)
        self._connections = connections
        self._paid_timeout = paid_timeout
        self._free_timeout = free_timeout
        self._own_address = f"{self._origin}/"
        self._paid_session: aiohttp.ClientSession | None = None
        self._free_session: aiohttp.ClientSession | None = None
        self._bodies = BodyReader()
        self._trace_config = marking_trace_config()

    def __repr__(self) -> str:
        return f"<AiohttpTransport to {self._origin}>"

    async def open(self) -> None:
        """Create the sessions in the running loop.

        :raises ConfigurationError: if the user's session is not an open `ClientSession`, or adds a credential.
        """
        self._bodies = BodyReader()
        if self._user_session is not None:
            _check_user_session(self._user_session, self._authorization.header)
            self._user_session.trace_configs.append(self._trace_config)
            self._paid_session = self._free_session = self._user_session
            return
        self._paid_session = self._new_session(SubmissionConnector(self._origin), [self._trace_config])
        self._free_session = self._new_session(Connector(limit=self._connections, keepalive_timeout=60), [])

    @staticmethod
    def _new_session(connector: Connector, traces: list[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=traces,
            auto_decompress=False,
            trust_env=False,  # otherwise aiohttp reads ~/.netrc and replaces the key
        )

    async def close(self) -> None:
        """Close the sessions; the user's own stays open, without our trace configuration."""
        if self._user_session is not None:
            if self._trace_config in self._user_session.trace_configs:
                self._user_session.trace_configs.remove(self._trace_config)
        else:
            for session in (self._paid_session, self._free_session):
                if session is not None:
                    await session.close()
        self._paid_session = self._free_session = None

    @property
    def opens_ahead(self) -> bool:
        """Whether `prepare` opens connections: not for plain HTTP, through a proxy or with the user's own session."""
        return self._origin.scheme == "https" and self._proxy is None and self._user_session is None

    def prepare(self, submissions: int) -> None:
        """Open connections ahead for that many submissions, so that each begins without the round trips of TLS."""
        connector = self._paid_session and self._paid_session.connector
        if self.opens_ahead and isinstance(connector, SubmissionConnector):
            connector.prepare(submissions)

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        """Send one request; a `TransportFailure` says whether anything was sent.

        A submission is sent once. Another request is sent again at once, over a connection of its own, if it met the
        end of a kept connection instead of an answer: that says nothing about the gateway.

        :raises RuntimeError: if the transport is not open.
        """
        session, fresh_session = self._free_session, self._paid_session
        if session is None or fresh_session is None:
            raise RuntimeError("the transport is not open")
        if not self._has_our_origin(request.url):
            detail = f"the address is not at {self._origin}, so the key is not sent to it"
            return TransportFailure(phase=SendPhase.UNSENT, kind="url", detail=detail)
        if request.paid:
            outcome, _ = await self._send_over(fresh_session, request, self._paid_timeout)
            return outcome
        outcome, is_stale = await self._send_over(session, request, self._free_timeout)
        if is_stale:
            outcome, _ = await self._send_over(fresh_session, request, self._free_timeout)
        return outcome

    async def _send_over(
        self, session: aiohttp.ClientSession, request: HttpRequest, bounds: aiohttp.ClientTimeout
    ) -> tuple[HttpResponse | TransportFailure, bool]:
        """Send a request once; return its outcome, and whether it met the end of a kept connection."""
        timeout = AnswerTimeout(bounds.total, bounds.sock_read)
        marker = SendMarker(timeout)
        token = on_connected.set(None if session.trace_configs else marker.on_connected)
        try:
            async with timeout:
                response = await session.request(
                    request.method,
                    URL(request.url, encoded=True),
                    data=request.body,
                    headers=self._headers(request),
                    allow_redirects=False,
                    raise_for_status=False,
                    proxy=self._proxy,
                    timeout=_connect_timeout(bounds),
                    auto_decompress=False,
                    middlewares=(),  # a middleware of the user's session might send the request again
                    trace_request_ctx=marker,
                    max_line_size=MAX_LINE_BYTES,
                    max_field_size=MAX_LINE_BYTES,
                )
        except Exception as error:
            failure = classify_exception(error, sent=marker.sent)
            return failure, failure.kind == "disconnected" and marker.reused
        finally:
            on_connected.reset(token)  # the task may be the user's, and go on
        return await self._read_response(response, timeout, request), False

    def _has_our_origin(self, address: str) -> bool:
        if address.startswith(self._own_address):
            return True
        try:
            return URL(address, encoded=True).origin() in self._origins
        except ValueError:
            return False

    def _headers(self, request: HttpRequest) -> dict[str, str]:
        headers = {
            self._authorization.header: self._authorization.value(self._credential.reveal()),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": _USER_AGENT,
        }
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if not request.headers:
            return headers
        own = {name.lower() for name in headers}  # not replaced, whatever the letter case
        return headers | {name: value for name, value in request.headers.items() if name.lower() not in own}

    async def _read_response(
        self, response: aiohttp.ClientResponse, limit: AnswerTimeout, request: HttpRequest
    ) -> HttpResponse:
        """Read the answer, with as much of its body as was received, up to `HttpRequest.max_answer` bytes.

        :raises InterruptedAnswer: if the reading of a submission's answer is cancelled.
        """
        at_once = None if response.connection else self._bodies.read_at_once(response, request)
        if at_once is not None:
            return self._prepared(response, at_once, True, request.max_answer)
        body = bytearray()
        complete = False
        try:
            async with limit:
                with fail_on_connection_lost(response):
                    complete = await self._bodies.read(response, request, body, limit.touch)
        except asyncio.CancelledError as error:
            if not request.paid:
                raise
            answer = self._prepared(response, bytes(body), False, request.max_answer)
            raise InterruptedAnswer(*error.args, response=answer) from error
        except Exception:  # noqa: S110 - the part that came may hold a task id
            pass
        finally:
            with suppress(Exception):
                response.release() if complete else response.close()
        return self._prepared(response, bytes(body), complete, request.max_answer)

    def _prepared(self, response: aiohttp.ClientResponse, body: bytes, complete: bool, limit: int) -> HttpResponse:
        """Return the answer without its content coding and without the key. Raises nothing: it may be a receipt."""
        headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            plain, whole = inflate(body, headers.get("content-encoding", "").strip().lower(), limit)
        except Exception:  # a front end may have decoded the body and left the header; a task id may be readable
            plain, whole = body, False
        return HttpResponse(
            status=response.status,
            headers=self._redacted(headers),
            body=self._credential.redact_or_drop(plain),
            complete=complete and whole,
        )

    def _redacted(self, headers: dict[str, str]) -> dict[str, str]:
        text = "\n".join(headers.values()).encode("utf-8", "surrogateescape")
        if self._credential.redact_or_drop(text) == text:  # as nearly always
            return headers
        return {
            name: self._credential.redact_or_drop(value.encode("utf-8", "surrogateescape")).decode(
                "utf-8", "surrogateescape"
            )
            for name, value in headers.items()
        }


def _check_user_session(session: object, header: str) -> None:
    """Require an open `ClientSession` without a credential.

    :param header: the header of the credential.
    :raises ConfigurationError: for anything else.
    """
    if not isinstance(session, aiohttp.ClientSession):
        reason = f"must be an aiohttp.ClientSession, not {shorten(session)}"
    elif session.closed:
        reason = "must be open, and is closed; give an open ClientSession"
    elif session.auth is not None or "Authorization" in session.headers or header in session.headers:
        reason = "must not add a credential of its own; give one without"
    else:
        return
    raise ConfigurationError(setting="session", reason=reason)
