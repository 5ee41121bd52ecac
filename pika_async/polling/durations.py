"""How long tasks of one kind take, as seen so far: a sliding window over settled ones and a prior median."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

import attrs

__all__ = ["Durations", "Observation"]

#: Settled tasks that count; older ones are forgotten.
WINDOW = 200
#: A window with fewer observations still leans on the prior.
ENOUGH = 4


@attrs.frozen
class Observation:
    """A task of `stratum` settled at an age between `after` and `before` seconds since it was accepted."""

    stratum: str
    after: float
    before: float


@attrs.define
class Durations:
    """The durations of one stratum, in seconds; a settle seen between two looks counts as their middle."""

    prior_median: float
    _recent: deque[float] = attrs.field(factory=deque)
    _sorted: list[float] = attrs.field(factory=list)

    def __len__(self) -> int:
        return len(self._recent)

    def add(self, seconds: float) -> None:
        """One more task has settled after `seconds`."""
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        if len(self._recent) > WINDOW:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def quantile(self, q: float) -> float:
        """The duration that a share `q` of the tasks stays under; scaled from the prior until enough have settled."""
        if len(self._sorted) < ENOUGH:
            return self.prior_median * (0.5 + q)
        return self._sorted[min(len(self._sorted) - 1, int(q * len(self._sorted)))]
