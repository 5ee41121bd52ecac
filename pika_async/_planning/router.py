"""Router of planned jobs: which account each is sent to, and what waits until one can send it. Pure: sends nothing.

A job that one account can take waits in the queue of that account. One that several can take waits in the backlog until
one of them can send it at once; until it is provably not accepted there, no other gets it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from pika_async._planning.account_planner import AccountPlanner
from pika_async._planning.actions import NEVER, ActiveJob, Park, Submit, WaitUntil
from pika_async._planning.backlog import Backlog, JobClass, kind_of
from pika_async._planning.limits import MAX_IN_FLIGHT
from pika_async._planning.routing import Candidate, Choice, Refuse, Wait, route
from pika_async._planning.shared_bounds import SharedBounds
from pika_async.errors import NoAccountLeft
from pika_async.polling.adaptive import EXPECTED_SECONDS

__all__ = ["Router", "bind"]

#: Seconds for which the median durations are used again.
MEDIANS_AGE_S: Final = 1.0


def _no_medians() -> Mapping[str, float]:
    return {}


@attrs.define(kw_only=True)
class Router:
    """The accounts of one client, and the jobs that wait for several of them.

    :param accounts: by name.
    :param shared: what they have together.
    :param strategy: a key of `routing.STRATEGIES`; default: "capacity".
    :param medians: returns the median duration of each stratum, for the strategy "fastest"; default: none is learned.
    :param expected_seconds: duration of a task of which nothing has been learned, in seconds; default: None, 60.
    """

    accounts: dict[str, AccountPlanner]
    shared: SharedBounds
    strategy: str = "capacity"
    medians: Callable[[], Mapping[str, float]] = _no_medians
    expected_seconds: float | None = None
    backlog: Backlog = attrs.field(factory=Backlog)
    _latest_medians: Mapping[str, float] = attrs.field(factory=dict)
    _medians_at: float = -math.inf

    # --- deciding ---------------------------------------------------------------------------------------------------

    def next_action(self, now: float) -> Submit | Park | WaitUntil:
        """Return the submission of the first job of the backlog that an account can send at once."""
        if not self.shared.waiting:
            return NEVER
        until = math.inf
        for each in self.backlog.by_position():
            active, decision = each.head, route(self._candidates(each, now), self.strategy, now)
            match decision:
                case Choice(name):
                    self.take_out(active)
                    bind(active, self.accounts[name])
                    return Submit(active)
                case Refuse(reasons):
                    self.take_out(active)
                    return Park(active, NoAccountLeft(provider=self.shared.name, reasons=dict(reasons)))
                case Wait(at):
                    until = min(until, at)
        return WaitUntil(until)

    def _candidates(self, each: JobClass, now: float) -> list[Candidate]:
        active, kind = each.head, kind_of(each.head)
        medians = self._current_medians(now) if self.strategy == "fastest" else {}
        known = [account.room for account in self.accounts.values() if account.room < MAX_IN_FLIGHT]
        default_room = max(known, default=1.0)
        found = []
        for name in each.options:
            account = self.accounts[name]
            submissions, stratum = account.submissions, f"{account.provider}/{kind}"
            refusal = account.stop_reason or submissions.limit_of(active.job.request)
            found.append(
                Candidate(
                    account=name,
                    refusal=None if refusal is None else refusal.message,
                    ready_at=submissions.can_send_at(active, stratum, now, account.in_flight),
                    load=account.load(default_room),
                    price=submissions.price_of(active.job.request),
                    seconds=medians.get(stratum, self.expected_seconds or EXPECTED_SECONDS),
                )
            )
        return found

    def _current_medians(self, now: float) -> Mapping[str, float]:
        if now >= self._medians_at + MEDIANS_AGE_S:
            self._latest_medians, self._medians_at = self.medians(), now
        return self._latest_medians

    def pop_expired(self, now: float) -> ActiveJob | None:
        """Remove and return a job whose patience has ended; None if there is none."""
        expired = self.backlog.pop_expired(now)
        self._count_waiting()
        return expired

    def has_idle_account(self) -> bool:
        """Whether an account that has room waits for jobs while others wait for other accounts."""
        waiting = self.backlog.waiting_for(self.accounts)
        return self.shared.has_room and any(
            account.stop_reason is None and not waiting[name] and account.is_idle
            for name, account in self.accounts.items()
        )

    # --- queueing ---------------------------------------------------------------------------------------------------

    def take_out(self, active: ActiveJob) -> bool:
        """Remove a job from the backlog and return True; False if it does not wait there."""
        found = self.backlog.remove(active)
        self._count_waiting()
        return found

    def _count_waiting(self) -> None:
        self.shared.waiting = len(self.backlog)

    def open_options(self, active: ActiveJob) -> list[str]:
        """Return the accounts that can take a job and have not stopped."""
        return [name for name in active.options if self.accounts[name].stop_reason is None]

    def move(self, active: ActiveJob) -> bool:
        """Put a job that an account provably did not accept before all others; False if no other account takes it."""
        if not self.open_options(active):
            return False
        if len(active.options) == 1:
            account = self.accounts[active.options[0]]
            bind(active, account)
            account.submissions.queue.appendleft(active)
            return True
        self.backlog.appendleft(active)
        self._count_waiting()
        return True

    def append(self, active: ActiveJob) -> None:
        """Put a job into the backlog, as the last one."""
        self.backlog.append(active)
        self._count_waiting()

    def clear(self) -> list[ActiveJob]:
        """Remove and return every job of the backlog."""
        jobs = self.backlog.clear()
        self._count_waiting()
        return jobs


def bind(active: ActiveJob, account: AccountPlanner) -> None:
    """Make a planned job one of an account."""
    job = active.job.assigned(account.name, account.provider, account.base_url)
    if job is not active.job:
        active.job = job
        active.stratum = sys.intern(f"{account.provider}/{kind_of(active)}")
