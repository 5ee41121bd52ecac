"""Stops of an account as all processes see them: the reason, and which kind of reason it is."""

from __future__ import annotations

from typing import Any

import pytest

from pika_async.engines.bounds import StopKind, hold_of, kind_of_stop
from pika_async.engines.cluster_stats import ClusterAccount
from pika_async.engines.shared_statements import select_accounts, set_stop
from pika_async.errors import AccountStopped, ProviderUnreachable, SubmissionsStopped
from tests.engines.rows import Rows

BOUNDS: dict[str, Any] = {
    "name": "main", "max_in_flight": None, "in_flight": 0, "next_submit_at": 0.0, "max_charges": None, "charges": 0,
    "budget": None, "spent": 0, "concurrency": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "price"),
    [({"max_charges": 2, "charges": 2}, 0.1), ({"budget": 10, "spent": 10}, 0.1), ({"budget": 10}, None)],
)
def test_a_stop_at_a_bound_of_the_users_own_is_distinguished_from_one_of_the_provider(
    rows: Rows, bounds: dict[str, int], price: float | None
) -> None:
    """A number of charges, a budget, and a budget that needs a price."""
    held = hold_of(BOUNDS | bounds, price, 1.0)
    assert held is not None
    assert held.stop is not None
    assert kind_of_stop(held.stop) is StopKind.OWN_LIMIT
    rows.add_account("main")
    seen = []
    for stop in (held.stop, SubmissionsStopped(provider="main", reason=held.reason)):
        rows.run(set_stop, "main", stop.message, kind_of_stop(stop).value)
        account = ClusterAccount.of(rows.run(select_accounts)["main"])
        seen.append((account.stopped, account.is_at_limit))
    assert seen == [(held.stop.message, True), (stop.message, False)]
    rows.run(set_stop, "main", None, None)
    account = ClusterAccount.of(rows.run(select_accounts)["main"])
    assert (account.stopped, account.is_at_limit) == (None, False)


@pytest.mark.parametrize(
    "stop",
    [ProviderUnreachable(provider="main", reason="down", attempts=6), AccountStopped(provider="main", reason="x")],
)
def test_a_stop_by_an_account_is_none_of_the_users_own(stop: SubmissionsStopped) -> None:
    assert kind_of_stop(stop) is StopKind.ACCOUNT
