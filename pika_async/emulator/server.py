"""HTTP server of the emulator: an API origin and a CDN origin on loopback addresses.

All answers come from :class:`~pika_async.emulator.Gateway`. The server never binds or calls other addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Self, Unpack
from urllib.parse import urlsplit

import aiohttp
import attrs
from aiohttp import web

from pika_async.emulator.cdn import Media
from pika_async.emulator.gateway import Gateway
from pika_async.emulator.listener import Handler, Listener
from pika_async.emulator.options import GatewayOptions
from pika_async.emulator.pika_api import UPLOAD_BYTES
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
    UploadedFile,
)
from pika_async.emulator.render import Picture, Renderer, RenderError

__all__ = ["Emulator"]

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
        #: The listeners of the providers that a scenario may take down.
        self._listeners: dict[str, Listener] = {}
        self._started = 0.0
        self._stack = contextlib.AsyncExitStack()
        self._callback_planned = asyncio.Event()
        self._closing = asyncio.Event()
        self._tasks: asyncio.TaskGroup

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
    def uploads(self) -> dict[str, UploadedFile]:
        """The uploads at Pika's own API by their URLs; their content is ``None`` until it has come."""
        return self.gateway.uploads

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
        return f"{self.gateway.own_urls.get(provider, self.url)}/{provider}"

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
            _, self.gateway.cdn_url = await self._serve(self._answer_cdn, self._cdn_port)
            _, self._url = await self._serve(self._answer_api, self._port)
            self.gateway.url = self._url
            for provider in sorted(self.gateway.scenario.deaths()):
                self._listeners[provider], self.gateway.own_urls[provider] = await self._serve(self._answer_api, 0)
        except BaseException:
            await self._stack.aclose()
            raise
        notifier = asyncio.create_task(self._send_callbacks(), name="pika-emulator-callbacks")
        self._stack.push_async_callback(_cancel_and_wait, notifier)
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.callback(self._closing.set)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        self._url = None

    async def _serve(self, handler: Handler, port: int) -> tuple[Listener, str]:
        listener = Listener(self._host, handler)
        self._stack.push_async_callback(listener.close)
        return listener, await listener.open(port)

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
        await self._follow_deaths()
        return await self._deliver(request, answer)

    async def _follow_deaths(self) -> None:
        """Refuse the connections of each provider that the scenario has just taken down, until it ends."""
        for provider, listener in self._listeners.items():
            until = self.gateway.refuses_until(provider, self.now)
            if until is not None and listener.is_listening:
                await listener.refuse()
                self._tasks.create_task(self._revive(listener, until), name=f"pika-emulator-revive-{provider}")

    async def _revive(self, listener: Listener, until: float) -> None:
        await self._wait(None if until == math.inf else max(0.0, until - self.now))
        if not self._closing.is_set():
            await listener.accept()

    async def _answer_cdn(self, request: web.BaseRequest) -> web.StreamResponse:
        method, path, headers = request.method, request.raw_path, request.headers
        if path.startswith("/uploads/"):
            body = await _read_body(request, max(UPLOAD_BYTES.values()) + 1)
            return await self._deliver(request, self.gateway.upload(method, path, headers, body, self.now))
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
            headers = {"Content-Type": "application/json", **callback.headers}
            try:
                async with (
                    semaphore,
                    session.post(callback.url, data=callback.body, headers=headers, allow_redirects=False) as reply,
                ):
                    status = reply.status
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
        self.callbacks.append(CallbackResult(callback.task_id, callback.url, status, problem, self.now))
        if status is None or not 200 <= status < 300:
            self.gateway.repeat_callback(callback, self.now)
            self._callback_planned.set()


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
