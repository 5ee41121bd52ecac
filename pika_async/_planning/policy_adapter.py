"""Adapter between the poll queue and the polling policy: builds its inputs, guards its answers, feeds it samples. Pure.

Schedules nothing. A policy may be third-party code: what it raises or returns wrongly is logged once and replaced by a
default, and costs no job. Times are the caller's monotonic seconds; `u` is a uniform random number in [0, 1).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from pika_async._planning.actions import ActiveJob, PollResult, ProgressSample
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.provider_clock import ProviderTimestamps
from pika_async.models import Snapshot, TaskState
from pika_async.polling.durations import DurationSample
from pika_async.polling.policy import PollContext, PollingPolicy
from pika_async.polling.schedule import max_delay
from pika_async.providers._verdicts import PollVerdict

__all__ = ["PolicyAdapter"]

_log = logging.getLogger("pika_async.policy_adapter")

#: Priority of a due job per second since its last poll, at least: no stratum starves.
MIN_PRIORITY_SHARE: Final = 0.02
#: Silence is observed once per this many settled tasks, as a share of the jobs that are waiting...
SILENCE_SHARE: Final = 0.01
#: ... or of the tasks that have settled, whichever is less.
SILENCE_MIN_SHARE: Final = 0.25
#: A task with a callback is taken to have settled at most this many seconds before the callback...
CALLBACK_LATENCY_S: Final = 0.5
#: ... and at most this share of its age before.
CALLBACK_LATENCY_SHARE: Final = 0.05


@attrs.define(kw_only=True)
class PolicyAdapter:
    """Adapter of one client's polling policy, with the state that its questions and samples need.

    :param policy: the policy.
    :param callbacks: the callbacks of the client; off by default.
    :param on_sample: called with every sample and the age at which the poll found it; does nothing by default.
    """

    policy: PollingPolicy
    callbacks: CallbackTracker = attrs.field(factory=CallbackTracker)
    on_sample: Callable[[DurationSample, float], None] = lambda _sample, _age: None
    #: The longest duration so far, in seconds.
    longest: float = attrs.field(default=0.0, init=False)
    _timestamps: ProviderTimestamps = attrs.field(factory=ProviderTimestamps, init=False)
    _error_logged: bool = attrs.field(default=False, init=False)
    #: When the policy was last informed that the waiting jobs are probably unsettled; settled tasks since then.
    _silence_at: float = attrs.field(default=-math.inf, init=False)
    _settled_since_silence: int = attrs.field(default=0, init=False)

    # --- questions to the policy ------------------------------------------------------------------------------------

    def next_delay(self, active: ActiveJob, now: float, u: float, result: PollResult | None) -> float:
        """Return the seconds until the next poll of a job that was accepted (`result` None) or found unsettled."""
        context = self._context_after(active, now, u, result)
        try:
            delay = float(self.policy.next_delay(context, u))
        except Exception as error:
            return self._default_delay(context, f"raised {error!r}")
        return delay if 0 < delay < math.inf else self._default_delay(context, f"returned a delay of {delay!r} s")

    def replan_delay(self, active: ActiveJob, u: float) -> float | None:
        """Return the delay that is best by now, counted from the last poll; None to keep the planned poll."""
        context = self._context(active, active.last_seen_unsettled_at, None)
        try:
            value = self.policy.replan_delay(context, u)
            if value is None:
                return None
            delay = float(value)
        except Exception as error:
            return self._default_delay(context, f"raised {error!r}")
        return delay if 0 < delay < math.inf else self._default_delay(context, f"returned a delay of {delay!r} s")

    def expected_delay(self, active: ActiveJob, now: float) -> float:
        """Return the priority of a due job: the expected seconds since it settled.

        Without a usable value from the policy, and when a callback asks for the poll: the seconds since its last poll.
        """
        last_unsettled_age, age = active.last_seen_unsettled_at - active.accepted_at, now - active.accepted_at
        if not self.callbacks.needs_poll(active):
            try:
                value = self.policy.expected_delay(active.stratum, last_unsettled_age, age)
                if value is not None:
                    delay = float(value)
                    if 0 <= delay < math.inf:
                        return max(delay, MIN_PRIORITY_SHARE * (age - last_unsettled_age))
                    self._log_error_once(f"returned an expected delay of {delay!r} s")
            except Exception as error:
                self._log_error_once(f"raised {error!r}")
        return age - last_unsettled_age

    def _default_delay(self, context: PollContext, problem: str) -> float:
        self._log_error_once(problem)
        return max_delay(context.age)

    def _log_error_once(self, problem: str) -> None:
        if not self._error_logged:
            _log.error("the polling policy %r %s; a default delay is used instead", self.policy, problem)
        self._error_logged = True

    # --- the context of a question ----------------------------------------------------------------------------------

    def _context_after(self, active: ActiveJob, now: float, u: float, result: PollResult | None) -> PollContext:
        """Record `result` and return the context; a "not found" answer changes neither age nor progress."""
        previous = self._last_unsettled_age(active) if active.polls and not active.rare.resumed else None
        if result is not None and result.verdict is not PollVerdict.READ:
            return self._context(active, now, None)
        active.last_seen_unsettled_at = now
        if result is not None and result.snapshot is not None:
            _record_progress(active, result.snapshot, now - active.accepted_at, u)
        return self._context(active, now, previous)

    def _context(self, active: ActiveJob, now: float, last_unsettled_age: float | None) -> PollContext:
        age, progress, loss = now - active.accepted_at, active.progress, self.callbacks.loss_rate
        if progress is None:
            return PollContext(active.stratum, age, active.polls, None, last_unsettled_age, None, loss)
        return PollContext(active.stratum, age, active.polls, progress.percent, last_unsettled_age, progress.age, loss)

    def _last_unsettled_age(self, active: ActiveJob) -> float:
        """Return the last age at which the policy was informed that the job is unsettled, by a poll or by silence."""
        return max(active.last_seen_unsettled_at, self._silence_at) - active.accepted_at

    # --- samples for the policy -------------------------------------------------------------------------------------

    def record_settled(
        self, active: ActiveJob, snapshot: Snapshot, now: float, waiting: Iterable[ActiveJob], waiting_count: int
    ) -> bool:
        """Pass the duration of a settled job to the policy, and return whether its stratum has become quicker.

        :param snapshot: the answer that reports the job as settled.
        :param waiting: the jobs that are waiting. If a callback has come for the settled one, then none for these says
            that they are unsettled.
        """
        notified_at = self.callbacks.notified_at(active)
        age = now - active.accepted_at
        self.longest = max(self.longest, age)
        sample = self._sample(active, snapshot, age, None if notified_at is None else notified_at - active.accepted_at)
        last_unsettled_age = max(
            active.last_seen_unsettled_at - active.accepted_at, min(age, self._last_unsettled_age(active))
        )
        if notified_at is not None:
            self._observe_silence(now, waiting, waiting_count)
        self.on_sample(sample, age)
        return self._observe(sample, last_unsettled_age)

    def _sample(self, active: ActiveJob, snapshot: Snapshot, age: float, notified_age: float | None) -> DurationSample:
        """Return the narrowest interval of ages that the polls, the callback and the provider's times allow."""
        lower, upper = active.last_seen_unsettled_at - active.accepted_at, age
        if notified_age is not None and lower < notified_age < age:
            latency = min(CALLBACK_LATENCY_S, CALLBACK_LATENCY_SHARE * notified_age)
            lower, upper = max(lower, notified_age - latency), notified_age
        else:
            lower, upper = self._timestamps.narrowed(lower, upper, _provider_duration(snapshot))
        submitted_at, progress = active.job.submitted_at, active.sampled_progress
        return DurationSample(
            active.stratum,
            lower,
            upper,
            progress_age=None if progress is None else progress.age,
            progress=None if progress is None else progress.percent,
            accepted_at=submitted_at.timestamp() if submitted_at else 0.0,
        )

    def record_censored(self, active: ActiveJob) -> None:
        """Inform the policy that a job is no longer polled, and was still unsettled."""
        if not active.rare.resumed:
            last_unsettled_age = self._last_unsettled_age(active)
            self._observe(DurationSample(active.stratum, last_unsettled_age, math.inf), last_unsettled_age)

    def load_history(self, samples: Iterable[DurationSample]) -> None:
        """Pass the samples of earlier processes to the policy."""
        for sample in samples:
            self.longest = max(self.longest, sample.upper if sample.upper < math.inf else 0.0)
            self._observe(sample, None)

    def _observe_silence(self, now: float, waiting: Iterable[ActiveJob], waiting_count: int) -> None:
        """Inform the policy that all waiting jobs without a callback are probably unsettled, if it is time for that."""
        loss = self.callbacks.loss
        if self.callbacks.loss_rate >= 1.0:
            return
        self._settled_since_silence += 1
        if self._settled_since_silence < min(
            SILENCE_SHARE * waiting_count, SILENCE_MIN_SHARE * (loss.notified + loss.missed)
        ):
            return
        self._settled_since_silence = 0
        informed = False
        try:
            for active in waiting:
                if not active.rare.resumed:
                    age = now - active.accepted_at
                    answer = self.policy.observe_unsettled(active.stratum, self._last_unsettled_age(active), age)
                    informed = answer is not False
                    if not informed:  # the policy does not use silence
                        break
        except Exception as error:
            informed = True
            self._log_error_once(f"raised {error!r}")
        if informed:
            self._silence_at = now

    def _observe(self, sample: DurationSample, last_unsettled_age: float | None) -> bool:
        try:
            return self.policy.observe(sample, last_unsettled_age) is True
        except Exception as error:
            self._log_error_once(f"raised {error!r}")
            return False


def _record_progress(active: ActiveJob, snapshot: Snapshot, age: float, u: float) -> None:
    percent = 0 if snapshot.state is TaskState.QUEUED else snapshot.progress
    if percent is None:
        if active.progress is not None and not active.progress.percent:  # it was queued, and has left the queue
            active.sampled_progress = active.progress
        return
    active.progress = ProgressSample(age, percent)
    active.progress_count += 1
    if u * active.progress_count < 1:  # reservoir sampling: each is kept with the same probability
        active.sampled_progress = active.progress


def _provider_duration(snapshot: Snapshot) -> float | None:
    """Return the seconds between the provider's own timestamps; a third-party provider's may be of any type."""
    if snapshot.created_at is None or snapshot.updated_at is None:
        return None
    try:
        return float(snapshot.updated_at) - float(snapshot.created_at)
    except (TypeError, ValueError, OverflowError):
        return None
