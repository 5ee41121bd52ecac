"""Thread-safe change notification across event loops.

Carries no payload: waiters read the journal again.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

__all__ = ["ChangeSignal"]


class ChangeSignal:
    """Set of waiting events, each with the loop it belongs to.

    `notify` may be called from any thread and from a signal handler: the lock is reentrant, so a handler that
    interrupts `notify` does not deadlock.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiters: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def has_waiters(self) -> bool:
        """Whether an event is subscribed."""
        return bool(self._waiters)

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Event]:
        """Yield an event of the running loop that each later `notify` sets."""
        changed = asyncio.Event()
        with self._lock:
            self._waiters[changed] = asyncio.get_running_loop()
        try:
            yield changed
        finally:
            with self._lock:
                self._waiters.pop(changed, None)

    def notify(self) -> None:
        """Set every subscribed event in its own loop; drop the events of loops that are closed."""
        with self._lock:
            for changed, loop in list(self._waiters.items()):
                try:
                    loop.call_soon_threadsafe(changed.set)
                except RuntimeError:  # the loop is closed, so its waiters are gone
                    del self._waiters[changed]
