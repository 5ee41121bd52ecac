"""Event loop in which a run is the same each time: virtual time, connections in memory, no thread.

The loop does the work of threads itself whenever it would wait. Nothing depends on the machine, so that what a run does
can be counted.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from unittest import mock

import anyio.to_thread
from lean_gateway import Connection, Gateway

import pika_async._http.downloads
import pika_async._journal.sqlite  # noqa: F401 - their threads are replaced too, so they are loaded before a client

__all__ = ["ORIGIN", "run"]

T = TypeVar("T")

#: The address of the gateway, which listens at no port.
ORIGIN = "http://127.0.0.1:1"
#: `time.time()` when the loop starts.
EPOCH_S = 1_800_000_000.0


class _Selector(selectors.SelectSelector):
    """Selector that never sleeps: if nothing is ready, it does a thread's work, or adds the timeout to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.work: deque[Callable[[], None]] = deque()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return []
        if self.work:
            self.work.popleft()()
        elif timeout is None:
            raise RuntimeError("every task waits for an event that cannot occur")
        else:
            self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop whose connections all lead to one gateway in memory."""

    def __init__(self, gateway: Gateway, pause: Callable[[], Any]) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._gateway = gateway
        self._pause = pause

    def time(self) -> float:
        return self._virtual.now

    def add_work(self, work: Callable[[], None]) -> None:
        """Run `work` when the loop would wait; it takes no virtual time."""
        self._virtual.work.append(work)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect nothing: `create_connection` makes the connection."""

    async def create_connection(self, protocol_factory: Any, *_: Any, **options: Any) -> Any:
        options["sock"].close()
        protocol = protocol_factory()
        transport = _Transport(self, protocol, Connection(self._gateway), self._pause)
        protocol.connection_made(transport)
        return transport, protocol

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, function: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        return asyncio.wrap_future((executor or IdleExecutor()).submit(function, *args), loop=self)


class IdleExecutor(ThreadPoolExecutor):
    """Threads whose work the loop does itself, one piece at a time, whenever it would wait."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        done: Future[Any] = Future()

        def carry_out() -> None:
            try:
                done.set_result(work(*args, **options))
            except BaseException as error:
                done.set_exception(error)

        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.add_work(carry_out)
        return done


class _Transport(asyncio.Transport):
    """The client's end of a connection in memory. The gateway's work is done while `pause()` is open."""

    def __init__(self, loop: VirtualLoop, protocol: Any, server: Connection, pause: Callable[[], Any]) -> None:
        super().__init__()
        self._loop, self._protocol, self._server, self._pause = loop, protocol, server, pause
        self._is_closing = False
        server.connection_made(_ServerTransport(self))

    def write(self, data: Any) -> None:
        self._loop.call_soon(self._pass_on, bytes(data))

    def _pass_on(self, data: bytes) -> None:
        with self._pause():
            self._server.data_received(data)

    def receive(self, data: bytes) -> None:
        """Pass bytes of the gateway to the client."""
        self._loop.call_soon(self._deliver, data)

    def _deliver(self, data: bytes) -> None:
        if not self._is_closing:
            self._protocol.data_received(data)

    def writelines(self, chunks: Any) -> None:
        self.write(b"".join(chunks))

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def pause_reading(self) -> None:
        """Nothing is waiting to be read."""

    resume_reading = pause_reading


class _ServerTransport(asyncio.Transport):
    """The gateway's end of a connection in memory."""

    def __init__(self, client: _Transport) -> None:
        super().__init__()
        self._client = client

    def write(self, data: Any) -> None:
        self._client.receive(data)

    def close(self) -> None:
        """The client closes its end itself after the last answer."""


@contextmanager
def _patched(loop: VirtualLoop) -> Iterator[None]:
    """Replace the clocks and the threads of the process."""

    async def run_sync(function: Callable[..., T], *args: Any, **_: Any) -> T:
        return await asyncio.wrap_future(IdleExecutor().submit(function, *args))

    def wall_time() -> float:
        return EPOCH_S + loop.time()

    patches: list[Any] = [
        mock.patch.object(time, "time", wall_time),
        mock.patch.object(time, "monotonic", loop.time),
        mock.patch.object(anyio.to_thread, "run_sync", run_sync),
    ]
    patches += [
        mock.patch.object(module, "ThreadPoolExecutor", IdleExecutor)
        for name, module in list(sys.modules.items())
        if name.startswith("pika_async.") and hasattr(module, "ThreadPoolExecutor")
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def run(main: Coroutine[Any, Any, T], gateway: Gateway, pause: Callable[[], Any]) -> T:
    """Run `main` in virtual time.

    :param gateway: answers every connection; its `base_url` is `ORIGIN`.
    :param pause: a context in which the gateway works, so that its work is not counted.
    """
    loop = VirtualLoop(gateway, pause)
    with _patched(loop), asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)
