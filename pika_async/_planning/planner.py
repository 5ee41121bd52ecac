"""What to do next: the jobs that are not at rest, the time, the limits -> one decision. Pure: another room acts."""

from __future__ import annotations

import math
from collections import deque
from datetime import datetime
from typing import Final

import attrs

from pika_async._planning.actions import Decision, Entry, Expire, GiveUp, Look, Poll, Sleep, Stop, Submit, Unheard
from pika_async._planning.concurrency import Slots
from pika_async._planning.limits import Breaker, Gate, Limits, Meter, Rate
from pika_async._planning.poll_queue import Lookout
from pika_async.errors import (
    AccountStopped,
    ChargeLimitReached,
    DeadlineExceeded,
    GenerationFailed,
    ProviderUnreachable,
    SubmissionInDoubt,
    SubmissionRejected,
    SubmissionsStopped,
    TaskNotFound,
    WrongBaseUrl,
)
from pika_async.jobs import Job, JobStatus, instant
from pika_async.models import TaskState
from pika_async.providers._verdicts import Judgement, PollVerdict, Verdict

__all__ = ["Agenda", "judged"]

#: A task that was accepted and then denied is given up after this many denials over this many seconds.
MISSING_ANSWERS: Final = 5
MISSING_SECONDS: Final = 600.0
#: A task that is finished but has no address yet is asked for this many seconds more.
URL_SECONDS: Final = 600.0
#: The callback of a job in doubt is waited for this many times as long as the longest task has taken; while none has
#: settled, so many seconds: the documented example took 232 s.
DOUBT_SHARE, DOUBT_SECONDS = 2.0, 600.0


