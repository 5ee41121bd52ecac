"""Jobs, charges and money by account, and why one takes no more. Sends nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Final

import attrs

from pika_async._planning.money import exact
from pika_async._planning.reopenings import trial_setting
from pika_async.cli.accounts import by_missing_account
from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.exits import no_account_lines
from pika_async.cli.preview import amount
from pika_async.cli.words import counted
from pika_async.config.accounts import Account
from pika_async.errors import BudgetReached, ChargeLimitReached, ClientClosed, NoAccountLeft, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.models.results import RouteStep

__all__ = [
    "AccountSum", "account_records", "missing_account_lines", "stop_lines", "stop_reasons",
    "stopping_answers", "sum_lines", "sums_by_account", "trial_lines",
]  # fmt: skip

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
    def cost(self) -> float | None:
        """The cost of the charges; None where that of one is unknown."""
        return float(sum(map(exact, self._costs), Fraction())) if len(self._costs) == self.charges else None

    @property
    def money(self) -> str:
        """The cost of the charges, else their points; "-" where both are unknown."""
        if self.charges and self.cost is not None:
            return amount(self.cost, "price")
        return counted(self._points, "point") if self._points else "-"

    def record(self, stopped: str | None, waiting: Sequence[str] | None) -> dict[str, Any]:
        """Return the fields of these sums for JSON.

        :param stopped: why the account takes no more jobs; None if it does.
        :param waiting: keys of unfinished jobs that wait for the account because it is missing; None where that is not
            known.
        """
        return {
            "account": self.name,
            "jobs": {status.value: count for status, count in self.statuses.most_common()},
            "charges": self.charges,
            "cost": self.cost,
            "points": self._points or None,
            "stopped": stopped,
            "waiting": None if waiting is None else list(waiting),
        }


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
    reasons = stopping_answers(jobs)
    for job in jobs:
        if job.status is JobStatus.PLANNED and isinstance(job.error, NoAccountLeft):
            reasons |= job.error.reasons
    return reasons


def stopping_answers(jobs: Iterable[Job], since: datetime | None = None) -> dict[str, str]:
    """Return the reasons of the accounts whose latest answer to a submission stopped them, by their names.

    :param since: answers before it do not count; default None: all do.
    """
    latest: dict[str, RouteStep] = {}
    for step in (step for job in jobs for step in job.route):
        known = latest.get(step.account)
        if step.at is not None and (known is None or known.at is None or step.at >= known.at):
            latest[step.account] = step
    recent = {name: step for name, step in latest.items() if since is None or (step.at and step.at >= since)}
    return {name: step.reason for name, step in recent.items() if step.verdict == "stop"}


def stop_lines(stopped: SubmissionsStopped | None, accounts: Mapping[str, str]) -> Iterator[str]:
    """Yield why not every job was sent, or not to every account; for several accounts on a line each.

    :param accounts: the reasons of accounts that an answer stopped, by their names.
    """
    if stopped is None or isinstance(stopped, ChargeLimitReached | BudgetReached | ClientClosed):
        for name, reason in accounts.items():
            yield f"account {name}, stopped: {reason}; mend it, then the same command uses it again"
    if isinstance(stopped, NoAccountLeft):
        yield from no_account_lines(stopped, "the rest")
    elif stopped is not None:
        yield stopped.message


def account_records(jobs: Sequence[Job], accounts: Sequence[Account] | None) -> list[dict[str, Any]]:
    """Return the sums of each account for JSON, the account of most jobs first, those without jobs last.

    :param accounts: those of the folder; None if they cannot be read, or the folder has no file of accounts.
    """
    stops = stop_reasons(jobs)
    waiting: dict[str, list[str]] = {}
    for (name, _, _), keys in _waiting_by_account(accounts or (), jobs).items():
        waiting.setdefault(name, []).extend(keys)
    sums = sums_by_account(jobs)
    without_jobs = dict.fromkeys([*(account.name for account in accounts or ()), *stops])
    sums += [AccountSum(name) for name in without_jobs if name not in {each.name for each in sums}]
    return [
        each.record(stops.get(each.name or ""), None if accounts is None else waiting.get(each.name or "", ()))
        for each in sums
    ]


def _waiting_by_account(accounts: Sequence[Account], jobs: Iterable[Job]) -> dict[tuple[str, str, str], list[str]]:
    """Return the keys of unfinished jobs whose account is missing, by its name, provider and base URL."""
    waiting = (job for job in jobs if job.is_in_flight or job.status is JobStatus.TIMED_OUT)
    return by_missing_account(accounts, waiting)


def trial_lines(folder: BatchFolder, accounts: Iterable[Account]) -> Iterator[str]:
    """Yield which accounts have stopped and are tried again by the command that runs in `folder`, and when."""
    for account in accounts:
        note = folder.journal.get_setting(trial_setting(account.name)) or {}
        if note and (at := datetime.fromisoformat(note["at"])) > datetime.now(UTC):
            yield f"account {account.name}, tried again with one job at {at:%H:%M:%S} UTC: {note['reason']}"


def missing_account_lines(folder: BatchFolder, accounts: Sequence[Account], jobs: Iterable[Job]) -> Iterator[str]:
    """Yield which unfinished jobs wait for an account that `accounts` lack, by its name.

    :param accounts: those of the folder.
    """
    for (name, provider, url), keys in _waiting_by_account(accounts, jobs).items():
        more = f" and {len(keys) - MAX_KEYS} more" if len(keys) > MAX_KEYS else ""
        wait = "waits" if len(keys) == 1 else "wait"
        yield (
            f"{counted(len(keys), 'job')} {wait} for the account {name} ({provider} at {url}), which is not in "
            f"{folder.options().accounts}: {', '.join(keys[:MAX_KEYS])}{more}"
        )
