"""HTTP server of the emulator: an API origin and a CDN origin on loopback addresses.

All answers come from :class:`~pika_async.emulator.Gateway`. The server never binds or calls other addresses.
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
    EMULATED_PROVIDERS,
    Answer,
    Callback,
    CallbackResult,
    CdnRequest,
    Charge,
    FaultEffect,
    Polls,
    Refusal,
    RequestLogEntry,
)
from pika_async.emulator.render import Picture, Renderer, RenderError

__all__ = ["Emulator"]

_Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_CALLBACK_TIMEOUT_S = 5.0
_MAX_CONCURRENT_CALLBACKS = 16
#: The picture that all tasks share if ``render`` is off.
_SHARED_PICTURE = Picture(prompt="one clip for all", seed=1)


class Emulator:
    """Emulated gateway with an HTTP server: ``async with Emulator() as emulator``. May be entered once.

    :param host: loopback address to bind; default ``127.0.0.1``.
    :param port: port of the API; default 0, any free port.
    :param cdn_port: port of the CDN; default 0, any free port.
    :param render: whether each task gets a video of its own; if False, all tasks share one clip. Default True.
    :param render_workers: number of threads that render videos; default 2.
    :param options: parameters of :class:`~pika_async.emulator.Gateway`.
    :raises ValueError: if ``host`` is not a loopback address, or the gateway refuses an option.
    :raises OSError: on entering, if a port is in use.
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
        shared = None if render else attrs.evolve(_SHARED_PICTURE, seconds=self.gateway.video_seconds)
        self._renderer = Renderer(shared=shared, workers=render_workers)
        self._url: str | None = None
        self._started = 0.0
        self._stack = contextlib.AsyncExitStack()
        self._callback_planned = asyncio.Event()
        self._closing = asyncio.Event()

    # -- results for tests ---------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The API origin, such as ``http://127.0.0.1:40123``.

        :raises RuntimeError: if the emulator has not been entered.
        """
        if self._url is None:
            raise RuntimeError("the emulator is not serving: enter it with `async with` first")
        return self._url

    @property
    def cdn_url(self) -> str:
        """The CDN origin, from which result files are served."""
        return self.gateway.cdn_url

    @property
    def api_key(self) -> str:
        """The key that every account accepts."""
        return self.gateway.api_key

    @property
    def ledger(self) -> list[Charge]:
        """The charges, one for each accepted create, recorded before the answer is sent."""
        return self.gateway.ledger

    @property
    def polls(self) -> Polls:
        """The number of polls, in total and by task."""
        return self.gateway.polls

    @property
    def refusals(self) -> list[Refusal]:
        """The requests that were refused as invalid or over the limit; not those that a scenario refused."""
        return self.gateway.refusals

    @property
    def requests(self) -> deque[RequestLogEntry]:
        """The log of the API requests, newest last."""
        return self.gateway.requests

    @property
    def cdn_requests(self) -> list[CdnRequest]:
        """The log of the CDN requests."""
        return self.gateway.cdn_requests

    @property
    def cdn_credentials(self) -> list[CdnRequest]:
        """The CDN requests that carried a credential. A correct client sends none."""
        return self.gateway.cdn_credentials

    def base_url(self, provider: str) -> str:
        """Return the base URL for a client of *provider*.

        :raises ValueError: if *provider* is not emulated.
        """
        if provider not in EMULATED_PROVIDERS:
            raise ValueError(f"provider must be one of {', '.join(EMULATED_PROVIDERS)}, not {provider!r}")
        return f"{self.url}/{provider}"

    @property
    def now(self) -> float:
        """Seconds since the emulator started: the gateway's clock."""
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
        notifier = asyncio.create_task(self._send_callbacks(), name="pika-emulator-callbacks")
        self._stack.push_async_callback(_cancel_and_wait, notifier)
        self._stack.callback(self._closing.set)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        self._url = None

    async def _serve(self, handler: _Handler, port: int) -> str:
        # A handler is cancelled when its client disconnects, so a stalled answer ends with its connection.
        server = web.Server(handler, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, self._host, port, backlog=1024).start()
        bound_port = runner.addresses[0][1]
        return f"http://[{self._host}]:{bound_port}" if ":" in self._host else f"http://{self._host}:{bound_port}"

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Serve from a separate thread with its own event loop, for synchronous tests and any async framework."""
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
        # One byte more than the maximum, so that the gateway notices a larger body.
        body = await _read_body(request, self.gateway.max_body + 1)
        answer = self.gateway.handle(request.method, request.raw_path, request.headers, body, self.now)
        if self.gateway.next_callback_at() is not None:
            self._callback_planned.set()
        return await self._deliver(request, answer)

    async def _answer_cdn(self, request: web.BaseRequest) -> web.StreamResponse:
        method, path, headers = request.method, request.raw_path, request.headers
        media = self.gateway.locate(method, path, headers, self.now)
        if isinstance(media, Answer):
            return await self._deliver(request, media)
        try:
            rendered = asyncio.wrap_future(self._renderer.request(self._picture(media), media.kind))
            # Shielded, because other requests may wait for the same file.
            content = await asyncio.shield(rendered)
        except RenderError as error:
            return web.Response(status=500, text=str(error))
        answer = self.gateway.serve(media, content, method=method, path=path, headers=headers, now=self.now)
        return await self._deliver(request, answer)

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
        effect = answer.effect
        if effect is None:
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        if effect.delay:
            await self._wait(effect.delay)
        if effect.raw is None and effect.ending == "endless":
            return await _stream_endlessly(request, answer)
        if effect.raw is not None:
            await self._apply_effect(request, effect, effect.raw)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _wait(self, seconds: float | None) -> None:
        """Wait for *seconds* (``None``: without limit), or until the emulator closes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    async def _apply_effect(self, request: web.BaseRequest, effect: FaultEffect, raw: bytes) -> None:
        transport = request.transport
        if transport is None:
            return
        if raw:
            transport.write(raw)
        if effect.ending == "stall":
            await self._wait(effect.stall_seconds)
        if effect.ending == "rst":
            # The written bytes must arrive before the reset, which would discard them.
            await asyncio.sleep(0.02 if raw else 0)
            connection: socket.socket | None = transport.get_extra_info("socket")
            if connection is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()

    # -- callbacks -----------------------------------------------------------------------------------------------

    async def _send_callbacks(self) -> None:
        """Send callbacks when they are due, until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            timeout = aiohttp.ClientTimeout(total=_CALLBACK_TIMEOUT_S)
            session = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout, trust_env=False))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            semaphore = asyncio.Semaphore(_MAX_CONCURRENT_CALLBACKS)
            while True:
                for callback in self.gateway.due_callbacks(self.now):
                    sending = self._send_callback(session, callback, semaphore)
                    group.create_task(sending, name=f"callback-{callback.task_id}")
                due_at = self.gateway.next_callback_at()
                self._callback_planned.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if due_at is None else max(0.0, due_at - self.now)):
                        await self._callback_planned.wait()

    async def _send_callback(
        self, session: aiohttp.ClientSession, callback: Callback, semaphore: asyncio.Semaphore
    ) -> None:
        status, problem = None, None
        if not _is_loopback(urlsplit(callback.url).hostname or ""):
            problem = "not sent: the emulator calls loopback addresses only"
        else:
            headers = {"Content-Type": "application/json"}
            try:
                async with (
                    semaphore,
                    session.post(callback.url, data=callback.body, headers=headers, allow_redirects=False) as reply,
                ):
                    status = reply.status
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
        self.callbacks.append(CallbackResult(callback.task_id, callback.url, status, problem, self.now))


async def _cancel_and_wait(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _read_body(request: web.BaseRequest, max_bytes: int) -> bytes:
    if not request.can_read_body:
        return b""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) >= max_bytes:
            break
    return bytes(body)


async def _stream_endlessly(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send the answer's body repeatedly, without a length, until the client disconnects."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(answer.body or b"\x00" * 65_536)
    return response


def _is_loopback(host: str) -> bool:
    """Return whether *host* is in 127.0.0.0/8, or is ::1 or ``localhost``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
