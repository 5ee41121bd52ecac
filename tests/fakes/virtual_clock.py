"""Event loop with virtual time: when nothing is ready, it jumps to the next timer. For in-memory transports only.

Time stands still while an `AwaitedThread` works.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class AwaitedThread(ThreadPoolExecutor):
    """A real thread whose work takes no virtual time."""

    _lock = threading.Lock()
    #: Number of pieces of work, of all threads, whose results have not been passed on.
    unfinished = 0

    def submit(self, work: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        done = super().submit(work, *args, **options)
        self._count(1)
        # Runs in the same thread after the callbacks of `done`, which wake the loop.
        super().submit(self._count, -1)
        return done

    @classmethod
    def _count(cls, change: int) -> None:
        with cls._lock:
            AwaitedThread.unfinished += change


class _Selector(selectors.SelectSelector):
    """Selector that never sleeps and adds the timeout to the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        while AwaitedThread.unfinished:
            if woken := super().select(0.001):
                return woken
        if woken := super().select(0):
            return woken
        if timeout is None:
            # Nothing is scheduled and nothing is ready. Only a thread could wake the loop.
            raise RuntimeError("every task waits for an event that cannot occur")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop whose `time()` is virtual seconds since its creation."""

    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
