"""Options of `doctor`, and the accounts that it checks. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import attrs

from pika_async.cli.accounts import AccountFileOption, choose_accounts, read_accounts
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.options import ProviderOptions
from pika_async.cli.provider_keys import providers_to_check
from pika_async.config.accounts import Account

__all__ = ["DoctorOptions", "options_of_each"]


@attrs.frozen(kw_only=True)
class DoctorOptions:
    """Options of `doctor`.

    :param provider: name of the provider; default "", given for each account later.
    :param base_url: default None, the provider's own.
    :param api_key_file: file with the key; default None, the provider's environment variable.
    :param listed: account of a file, in place of these three; default None.
    :param proxy: URL of a proxy; default None, the environment's.
    :param allow_results: kinds of results that are refused otherwise; default none.
    :param spend: pay for one generation; default False.
    :param save_to: new or empty folder for samples; default None saves nothing.
    :param deadline: seconds from acceptance to the end; default None, the client's.
    :param expected_seconds: expected duration in seconds; default None, the policy's.
    """

    provider: str = ""
    base_url: str | None = None
    api_key_file: Path | None = None
    listed: Account | None = None
    proxy: str | None = None
    allow_results: tuple[Literal["http", "tunnel"], ...] = ()
    spend: bool = False
    save_to: Path | None = None
    deadline: float | None = None
    expected_seconds: float | None = None

    @property
    def name(self) -> str:
        """The name of the account, else that of the provider."""
        return self.provider if self.listed is None else self.listed.name

    def account(self) -> Account:
        """Return the account to check.

        :raises ConfigurationError: if there is no such provider, or its address cannot be one.
        """
        if self.listed is not None:
            return self.listed
        return Account(self.provider, api_key_file=self.api_key_file, base_url=self.base_url)


def options_of_each(
    given: DoctorOptions, credentials: ProviderOptions, several: AccountFileOption
) -> Sequence[DoctorOptions]:
    """Return the options of each account to check: of those in the file, else of `--provider`, else of every key.

    :param given: the options that all have in common; samples of several accounts have a folder for each.
    :raises UsageError: if options exclude each other, the file is not valid, or no key is set.
    """
    accounts = read_accounts(choose_accounts(BatchOptions(), credentials, several.accounts))
    if accounts:
        options = [attrs.evolve(given, provider=account.provider.name, listed=account) for account in accounts]
    else:
        names = [credentials.given_provider] if credentials.given_provider else providers_to_check(credentials)
        options = [attrs.evolve(given, provider=name) for name in names]
        if len(options) == 1:
            return options
    return [attrs.evolve(one, save_to=None if given.save_to is None else given.save_to / one.name) for one in options]
