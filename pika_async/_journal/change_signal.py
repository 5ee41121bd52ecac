"""Wakes whoever waits for a change, each in its own loop. Carries nothing: who hears it looks for himself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

__all__ = ["ChangeSignal"]


class ChangeSignal:
    """May be rung from any thread, and from a signal handler; a loop that was closed hears nothing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiters: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    @property
    def has_waiters(self) -> bool:
        """Whether anybody listens."""
        return bool(self._waiters)

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Event]:
        """Listen: the event is set by each ring from now on."""
        rung = asyncio.Event()
        with self._lock:
            self._waiters[rung] = asyncio.get_running_loop()
        try:
            yield rung
        finally:
            with self._lock:
                self._waiters.pop(rung, None)

    def notify(self) -> None:
        """Something changed."""
        with self._lock:
            for rung, loop in list(self._waiters.items()):
                try:
                    loop.call_soon_threadsafe(rung.set)
                except RuntimeError:  # the loop is closed: nobody waits
                    del self._waiters[rung]
