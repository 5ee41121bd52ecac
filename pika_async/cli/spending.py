"""What a command was charged, apart from the commands before it: lines of the summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction

import attrs

from pika_async._journal.protocol import Journal
from pika_async._planning.money import exact, spending_of
from pika_async._runtime.admission import may_be_sent
from pika_async._runtime.pacing import paced
from pika_async.cli.account_sums import stopping_answers
from pika_async.cli.accounts import read_accounts
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.exits import UsageError
from pika_async.cli.preview import amount
from pika_async.cli.words import NEW_CHARGES, counted
from pika_async.config.accounts import Account
from pika_async.errors import BudgetReached, ChargeLimitReached, NoAccountLeft, PikaError, SubmissionsStopped
from pika_async.jobs import Job, JobStatus

__all__ = ["Before", "limit_lines", "money_so_far", "reached_limit_lines", "spending_line"]

_STATUSES = tuple(status for status in JobStatus if status is not JobStatus.PLANNED)


@attrs.frozen
class Before:
    """The journal before a command sends anything.

    :param known: keys of the jobs that are not sent by a command that names them.
    :param charged: keys of the jobs that may be charged.
    :param charges: number of charges, those of archived jobs included.
    :param price: price of one charge; None where unknown.
    """

    known: set[str] = attrs.field(factory=set)
    charged: set[str] = attrs.field(factory=set)
    charges: int = 0
    price: float | None = None

    @classmethod
    async def read(cls, journal: Journal, price: float | None) -> Before:
        """Read the journal, which must be open."""
        before = cls(charges=journal.charges(), price=price)
        async for job in paced(journal.all(*_STATUSES)):
            before.add(job)
        return before

    def add(self, job: Job) -> None:
        """Add a job of the journal."""
        if not may_be_sent(job):
            self.known.add(job.key)
        if job.may_be_charged:
            self.charged.add(job.key)

    def new_charges(self, jobs: Sequence[Job]) -> list[Job]:
        """Return those of `jobs` that were charged since."""
        return [job for job in jobs if job.may_be_charged and job.key not in self.charged]


def spending_line(before: Before, jobs: Sequence[Job]) -> str:
    """Return the new charges of a command with their cost, and the charges of the commands before it."""
    new = before.new_charges(jobs)
    known = sum(job.key in before.known for job in jobs)
    refused = sum(job.status is JobStatus.REJECTED and job.key not in before.known for job in jobs)
    money = _money(before, new)
    return (
        f"this run: {len(new)} {NEW_CHARGES}{money and f', {money}'}; {known} known, {refused} refused; "
        f"earlier: {counted(before.charges, 'charge')}"
    )


def money_so_far(before: Before, jobs: Sequence[Job]) -> str:
    """Return the cost of what a command was charged for `jobs`, which is still running; "" where unknown."""
    return _money(before, before.new_charges(jobs))


def _money(before: Before, new: Sequence[Job]) -> str:
    costs = [before.price if job.cost is None else job.cost for job in new]
    known = [each for each in costs if each is not None]
    if new and len(known) == len(costs):
        return amount(float(sum(map(exact, known), Fraction())), "price")
    points = [job.points for job in new if job.points is not None]
    refunded = sum(job.refunded or 0.0 for job in new)
    return f"{counted(sum(points), 'point')}{f', {refunded:g} refunded' if refunded else ''}" if points else ""


def limit_lines(jobs: Sequence[Job], stopped: SubmissionsStopped | None, folder: BatchFolder) -> Iterator[str]:
    """Yield how to send the rest after a limit of the user's own has stopped the submissions."""
    if folder.is_shared:
        planned = sum(job.status is JobStatus.PLANNED for job in jobs)
        if stopped is not None and planned:
            yield f"{counted(planned, 'job')} stay queued: mend that for the workers, which try it again by themselves"
    elif isinstance(stopped, ChargeLimitReached | BudgetReached | NoAccountLeft):
        yield from reached_limit_lines(jobs, folder, stopped)


