"""Forecast of a running batch for its display: the time left, as a range, and the cost so far. Sends nothing."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

import attrs

from pika_async._journal.protocol import Journal
from pika_async._planning.makespan import rooms_of
from pika_async._planning.time_left import MIN_SETTLED, Remaining, Stratum, time_left
from pika_async._runtime.pacing import paced
from pika_async.cli.active_jobs import unsettled_ages
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.spending import Before, money_so_far
from pika_async.config.client import DEFAULT_DEADLINE_S
from pika_async.engines.protocol import BatchClient
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.polling.adaptive import EXPECTED_SECONDS

__all__ = ["Forecast", "MergedForecast", "remaining"]

#: Settled tasks of earlier runs that are used, of a stratum, until enough of this run have settled.
MAX_EARLIER: Final = 64


@attrs.define(kw_only=True)
class Forecast:
    """Forecast of one client's batch, from the moment at which it is made.

    :param client: must be open while it is asked.
    :param requests: all requests of the batch.
    :param before: the journal before the command.
    """

    client: BatchClient
    requests: Sequence[GenerationRequest]
    before: Before
    journal: Journal
    options: BatchOptions
    _started_at: datetime = attrs.field(factory=partial(datetime.now, UTC), init=False)
    #: Number of jobs of the batch, and durations of earlier runs in seconds, by stratum.
    _strata: Counter[str] = attrs.field(factory=Counter, init=False)
    _earlier: Mapping[str, Sequence[float]] = attrs.field(factory=dict, init=False)

    @property
    def gateway(self) -> tuple[str, str]:
        """Name of the provider and base URL of the client."""
        return self.client.provider.name, self.client.base_url

    async def seconds(self, jobs: Sequence[Job]) -> tuple[float, float] | None:
        """Return the seconds until every job has settled, low and high; None while nothing is known."""
        if not self._strata:
            self._strata = await _count_strata(self.client, self.requests, self._group)
            self._earlier = await _earlier_durations(self.journal, self._strata, self._group)
        stats, options = self.client.stats(), self.options
        allowed = math.inf if options.max_charges is None else max(0, options.max_charges - stats.charges)
        rest = await remaining(
            jobs, self._strata, self._earlier, since=self._started_at, now=datetime.now(UTC), allowed=allowed,
            unsettled=unsettled_ages(self.client), group=self._group,
        )  # fmt: skip
        if not any(one.settled for one in rest.values()):
            return None
        limits = [(one.max_in_flight, one.estimated_limit) for one in stats.accounts.values() if one.stopped is None]
        left = Remaining(
            strata=rest,
            rooms=rooms_of(limits, stats.max_in_flight),
            expected=options.expected_seconds or EXPECTED_SECONDS,
            longest=options.deadline or DEFAULT_DEADLINE_S,
        )
        return await asyncio.to_thread(time_left, left)

    def _group(self, stratum: str) -> str:
        """Return the stratum of a job; without its provider where that is chosen later, among several accounts."""
        return stratum if len(self.client.accounts) == 1 else stratum.partition("/")[2]

    def cost(self, jobs: Sequence[Job]) -> str:
        """Return the cost of what this run was charged so far; "" where unknown."""
        return money_so_far(self.before, jobs)


@attrs.define
class MergedForecast:
    """Forecast of batches that run beside each other, each with a client of its own.

    :param parts: their forecasts; default none yet.
    """

    parts: Sequence[Forecast] = ()

    async def seconds(self, jobs: Sequence[Job]) -> tuple[float, float] | None:
        """Return the seconds until the last batch has ended, low and high; None while one of them is not known."""
        by_gateway: dict[tuple[str, str], list[Job]] = {}
        async for job in paced(jobs):
            by_gateway.setdefault((job.provider, job.base_url), []).append(job)
        ranges = [await part.seconds(by_gateway.get(part.gateway, [])) for part in self.parts]
        known = [one for one in ranges if one is not None]
        if not known or len(known) < len(ranges):
            return None
        return max(low for low, _ in known), max(high for _, high in known)

    def cost(self, jobs: Sequence[Job]) -> str:  # noqa: ARG002 - points of several providers have no sum
        """Return "": each provider has points of its own."""
        return ""


async def remaining(
    jobs: Sequence[Job],
    strata: Mapping[str, int],
    earlier: Mapping[str, Sequence[float]],
    *,
    since: datetime,
    now: datetime,
    allowed: float = math.inf,
    unsettled: Mapping[str, float] | None = None,
    group: Callable[[str], str] = str,
) -> dict[str, Stratum]:
    """Return what is known of the tasks of a batch, by stratum.

    :param jobs: the jobs that were taken in.
    :param strata: number of all jobs by stratum.
    :param earlier: durations of earlier runs, used until enough tasks have settled since.
    :param since: when this run began: a job that settled before is known, and says nothing about today.
    :param allowed: number of jobs that may still be charged.
    :param unsettled: age at which jobs were last seen unsettled, by key, in seconds: a task may have settled since
        without a poll. Default: the age of each now.
    :param group: returns the name in `strata` of the stratum of a job; default: the same.
    """
    seen = unsettled or {}
    settled: dict[str, list[float]] = {}
    ages: dict[str, list[float]] = {}
    planned = Counter(strata)
    async for job in paced(jobs):
        if job.status in {JobStatus.PLANNED, JobStatus.SUBMITTING}:
            continue
        name = group(job.stratum)
        planned[name] -= 1
        if job.submitted_at is None:
            continue
        if job.is_in_flight:
            age = max(0.0, (now - job.submitted_at).total_seconds())
            ages.setdefault(name, []).append(min(age, seen.get(job.key, age)))
        elif job.settled_at is not None and job.settled_at >= since:
            settled.setdefault(name, []).append((job.settled_at - job.submitted_at).total_seconds())
    share = min(1.0, allowed / max(1, sum(count for count in planned.values() if count > 0)))
    found = {}
    for name in {*planned, *ages, *settled}:
        here = settled.get(name, [])
        known = here if len(here) >= MIN_SETTLED else [*earlier.get(name, ())[-MAX_EARLIER:], *here]
        count = math.ceil(share * max(0, planned[name]))
        found[name] = Stratum(settled=known, ages=ages.get(name, ()), planned=count)
    return found


async def _earlier_durations(
    journal: Journal, strata: Iterable[str], group: Callable[[str], str]
) -> dict[str, list[float]]:
    """Return the durations of settled tasks in the journal by stratum, in seconds, the oldest first."""
    found: dict[str, list[float]] = {name: [] for name in strata}
    async for sample in paced(journal.samples()):
        name = group(sample.stratum)
        if name in found and math.isfinite(sample.upper):
            found[name].append(sample.middle)
    return found


async def _count_strata(
    client: BatchClient, requests: Iterable[GenerationRequest], group: Callable[[str], str]
) -> Counter[str]:
    """Return the number of requests by stratum."""
    counts: Counter[str] = Counter()
    async for request in paced(list(requests)):
        job = Job(key="-", request=request, provider=client.provider.name, base_url=client.base_url)
        counts[group(job.stratum)] += 1
    return counts
