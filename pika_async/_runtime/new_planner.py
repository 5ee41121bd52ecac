"""The planner of a client, with what its journal has of earlier processes. Carries nothing out."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pika_async._planning.account_planner import AccountPlanner
from pika_async._planning.callback_tracker import CallbackTracker
from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async._planning.limits import MAX_IN_FLIGHT, Limits, TokenBucket
from pika_async._planning.planner import Planner
from pika_async._planning.policy_adapter import PolicyAdapter
from pika_async._planning.poll_queue import PollQueue
from pika_async._planning.prices import AccountPrices
from pika_async._planning.router import Router
from pika_async._planning.shared_bounds import SharedBounds
from pika_async._planning.submissions import Submissions
from pika_async._runtime.telemetry import NullTelemetry
from pika_async.config.client import AccountConfig, ClientConfig
from pika_async.polling.durations import DurationSample

__all__ = ["new_planner"]


def new_planner(config: ClientConfig, telemetry: NullTelemetry) -> Planner:
    """Create a planner with the charges and the concurrency limits that the journal has."""
    costs, limits = config.journal.costs(), config.limits
    poll_rates = (limits.polls_per_second, config.policy.max_polls_per_second)
    shared = SharedBounds(
        name=config.name,
        max_in_flight=limits.max_in_flight or MAX_IN_FLIGHT,
        submitting_limit=limits.submitting,
        polling_limit=limits.polling,
        submit_rate=TokenBucket(limits.submits_per_second),
        poll_rate=TokenBucket(min((rate for rate in poll_rates if rate is not None), default=None)),
        spending=config.new_spending(costs),
    )
    router = Router(
        accounts={each.name: _account_planner(config, each, costs, telemetry) for each in config.accounts},
        shared=shared,
        strategy=config.routing.strategy,
        medians=config.policy.medians,
        expected_seconds=config.policy.expected_seconds,
    )
    return Planner(router=router, limits=limits)


def _account_planner(
    config: ClientConfig,
    account: AccountConfig,
    costs: Mapping[tuple[str, float | None], int],
    telemetry: NullTelemetry,
) -> AccountPlanner:
    def on_sample(sample: DurationSample, age: float) -> None:
        config.journal.add_sample(sample)
        telemetry.duration_observed(sample, age)

    limits = _limits_beside(account.limits, len(config.accounts) - 1)
    learned = config.journal.get_setting(account.concurrency_key) or {}
    is_called_back = config.callbacks is not None and account.provider.takes_callback
    return AccountPlanner(
        name=account.name,
        provider=account.provider.name,
        base_url=account.base_url,
        limits=limits,
        deadline=config.deadline,
        submissions=Submissions(
            name=account.name,
            base_url=account.base_url,
            limits=limits,
            concurrency=AdaptiveConcurrency(ceiling=account.limits.max_in_flight or MAX_IN_FLIGHT, **learned),
            rate=TokenBucket(account.limits.submits_per_second),
            prices=AccountPrices(account.prices, account.provider.default_model),
            spending=account.new_spending(costs),
        ),
        poll_queue=PollQueue(
            PolicyAdapter(policy=config.policy, on_sample=on_sample, callbacks=CallbackTracker(enabled=is_called_back))
        ),
        poll_rate=TokenBucket(account.limits.polls_per_second),
        weight=account.weight,
        max_in_flight=account.max_in_flight,
    )


def _limits_beside(limits: Limits, others: int) -> Limits:
    """Return the limits of an account that leaves one submission and one poll at a time to each other account.

    A gateway that answers nothing for minutes thus does not hold up the others.
    """
    return attrs.evolve(limits, submitting=max(1, limits.submitting - others), polling=max(1, limits.polling - others))
