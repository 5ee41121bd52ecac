"""When the writer thread of a journal commits: at once, soon with what else comes, or when late writes are due.

Knows no job and no file. Used in the event loop, except `take`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["COMMIT_LINGER_S", "MAX_LINGERING", "SAVE_LATER_S", "WriteSchedule"]

#: Seconds after which late writes are committed at the latest.
SAVE_LATER_S: Final = 5.0
#: Seconds that a lingering write waits for others to share its commit: a commit costs more than what it writes.
COMMIT_LINGER_S: Final = 0.08
#: Number of lingering writes that are worth a commit of their own.
MAX_LINGERING: Final = 4


class WriteSchedule:
    """Decides when `submit` is called, which has the writer thread call `take` and commit.

    :param submit: called in the event loop.
    """

    def __init__(self, submit: Callable[[], None]) -> None:
        self._submit = submit
        self._is_submitted = False
        self._is_late_due = False
        self._lingering = 0
        self._linger_timer: asyncio.TimerHandle | None = None
        self._late_timer: asyncio.TimerHandle | None = None

    def write(self) -> None:
        """Commit now."""
        self._stop_lingering()
        if not self._is_submitted:
            self._is_submitted = True
            self._submit()

    def write_all(self) -> None:
        """Commit now, late writes as well."""
        self._stop_waiting()
        self._is_late_due = True
        self.write()

    def linger(self) -> None:
        """Commit with the next commit, in `COMMIT_LINGER_S` at the latest, or now if many writes linger."""
        self._lingering += 1
        if self._lingering >= MAX_LINGERING:
            self.write()
        elif self._linger_timer is None:
            self._linger_timer = asyncio.get_running_loop().call_later(COMMIT_LINGER_S, self.write)

    def write_late(self) -> None:
        """Commit late writes in `SAVE_LATER_S` at the latest."""
        if self._late_timer is None:
            self._late_timer = asyncio.get_running_loop().call_later(SAVE_LATER_S, self.write_all)

    def cancel(self) -> None:
        """Commit nothing by itself any more."""
        self._stop_lingering()
        self._stop_waiting()

    def take(self) -> bool:
        """Return whether late writes are to be committed as well; the next `write` calls `submit` again.

        Called in the writer thread, before it takes the writes.
        """
        self._is_submitted = False
        if self._is_late_due:
            self._is_late_due = False
            return True
        return False

    def _stop_lingering(self) -> None:
        timer, self._linger_timer, self._lingering = self._linger_timer, None, 0
        if timer is not None:
            timer.cancel()

    def _stop_waiting(self) -> None:
        timer, self._late_timer = self._late_timer, None
        if timer is not None:
            timer.cancel()
