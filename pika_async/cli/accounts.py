"""Accounts of a command: those of a file that is given, or that the folder remembers. Sends nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.exits import UsageError
from pika_async.cli.help_groups import GATEWAY
from pika_async.cli.options import CredentialOptions, ProviderOptions, UserPath
from pika_async.cli.preview import MoneyOptions
from pika_async.config.accounts import Account, Strategy, load_accounts
from pika_async.errors import ConfigurationError
from pika_async.jobs import Job

__all__ = ["AccountOptions", "account_of", "read_accounts"]


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

        :param options: those of the folder; a price of theirs is left out beside a file of accounts.
        :param credentials: `--provider` and `--base-url` choose one provider, also in a folder that remembers accounts.
        :raises UsageError: if options of one provider are given with a file of accounts.
        """
        single = [name for name, value in _single(credentials).items() if value is not None]
        file = options.accounts if self.accounts is None else str(self.accounts.absolute())
        if self.accounts is not None and single:
            raise UsageError(f"--accounts: must not be given with {single[0]}; leave one of them out; nothing was sent")
        if file is None or single[:1] in (["--provider"], ["--base-url"]):
            if self.routing is not None:
                raise UsageError("--routing: must be given with --accounts FILE, between whose accounts it chooses")
            return attrs.evolve(options, accounts=None)
        if single:
            raise UsageError(f"{single[0]}: must be left out, because {file} says where each key is; nothing was sent")
        if money.price is not None:
            raise UsageError(f"--price: must be given to each account in {file}; leave it out here; nothing was sent")
        return attrs.evolve(options, accounts=file, routing=self.routing or options.routing, price=None)


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
        raise UsageError(f"--accounts: {error.message}") from None


def account_of(accounts: Iterable[Account], job: Job) -> Account | None:
    """Return the account that a job is for, or that accepted it; None if it is not there. Reads no key."""
    here = (each for each in accounts if each.is_at(job.provider, job.base_url))
    return next((each for each in here if job.account in {None, each.name}), None)
