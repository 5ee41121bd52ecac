"""Choice of the account for a job, from what each account could do with it now. Pure: sends nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import attrs

__all__ = ["STRATEGIES", "Candidate", "Choice", "Refuse", "Wait", "route"]


@attrs.frozen(kw_only=True)
class Candidate:
    """What one account could do with a job at this moment.

    :param account: the name of the account.
    :param refusal: why it takes no such job any more; None if it may.
    :param ready_at: when it can send the job; infinity if that depends on what happens first: a free slot, say.
    :param load: share of its room that would be in use with the job, by its weight.
    :param price: price of the charge; None where unknown.
    :param seconds: median duration of such a task, or the expected one where nothing is learned.
    """

    account: str
    refusal: str | None = None
    ready_at: float = -math.inf
    load: float = 0.0
    price: float | None = None
    seconds: float = 0.0


@attrs.frozen
class Choice:
    """Decision: send the job to an account."""

    account: str


@attrs.frozen
class Wait:
    """Decision: keep the job until a time, or until something changes."""

    until: float


@attrs.frozen
class Refuse:
    """Decision: no account takes the job; why, by account."""

    reasons: Mapping[str, str]


#: Rank of a candidate; the least is chosen.
Rank: TypeAlias = tuple[float, ...]


def _by_capacity(candidate: Candidate) -> Rank:
    return (candidate.load,)


def _by_price(candidate: Candidate) -> Rank:
    return (math.inf if candidate.price is None else candidate.price, candidate.load)


def _by_duration(candidate: Candidate) -> Rank:
    return (candidate.seconds, candidate.load)


#: The order of the accounts that could send a job now, by strategy. Of equal ones the one with more room comes first.
STRATEGIES: Final[Mapping[str, Callable[[Candidate], Rank]]] = {
    "capacity": _by_capacity,
    "cheapest": _by_price,
    "fastest": _by_duration,
}


def route(candidates: Sequence[Candidate], strategy: str, now: float) -> Choice | Wait | Refuse:
    """Choose the account for one job.

    Only an account that can send the job at once is chosen: none waits for a cheaper or a faster one that is full.

    :param candidates: the accounts that can do what the job asks for; those named first win a tie.
    :param strategy: a key of `STRATEGIES`.
    :param now: the caller's monotonic seconds.
    """
    willing = [each for each in candidates if each.refusal is None]
    if not willing:
        return Refuse({each.account: each.refusal or "" for each in candidates})
    ready = [each for each in willing if each.ready_at <= now]
    if not ready:
        return Wait(min(each.ready_at for each in willing))
    return Choice(min(ready, key=STRATEGIES[strategy]).account)
