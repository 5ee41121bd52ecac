"""How a client stands at a moment, in plain values: for a health check or a dashboard. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pika_async._planning.planner import Planner

__all__ = ["Stats"]


@attrs.frozen(kw_only=True)
class Stats:
    """A client at a moment; `attrs.asdict` of it is ready for JSON. Of one that is not open nothing is under way."""

    provider: str
    base_url: str
    #: False once it was closed, or a defect ended it.
    open: bool
    #: Why nothing is sent any more, if so: an account that is stopped, an address that is wrong, a closing.
    stopped: str | None
    #: Jobs that wait to be sent; submissions on their way; accepted jobs that are not settled.
    planned: int
    submitting: int
    in_flight: int
    #: Looks that are due, and looks on their way.
    due: int
    polling: int
    #: Whether looks are held back, because the provider answers nothing usable.
    breaker_open: bool
    #: Parked, by the journal: in doubt, and past their deadline or denied.
    unknown: int
    timed_out: int
    #: Submissions that were accepted, or may have been, over the life of the journal.
    charges: int
    #: How many tasks the account holds, where it was learned.
    estimated_limit: float | None
    #: Over the last minute.
    submits_per_second: float
    polls_per_second: float
    #: Answers that spoke of another task than the one asked for.
    mismatched_answers: int
    #: The share of settles that no callback is thought to tell of; None without a receiver.
    callback_loss_rate: float | None
    #: Half the tasks of a stratum take less, in seconds, as far as is learned.
    medians: Mapping[str, float]

    @classmethod
    def of(
        cls,
        planner: Planner,
        now: float,
        *,
        is_open: bool,
        parked: tuple[int, int],
        strays: int,
        medians: Mapping[str, float],
    ) -> Stats:
        """What an agenda knows at `now`, with what it does not; `parked`: in doubt, timed out."""
        calls = planner.poll_queue.callbacks
        return cls(
            provider=planner.provider,
            base_url=planner.base_url,
            open=is_open,
            stopped=None if planner.stop_reason is None else planner.stop_reason.message,
            planned=len(planner.submit_queue),
            submitting=planner.submitting,
            in_flight=planner.in_flight,
            due=planner.poll_queue.due_count,
            polling=planner.polling,
            breaker_open=planner.breaker.is_open,
            unknown=parked[0],
            timed_out=parked[1],
            charges=planner.charges,
            estimated_limit=planner.concurrency.estimated_limit,
            submits_per_second=planner.submit_meter.per_second(now),
            polls_per_second=planner.poll_meter.per_second(now),
            mismatched_answers=strays,
            callback_loss_rate=calls.loss_rate if calls.enabled else None,
            medians=medians,
        )
