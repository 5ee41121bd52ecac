"""The only account of a client under test, and stand-ins for what an open client has of it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import attrs

from pika_async import PikaClient
from pika_async._planning.account_planner import AccountPlanner
from pika_async._planning.planner import Planner
from pika_async.config.client import AccountConfig
from pika_async.jobs import Job

__all__ = ["OneAccount", "OneDownloader", "change_account", "only"]


def only(planner: Planner) -> AccountPlanner:
    """Return the only account of a planner."""
    (account,) = planner.accounts.values()
    return account


def change_account(pika: PikaClient, **changes: Any) -> AccountConfig:
    """Change the configuration of the only account of a client that is not open, and return it."""
    (account,) = pika._config.accounts
    account = attrs.evolve(account, **changes)
    pika._config = attrs.evolve(pika._config, accounts=(account,))
    return account


class OneAccount:
    """Stand-in for `OpenAccounts` with one account, which has every job.

    :param gateway: what is called of `GatewayClient`.
    :param here: the provider and the base URL; default: those of every job.
    """

    def __init__(self, gateway: Any, here: tuple[str, str] | None = None) -> None:
        self._here = here
        provider, base_url = here or ("native", "http://h")
        names = {"name": provider, "base_url": base_url, "provider": SimpleNamespace(name=provider)}
        self._account = SimpleNamespace(gateway=gateway, **names)

    def __iter__(self) -> Iterator[Any]:
        return iter((self._account,))

    def find(self, job: Job) -> Any:
        return self._account if self.is_here(job) else None

    def of(self, job: Job) -> Any:
        assert self.is_here(job)
        return self._account

    def is_here(self, job: Job) -> bool:
        return self._here is None or (job.provider, job.base_url) == self._here


@attrs.frozen
class OneDownloader:
    """Stand-in for `Downloaders` with one downloader for every gateway."""

    downloader: Any

    def of(self, _base_url: str) -> Any:
        return self.downloader
