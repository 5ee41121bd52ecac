"""Priority queue of due tasks, for when more are due than can be polled. Pure: limits no rate."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

import attrs

__all__ = ["DueQueue"]

Task = TypeVar("Task")

#: A task may be popped if its expected delay is at most this share below the largest possible one...
PRIORITY_TOLERANCE_SHARE: Final = 0.05
#: ... or this many seconds below it. Without the second, the rounding errors of a clock that has run for years could
#: make `pop` compare the same two tasks for ever.
PRIORITY_TOLERANCE_S: Final = 1e-3


@attrs.define
class DueQueue(Generic[Task]):
    """Priority queue of due tasks, ordered by the delay that a poll of each is expected to end.

    The expected delay of a task grows by at most one second a second. So `expected_delay - now`, at the time of the
    push, bounds it at every later time. It is the key of the heap, and only the top has to be computed again.

    :param expected_delay: called with a task and the time; returns the expected seconds since the task settled
        (`Distribution.undetected`).
    """

    expected_delay: Callable[[Task, float], float]
    _heap: list[tuple[float, int, Task]] = attrs.field(factory=list, init=False)
    _order: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Task]:
        return (task for _, _, task in self._heap)

    def push(self, task: Task, now: float) -> None:
        """Add a task that is due."""
        self._order += 1
        heapq.heappush(self._heap, (now - self.expected_delay(task, now), self._order, task))

    def pop(self, now: float) -> Task:
        """Pop the task with the largest expected delay, within the tolerance of the priority.

        :raises IndexError: if no task is due.
        """
        while True:
            _, order, task = heapq.heappop(self._heap)
            if not self._heap:
                return task
            delay = self.expected_delay(task, now)
            tolerated = delay * (1 + PRIORITY_TOLERANCE_SHARE) + PRIORITY_TOLERANCE_S
            if now - self._heap[0][0] <= tolerated:
                return task
            heapq.heappush(self._heap, (now - delay, order, task))

    def drop(self, is_dropped: Callable[[Task], bool]) -> list[Task]:
        """Remove and return every task for which `is_dropped` is true."""
        dropped = [task for task in self if is_dropped(task)]
        if dropped:
            self._heap = [entry for entry in self._heap if not is_dropped(entry[2])]
            heapq.heapify(self._heap)
        return dropped
