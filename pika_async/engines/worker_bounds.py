"""Bounds of a worker's configuration that the database keeps for all workers."""

from __future__ import annotations

from typing import Any, Final

import attrs

from pika_async.config.client import ClientConfig
from pika_async.engines.bounds import ALL_ACCOUNTS, to_money

__all__ = ["account_rows", "max_claimed", "without_bounds"]

#: Jobs that are claimed beyond those that have room, so that a free place is taken at once.
SPARE_JOBS: Final = 32


def max_claimed(config: ClientConfig, max_jobs: int) -> int:
    """Return how many jobs a worker takes on at once: as many as leave no place of its accounts free.

    :param max_jobs: maximum number.
    """
    rooms = [account.max_in_flight for account in config.accounts]
    if config.limits.max_in_flight is not None:
        rooms = [config.limits.max_in_flight]
    known = [room for room in rooms if room is not None]
    return max_jobs if len(known) < len(rooms) else min(max_jobs, 2 * sum(known) + SPARE_JOBS)


def account_rows(config: ClientConfig) -> list[dict[str, Any]]:
    """Return the rows of the accounts, with their bounds, and that of all together."""
    rows: list[dict[str, Any]] = [
        {
            "name": account.name,
            "max_in_flight": account.max_in_flight,
            "submits_per_second": account.limits.submits_per_second,
            "max_charges": account.max_charges,
            "budget": to_money(account.budget),
        }
        for account in config.accounts
    ]
    limits = config.limits
    shared = {
        "name": ALL_ACCOUNTS,
        "max_in_flight": limits.max_in_flight,
        "submits_per_second": limits.submits_per_second,
        "max_charges": limits.max_charges,
        "budget": to_money(config.budget),
    }
    return [*rows, shared]


def without_bounds(config: ClientConfig) -> ClientConfig:
    """Return the configuration without what the database keeps for all workers: budgets and numbers of charges."""
    accounts = tuple(attrs.evolve(account, budget=None, max_charges=None) for account in config.accounts)
    return attrs.evolve(config, accounts=accounts, budget=None, limits=attrs.evolve(config.limits, max_charges=None))
