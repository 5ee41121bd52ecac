"""The emulator as a server: an API origin and a CDN origin on loopback, around the pure gateway.

It binds and calls loopback addresses only; it decides nothing about what is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self, Unpack
from urllib.parse import urlsplit

import aiohttp
import attrs
from aiohttp import web

from pika_async.emulator.cdn import Media
from pika_async.emulator.gateway import Gateway, GatewayOptions
from pika_async.emulator.records import (
    PROVIDERS,
    Answer,
    Callback,
    CallbackResult,
    CdnRequest,
    Charge,
    Disruption,
    Polls,
    Refusal,
    RequestLogEntry,
)
from pika_async.emulator.render import Picture, Renderer, RenderError

__all__ = ["Emulator"]

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_CALLBACK_SECONDS = 5.0
_CALLBACKS_AT_ONCE = 16
#: What is drawn once for everything when ``render`` is off.
_SHARED = Picture(prompt="one clip for all", seed=1)


class Emulator:
    """The gateway as a server on loopback: ``async with Emulator() as emulator``.

    Takes what :class:`~pika_async.emulator.Gateway` takes, and ``host``, ``port`` (0: any free one), ``cdn_port``,
    ``render`` (off: one real clip serves for every task) and ``render_workers``. May be entered once.

    Raises ``ValueError`` for a host that is not loopback and for settings the gateway refuses, and ``OSError`` on
    entering when a port is taken.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        cdn_port: int = 0,
        render: bool = True,
        render_workers: int = 2,
        **options: Unpack[GatewayOptions],
    ) -> None:
        if not _is_loopback(host):
            raise ValueError(f"host must be a loopback address, not {host!r}")
        self.gateway = Gateway(**options)
        self.callbacks: list[CallbackResult] = []
        self._host, self._port, self._cdn_port = host, port, cdn_port
        shared = None if render else attrs.evolve(_SHARED, seconds=self.gateway.video_seconds)
        self._renderer = Renderer(shared=shared, workers=render_workers)
        self._url: str | None = None
        self._started = 0.0
        self._stack = contextlib.AsyncExitStack()
        self._callback_planned = asyncio.Event()
        self._leaving = asyncio.Event()

    # -- what a test reads ---------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The API origin, such as ``http://127.0.0.1:40123``; raises ``RuntimeError`` before it serves."""
        if self._url is None:
            raise RuntimeError("the emulator is not serving: enter it with `async with` first")
        return self._url

    @property
    def cdn_url(self) -> str:
        """The origin of the results."""
        return self.gateway.cdn_url

    @property
    def api_key(self) -> str:
        """The key that every account takes."""
        return self.gateway.api_key

    @property
    def ledger(self) -> list[Charge]:
        """One entry per paid acceptance, written before its answer is sent."""
        return self.gateway.ledger

    @property
    def polls(self) -> Polls:
        """How often feeds were asked."""
        return self.gateway.polls

    @property
    def refusals(self) -> list[Refusal]:
        """The requests that the pages or the account refused, and why; not those that a script refused."""
        return self.gateway.refusals

    @property
    def requests(self) -> deque[RequestLogEntry]:
        """The API requests, newest last."""
        return self.gateway.requests

    @property
    def cdn_requests(self) -> list[CdnRequest]:
        """The requests at the CDN."""
        return self.gateway.cdn_requests

    @property
    def cdn_credentials(self) -> list[CdnRequest]:
        """The CDN requests that carried a credential; must stay empty."""
        return self.gateway.cdn_credentials

    def base_url(self, provider: str) -> str:
        """The base URL for a client of a provider; raises ``ValueError`` for one that is not emulated."""
        if provider not in PROVIDERS:
            raise ValueError(f"provider must be one of {', '.join(PROVIDERS)}, not {provider!r}")
        return f"{self.url}/{provider}"

    @property
    def now(self) -> float:
        """Seconds since the emulator began to serve: the gateway's clock."""
        return time.monotonic() - self._started

    # -- serving -------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._started = time.monotonic()
        self.gateway.epoch = time.time()
        self._stack.callback(self._renderer.close)
        try:
            self.gateway.cdn_url = await self._serve(self._answer_cdn, self._cdn_port)
            self._url = await self._serve(self._answer_api, self._port)
        except BaseException:
            await self._stack.aclose()
            raise
        notifier = asyncio.create_task(self._notify(), name="pika-emulator-callbacks")
        self._stack.push_async_callback(_ended, notifier)
        self._stack.callback(self._leaving.set)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        self._url = None

    async def _serve(self, handler: _Handler, port: int) -> str:
        # Cancelled when the client leaves, so that what a script lets hang ends with its connection.
        server = web.Server(handler, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self._host, port, backlog=1024).start()
        bound = runner.addresses[0][1]
        return f"http://[{self._host}]:{bound}" if ":" in self._host else f"http://{self._host}:{bound}"

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Serves in a thread and loop of its own, for synchronous tests and for any async framework."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="pika-emulator", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.__aenter__(), loop).result()
            try:
                yield self
            finally:
                asyncio.run_coroutine_threadsafe(self.__aexit__(None, None, None), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def _answer_api(self, request: web.BaseRequest) -> web.StreamResponse:
        # Read up to the cap and a byte, so that the gateway sees that it is exceeded.
        body = await _read(request, self.gateway.max_body + 1)
        answer = self.gateway.handle(request.method, request.raw_path, request.headers, body, self.now)
        if self.gateway.next_callback_at() is not None:
            self._callback_planned.set()
        return await self._deliver(request, answer)

    async def _answer_cdn(self, request: web.BaseRequest) -> web.StreamResponse:
        found = self.gateway.locate(request.method, request.raw_path, request.headers, self.now)
        if isinstance(found, Media):
            try:
                drawn = asyncio.wrap_future(self._renderer.request(self._picture(found), found.kind))
                # Others may wait for the same picture: a client that leaves must not stop it.
                content = await asyncio.shield(drawn)
            except RenderError as error:
                return web.Response(status=500, text=str(error))
            about = {"method": request.method, "path": request.raw_path}
            found = self.gateway.serve(found, content, **about, headers=request.headers, now=self.now)
        return await self._deliver(request, found)

    def _picture(self, media: Media) -> Picture:
        task = media.task
        return Picture(
            prompt=task.prompt,
            seed=task.seed,
            aspect_ratio=task.aspect_ratio,
            frame_rate=task.frame_rate,
            seconds=self.gateway.video_seconds,
        )

    async def _deliver(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        fault = answer.fault
        if fault is None:
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        if fault.delay:
            await self._wait(fault.delay)
        if fault.raw is None and fault.ending == "endless":
            return await _pour(request, answer)
        if fault.raw is not None:
            await self._disturb(request, fault, fault.raw)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _wait(self, seconds: float | None) -> None:
        """Waits, but never longer than the emulator serves."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leaving.wait()

    async def _disturb(self, request: web.BaseRequest, fault: Disruption, raw: bytes) -> None:
        transport = request.transport
        if transport is None:
            return
        if raw:
            transport.write(raw)
        if fault.ending == "stall":
            await self._wait(fault.stall_seconds)
        if fault.ending == "rst":
            # So that what was written arrives before the reset that would discard it.
            await asyncio.sleep(0.02 if raw else 0)
            connection: socket.socket | None = transport.get_extra_info("socket")
            if connection is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()

    # -- callbacks -----------------------------------------------------------------------------------------------

    async def _notify(self) -> None:
        """Sends notifications as they fall due, until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            timeout = aiohttp.ClientTimeout(total=_CALLBACK_SECONDS)
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, trust_env=False))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            room = asyncio.Semaphore(_CALLBACKS_AT_ONCE)
            while True:
                for callback in self.gateway.due_callbacks(self.now):
                    group.create_task(self._send(session, callback, room), name=f"callback-{callback.task_id}")
                due_at = self.gateway.next_callback_at()
                self._callback_planned.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if due_at is None else max(0.0, due_at - self.now)):
                        await self._callback_planned.wait()

    async def _send(self, session: aiohttp.ClientSession, callback: Callback, room: asyncio.Semaphore) -> None:
        status, problem = None, None
        if not _is_loopback(urlsplit(callback.url).hostname or ""):
            problem = "not sent: the emulator calls loopback addresses only"
        else:
            headers = {"Content-Type": "application/json"}
            try:
                async with (
                    room,
                    session.post(callback.url, data=callback.body, headers=headers, allow_redirects=False) as reply,
                ):
                    status = reply.status
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
        self.callbacks.append(CallbackResult(callback.task_id, callback.url, status, problem, self.now))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _read(request: web.BaseRequest, cap: int) -> bytes:
    if not request.can_read_body:
        return b""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) >= cap:
            break
    return bytes(body)


async def _pour(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Sends the body again and again without a length, until the client leaves."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(answer.body or b"\x00" * 65_536)
    return response


def _is_loopback(host: str) -> bool:
    """Whether a host is 127.0.0.0/8, ::1 or ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
