"""Fuses of one account: counts of answers to submissions whose cause is not the request. Pure: sends and stops nothing.

An address, a key, a balance or a gateway at fault answers every request in the same way. Each fuse counts such answers
without an acceptance between them and trips at a number. Until a fuse trips, no more submissions run side by side than
it has left, so that it trips before the rest of a batch is sent.
"""

from __future__ import annotations

import enum
import math
from typing import Final

import attrs

__all__ = ["MAX_ACCOUNT_REFUSALS", "MAX_DOUBTS", "MAX_PROBES", "MAX_REFUSALS", "MAX_UNREADABLE", "Fuses", "Trip"]

#: Ambiguous answers in a row after which submissions pause.
MAX_DOUBTS: Final = 8
#: Waits before the single submissions that probe a gateway after a pause has begun, in seconds, by number of the probe.
PROBE_WAITS_S: Final = (2.0, 5.0, 15.0, 30.0)
#: Ambiguous answers to these probes after which submitting stops.
MAX_PROBES: Final = len(PROBE_WAITS_S)
#: Unreadable receipts before the first readable one after which the base URL or the wire is taken to be wrong.
MAX_UNREADABLE: Final = 3
#: Requests of different content that are refused alike in a row after which the cause is taken not to be theirs.
MAX_REFUSALS: Final = 5
#: Jobs in a row whose answers blame the account after which the account is taken to be at fault.
MAX_ACCOUNT_REFUSALS: Final = 2


class Trip(enum.Enum):
    """A fuse that has tripped: why submitting must stop."""

    #: Ambiguous answers in a row, also to single submissions after a pause.
    TROUBLE = "trouble"
    #: Unreadable receipts before any readable one.
    UNREADABLE = "unreadable"
    #: The same refusal for different requests.
    REFUSED_ALIKE = "refused_alike"
    #: The credential or the balance is at fault.
    ACCOUNT = "account"


@attrs.define
class Fuses:
    """The fuses of one account, from its opening on."""

    #: Acceptances since the opening, or since the last pause or stop.
    _accepted: int = 0
    #: Whether any submission was accepted since the opening: the base URL and the wire are right.
    _proven: bool = False
    #: Ambiguous answers in a row.
    _doubts: int = 0
    #: Ambiguous answers to probes; None while submissions are not paused.
    _probes: int | None = None
    _paused_at: float = -math.inf
    _paused_until: float = -math.inf
    _unreadable: int = 0
    #: Contents of the requests that were refused since the last acceptance, by fingerprint of the refusal.
    _refused: dict[str, set[str]] = attrs.field(factory=dict)
    #: Keys of the jobs whose answers blamed the account since the last acceptance.
    _blaming: set[str] = attrs.field(factory=set)

    def count_of(self, trip: Trip) -> int:
        """Return the number of answers that a fuse has counted."""
        refusals = max(map(len, self._refused.values()), default=0)
        return {
            Trip.TROUBLE: self._doubts,
            Trip.UNREADABLE: self._unreadable,
            Trip.REFUSED_ALIKE: refusals,
            Trip.ACCOUNT: len(self._blaming),
        }[trip]

    @property
    def is_proven(self) -> bool:
        """Whether a submission was accepted since the opening or the last stop."""
        return self._proven

    @property
    def window(self) -> float:
        """Maximum number of submissions side by side, >= 1.

        It starts at `MAX_UNREADABLE` and grows by one with each acceptance.
        """
        if self._probes is not None:
            return 1
        limits = [MAX_UNREADABLE + self._accepted - (0 if self._proven else self._unreadable)]
        if self._doubts:
            limits.append(MAX_DOUBTS - self._doubts)
        if self._refused:
            limits.append(MAX_REFUSALS - max(map(len, self._refused.values())))
        if self._blaming:
            limits.append(MAX_ACCOUNT_REFUSALS - len(self._blaming))
        return max(1, min(limits))

    def ready_at(self, now: float) -> float:
        """Return when the next submission may begin; `now` if at once."""
        return now if self._probes is None else max(now, self._paused_until)

    def on_accepted(self) -> None:
        """Record an acceptance, which resets every count."""
        self._accepted += 1
        self._proven, self._doubts, self._probes, self._unreadable = True, 0, None, 0
        self._refused.clear()
        self._blaming.clear()

    def on_doubt(self, sent_at: float, now: float, u: float, *, unreadable: bool = False) -> Trip | None:
        """Record an ambiguous answer to a submission that was sent at `sent_at`; return the fuse that it trips.

        :param u: a uniform random number in [0, 1), for the jitter of a wait.
        :param unreadable: whether a whole answer with a status of success was not understood.
        """
        self._doubts += 1
        if unreadable and not self._proven:
            self._unreadable += 1
            if self._unreadable >= MAX_UNREADABLE:
                return Trip.UNREADABLE
        if self._probes is None and self._doubts < MAX_DOUBTS:
            return None
        if self._probes is None:
            self._probes = self._accepted = 0
            self._paused_at = now
        elif sent_at < self._paused_at:
            return None  # sent before the pause began, for the same reason
        else:
            self._probes += 1
        wait = PROBE_WAITS_S[min(self._probes, MAX_PROBES - 1)]
        self._paused_until = now + wait * (0.75 + 0.5 * u)
        return Trip.TROUBLE if self._probes >= MAX_PROBES else None

    def on_refused(self, fingerprint: str, content: str) -> Trip | None:
        """Record a refusal of a request of this content; return the fuse that it trips."""
        self._unreadable = 0  # the gateway answers on this wire
        contents = self._refused.setdefault(fingerprint, set())
        contents.add(content)
        return Trip.REFUSED_ALIKE if len(contents) >= MAX_REFUSALS else None

    def on_account_refusal(self, key: str) -> Trip | None:
        """Record an answer to the job `key` that blames the account; return the fuse that it trips.

        Before the first acceptance, one such answer proves that the account is at fault.
        """
        is_repeated = key in self._blaming
        self._blaming.add(key)
        stops = not self._proven or is_repeated or len(self._blaming) >= MAX_ACCOUNT_REFUSALS
        return Trip.ACCOUNT if stops else None

    def on_quiet(self) -> None:
        """Record that nothing else is to be sent: the refusals so far were too few to blame anything but themselves."""
        self._refused.clear()

    def reset(self) -> None:
        """Allow submissions again after a stop. A gateway that was in trouble gets one probe, after the last wait."""
        self._accepted, self._unreadable, self._proven = 0, 0, False
        self._refused.clear()
        self._blaming.clear()
        if self._probes is None:
            self._doubts = 0
        else:
            self._probes = min(self._probes, MAX_PROBES - 1)

    def begin_trial(self, now: float) -> None:
        """Allow one submission at a time after a stop: one ambiguous answer trips a fuse until one is accepted."""
        self._probes, self._paused_at = MAX_PROBES - 1, now
