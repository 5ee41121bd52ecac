"""Estimate of a run: reads the requests and the journal, with turns of other tasks. Sends and writes nothing."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from typing import Literal, TypeAlias

from pika_async._journal.protocol import Journal
from pika_async._planning.estimate import Estimate, mean_cost
from pika_async._planning.keys import KeyAssigner
from pika_async._planning.learned_durations import learned_durations
from pika_async._planning.limits import MAX_IN_FLIGHT
from pika_async._planning.makespan import Workload, makespan, mixture, rooms_of
from pika_async._planning.money import exact
from pika_async._runtime.admission import OTHER_CONTENT, may_be_sent
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.pacing import Pace, paced
from pika_async._runtime.quotes import Quotes
from pika_async._runtime.request_checks import capable_accounts, request_of
from pika_async._runtime.request_source import Requests, stream
from pika_async.config.client import AccountConfig, ClientConfig
from pika_async.errors import InvalidRequest
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.polling.adaptive import EXPECTED_SECONDS
from pika_async.polling.durations import DurationSample

__all__ = ["estimate"]

#: Names of accounts, each with its price of one request; None where that is unknown.
Offers: TypeAlias = tuple[tuple[str, float | None], ...]


async def estimate(
    config: ClientConfig,
    table: JobTable | None,
    requests: Requests,
    again: Collection[str],
    quotes: AbstractAsyncContextManager[Quotes | None],
) -> Estimate:
    """Estimate a run of *requests*; see `PikaClient.estimate`.

    :param table: the active jobs of the client; None while it is not open.
    :param again: keys of jobs that are paid for once more.
    :param quotes: provides the quotes of the accounts, or None.
    """
    with config.journal.reading():
        async with quotes as quoted:
            return await _estimate(config, table, requests, _Census(config, again, quoted))


async def _estimate(config: ClientConfig, table: JobTable | None, requests: Requests, census: _Census) -> Estimate:
    if config.journal.path is not None and isinstance(requests, Sequence):  # as `BatchAdmission.enroll`
        async for item in paced(requests):
            if isinstance(item, GenerationRequest) and item.key is not None:
                census.keys.reserve(item.key)
    pace = Pace()
    async for item in stream(requests):
        await census.add(item)
        await pace.step()
    spending = config.new_spending(config.journal.costs())
    wanted = census.new.total()
    paid = await _paid(config, census)
    allowed = len(paid)
    counts = census.new if allowed == wanted else _scaled(census.new, allowed)
    seconds, learned_from = await _seconds(config, table, census, allowed)
    prices = [price for price in paid if price is not None]
    unit: Literal["price", "quote"] = "price" if census.quotes is None else "quote"
    is_priced = bool(paid) if unit == "quote" else all(account.prices is not None for account in config.accounts)
    has_prices = is_priced and len(prices) == len(paid)
    if has_prices:
        money: float | None = float(sum(map(exact, prices), Fraction()))
    else:
        money = await _money(config, counts) if allowed else None
    return Estimate(
        new_charges=allowed,
        known=census.known,
        refused=census.refused,
        equal=tuple(map(tuple, census.equal.values())),
        price=_single_price(config),
        money=money,
        unit=None if money is None else unit if has_prices else "points",
        seconds=seconds,
        learned_from=learned_from,
        held_back=wanted - allowed,
        charged=spending.charges,
        spent=float(spending.spent),
        max_charges=config.limits.max_charges,
        budget=config.budget,
        unlisted=tuple(census.unlisted),
    )


class _Census:
    """Count of requests by what a run would do with them, in the order of the run; changes nothing.

    :param again: keys of jobs that are paid for once more.
    :param quotes: give the prices; None: those that the user gave.
    """

    def __init__(self, config: ClientConfig, again: Collection[str], quotes: Quotes | None) -> None:
        self._config = config
        self.quotes = quotes
        self._again = again
        self._journal = config.journal
        self.keys = KeyAssigner(self._answers)
        self._keys_loaded = False
        self._count = 0
        #: Fingerprints of the requests that have been counted as new charges, by key.
        self.planned: dict[str, str] = {}
        #: The first position of each content.
        self._first: dict[str, int] = {}
        #: Number of new charges by stratum.
        self.new: Counter[str] = Counter()
        #: What each account that can take it would charge for each new job: the lowest price first where that is
        #: chosen, else the highest.
        self.offers: list[Offers] = []
        self._known_offers: dict[Offers, Offers] = {}
        self.known = 0
        self.refused: dict[int, str] = {}
        #: Positions with equal content, by fingerprint.
        self.equal: dict[str, list[int]] = {}
        #: Models and effects without documentation, in the order in which they occur.
        self.unlisted: dict[str, None] = {}
        #: Accepted jobs that a run would wait for.
        self.waiting: list[Job] = []

    def _answers(self, key: str, content: str) -> bool:
        job = self._journal.get(key)
        return job is not None and job.answers(content)

    async def add(self, item: GenerationRequest | str) -> None:
        """Count the next request."""
        index, self._count = self._count, self._count + 1
        try:
            await self._add(request_of(item, {}), index)
        except InvalidRequest as error:
            self.refused[index] = error.message

    async def _add(self, request: GenerationRequest, index: int) -> None:
        if request.key is None and not self._keys_loaded:
            self._keys_loaded = True
            async for known_key in paced(self._journal.keys()):
                self.keys.add_existing(known_key)
        key, content = self.keys.key_for(request, index), request.fingerprint()
        if await self._is_known(key, content):
            self.known += 1
        else:
            options = await capable_accounts(self._config, request)
            accounts = [account for account in self._config.accounts if account.name in options]
            self.planned[key] = content
            self.new[self._new_job(request, key, accounts[0]).stratum] += 1
            offers = await self._offers(request, accounts)
            self.offers.append(self._known_offers.setdefault(offers, offers))
            self._note_unlisted(request, accounts)
        first = self._first.setdefault(content, index)
        if first != index:
            self.equal.setdefault(content, [first]).append(index)

    async def _is_known(self, key: str, content: str) -> bool:
        """Return whether the request of *key* has a job that is not paid for again.

        :raises InvalidRequest: if that job has another content.
        """
        planned = self.planned.get(key)
        job = self._journal.get(key) if planned is None else None
        if key in self._again and (job is None or not job.is_in_flight):
            return planned is not None
        if planned not in (None, content) or (job is not None and not job.answers(content)):
            raise InvalidRequest(field="key", value=key, reason=OTHER_CONTENT)
        if job is None or may_be_sent(job):
            return planned is not None
        is_here = self._config.account_of(job) is not None
        if is_here and (job.is_in_flight or job.status is JobStatus.TIMED_OUT):
            self.waiting.append(job)
        return True

    async def _offers(self, request: GenerationRequest, accounts: Sequence[AccountConfig]) -> Offers:
        offers = [(account.name, await self._price_at(account, request)) for account in accounts]
        is_cheapest_first = self._config.routing.strategy == "cheapest"
        return tuple(sorted(offers, key=lambda offer: offer[1] or 0.0, reverse=not is_cheapest_first))

    async def _price_at(self, account: AccountConfig, request: GenerationRequest) -> float | None:
        return account.price_of(request) if self.quotes is None else await self.quotes.price_of(account.name, request)

    @staticmethod
    def _new_job(request: GenerationRequest, key: str, account: AccountConfig) -> Job:
        return Job(key=key, request=request, provider=account.provider.name, base_url=account.base_url)

    def _note_unlisted(self, request: GenerationRequest, accounts: Sequence[AccountConfig]) -> None:
        providers = [account.provider for account in accounts]
        if request.model is not None and not any(request.model in provider.models for provider in providers):
            self.unlisted[f"model {request.model}"] = None
        if request.effect is not None and not any(request.effect in provider.effects for provider in providers):
            self.unlisted[f"effect {request.effect}"] = None


async def _paid(config: ClientConfig, census: _Census) -> list[float | None]:
    """Return the price of each new charge that the limits of the client and of its accounts leave room for.

    A price is None where that of one account is unknown, which may be the one that is chosen.
    """
    costs = config.journal.costs()
    overall = config.new_spending(costs)
    own = {account.name: account.new_spending(costs) for account in config.accounts}
    paid: list[float | None] = []
    async for offers in paced(census.offers):
        for name, price in offers:
            if overall.allows(price) and own[name].allows(price):
                overall.reserve(price)
                own[name].reserve(price)
                paid.append(price if all(each is not None for _, each in offers) else None)
                break
    return paid


def _scaled(counts: Counter[str], total: int) -> Counter[str]:
    """Return counts in the same proportions whose sum is about *total*, which is less."""
    share = total / counts.total()
    return Counter({name: round(count * share) for name, count in counts.items()})


async def _money(config: ClientConfig, counts: Counter[str]) -> float | None:
    """Return the points that new jobs are expected to cost, by the settled jobs of the journal."""
    sums: dict[str, tuple[float, int]] = {}
    async for job in paced(config.journal.all(JobStatus.SUCCEEDED, JobStatus.FAILED)):
        if job.points is not None and config.account_of(job) is not None and job.stratum in counts:
            total, number = sums.get(job.stratum, (0.0, 0))
            sums[job.stratum] = (total + job.points, number + 1)
    return mean_cost(counts, sums)


async def _seconds(
    config: ClientConfig, table: JobTable | None, census: _Census, allowed: int
) -> tuple[tuple[float, float], int]:
    """Return the makespan of a run, low and high, and the number of settled tasks that it was learned from."""
    ahead = [] if table is None else [active.job for active in table.jobs.values()]
    keys = {job.key for job in census.waiting}
    accepted = census.waiting + [job for job in ahead if job.task_id is not None and job.key not in keys]
    queued = sum(job.task_id is None and job.key not in census.planned for job in ahead)
    if not allowed and not census.waiting:
        return (0.0, 0.0), 0
    strata = census.new + Counter(job.stratum for job in accepted)
    samples = await _samples_of(config.journal, strata)
    expected = config.policy.expected_seconds or EXPECTED_SECONDS
    parts = [(count, learned_durations(samples[name], expected), len(samples[name])) for name, count in strata.items()]
    now = time.time()
    load = Workload(
        jobs=allowed + queued,
        rooms=_rooms(config, table),
        ages=[_age(job, now) for job in accepted],
        per_second=config.limits.submits_per_second,
    )
    return makespan(load, mixture(parts, config.deadline)), sum(len(found) for found in samples.values())


def _age(job: Job, now: float) -> float:
    return 0.0 if job.submitted_at is None else max(0.0, now - job.submitted_at.timestamp())


async def _samples_of(journal: Journal, strata: Collection[str]) -> dict[str, list[DurationSample]]:
    samples: dict[str, list[DurationSample]] = {name: [] for name in strata}
    async for sample in paced(journal.samples()):
        if sample.stratum in samples and math.isfinite(sample.upper):
            samples[sample.stratum].append(sample)
    return samples


def _rooms(config: ClientConfig, table: JobTable | None) -> float:
    """Return the number of tasks in flight at a time: the limit given, or those of the accounts if they are known."""

    def learned(account: AccountConfig) -> float | None:
        if table is None:
            return (config.journal.get_setting(account.concurrency_key) or {}).get("estimated_limit")
        return table.planner.accounts[account.name].submissions.concurrency.estimated_limit

    limits = [(account.max_in_flight, learned(account)) for account in config.accounts]
    return rooms_of(limits, config.limits.max_in_flight or MAX_IN_FLIGHT)


def _single_price(config: ClientConfig) -> float | None:
    """Return the price that every charge has; None where it is unknown, or depends on the request or the account."""
    prices = {None if account.prices is None else account.prices.single for account in config.accounts}
    return prices.pop() if len(prices) == 1 else None