@attrs.define(kw_only=True)
class Agenda:
    """The decisions of one client: one provider, one account."""

    provider: str
    base_url: str
    limits: Limits
    #: Seconds from acceptance to settling, for each job.
    deadline: float
    slots: Slots
    lookout: Lookout
    submit_rate: Rate
    poll_rate: Rate
    gate: Gate = attrs.field(factory=Gate)
    breaker: Breaker = attrs.field(factory=Breaker)
    closing: bool = False
    ready: deque[Entry] = attrs.field(factory=deque)
    submitting: int = 0
    accepted: int = 0
    polling: int = 0
    charges: int = 0
    submit_meter: Meter = attrs.field(factory=Meter)
    poll_meter: Meter = attrs.field(factory=Meter)
    #: Whose look was the latest probe of an open breaker.
    _probe: Entry | None = None
    #: The jobs in doubt whose callbacks are waited for, and since when.
    _doubts: dict[Entry, float] = attrs.field(factory=dict)

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Decision:
        """The one thing to do at `now`; looks go first, because they make room."""
        poll = self._next_poll(now)
        if isinstance(poll, Poll | Expire):
            return poll
        submit = self._next_submit(now)
        if not isinstance(submit, Sleep):
            return submit
        doubt = self._next_doubt(now)
        return doubt if isinstance(doubt, Unheard) else Sleep(min(poll.until, submit.until, doubt.until))

    def _next_doubt(self, now: float) -> Unheard | Sleep:
        while self._doubts:
            entry, since = next(iter(self._doubts.items()))
            until = since + min(self.deadline, DOUBT_SHARE * self.lookout.longest or DOUBT_SECONDS)
            if entry.job.status is JobStatus.UNKNOWN and until > now:
                return Sleep(until)
            del self._doubts[entry]
            if entry.job.status is JobStatus.UNKNOWN:
                return Unheard(entry)
        return Sleep(math.inf)

    def _next_poll(self, now: float) -> Poll | Expire | Sleep:
        due = self.lookout.ready_at(now)
        if due > now:
            return Sleep(due)
        held_until = self.breaker.ready_at(now)
        if held_until > now:
            entry = self.lookout.expired(now)
            if entry is not None:
                return Expire(entry)
        if self.polling >= self.limits.polling:
            return Sleep(math.inf)
        if held_until > now:
            return Sleep(min(held_until, self.lookout.expires_at))
        can_begin = self.poll_rate.ready_at(now)
        return Poll(self.lookout.take(now)) if can_begin <= now else Sleep(can_begin)

    def _next_submit(self, now: float) -> Submit | GiveUp | Stop | Sleep:
        if not self.ready or self.closing or self.gate.stop is not None:
            return Sleep(math.inf)
        if now >= self.ready[0].deadline_at:
            return GiveUp(self.ready.popleft())
        if self.limits.max_charges is not None and self.charges + self.submitting >= self.limits.max_charges:
            if self.submitting:
                return Sleep(math.inf)
            return Stop(ChargeLimitReached(provider=self.provider, limit=self.limits.max_charges))
        if self.submitting >= self.limits.submitting or not self.slots.free(self.accepted, self.submitting):
            return Sleep(math.inf)
        can_begin = max(self.submit_rate.ready_at(now), self.gate.ready_at(now), self.slots.ready_at(now))
        if can_begin > now:
            return Sleep(min(can_begin, self.ready[0].deadline_at))
        return Submit(self.ready.popleft())

    def wants_more(self, planned_by_caller: int) -> bool:
        """Whether a caller with so many unsent jobs should plan another: as many as can be sent side by side."""
        return self.gate.stop is None and planned_by_caller < self.limits.submitting

    # --- what happened ----------------------------------------------------------------------------------------------

    def plan(self, entry: Entry) -> None:
        """A job to submit, after all that are planned."""
        self._doubts.pop(entry, None)
        self.ready.append(entry)

    def resume(self, entry: Entry, age: float, now: float, u: float) -> None:
        """A job that was accepted `age` seconds ago, by a clock that may have been moved: look at it soon.

        Its deadline begins anew. Looks follow its age, but never as if it were older than a deadline.
        """
        self._adopt(entry, now - min(max(age, 0.0), self.deadline), now)
        entry.resumed = True
        self.lookout.resume(entry, now, u)

    def _adopt(self, entry: Entry, accepted_at: float, now: float) -> None:
        self.accepted += 1
        self._doubts.pop(entry, None)
        entry.accepted_at = entry.looked_at = accepted_at
        entry.deadline_at = now + self.deadline

    def submit_begins(self, entry: Entry, now: float) -> None:
        """`entry` is being sent."""
        self.submitting += 1
        self.submit_meter.add(now)
        self.submit_rate.take(now)
        self.slots.begin(now)
        if math.isinf(entry.deadline_at):
            entry.deadline_at = now + self.limits.patience

    def submit_ends(self, entry: Entry, judgement: Judgement, sent_at: float, now: float, u: float) -> Stop | None:
        """`entry` was judged; its job has been changed and kept already. Says so if sending should stop."""
        self.submitting -= 1
        match judgement.verdict:
            case Verdict.ACCEPTED:
                self.charges += 1
                self.gate.answered()
                self._adopt(entry, now, now)
                self.slots.accept(now)
                self.lookout.schedule(entry, now, u)
            case Verdict.NOT_SENT:
                self.ready.appendleft(entry)
                if self.gate.unreachable(now, u):
                    return self._stop(ProviderUnreachable, judgement, attempts=self.gate.unsent)
            case Verdict.WAIT:
                self.ready.appendleft(entry)
                self._wait(entry, judgement, sent_at, now, u)
            case Verdict.STOP:
                self.ready.appendleft(entry)
                return self._stop(AccountStopped, judgement, http_status=judgement.http_status)
            case Verdict.WRONG_URL:
                return self._stop(WrongBaseUrl, judgement, base_url=self.base_url)
            case Verdict.UNKNOWN:
                self.charges += 1
                if judgement.page and self.gate.strange():
                    return self._stop(WrongBaseUrl, judgement, base_url=self.base_url)
            case Verdict.REJECTED:
                self.gate.answered()
                self.slots.skip(now)
        return None

    def doubt(self, entry: Entry, now: float) -> bool:
        """`entry` is in doubt; whether a callback is worth waiting for: there may be one, and most do come.

        It is waited for twice as long as the longest task has taken, at most a deadline; ten minutes if none is known.
        """
        calls = self.lookout.calls
        if not calls.listens or calls.untold.is_deaf:
            return False
        self._doubts.pop(entry, None)  # it may have been in doubt before, and have been sent again
        self._doubts[entry] = now
        return True

    def heard(self, entry: Entry, now: float) -> None:
        """A callback has come for `entry`, which was accepted."""
        self.lookout.call(entry, now)

    def heard_late(self, key: str) -> None:
        """A callback has come for a job that has settled."""
        self.lookout.calls.late(key)

    def take_doubts(self) -> list[Entry]:
        """The jobs in doubt whose callbacks are waited for; they are not any more."""
        entries = [entry for entry in self._doubts if entry.job.status is JobStatus.UNKNOWN]
        self._doubts.clear()
        return entries

    def submit_withdrawn(self, entry: Entry) -> None:
        """`entry` was not sent after all."""
        self.submitting -= 1
        self.ready.appendleft(entry)

    def _wait(self, entry: Entry, judgement: Judgement, sent_at: float, now: float, u: float) -> None:
        if judgement.http_status == 429 and self.accepted:  # all slots busy, ours among them: one will get free
            self.gate.answered()
            self.slots.refuse(self.accepted, sent_at, now, judgement.retry_after)
            entry.deadline_at = math.inf
        else:
            self.gate.wait(now, u, judgement.retry_after)

    def _stop(self, kind: type[SubmissionsStopped], judgement: Judgement, **facts: object) -> Stop:
        return Stop(kind(provider=self.provider, reason=judgement.reason, **facts))

    def poll_begins(self, entry: Entry, now: float) -> None:
        """`entry` is being looked at."""
        self.polling += 1
        entry.polls += 1
        self.lookout.calls.begin(entry, now)
        self.poll_meter.add(now)
        self.poll_rate.take(now)
        if self.breaker.begin():
            self._probe = entry

    def poll_ends(self, entry: Entry, look: Look, now: float, at: float, u: float) -> Job:
        """What a look brought -> the job as it stands; at rest if it is settled or parked, else scheduled again."""
        self.polling -= 1
        if look.verdict is PollVerdict.AGAIN or look.verdict is PollVerdict.STOP:
            self.breaker.fail(now, u, probe=entry is self._probe)
        else:
            self.breaker.succeed()
        match look.verdict:
            case PollVerdict.READ if look.snapshot is not None:
                return self._read(entry, look, now, at, u)
            case PollVerdict.MISSING:
                return self._denied(entry, look, now, u)
            case _:
                entry.misses += 1
                return self._again(entry, now, u, look)

    def _read(self, entry: Entry, look: Look, now: float, at: float, u: float) -> Job:
        job, snapshot = entry.job, look.snapshot
        assert snapshot is not None  # noqa: S101 - `poll_ends` has seen it
        failure = GenerationFailed(
            key=job.key, provider=job.provider, task_id=job.task_id, reason=snapshot.reason
        ) if snapshot.state is TaskState.FAILED else None  # fmt: skip
        seen = job.seen(snapshot, at, failure=failure)
        entry.misses = entry.denials = 0
        if snapshot.state is TaskState.SUCCEEDED_WITHOUT_URL and not entry.awaits_url:
            entry.awaits_url = True
            entry.deadline_at = now + URL_SECONDS
        if seen.is_final:
            self.slots.settled(entry.looked_at, now)
            self.lookout.learn(entry, snapshot, now, u)
            return self._leave(entry, seen)
        entry.job = seen
        return self._again(entry, now, u, look)

    def _denied(self, entry: Entry, look: Look, now: float, u: float) -> Job:
        entry.denials += 1
        if entry.denials == 1:
            entry.denied_at = now
        if entry.denials >= MISSING_ANSWERS and now - entry.denied_at >= MISSING_SECONDS:
            job = entry.job
            error = TaskNotFound(
                key=job.key, provider=job.provider, task_id=job.task_id,
                reason=f"{entry.denials} denials over {now - entry.denied_at:.0f} s: {look.reason}",
            )  # fmt: skip
            self.lookout.forget(entry)
            return self._leave(entry, job.timed_out(error))
        return self._again(entry, now, u, look)

    def _again(self, entry: Entry, now: float, u: float, look: Look) -> Job:
        if now >= entry.deadline_at:
            return self.expire(entry)
        self.lookout.schedule(entry, now, u, look)
        return entry.job

    def expire(self, entry: Entry) -> Job:
        """`entry` is past its deadline: parked with its task id."""
        job = entry.job
        seconds = entry.deadline_at - entry.accepted_at
        error = DeadlineExceeded(key=job.key, provider=job.provider, task_id=job.task_id, seconds=seconds)
        self.lookout.forget(entry)
        return self._leave(entry, job.timed_out(error))

    def withdraw(self, entry: Entry) -> bool:
        """Take `entry` back if it has not been sent; False if it is too late for that."""
        try:
            self.ready.remove(entry)
        except ValueError:
            return False
        return True

    def park_all(self) -> list[Entry]:
        """Take every accepted job off the heap: the account is stopped and looks are pointless."""
        entries = self.lookout.clear()
        for entry in entries:
            self.lookout.forget(entry)
        self.accepted -= len(entries)
        return entries

    def _leave(self, entry: Entry, job: Job) -> Job:
        self.accepted -= 1
        entry.job = attrs.evolve(job, polls=job.polls + entry.polls)
        entry.polls = 0
        return entry.job

    def counted(self, entry: Entry) -> Job:
        """The job of `entry` with its looks."""
        entry.job = attrs.evolve(entry.job, polls=entry.job.polls + entry.polls)
        entry.polls = 0
        return entry.job


def judged(job: Job, judgement: Judgement, at: float, sent_at: datetime | None = None) -> Job:
    """`job` after its submission of `sent_at` was judged at `at` (unix seconds)."""
    facts = {"key": job.key, "provider": job.provider, "reason": judgement.reason}
    match judgement.verdict:
        case Verdict.ACCEPTED if judgement.task_id is not None:
            return job.accepted(judgement.task_id, at)
        case Verdict.NOT_SENT | Verdict.WAIT | Verdict.STOP:
            return job.returned()
        case Verdict.REJECTED:
            return job.rejected(SubmissionRejected(**facts, http_status=judgement.http_status), at)
        case Verdict.WRONG_URL:
            status, advice = judgement.http_status, "check the base URL"
            return job.rejected(SubmissionRejected(**facts, http_status=status, advice=advice), at)
        case _:
            error = SubmissionInDoubt(
                **facts, http_status=judgement.http_status, request_id=judgement.request_id,
                at=sent_at or instant(at), attempt=job.attempts,
            )  # fmt: skip
            return job.doubted(error, at)
