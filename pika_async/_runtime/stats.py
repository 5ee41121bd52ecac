"""Statistics of a client in plain values, for a health check or a dashboard.

Makes no decisions.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pika_async._planning.planner import Planner

__all__ = ["Stats"]


@attrs.frozen(kw_only=True)
class Stats:
    """Statistics of a client at one moment. `attrs.asdict` of them can be written as JSON."""

    provider: str
    base_url: str
    #: False before opening, after closing, and after a defect has stopped the client.
    open: bool
    #: Why submitting has stopped (a stopped account, a wrong base URL, closing); None while it has not.
    stopped: str | None
    #: Whether `pause_submitting` has paused submitting.
    paused: bool
    #: Maximum number of accepted jobs, as `set_max_in_flight` or the limits have it.
    max_in_flight: int
    #: Number of jobs that wait to be sent.
    planned: int
    #: Number of submissions that await a response.
    submitting: int
    #: Number of accepted jobs that are not finished.
    in_flight: int
    #: Number of polls that are due and wait for a worker or for the poll rate.
    due: int
    #: Number of polls that await a response.
    polling: int
    #: Whether the circuit breaker holds back polls, because the provider sends no usable responses.
    breaker_open: bool
    #: Number of jobs in doubt in the journal.
    unknown: int
    #: Number of jobs in the journal that are past their deadline or whose task the provider does not find.
    timed_out: int
    #: Number of submissions that were or may have been accepted, over the life of the journal.
    charges: int
    #: Estimated number of tasks that the account runs at a time; None until submissions have met that limit.
    estimated_limit: float | None
    #: Submissions per second, mean of the last minute.
    submits_per_second: float
    #: Polls per second, mean of the last minute.
    polls_per_second: float
    #: Number of responses to polls that were about another task; they are ignored.
    mismatched_answers: int
    #: Estimated fraction of completions without a callback, 0 to 1; None without a receiver.
    callback_loss_rate: float | None
    #: Estimated median duration of a task in seconds, by stratum; a stratum without a settled task is missing.
    medians: Mapping[str, float]

    @classmethod
    def of(
        cls,
        planner: Planner,
        now: float,
        *,
        is_open: bool,
        parked: tuple[int, int],
        mismatched_answers: int,
        medians: Mapping[str, float],
    ) -> Stats:
        """Return the statistics of *planner* at *now*, in the loop's seconds.

        :param is_open: whether the client is open.
        :param parked: the number of jobs in doubt and of timed-out jobs.
        :param mismatched_answers: the number of responses about another task.
        :param medians: the median durations by stratum, in seconds.
        """
        callbacks, submissions = planner.poll_queue.callbacks, planner.submissions
        return cls(
            provider=planner.provider,
            base_url=planner.base_url,
            open=is_open,
            stopped=None if planner.stop_reason is None else planner.stop_reason.message,
            paused=submissions.paused_at is not None,
            max_in_flight=int(submissions.concurrency.ceiling),
            planned=len(submissions.queue) + len(submissions.refused),
            submitting=submissions.submitting,
            in_flight=planner.in_flight,
            due=planner.poll_queue.due_count,
            polling=planner.polling,
            breaker_open=planner.breaker.is_open,
            unknown=parked[0],
            timed_out=parked[1],
            charges=submissions.charges,
            estimated_limit=submissions.concurrency.estimated_limit,
            submits_per_second=submissions.meter.per_second(now),
            polls_per_second=planner.poll_meter.per_second(now),
            mismatched_answers=mismatched_answers,
            callback_loss_rate=callbacks.loss_rate if callbacks.enabled else None,
            medians=medians,
        )
