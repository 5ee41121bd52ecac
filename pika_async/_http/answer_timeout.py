"""Timeout of a request that reads what has arrived before it judges.

A process may be stopped while requests are under way: Ctrl-Z and `fg`, a closed laptop, a debugger. When it continues,
the timers are due and the answers lie in the sockets, both at once, and an event loop may run the timers first:
`epoll_wait` is interrupted by the stop, and after that Python does not poll again. aiohttp's own timeouts then end
requests whose answers have come, and each such submission would be in doubt.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

__all__ = ["READ_MARGIN_S", "AnswerTimeout"]

#: Seconds for which the loop must run, and read, between the end of a timeout and its judgement.
READ_MARGIN_S: Final = 0.25


class AnswerTimeout:
    """Timeout of one request and its answer, as a context manager of one or several blocks of the same task.

    A block that runs past it ends with `TimeoutError`.

    :param total: seconds from now to the end of the answer; None: no limit.
    :param idle: seconds without a byte, counted from the first `touch`; None: no limit.
    """

    def __init__(self, total: float | None, idle: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = None if total is None else self._loop.time() + total
        self._idle = idle
        self._touched_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._block: asyncio.Timeout  # of the block that runs
        self._is_last = False

    def touch(self) -> None:
        """Note that bytes were sent or received."""
        self._touched_at = self._loop.time()

    async def __aenter__(self) -> Self:
        self._block = await asyncio.timeout(None).__aenter__()
        self._is_last = False
        self._arm(self._due())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._block.__aexit__(kind, error, trace)

    def _due(self) -> float | None:
        """Return the earlier of the two ends, None if there is none; before a `touch`, one may still come now."""
        if self._idle is None:
            return self._end
        touched_at = self._loop.time() if self._touched_at is None else self._touched_at
        idle_end = touched_at + self._idle
        return idle_end if self._end is None or idle_end < self._end else self._end

    def _arm(self, at: float | None) -> None:
        self._timer = None if at is None else self._loop.call_at(at, self._check, at)

    def _check(self, at: float) -> None:
        now = self._loop.time()
        late = now - at
        if late > READ_MARGIN_S:  # the loop did not run meanwhile: that time counts for nothing
            self._end = None if self._end is None else self._end + late
            self._touched_at = None if self._touched_at is None else self._touched_at + late
            self._is_last = False
        due = self._due()
        if due is None or due > now:
            self._is_last = False
            self._arm(due)
        elif self._is_last:
            self._block.reschedule(now)
        else:
            self._is_last = True
            self._arm(now + READ_MARGIN_S)
