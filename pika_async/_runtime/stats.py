"""Statistics of a client in plain values, for a health check or a dashboard.

Makes no decisions.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pika_async._planning.account_planner import AccountPlanner
from pika_async._planning.planner import Planner

__all__ = ["AccountStats", "Stats"]


@attrs.frozen(kw_only=True)
class AccountStats:
    """Statistics of one account at one moment; those of `Stats` with the same name are about all accounts together."""

    provider: str
    base_url: str
    stopped: str | None
    #: Seconds until the account, which has stopped by itself, is tried again with one job; 0 while it is tried, None if
    #: it is not.
    trial_in: float | None
    #: Maximum number of accepted jobs of this account: its own, or that of the client where it is lower or alone.
    max_in_flight: int
    #: Number of jobs that wait for this account alone.
    planned: int
    submitting: int
    in_flight: int
    due: int
    polling: int
    breaker_open: bool
    charges: int
    spent: float
    estimated_limit: float | None
    submits_per_second: float
    polls_per_second: float
    callback_loss_rate: float | None

    @classmethod
    def of(cls, account: AccountPlanner, now: float, trial_in: float | None) -> AccountStats:
        """Return the statistics of *account* at *now*, in the loop's seconds; *trial_in*: seconds until it is tried."""
        callbacks, submissions = account.poll_queue.callbacks, account.submissions
        return cls(
            provider=account.provider,
            base_url=account.base_url,
            stopped=None if account.stop_reason is None else account.stop_reason.message,
            trial_in=trial_in,
            max_in_flight=int(submissions.concurrency.ceiling),
            planned=len(submissions.queue) + len(submissions.refused),
            submitting=submissions.submitting,
            in_flight=account.in_flight,
            due=account.poll_queue.due_count,
            polling=account.polling,
            breaker_open=account.breaker.is_open,
            charges=submissions.spending.charges,
            spent=float(submissions.spending.spent),
            estimated_limit=submissions.concurrency.estimated_limit,
            submits_per_second=submissions.meter.per_second(now),
            polls_per_second=account.poll_meter.per_second(now),
            callback_loss_rate=callbacks.loss_rate if callbacks.enabled else None,
        )


@attrs.frozen(kw_only=True)
class Stats:
    """Statistics of a client at one moment. `attrs.asdict` of them can be written as JSON."""

    #: The provider of the only account, or the names of several.
    provider: str
    #: The base URL of the only account, or those of several.
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
    #: Money for these charges: the prices, or the providers' own figures; 0 where neither is known.
    spent: float
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
    #: The statistics of each account, by its name.
    accounts: Mapping[str, AccountStats]
    #: Number of jobs that were sent by accounts which this client does not have, and are not final, by account.
    elsewhere: Mapping[str, int]

    @classmethod
    def of(
        cls,
        planner: Planner,
        now: float,
        *,
        is_open: bool,
        parked: tuple[int, int],
        mismatched_answers: int,
        elsewhere: Mapping[str, int],
        medians: Mapping[str, float],
    ) -> Stats:
        """Return the statistics of *planner* at *now*, in the loop's seconds.

        :param is_open: whether the client is open.
        :param parked: the number of jobs in doubt and of timed-out jobs.
        :param elsewhere: the number of jobs of accounts that the client does not have, by account.
        :param mismatched_answers: the number of responses about another task.
        :param medians: the median durations by stratum, in seconds.
        """
        trial_in = planner.reopenings.seconds_until
        accounts = {
            name: AccountStats.of(account, now, trial_in(name, now)) for name, account in planner.accounts.items()
        }
        each, shared = list(accounts.values()), planner.shared
        limits = [one.estimated_limit for one in each if one.estimated_limit is not None]
        losses = [one.callback_loss_rate for one in each if one.callback_loss_rate is not None]
        return cls(
            provider=planner.provider,
            base_url=", ".join(dict.fromkeys(one.base_url for one in each)),
            open=is_open,
            stopped=None if planner.stop_reason is None else planner.stop_reason.message,
            paused=planner.is_paused,
            max_in_flight=int(shared.max_in_flight),
            planned=len(planner.router.backlog) + sum(one.planned for one in each),
            submitting=shared.submitting,
            in_flight=shared.in_flight,
            due=sum(one.due for one in each),
            polling=shared.polling,
            breaker_open=any(one.breaker_open for one in each),
            unknown=parked[0],
            timed_out=parked[1],
            charges=shared.spending.charges,
            spent=float(shared.spending.spent),
            estimated_limit=sum(limits) if len(limits) == len(each) else None,
            submits_per_second=sum(one.submits_per_second for one in each),
            polls_per_second=sum(one.polls_per_second for one in each),
            mismatched_answers=mismatched_answers,
            callback_loss_rate=max(losses, default=None),
            medians=medians,
            accounts=accounts,
            elsewhere=elsewhere,
        )
