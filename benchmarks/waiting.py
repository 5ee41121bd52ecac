"""Polls of many jobs by a policy in virtual time, and the best fixed interval for the same jobs."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from random import Random

import attrs
from shapes import Durations, Progress

from pika_async.polling import Distribution, DurationSample, PollContext, PollingPolicy, Schedule
from pika_async.polling.schedule import FLOOR_SECONDS, max_delay


@attrs.define
class Outcome:
    """One job: its duration, and the polls and the delay that it cost."""

    duration: float
    accepted: float = 0.0
    polls: int = 0
    delay: float = 0.0


@attrs.define
class Costs:
    polls: float
    delay: float
    worst: float

    @classmethod
    def of(cls, jobs: Sequence[Outcome]) -> Costs:
        count = len(jobs)
        delays = sorted(job.delay for job in jobs)
        return cls(sum(job.polls for job in jobs) / count, sum(delays) / count, delays[int(0.99 * (count - 1))])


@attrs.define(eq=False)
class _Live:
    outcome: Outcome
    stratum: str
    noise: float
    queue: float
    last_unsettled_age: float = 0.0
    polls: int = 0
    sampled_progress: int | None = None
    sampled_progress_age: float | None = None
    progress_count: int = 0
    progress: int | None = None
    progress_age: float | None = None
    due: float = 0.0


def run(
    policy: PollingPolicy,
    durations: Durations,
    *,
    jobs: int = 2000,
    slots: int | None = 200,
    seed: int = 1,
    progress: Progress | None = None,
    queues: Durations | None = None,
    reports_queue: bool = True,
    exact: bool = False,
    strata: Callable[[int], str] = lambda _: "a",
) -> list[Outcome]:
    """Return all jobs in the order in which they settled; a free slot takes the next at the instant one settles.

    `queues`: seconds for which each job is queued and reported as queued before it begins, without a percent.
    """
    random, chance = Random(seed), Random(seed + 1)
    waits = [0.0 if queues is None else queues(i, random) for i in range(jobs)]
    plan = [durations(i, random) + waits[i] for i in range(jobs)]
    heap: list[tuple[float, int, _Live | None]] = []
    order, begun, done = 0, 0, []

    waiting: set[_Live] = set()

    def push(at: float, live: _Live | None) -> None:
        nonlocal order
        order += 1
        if live is not None:
            live.due = at
        heapq.heappush(heap, (at, order, live))

    def begin(now: float) -> None:
        nonlocal begun
        if begun == jobs:
            return
        live = _Live(Outcome(plan[begun], now), strata(begun), chance.gauss(0, 1), waits[begun])
        begun += 1
        waiting.add(live)
        push(now + live.outcome.duration, None)
        push(now + policy.next_delay(PollContext(live.stratum, 0.0, 0), chance.random()), live)

    for i in range(slots or jobs):
        begin(i * 1e-3)
    while heap:
        now, _, live = heapq.heappop(heap)
        if live is None:
            begin(now)
            continue
        if now != live.due:
            continue  # a later entry of the heap stands for it
        outcome = live.outcome
        age = now - outcome.accepted
        live.polls += 1
        outcome.polls += 1
        if age >= outcome.duration:
            outcome.delay = age - outcome.duration
            done.append(outcome)
            ends = (outcome.duration, outcome.duration) if exact else (live.last_unsettled_age, age)
            seen = DurationSample(
                live.stratum, *ends, progress_age=live.sampled_progress_age, progress=live.sampled_progress
            )
            waiting.remove(live)
            if policy.observe(seen, live.last_unsettled_age):
                for other in sorted(waiting, key=lambda other: other.due):
                    asked = PollContext(
                        other.stratum,
                        other.last_unsettled_age,
                        other.polls,
                        other.progress,
                        progress_age=other.progress_age,
                    )
                    wait = policy.replan_delay(asked, chance.random())
                    assert wait is not None
                    due = max(
                        other.outcome.accepted + other.last_unsettled_age + wait, now + 0.05 + 2 * chance.random()
                    )
                    if due < other.due:
                        push(due, other)
            continue
        reported = progress(age / outcome.duration, age, live.noise) if progress is not None else None
        if reports_queue and age < live.queue:
            reported = 0
        if reported is not None:
            live.progress, live.progress_age = reported, age
            live.progress_count += 1
            if chance.random() * live.progress_count < 1:
                live.sampled_progress_age, live.sampled_progress = age, reported
        if reported is None and live.progress is not None and live.queue:
            live.sampled_progress_age = live.progress_age
        asked = PollContext(live.stratum, age, live.polls, live.progress, live.last_unsettled_age, live.progress_age)
        wait = policy.next_delay(asked, chance.random())
        live.last_unsettled_age = age
        push(now + wait, live)
    return done


# --- peers and bounds ---------------------------------------------------------------------------------------


def fixed(jobs: Sequence[Outcome], interval: float) -> tuple[float, float]:
    """Return the mean polls and the mean delay of a poll every *interval* seconds."""
    polls = delay = 0.0
    for job in jobs:
        count = max(1, math.ceil(job.duration / interval))
        polls += count
        delay += count * interval - job.duration
    return polls / len(jobs), delay / len(jobs)


def best_fixed(jobs: Sequence[Outcome], delay: float) -> float:
    """Return the fewest polls of any fixed interval whose mean delay on these jobs is *delay* or less."""
    least = math.inf
    for step in range(160):
        polls, this = fixed(jobs, delay * 0.8 * 1.012**step)
        if this <= delay:
            least = min(least, polls)
    return least


def follow(jobs: Sequence[Outcome], after: Callable[[float], float]) -> tuple[float, float]:
    """Return the mean polls and the mean delay of a rule from the age of one poll to the age of the next."""
    ages, polls, delay = [after(0.0)], 0, 0.0
    for job in sorted(jobs, key=lambda job: job.duration):
        while ages[-1] < job.duration:
            ages.append(max(ages[-1] + FLOOR_SECONDS, min(after(ages[-1]), ages[-1] + max_delay(ages[-1]))))
        polls += len(ages)
        delay += ages[-1] - job.duration
    return polls / len(jobs), delay / len(jobs)


def known_in_full(durations: Durations, size: int = 40_000, seed: int = 99) -> Distribution:
    """Return the distribution itself, from a sample far larger than any policy observes."""
    random = Random(seed)
    sample = sorted(durations(i, random) for i in range(size))
    points = 400
    ages, cdf = [0.0], [0.0]
    for i in range(points + 1):
        share = i / points
        age = sample[min(size - 1, int(share * (size - 1)))] * (0.999 if i == 0 else 1.0)
        if age > ages[-1] * 1.0001 + 1e-9:
            ages.append(age)
            cdf.append(min(share, 1 - 1e-5))
        else:
            cdf[-1] = min(share, 1 - 1e-5)
    return Distribution(ages, cdf)


def optimum(jobs: Sequence[Outcome], truth: Distribution, delay: float) -> float:
    """Return the polls that the best schedule for the known distribution needs for a mean delay of *delay*."""
    low, high = 1e-3, 1e3
    polls = math.nan
    for _ in range(16):
        weight = math.sqrt(low * high)
        polls, this = follow(jobs, Schedule.of(truth, weight).after)
        low, high = (weight, high) if this > delay else (low, weight)
    return polls
