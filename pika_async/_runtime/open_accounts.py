"""Accounts of an open client: each with its gateway. Decides nothing and sends nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs

from pika_async._runtime.gateway import GatewayClient
from pika_async.errors import AcceptedElsewhere, InvalidRequest
from pika_async.jobs import Job
from pika_async.models.spelling import did_you_mean
from pika_async.providers._provider import Provider

__all__ = ["OpenAccount", "OpenAccounts", "elsewhere"]


@attrs.frozen(kw_only=True)
class OpenAccount:
    """One account of an open client."""

    name: str
    provider: Provider
    base_url: str
    #: Distinguishes one API key from another.
    digest: str
    #: The journal setting that holds its learned concurrency limit.
    concurrency_key: str
    gateway: GatewayClient

    def has(self, job: Job) -> bool:
        """Whether it is the account of a job; one that was accepted before jobs had accounts is of any at its place."""
        return (job.provider, job.base_url) == (self.provider.name, self.base_url) and job.account in {None, self.name}


class OpenAccounts:
    """The accounts of an open client, by name.

    :param accounts: with different names.
    """

    def __init__(self, accounts: Iterable[OpenAccount]) -> None:
        self._by_name = {account.name: account for account in accounts}

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
        accounts = self if job.account is None else filter(None, [self._by_name.get(job.account)])
        return next((account for account in accounts if account.has(job)), None)

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


def elsewhere(job: Job) -> AcceptedElsewhere:
    """Return the error that a job waits for an account that this client does not have."""
    return AcceptedElsewhere(
        key=job.key, provider=job.provider, task_id=job.task_id, base_url=job.base_url, account=job.account
    )
