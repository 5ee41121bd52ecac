"""Event loop of a command: uvloop if the extra `speed` is installed, otherwise asyncio's own.

Names are resolved in threads that nothing waits for: a resolver that hangs must not delay the end of a command.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

__all__ = ["exit_despite_threads", "run_in_loop"]

T = TypeVar("T")

#: Beginning of the names of the loop's threads.
THREAD_PREFIX: Final = "pika_async-loop"
#: Seconds for which the end of a command waits for the calls that are under way in these threads.
MAX_THREAD_WAIT_S: Final = 0.5


class _UnawaitedThreads(ThreadPoolExecutor):
    """Threads of the loop whose shutdown does not wait for a call under way."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        super().shutdown(wait=False, cancel_futures=True)


def run_in_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` as `asyncio.run` does and return its result, without waiting for a call that hangs in a thread."""

    async def with_threads() -> T:
        asyncio.get_running_loop().set_default_executor(_UnawaitedThreads(thread_name_prefix=THREAD_PREFIX))
        return await main

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(with_threads())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        return None

    class Loop(uvloop.Loop):
        """uvloop's loop that resolves names in its executor: its own resolver is waited for when the loop closes."""

        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
            return await self.run_in_executor(None, lambda: socket.getaddrinfo(host, port, **options))

    return Loop


def exit_despite_threads(code: int) -> None:
    """End the process at once with `code` if a call still hangs in a thread of the loop; otherwise return."""
    deadline = time.monotonic() + MAX_THREAD_WAIT_S
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_PREFIX)]
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(thread.is_alive() for thread in threads):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
