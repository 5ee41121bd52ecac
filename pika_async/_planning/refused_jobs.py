"""Refused jobs whose cause is not known yet: their own, or one that is the same for every job. Pure.

A refusal is a job's own once a submission that was sent after it has been accepted, or once nothing else is left to be
sent. Until then the job is planned: it can be sent again without being paid twice. At the end of a batch of which
nothing was accepted, two jobs or more that were refused alike stop the account instead of counting as their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import attrs

from pika_async._planning.actions import ActiveJob
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict

__all__ = ["MAX_HELD", "RefusedJobs"]

#: Maximum number of refused jobs that are held; beyond it the oldest refusal counts as the job's own.
MAX_HELD: Final = 20


@attrs.frozen(eq=False)
class _Refusal:
    active: ActiveJob
    outcome: SubmitOutcome
    at: float


@attrs.define
class RefusedJobs:
    """The refused jobs of one account that are held, the oldest first."""

    _held: list[_Refusal] = attrs.field(factory=list)
    #: Refusals that are the job's own.
    _own: list[_Refusal] = attrs.field(factory=list)
    #: Jobs that are to be sent once more.
    _again: list[ActiveJob] = attrs.field(factory=list)
    #: Fingerprints of answers that blamed the account although another job was accepted later, by key of the job.
    _cleared: dict[str, str] = attrs.field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self._held or self._own or self._again)

    def __len__(self) -> int:
        return len(self._held) + len(self._own) + len(self._again)

    def __iter__(self) -> Iterator[ActiveJob]:
        yield from (refusal.active for refusal in (*self._own, *self._held))
        yield from self._again

    def hold(self, active: ActiveJob, outcome: SubmitOutcome, now: float) -> None:
        """Hold a job that was refused by `outcome` at `now`."""
        self._held.append(_Refusal(active, outcome, now))
        if len(self._held) > MAX_HELD:
            self._decide(self._held.pop(0), accepted_later=True)

    def common_refusal(self) -> SubmitOutcome | None:
        """Return the refusal that every held job got, at least two of different content; None if they differ."""
        refusals = {(refusal.outcome.verdict, refusal.outcome.fingerprint) for refusal in self._held}
        contents = {refusal.active.job.request.fingerprint() for refusal in self._held}
        if len(refusals) != 1 or len(contents) < 2:
            return None
        outcome = self._held[-1].outcome
        return outcome if outcome.verdict is SubmitVerdict.REJECTED else None

    def is_repeated(self, active: ActiveJob, outcome: SubmitOutcome) -> bool:
        """Return whether this answer blamed the account before, and a job that was sent later was accepted."""
        return self._cleared.get(active.job.key) == outcome.fingerprint

    def add_own(self, active: ActiveJob, outcome: SubmitOutcome) -> None:
        """Record a refusal that is the job's own."""
        self._cleared.pop(active.job.key, None)
        self._own.append(_Refusal(active, outcome, math.inf))

    def on_accepted(self, key: str, sent_at: float) -> None:
        """Record the acceptance of the job `key`, sent at `sent_at`: earlier refusals were not the account's."""
        self._cleared.pop(key, None)
        earlier = [refusal for refusal in self._held if refusal.at <= sent_at]
        self._held = [refusal for refusal in self._held if refusal.at > sent_at]
        for refusal in earlier:
            self._decide(refusal, accepted_later=True)

    def on_quiet(self) -> None:
        """Record that nothing else is left to be sent: the held jobs are too few to blame anything else."""
        held, self._held = self._held, []
        for refusal in held:
            self._decide(refusal, accepted_later=False)

    def _decide(self, refusal: _Refusal, *, accepted_later: bool) -> None:
        if refusal.outcome.verdict is SubmitVerdict.REJECTED:
            self._own.append(refusal)
            return
        self._again.append(refusal.active)
        if accepted_later:
            self._cleared[refusal.active.job.key] = refusal.outcome.fingerprint

    def pop_own(self) -> tuple[ActiveJob, SubmitOutcome] | None:
        """Remove and return a job whose refusal is its own, with the refusal; None if there is none."""
        if not self._own:
            return None
        refusal = self._own.pop(0)
        return refusal.active, refusal.outcome

    def pop_again(self) -> list[ActiveJob]:
        """Remove and return the jobs that are to be sent once more."""
        again, self._again = self._again, []
        return again

    def remove(self, active: ActiveJob) -> bool:
        """Remove a job and return True; False if it is not here."""
        before = len(self)
        self._held = [refusal for refusal in self._held if refusal.active is not active]
        self._own = [refusal for refusal in self._own if refusal.active is not active]
        self._again = [other for other in self._again if other is not active]
        return len(self) < before

    def clear(self) -> list[ActiveJob]:
        """Remove and return every job."""
        jobs = list(self)
        self._held, self._own, self._again = [], [], []
        self._cleared.clear()
        return jobs
