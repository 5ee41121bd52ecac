"""Accounts of an open client: each with its gateway. Decides nothing and sends nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.telemetry import NullTelemetry
from pika_async._runtime.uploads import uploads_for
from pika_async.config.client import AccountConfig, ClientConfig
from pika_async.errors import AcceptedElsewhere, InvalidRequest
from pika_async.jobs import Job
from pika_async.models.spelling import did_you_mean

__all__ = ["OpenAccount", "OpenAccounts", "elsewhere", "open_account"]


@attrs.frozen
class OpenAccount:
    """One account of an open client."""

    config: AccountConfig
    gateway: GatewayClient


class OpenAccounts:
    """The accounts of an open client, by name.

    :param config: finds the account of a job.
    :param accounts: those of `config`.
    """

    def __init__(self, config: ClientConfig, accounts: Iterable[OpenAccount]) -> None:
        self._config = config
        self._by_name = {account.config.name: account for account in accounts}

    def __iter__(self) -> Iterator[OpenAccount]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> OpenAccount:
        return self._by_name[name]

    def named(self, name: str | None) -> OpenAccount:
        """Return the account of that name; the only one for None.

        :raises InvalidRequest: if there is no such account, or there are several and none is named.
        """
        names = ", ".join(self._by_name)
        if name is None and len(self._by_name) == 1:
            return next(iter(self))
        account = self._by_name.get(name or "")
        if account is None:
            known = did_you_mean(name or "", self._by_name)
            raise InvalidRequest(field="account", value=name, reason=f"must be the name of an account: {names}{known}")
        return account

    def find(self, job: Job) -> OpenAccount | None:
        """Return the account of a job; None if this client does not have it."""
        account = self._by_name.get(job.account or "")
        if account is not None and account.config.is_at(job.provider, job.base_url):
            return account
        config = self._config.account_of(job)
        return None if config is None else self._by_name[config.name]

    def of(self, job: Job) -> OpenAccount:
        """Return the account of a job.

        :raises AcceptedElsewhere: if this client does not have it.
        """
        account = self.find(job)
        if account is None:
            raise elsewhere(job)
        return account

    def is_here(self, job: Job) -> bool:
        """Whether this client has the account of a job."""
        return self.find(job) is not None


def open_account(config: ClientConfig, account: AccountConfig, telemetry: NullTelemetry) -> OpenAccount:
    """Create the gateway of an account."""
    journal, here = config.journal, (account.provider.name, account.base_url)
    uploads = uploads_for(
        account.provider, account.base_url, uploader=config.uploader, lifetime=config.upload_lifetime, journal=journal,
        transport=account.transport, proxy=config.proxy,
    )  # fmt: skip
    gateway = GatewayClient(
        account.provider, account.base_url, account.transport, lenient=config.lenient,
        telemetry=telemetry.for_gateway(account.provider, account.base_url),
        is_task_id=lambda task_id: journal.key_for_task(*here, task_id) is not None,
        upload=None if uploads is None else uploads.url_for, proxy=config.proxy,
    )  # fmt: skip
    return OpenAccount(account, gateway)


def elsewhere(job: Job) -> AcceptedElsewhere:
    """Return the error that a job waits for an account that this client does not have."""
    return AcceptedElsewhere(
        key=job.key, provider=job.provider, task_id=job.task_id, base_url=job.base_url, account=job.account
    )
