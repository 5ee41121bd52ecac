"""Jobs, charges and money by account, and why one takes no more. Sends nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Final

import attrs

from pika_async._planning.money import exact
from pika_async.cli.accounts import account_of
from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.preview import amount
from pika_async.cli.words import counted
from pika_async.config.accounts import Account
from pika_async.errors import NoAccountLeft
from pika_async.jobs import Job, JobStatus
from pika_async.models.results import RouteStep

__all__ = ["AccountSum", "missing_account_lines", "stop_reasons", "sum_lines", "sums_by_account"]

#: Keys that are named beside an account that is missing.
MAX_KEYS: Final = 5


@attrs.define
class AccountSum:
    """Jobs and charges of one account; of a job that no account has yet, those of none.

    :param name: the name of the account; None for no account.
    """

    name: str | None
    statuses: Counter[JobStatus] = attrs.field(factory=Counter)
    charges: int = 0
    _costs: list[float] = attrs.field(factory=list)
    _points: float = 0.0

    def add(self, job: Job) -> None:
        """Add a job."""
        self.statuses[job.status] += 1
        self.charges += job.may_be_charged
        if job.may_be_charged and job.cost is not None:
            self._costs.append(job.cost)
        self._points += job.points or 0.0

    @property
    def words(self) -> str:
        """The jobs by status, such as "2 succeeded, 1 failed"."""
        return ", ".join(f"{count} {status.label}" for status, count in self.statuses.most_common())

    @property
    def money(self) -> str:
        """The cost of the charges, else their points; "-" where both are unknown."""
        if self._costs and len(self._costs) == self.charges:
            return amount(float(sum(map(exact, self._costs), Fraction())), "price")
        return counted(self._points, "point") if self._points else "-"


def sums_by_account(jobs: Iterable[Job]) -> list[AccountSum]:
    """Return the sums of `jobs`, the account of most jobs first."""
    sums: dict[str | None, AccountSum] = {}
    for job in jobs:
        name = job.account if job.account is not None or job.task_id is None else job.provider
        sums.setdefault(name, AccountSum(name)).add(job)
    return sorted(sums.values(), key=lambda each: (-each.statuses.total(), each.name or ""))


def sum_lines(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield the sums of each account where jobs of several are among `jobs`."""
    sums = [each for each in sums_by_account(jobs) if each.name is not None]
    for each in sums if len(sums) > 1 else ():
        money = "" if each.money == "-" else f", {each.money}"
        yield f"  {each.name}: {each.words}; {counted(each.charges, 'charge')}{money}"


def stop_reasons(jobs: Sequence[Job]) -> dict[str, str]:
    """Return why accounts take no more jobs, by their names.

    An account stands here if its latest answer to a submission stopped it, or if it is among the reasons why a planned
    job found no account.
    """
    latest: dict[str, RouteStep] = {}
    for step in (step for job in jobs for step in job.route):
        known = latest.get(step.account)
        if step.at is not None and (known is None or known.at is None or step.at >= known.at):
            latest[step.account] = step
    reasons = {name: step.reason for name, step in latest.items() if step.verdict == "stop"}
    for job in jobs:
        if job.status is JobStatus.PLANNED and isinstance(job.error, NoAccountLeft):
            reasons |= job.error.reasons
    return reasons


def missing_account_lines(folder: BatchFolder, accounts: Sequence[Account], jobs: Iterable[Job]) -> Iterator[str]:
    """Yield which unfinished jobs wait for an account that `accounts` lack, by its name.

    :param accounts: those of the folder.
    """
    waiting: dict[tuple[str, str, str], list[str]] = {}
    for job in jobs:
        is_waiting = job.is_in_flight or job.status is JobStatus.TIMED_OUT
        if is_waiting and account_of(accounts, job) is None:
            name = job.account or job.provider
            waiting.setdefault((name, job.provider, job.base_url), []).append(job.key)
    for (name, provider, url), keys in waiting.items():
        more = f" and {len(keys) - MAX_KEYS} more" if len(keys) > MAX_KEYS else ""
        wait = "waits" if len(keys) == 1 else "wait"
        yield (
            f"{counted(len(keys), 'job')} {wait} for the account {name} ({provider} at {url}), which is not in "
            f"{folder.options().accounts}: {', '.join(keys[:MAX_KEYS])}{more}"
        )
