"""Trials of accounts that have stopped by themselves, while other accounts of the client go on. Pure: sends nothing.

A gateway that was down for two minutes would otherwise get no job for the rest of a long batch. In a trial one job at a
time is sent, which would be sent anyway. An acceptance opens the account; a job that is not sent or is in doubt stops
it again. Times are the caller's monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Final

import attrs

from pika_async.errors import GatewayInTrouble, ProviderUnreachable, SubmissionsStopped

__all__ = ["REOPEN_WAITS_S", "Reopenings", "passes_by_itself", "trial_setting"]

#: Waits before the trials after a stop, in seconds; the last one is used again. Restarts and short outages end within a
#: minute or two, others take hours, and each trial at a gateway in trouble may leave one more job in doubt.
REOPEN_WAITS_S: Final = (60.0, 120.0, 300.0, 600.0)


def passes_by_itself(reason: SubmissionsStopped) -> bool:
    """Return whether the cause of a stop may pass without a person: not a key, a balance, a limit or a base URL."""
    return isinstance(reason, ProviderUnreachable | GatewayInTrouble)


def trial_setting(account: str) -> str:
    """Return the name of the journal setting that holds when an account is tried again and why it has stopped."""
    return f"trial {account}"


@attrs.define
class _Plan:
    #: When the next trial begins; minus infinity during a trial.
    at: float
    trials: int = 0


@attrs.define
class Reopenings:
    """The accounts that are tried again, by name, and when."""

    _plans: dict[str, _Plan] = attrs.field(factory=dict)
    #: When the next trial of any account begins; infinity if none is planned.
    next_at: float = math.inf

    def plan(self, account: str, now: float, u: float) -> None:
        """Plan a trial of an account that stops; the wait grows with each trial that has failed.

        :param u: a uniform random number in [0, 1), for the jitter of the wait: a quarter of it, up or down.
        """
        plan = self._plans.setdefault(account, _Plan(-math.inf))
        if plan.at > -math.inf:
            return  # an answer to a submission that was under way when the account stopped
        wait = REOPEN_WAITS_S[min(plan.trials, len(REOPEN_WAITS_S) - 1)]
        plan.at = now + wait * (0.75 + 0.5 * u)
        self._find_next()

    def begin(self, now: float) -> list[str]:
        """Begin the trials that are due, and return their accounts."""
        due = [name for name, plan in self._plans.items() if -math.inf < plan.at <= now]
        for name in due:
            plan = self._plans[name]
            plan.at, plan.trials = -math.inf, plan.trials + 1
        self._find_next()
        return due

    def cancel(self, account: str) -> None:
        """Try an account no more: a trial has succeeded, or its stop does not pass by itself."""
        if self._plans.pop(account, None) is not None:
            self._find_next()

    def clear(self) -> None:
        """Try no account any more: none is left that goes on, or a call has opened them all."""
        self._plans.clear()
        self.next_at = math.inf

    def seconds_until(self, account: str, now: float) -> float | None:
        """Return in how many seconds an account is tried again, 0 during the trial; None if it is not."""
        plan = self._plans.get(account)
        return None if plan is None else max(0.0, plan.at - now)

    def _find_next(self) -> None:
        waiting = (plan.at for plan in self._plans.values() if plan.at > -math.inf)
        self.next_at = min(waiting, default=math.inf)
