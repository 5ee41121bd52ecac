"""Accounts of a command: those of a file that is given, or that the folder remembers. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import attrs
from cyclopts import Parameter

from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.exits import UsageError
from pika_async.cli.help_groups import GATEWAY
from pika_async.cli.options import CredentialOptions, ProviderOptions, UserPath
from pika_async.cli.preview import MoneyOptions
from pika_async.config.accounts import Account, Strategy, load_accounts
from pika_async.errors import ConfigurationError, shorten
from pika_async.jobs import Job
from pika_async.models.spelling import did_you_mean

#: The beginning of one of several faults of a file.
_FAULT: Final = re.compile(r";? (?=\(\d+\) )")
_ON_A_LINE: Final = "\n  "

__all__ = [
    "AccountFileOption", "AccountOptions", "NamedAccountOptions", "OneJobAccountOptions", "account_named", "account_of",
    "by_missing_account", "choose_accounts", "read_accounts",
]  # fmt: skip


@Parameter(name="*", group=GATEWAY)
@attrs.frozen(kw_only=True)
class AccountOptions:
    """File of accounts, and the choice between them."""

    accounts: Annotated[UserPath | None, Parameter(show_default=False)] = None
    """File of accounts, each with its key, limits and price, in place of --provider; the folder remembers it. See
    docs/command-line.md. [default: that of the folder]"""
    routing: Annotated[Strategy | None, Parameter(show_default=False)] = None
    """Choice between accounts that have room: capacity (most room), cheapest, or fastest. [default: that of the folder,
    else capacity]"""

    def chosen(self, options: BatchOptions, credentials: CredentialOptions, money: MoneyOptions) -> BatchOptions:
        """Return the options of the folder with the accounts that a command uses, or with none: `accounts` is None.

        See `choose_accounts`.
        """
        return choose_accounts(options, credentials, self.accounts, routing=self.routing, price=money.price)


@Parameter(name="*", group=GATEWAY)
@attrs.frozen(kw_only=True)
class AccountFileOption:
    """File of accounts of a command without a folder."""

    accounts: Annotated[UserPath | None, Parameter(show_default=False)] = None
    """File of accounts, each with its key, in place of --provider; see docs/command-line.md. [default: one provider]"""


@Parameter(name="*", group=GATEWAY)
@attrs.frozen(kw_only=True)
class OneJobAccountOptions(AccountFileOption):
    """File of accounts, and the choice between them for one job."""

    routing: Annotated[Strategy | None, Parameter(show_default=False)] = None
    """Choice between accounts: capacity (most room), cheapest, or fastest. [default: capacity]"""


@Parameter(name="*", group=GATEWAY)
@attrs.frozen(kw_only=True)
class NamedAccountOptions(AccountFileOption):
    """File of accounts, and the name of one of them."""

    name: Annotated[str | None, Parameter(name="--account", show_default=False)] = None
    """Name of the account whose tasks they are. [default: the only one of the file]"""


def choose_accounts(
    options: BatchOptions,
    credentials: CredentialOptions,
    file: Path | None,
    *,
    routing: Strategy | None = None,
    price: float | None = None,
) -> BatchOptions:
    """Return the options of the folder with the accounts that a command uses, or with none: `accounts` is None.

    :param options: those of the folder; a price of theirs is left out beside a file of accounts.
    :param credentials: `--provider` and `--base-url` choose one provider, also in a folder that remembers accounts.
    :param file: `--accounts`; None if it is not given.
    :param routing: `--routing`; default None, not given.
    :param price: `--price`; default None, not given.
    :raises UsageError: if options of one provider are given with a file of accounts.
    """
    single = [name for name, value in _single(credentials).items() if value is not None]
    used = options.accounts if file is None else str(file.absolute())
    if file is not None and single:
        raise UsageError(f"--accounts: must not be given with {single[0]}; leave one of them out; nothing was sent")
    if used is None or single[:1] in (["--provider"], ["--base-url"]):
        if routing is not None:
            raise UsageError("--routing: must be given with --accounts FILE, between whose accounts it chooses")
        return attrs.evolve(options, accounts=None)
    if single:
        raise UsageError(f"{single[0]}: must be left out, because {used} says where each key is; nothing was sent")
    if price is not None:
        raise UsageError(f"--price: must be given to each account in {used}; leave it out here; nothing was sent")
    return attrs.evolve(options, accounts=used, routing=routing or options.routing, price=None)


def _single(credentials: CredentialOptions) -> dict[str, object]:
    """Return the options that one provider alone can have."""
    given: dict[str, object] = {}
    if isinstance(credentials, ProviderOptions):
        given = {"--provider": credentials.given_provider, "--base-url": credentials.base_url}
    return given | {"--api-key-file": credentials.api_key_file}


def read_accounts(options: BatchOptions) -> list[Account]:
    """Return the accounts of the file in `options`; none if there is no file.

    :raises UsageError: names every fault of the file.
    """
    if options.accounts is None:
        return []
    try:
        return load_accounts(Path(options.accounts))
    except ConfigurationError as error:
        raise UsageError(f"--accounts: {_FAULT.sub(_ON_A_LINE, error.message)}") from None


def account_named(accounts: Sequence[Account], name: str | None, file: str) -> Account:
    """Return the account of a name, or the only one.

    :param accounts: those of `file`, at least one.
    :raises UsageError: names those that there are if it is not one of them, or no name is given and there are several.
    """
    names = [account.name for account in accounts]
    if name is None:
        if len(names) == 1:
            return accounts[0]
        raise UsageError(
            f"--account: must be given, because a task id does not say whose task it is; choose one of "
            f"{', '.join(names)} in {file}; nothing was fetched"
        )
    if name not in names:
        raise UsageError(
            f"--account: {shorten(name)} must be one of {', '.join(names)} in {file}"
            f"{did_you_mean(name, names)}; nothing was fetched"
        )
    return accounts[names.index(name)]


def account_of(accounts: Iterable[Account], job: Job) -> Account | None:
    """Return the account that a job is for, or that accepted it; None if it is not there. Reads no key."""
    here = (each for each in accounts if each.is_at(job.provider, job.base_url))
    return next((each for each in here if job.account in {None, each.name}), None)


def by_missing_account(accounts: Sequence[Account], jobs: Iterable[Job]) -> dict[tuple[str, str, str], list[str]]:
    """Return the keys of the jobs whose account is not among `accounts`, by its name, provider and base URL."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for job in jobs:
        if account_of(accounts, job) is None:
            found.setdefault((job.account or job.provider, job.provider, job.base_url), []).append(job.key)
    return found
