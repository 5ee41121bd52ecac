"""Queue of planned jobs, with gates for jobs that no upstream of the gateway takes now. Pure: sends nothing.

A gateway that has no channel for one model refuses every job of that model, and accepts others. The refused job and
those like it (of the same stratum) wait behind a gate. One of them at a time probes whether the gate may open.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

import attrs

from pika_async._planning.actions import ActiveJob
from pika_async._planning.backoff import backoff_delay

__all__ = ["MAX_GATED", "SubmitQueue"]

#: Maximum number of jobs behind gates for which a batch pulls others.
MAX_GATED: Final = 1000


@attrs.define(eq=False)
class _Gate:
    #: When its jobs are given up.
    expires_at: float
    ready_at: float = -math.inf
    refusals: int = 0
    #: The job that was sent to find out whether the gate may open.
    probe: ActiveJob | None = None
    jobs: OrderedDict[ActiveJob, None] = attrs.field(factory=OrderedDict)

    @property
    def next_at(self) -> float:
        """When its next job may be sent; infinity while a probe is under way."""
        return self.ready_at if self.jobs and self.probe is None else math.inf


@attrs.define(eq=False)
class SubmitQueue:
    """The queue of one account, first come, first served."""

    #: In order. A dict, because any job may be withdrawn, and all at once.
    _ready: OrderedDict[ActiveJob, None] = attrs.field(factory=OrderedDict)
    #: By stratum.
    _gates: dict[str, _Gate] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self._ready) + self.gated

    def __bool__(self) -> bool:
        return bool(self._ready or (self._gates and self.gated))

    def __iter__(self) -> Iterator[ActiveJob]:
        yield from self._ready
        for gate in self._gates.values():
            yield from gate.jobs

    def precedes(self, active: ActiveJob, stratum: str) -> bool:
        """Return whether a job from elsewhere must wait: for one that was queued earlier, or behind a gate.

        :param stratum: its stratum at this account.
        """
        first = next(iter(self._ready), None)
        is_later = first is not None and first.last_seen_unsettled_at < active.last_seen_unsettled_at
        return is_later or stratum in self._gates

    @property
    def gated(self) -> int:
        """Number of jobs behind gates."""
        return sum([len(gate.jobs) for gate in self._gates.values()]) if self._gates else 0

    def append(self, active: ActiveJob) -> None:
        """Add a job as the last of its kind."""
        self._line_of(active)[active] = None

    def appendleft(self, active: ActiveJob) -> None:
        """Add a job as the first of its kind."""
        _put_first(self._line_of(active), active)

    def _line_of(self, active: ActiveJob) -> OrderedDict[ActiveJob, None]:
        gate = self._gates.get(active.stratum)
        return self._ready if gate is None else gate.jobs

    def ready_at(self, now: float) -> float:
        """Return when a job may be sent; `now` if at once, infinity if none is queued or every gate is probed."""
        if self._ready:
            return now
        return max(now, min((gate.next_at for gate in self._gates.values()), default=math.inf))

    @property
    def expires_at(self) -> float:
        """When the next job is given up; infinity if none will be."""
        first = next(iter(self._ready)).deadline_at if self._ready else math.inf
        return min([first, *(gate.expires_at for gate in self._gates.values() if gate.jobs)])

    def pop_expired(self, now: float) -> ActiveJob | None:
        """Remove and return a job that is given up at `now`; None if there is none."""
        if self._ready and now >= next(iter(self._ready)).deadline_at:
            return _pop_first(self._ready)
        if not self._gates:
            return None
        expired = next((gate for gate in self._gates.values() if gate.jobs and now >= gate.expires_at), None)
        if expired is None:
            return None
        active = _pop_first(expired.jobs)
        self._drop_gate_if_idle(active.stratum)
        return active

    def pop(self, now: float) -> ActiveJob:
        """Remove and return the next job to be sent: the probe of a gate, or the first that is not behind one."""
        gate = next((gate for gate in self._gates.values() if gate.next_at <= now), None)
        if gate is None:
            return _pop_first(self._ready)
        gate.probe = _pop_first(gate.jobs)
        return gate.probe

    # --- gates ------------------------------------------------------------------------------------------------------

    def close_gate(self, active: ActiveJob, now: float, u: float, retry_after: float | None, patience: float) -> None:
        """Queue a job whose model has no channel, and close the gate of its stratum.

        :param u: a uniform random number in [0, 1), for the jitter of the wait.
        :param retry_after: seconds until the next probe; None or 0: grows with each refusal.
        :param patience: seconds from the first refusal after which the jobs behind the gate are given up.
        """
        gate = self._gates.get(active.stratum)
        if gate is None:
            gate = self._gates[active.stratum] = _Gate(expires_at=now + patience)
            gate.jobs.update((other, None) for other in self._ready if other.stratum == active.stratum)
            for other in gate.jobs:
                del self._ready[other]
        if gate.probe is active or not gate.refusals:
            gate.ready_at = now + (retry_after or backoff_delay(gate.refusals, u, first=1.0, cap=60.0))
            gate.refusals += 1
        self._end_probe(gate, active)
        _put_first(gate.jobs, active)

    def return_probe(self, active: ActiveJob) -> None:
        """Record that a job has been sent without an answer about its model; its gate, if any, stays closed."""
        gate = self._gates.get(active.stratum)
        if gate is not None:
            self._end_probe(gate, active)
            self._drop_gate_if_idle(active.stratum)

    def open_gate(self, active: ActiveJob) -> None:
        """Open the gate of a job that has been answered otherwise: its jobs are the next to be sent."""
        gate = self._gates.pop(active.stratum, None)
        if gate is not None:
            for other in reversed(gate.jobs):
                _put_first(self._ready, other)

    @staticmethod
    def _end_probe(gate: _Gate, active: ActiveJob) -> None:
        if gate.probe is active:
            gate.probe = None

    def postpone(self, seconds: float) -> None:
        """Give every job, and every gate, so many seconds more until it is given up."""
        for active in self:
            active.deadline_at += seconds
        for gate in self._gates.values():
            gate.expires_at += seconds

    # --- removing ---------------------------------------------------------------------------------------------------

    def remove(self, active: ActiveJob) -> bool:
        """Remove a job and return True; False if it is not queued."""
        line = self._line_of(active)
        if active not in line:
            return False
        del line[active]
        self._drop_gate_if_idle(active.stratum)
        return True

    def _drop_gate_if_idle(self, stratum: str) -> None:
        gate = self._gates.get(stratum)
        if gate is not None and not gate.jobs and gate.probe is None:
            del self._gates[stratum]

    def clear(self) -> list[ActiveJob]:
        """Remove and return every job, and open every gate."""
        jobs = list(self)
        self._ready.clear()
        self._gates.clear()
        return jobs


def _put_first(line: OrderedDict[ActiveJob, None], active: ActiveJob) -> None:
    line[active] = None
    line.move_to_end(active, last=False)


def _pop_first(line: OrderedDict[ActiveJob, None]) -> ActiveJob:
    return line.popitem(last=False)[0]
