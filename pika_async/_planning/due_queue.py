"""Which of the tasks that are due is looked at first, when there are more than looks. Pure; knows no rate itself."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import attrs

__all__ = ["DueQueue"]

Task = TypeVar("Task")

#: A task whose expected delay is this share below the largest possible one is as good, or so many seconds below: what a
#: clock that has run for years rounds away must not decide for ever which of two is asked again.
GOOD_ENOUGH, SLACK = 0.05, 1e-3


@attrs.define
class DueQueue(Generic[Task]):
    """Tasks that are due; the next look goes where the most delay is expected to be ended by it.

    `undetected(task, now)` is the expected number of seconds that it has been settled unseen
    (`Distribution.undetected`). That grows by at most a second a second, so `undetected - now` at the time of asking
    bounds it at every later time: the heap is keyed by that, and only its top is asked again.
    """

    undetected: Callable[[Task, float], float]
    _heap: list[tuple[float, int, Task]] = attrs.field(factory=list, init=False)
    _order: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Task]:
        return (task for _, _, task in self._heap)

    def push(self, task: Task, now: float) -> None:
        """`task` is due."""
        self._order += 1
        heapq.heappush(self._heap, (now - self.undetected(task, now), self._order, task))

    def pop(self, now: float) -> Task:
        """The task to look at, within a twentieth or a millisecond of the best.

        :raises IndexError: if none is due.
        """
        while True:
            _, order, task = heapq.heappop(self._heap)
            value = self.undetected(task, now)
            if not self._heap or now - self._heap[0][0] <= value * (1 + GOOD_ENOUGH) + SLACK:
                return task
            heapq.heappush(self._heap, (now - value, order, task))

    def drop(self, which: Callable[[Task], bool]) -> list[Task]:
        """Take off every task that `which` says."""
        dropped = [task for task in self if which(task)]
        if dropped:
            self._heap = [each for each in self._heap if not which(each[2])]
            heapq.heapify(self._heap)
        return dropped
