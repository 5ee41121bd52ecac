"""How many settles nobody tells of, where somebody may: learned of those that were told and those not. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

__all__ = ["Untold"]

#: What each of the two counts begins with: Jeffreys' prior of a share, so that the first guess is a half.
PRIOR: Final = 0.5
#: So many settles are remembered; older ones count less and less.
MEMORY: Final = 200.0
#: The share is told anew when it has changed by this factor: a schedule follows its square root.
NOTABLE: Final = 2.0
#: When so many of the last few settles were untold, though few were before, what was before counts no more.
FEW, MANY, RARE = 5, 3, 0.2
#: With a larger share it is not worth to wait for being told.
DEAF: Final = 0.9


@attrs.define
class Untold:
    """The share of tasks of whose settling nobody tells."""

    #: As it was when it last changed notably.
    share: float = attrs.field(default=0.5, init=False)
    _told: float = attrs.field(default=PRIOR, init=False)
    _untold: float = attrs.field(default=PRIOR, init=False)
    _last: deque[bool] = attrs.field(factory=lambda: deque(maxlen=FEW), init=False)

    def add(self, *, told: bool) -> bool:
        """A task has settled, and somebody told or not; True if `share` is another now."""
        self._last.append(told)
        if self.estimate < RARE and self._last.count(False) >= MANY:
            self._told, self._untold = PRIOR + self._last.count(True), PRIOR + self._last.count(False)
        else:
            kept = min(1.0, (MEMORY - 1) / (self._told + self._untold - 2 * PRIOR or 1.0))
            self._told = PRIOR + kept * (self._told - PRIOR) + told
            self._untold = PRIOR + kept * (self._untold - PRIOR) + (not told)
        if 1 / NOTABLE < self.estimate / self.share < NOTABLE:
            return False
        self.share = self.estimate
        return True

    @property
    def estimate(self) -> float:
        """The share by all that is known."""
        return self._untold / (self._told + self._untold)

    @property
    def is_deaf(self) -> bool:
        """Whether hardly anybody tells."""
        return self.estimate > DEAF