def reached_limit_lines(
    jobs: Sequence[Job], folder: BatchFolder, stopped: SubmissionsStopped | None = None
) -> Iterator[str]:
    """Yield how to send the planned jobs of a folder whose saved limits leave no room for one.

    :param stopped: what has stopped the submissions; default: the errors of the planned jobs.
    """
    options, accounts = folder.options(), _saved_accounts(folder)
    planned = [job for job in jobs if job.status is JobStatus.PLANNED]
    if not planned:
        return
    prices = [account.price for account in accounts]
    known = [price for price in prices if price is not None]
    has_prices = bool(known) and len(known) == len(prices)
    lowest = min(price.lowest for price in known) if has_prices else options.price
    highest = max(price.highest for price in known) if has_prices else options.price
    costs = folder.journal.costs()
    charges = [(cost, number) for (_, cost), number in costs.items()]
    spending = spending_of(charges, highest, budget=options.budget, max_charges=options.max_charges)
    if not (spending.is_exhausted(lowest) or _is_of_folder(stopped, options)):
        limited = _limited_accounts([stopped, *(job.error for job in planned)]) - stopping_answers(jobs).keys()
        named = [account for account in accounts if account.name in limited]
        fields = [_spent_field(account, costs) for account in named]
        if fields and None not in fields:
            file, command = options.accounts, folder.command("resume")
            raised = " or ".join(field for field in fields if field is not None)
            yield f"to send the other {len(planned)}: raise {raised} in {file}, then: {command}"
    elif options.max_charges is not None and spending.charges >= options.max_charges:
        yield _above_charges(spending.charges, len(planned), folder)
    elif highest is not None:
        yield _above_budget(float(spending.spent), len(planned), highest, folder)


def _is_of_folder(stopped: SubmissionsStopped | None, options: BatchOptions) -> bool:
    """Return whether a limit over all accounts was reached; a provider's own figure may have left room since."""
    match stopped:
        case BudgetReached():
            return stopped.budget == options.budget
        case ChargeLimitReached():
            return stopped.limit == options.max_charges
        case _:
            return False


def _saved_accounts(folder: BatchFolder) -> list[Account]:
    """Return the accounts of the file that a folder remembers; none if it cannot be read, which has its own line."""
    try:
        return read_accounts(folder.options())
    except UsageError:
        return []


def _limited_accounts(errors: Iterable[PikaError | None]) -> set[str]:
    """Return the names of the accounts that could not be sent a job because of `errors`."""
    names: set[str] = set()
    for error in errors:
        if isinstance(error, NoAccountLeft):
            names |= error.reasons.keys()
        elif isinstance(error, ChargeLimitReached | BudgetReached):
            names.add(error.provider)
    return names


def _spent_field(account: Account, costs: Mapping[tuple[str, float | None], int]) -> str | None:
    """Return the field of an account in its file that leaves no room for a charge; None if there is room."""
    own = [(cost, number) for (name, cost), number in costs.items() if name == account.name]
    dearest, lowest = (account.price.highest, account.price.lowest) if account.price else (None, None)
    spending = spending_of(own, dearest, budget=account.budget, max_charges=account.max_charges)
    if not spending.is_exhausted(lowest):
        return None
    if account.max_charges is not None and spending.charges >= account.max_charges:
        return f"max_charges of {account.name} ({spending.charges} of {account.max_charges} used)"
    used, budget = amount(float(spending.spent), "price"), amount(account.budget or 0.0, "price")
    return f"budget of {account.name} ({used} of {budget} used)"


def _above_charges(charges: int, planned: int, folder: BatchFolder) -> str:
    return f"to send the other {planned}: {folder.command('resume', '--max-charges', str(charges + planned))}"


def _above_budget(spent: float, planned: int, price: float, folder: BatchFolder) -> str:
    budget = f"{float(exact(spent) + exact(price) * planned):.12g}"
    return f"to send the other {planned}: {folder.command('resume', '--budget', budget)}"
