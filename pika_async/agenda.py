"""What to do next: the jobs that are not at rest, the time, the room -> one decision. Pure: another room acts.

One heap holds the next look at every accepted job; a job that waits costs its record and one entry of the heap.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from pika_async.decisions import Decision, Entry, Expire, GiveUp, Look, Poll, Sleep, Stop, Submit
from pika_async.errors import (
    AccountStopped,
    ChargeLimitReached,
    DeadlineExceeded,
    GenerationFailed,
    ProviderUnreachable,
    SubmissionsStopped,
    TaskNotFound,
    WrongBaseUrl,
)
from pika_async.lifecycle import Job, JobStatus
from pika_async.limits import Breaker, Gate, Limits, Rate, Room
from pika_async.models import Snapshot, TaskState
from pika_async.polling import Observation, PollingPolicy, Waiting
from pika_async.polling.schedule import CAP_SECONDS, CAP_SHARE
from pika_async.retrying import Judgement, PollVerdict, Verdict, ladder

__all__ = ["Agenda"]

_log = logging.getLogger("pika_async.agenda")

#: A task that was accepted and then denied is given up after this many denials over this many seconds.
MISSING_ANSWERS: Final = 5
MISSING_SECONDS: Final = 600.0
#: A task that is finished but has no address yet is asked for this many seconds more.
URL_SECONDS: Final = 600.0
#: The first looks at jobs that are resumed are spread over this many seconds.
RESUME_SECONDS: Final = 1.0
#: Steps of this share of 1 are spread evenly, however many.
GOLDEN: Final = 0.618034


@attrs.define(kw_only=True)
class Agenda:
    """The decisions of one client: one provider, one account."""

    provider: str
    base_url: str
    limits: Limits
    policy: PollingPolicy
    #: Seconds from acceptance to settling, for each job.
    deadline: float
    room: Room
    submit_rate: Rate
    poll_rate: Rate
    gate: Gate = attrs.field(factory=Gate)
    breaker: Breaker = attrs.field(factory=Breaker)
    #: Told of every duration that was learned.
    learned: Callable[[Observation], None] = lambda _: None
    closing: bool = False
    ready: deque[Entry] = attrs.field(factory=deque)
    submitting: int = 0
    accepted: int = 0
    polling: int = 0
    charges: int = 0
    _heap: list[tuple[float, int, Entry]] = attrs.field(factory=list)
    _order: int = 0
    _complained: bool = False

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Decision:
        """The one thing to do at `now`; looks go first, because they make room."""
        poll = self._next_poll(now)
        if isinstance(poll, Poll | Expire):
            return poll
        submit = self._next_submit(now)
        if not isinstance(submit, Sleep):
            return submit
        return Sleep(min(poll.until, submit.until))

    def _next_poll(self, now: float) -> Poll | Expire | Sleep:
        if not self._heap:
            return Sleep(math.inf)
        due, _, entry = self._heap[0]
        if due > now:
            return Sleep(due)
        can_begin = max(self.poll_rate.ready_at(now), self.breaker.ready_at(now))
        expires_at = entry.deadline_at if entry.polls else math.inf  # never unseen
        if can_begin > now and expires_at <= now:
            heapq.heappop(self._heap)
            return Expire(entry)
        if self.polling >= self.limits.polling:
            return Sleep(math.inf)
        if can_begin > now:
            return Sleep(min(can_begin, expires_at))
        heapq.heappop(self._heap)
        return Poll(entry)

    def _next_submit(self, now: float) -> Submit | GiveUp | Stop | Sleep:
        if not self.ready or self.closing or self.gate.stop is not None:
            return Sleep(math.inf)
        if now >= self.ready[0].patient_until:
            return GiveUp(self.ready.popleft())
        if self.limits.max_charges is not None and self.charges + self.submitting >= self.limits.max_charges:
            if self.submitting:
                return Sleep(math.inf)
            return Stop(ChargeLimitReached(provider=self.provider, limit=self.limits.max_charges))
        if self.submitting >= self.limits.submitting or not self.room.free(self.submitting + self.accepted):
            return Sleep(math.inf)
        can_begin = max(self.submit_rate.ready_at(now), self.gate.ready_at(now))
        if can_begin > now:
            return Sleep(min(can_begin, self.ready[0].patient_until))
        return Submit(self.ready.popleft())

    def wants_more(self, planned_by_caller: int) -> bool:
        """Whether a caller with so many unsent jobs should plan another: as many as can be sent side by side."""
        return self.gate.stop is None and planned_by_caller < self.limits.submitting

    # --- what happened ----------------------------------------------------------------------------------------------

    def plan(self, entry: Entry) -> None:
        """A job to submit, after all that are planned."""
        self.ready.append(entry)

    def resume(self, entry: Entry, age: float, now: float, u: float) -> None:
        """A job that was accepted `age` seconds ago, by a clock that may have been moved: look at it soon.

        Its deadline begins anew. Looks follow its age, but never as if it were older than a deadline.
        """
        self._adopt(entry, now - min(max(age, 0.0), self.deadline), now)
        entry.resumed = True
        self._push(entry, now + u * RESUME_SECONDS)

    def _adopt(self, entry: Entry, accepted_at: float, now: float) -> None:
        self.accepted += 1
        entry.accepted_at = entry.looked_at = accepted_at
        entry.deadline_at = now + self.deadline

    def submit_begins(self, entry: Entry, now: float) -> None:
        """`entry` is being sent."""
        self.submitting += 1
        self.submit_rate.take(now)
        if math.isinf(entry.patient_until):
            entry.patient_until = now + self.limits.patience

    def submit_ends(self, entry: Entry, judgement: Judgement, sent_at: float, now: float, u: float) -> Stop | None:
        """`entry` was judged; its job has been changed and kept already. Says so if sending should stop."""
        self.submitting -= 1
        match judgement.verdict:
            case Verdict.ACCEPTED:
                self.charges += 1
                self.gate.answered()
                self._adopt(entry, now, now)
                self._schedule(entry, now, u)
            case Verdict.NOT_SENT:
                self.ready.appendleft(entry)
                if self.gate.unreachable(now, u):
                    return self._stop(ProviderUnreachable, judgement, attempts=self.gate.unsent)
            case Verdict.WAIT:
                self.ready.appendleft(entry)
                self._wait(judgement, sent_at, now, u)
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
        return None

    def submit_withdrawn(self, entry: Entry) -> None:
        """`entry` was not sent after all."""
        self.submitting -= 1
        self.ready.appendleft(entry)

    def _wait(self, judgement: Judgement, sent_at: float, now: float, u: float) -> None:
        self.gate.wait(now, u, judgement.retry_after)
        if judgement.http_status == 429:  # the other "wait"s say nothing of room
            self.room.refuse(self.accepted, sent_at, now)

    def _stop(self, kind: type[SubmissionsStopped], judgement: Judgement, **facts: object) -> Stop:
        return Stop(kind(provider=self.provider, reason=judgement.reason, **facts))

    def poll_begins(self, entry: Entry, now: float) -> None:
        """`entry` is being looked at."""
        self.polling += 1
        entry.polls += 1
        self.poll_rate.take(now)
        entry.probes = self.breaker.begin()

    def poll_ends(self, entry: Entry, look: Look, now: float, at: float, u: float) -> Job:
        """What a look brought -> the job as it stands; at rest if it is settled or parked, else scheduled again."""
        self.polling -= 1
        if look.verdict is PollVerdict.AGAIN or look.verdict is PollVerdict.STOP:
            self.breaker.fail(now, u, probe=entry.probes)
        else:
            self.breaker.succeed()
        match look.verdict:
            case PollVerdict.READ if look.snapshot is not None:
                return self._read(entry, look.snapshot, now, at, u)
            case PollVerdict.MISSING:
                return self._denied(entry, look, now, u)
            case _:
                entry.misses += 1
                return self._again(entry, now, u, look.retry_after)

    def _read(self, entry: Entry, snapshot: Snapshot, now: float, at: float, u: float) -> Job:
        job = entry.job
        failure = GenerationFailed(
            key=job.key, provider=job.provider, task_id=job.task_id, reason=snapshot.reason
        ) if snapshot.state is TaskState.FAILED else None  # fmt: skip
        seen = job.seen(snapshot, at, failure=failure)
        entry.misses = entry.denials = 0
        if snapshot.state is TaskState.SUCCEEDED_WITHOUT_URL and not entry.awaits_url:
            entry.awaits_url = True
            entry.deadline_at = now + URL_SECONDS
        if seen.is_final:
            self._learn(entry, now, u)
            return self._leave(entry, seen)
        entry.job = seen
        return self._again(entry, now, u)

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
            self._forget(entry)
            return self._leave(entry, job.timed_out(error))
        return self._again(entry, now, u)

    def _again(self, entry: Entry, now: float, u: float, retry_after: float | None = None) -> Job:
        if now >= entry.deadline_at:
            return self.expire(entry)
        self._schedule(entry, now, u, retry_after)
        return entry.job

    def expire(self, entry: Entry) -> Job:
        """`entry` is past its deadline: parked with its task id."""
        job = entry.job
        seconds = entry.deadline_at - entry.accepted_at
        error = DeadlineExceeded(key=job.key, provider=job.provider, task_id=job.task_id, seconds=seconds)
        self._forget(entry)
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
        entries = [entry for _, _, entry in self._heap]
        for entry in entries:
            self._forget(entry)
        self._heap.clear()
        self.accepted -= len(entries)
        return entries

    # A policy is somebody else's code: what it gets wrong costs no paid job, and is said once.

    def _asked(self, waiting: Waiting, u: float, ask: Callable[[Waiting, float], float] | None = None) -> float:
        try:
            wait = (ask or self.policy.wait)(waiting, u)
            if 0 < wait < math.inf:
                return wait
            self._complain(f"gave a wait of {wait!r} s")
        except Exception as error:
            self._complain(f"raised {error!r}")
        return CAP_SECONDS + CAP_SHARE * waiting.age

    def _learn(self, entry: Entry, now: float, u: float) -> None:
        if entry.resumed:  # its age is that of a clock that may have been moved
            return
        looked = entry.looked_at - entry.accepted_at
        seen = Observation(entry.stratum, looked, now - entry.accepted_at, told_age=entry.told_age, told=entry.told)
        self.learned(seen)
        if self._teach(seen, looked):
            self._ask_again(entry.stratum, now, u)

    def _forget(self, entry: Entry) -> None:
        """`entry` is not waited for any more, and unsettled."""
        if not entry.resumed:
            looked = entry.looked_at - entry.accepted_at
            self._teach(Observation(entry.stratum, looked, math.inf), looked)

    def teach(self, observations: Iterable[Observation]) -> None:
        """What was learned in earlier processes, for the policy."""
        for seen in observations:
            self._teach(seen, None)

    def _teach(self, seen: Observation, looked: float | None) -> bool:
        try:
            return self.policy.settled(seen, looked) is True
        except Exception as error:
            self._complain(f"raised {error!r}")
            return False

    def _ask_again(self, stratum: str, now: float, u: float) -> None:
        """Tasks of `stratum` have become quicker: looks that were put too late come sooner, and not all at once."""
        again = getattr(self.policy, "again", None)
        if again is None:
            return
        heap = []
        for due, order, entry in self._heap:
            sooner = due
            if entry.stratum == stratum and not entry.misses and due > now:
                u = (u + GOLDEN) % 1.0
                age = entry.looked_at - entry.accepted_at
                wait = self._asked(Waiting(stratum, age, entry.polls, entry.job.progress), u, again)
                sooner = min(due, max(entry.looked_at + wait, now + u * RESUME_SECONDS))
            heap.append((sooner, order, entry))
        heapq.heapify(heap)
        self._heap = heap

    def _complain(self, of: str) -> None:
        if not self._complained:
            _log.error("the polling policy %r %s; looks go on at a pace of our own", self.policy, of)
        self._complained = True

    def _leave(self, entry: Entry, job: Job) -> Job:
        self.accepted -= 1
        if job.status is not JobStatus.TIMED_OUT:
            self.room.settled()
        entry.job = attrs.evolve(job, polls=job.polls + entry.polls)
        entry.polls = 0
        return entry.job

    def counted(self, entry: Entry) -> Job:
        """The job of `entry` with its looks."""
        entry.job = attrs.evolve(entry.job, polls=entry.job.polls + entry.polls)
        entry.polls = 0
        return entry.job

    def _schedule(self, entry: Entry, now: float, u: float, retry_after: float | None = None) -> None:
        if entry.misses:
            wait = max(ladder(entry.misses - 1, u, first=1.0, cap=60.0), retry_after or 0.0)
        else:
            wait = self._asked(self._seen_unsettled(entry, now, u), u)
        due = now + wait
        if due > entry.deadline_at > now:
            due = entry.deadline_at  # the answer of the very last look counts
        self._push(entry, due)

    def _seen_unsettled(self, entry: Entry, now: float, u: float) -> Waiting:
        """`entry` as the policy is told of it: it was accepted, or a look found it unsettled."""
        age = now - entry.accepted_at
        looked = entry.looked_at - entry.accepted_at if entry.polls and not entry.resumed else None
        entry.looked_at = now
        progress = entry.job.progress
        if progress is not None and entry.polls:
            entry.tellings += 1
            if u * entry.tellings < 1:  # each of its readings is kept with the same chance
                entry.told_age, entry.told = age, progress
        return Waiting(entry.stratum, age, entry.polls, progress, looked)

    def _push(self, entry: Entry, due: float) -> None:
        self._order += 1
        heapq.heappush(self._heap, (due, self._order, entry))
