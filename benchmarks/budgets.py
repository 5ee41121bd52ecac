"""Polls of all jobs at one rate, by expected undetected delay or in turn; in virtual time."""

from __future__ import annotations

import heapq
from collections import deque
from random import Random

import attrs
from shapes import Durations
from waiting import Outcome, known_in_full

from pika_async._planning.due_queue import DueQueue
from pika_async.polling import AdaptivePolling, DurationSample, PollContext, PollingPolicy


@attrs.define(eq=False)
class _Job:
    outcome: Outcome
    stratum: str
    last_unsettled_age: float = 0.0
    polls: int = 0


def limited(
    policy: AdaptivePolling | Known | None,
    durations: dict[str, Durations],
    *,
    rate: float,
    jobs: int = 3000,
    slots: int = 200,
    seed: int = 1,
    at_once: bool = False,
) -> list[Outcome]:
    """Poll at most *rate* times a second; without a policy in turn, the least recently polled job first."""
    random, chance = Random(seed), Random(seed + 1)
    names = list(durations)
    plan = [(name, durations[name](i, random)) for i in range(jobs) for name in [random.choice(names)]]
    waiting: list[tuple[float, int, _Job]] = []
    turn: deque[_Job] = deque()
    frees: list[float] = []
    done: list[Outcome] = []
    begun = order = 0

    def value(job: _Job, now: float) -> float:
        assert policy is not None
        return policy.expected_delay(job.stratum, job.last_unsettled_age, now - job.outcome.accepted)

    due: DueQueue[_Job] = DueQueue(value)

    def wait(job: _Job, now: float, last_unsettled_age: float | None) -> None:
        nonlocal order
        if policy is None:
            turn.append(job)
            return
        order += 1
        asked = PollContext(job.stratum, now - job.outcome.accepted, job.polls, None, last_unsettled_age)
        heapq.heappush(waiting, (now + policy.next_delay(asked, chance.random()), order, job))

    def begin(now: float) -> None:
        nonlocal begun
        if begun < jobs:
            job = _Job(Outcome(plan[begun][1], now), plan[begun][0])
            begun += 1
            heapq.heappush(frees, now + job.outcome.duration)
            wait(job, now, None)

    for i in range(jobs if at_once else slots):
        begin(i * 1e-3)
    now = 0.0
    while len(done) < jobs:
        now += 1 / rate
        while frees and frees[0] <= now:
            begin(heapq.heappop(frees))
        while waiting and waiting[0][0] <= now:
            due.push(heapq.heappop(waiting)[2], now)
        if policy is None:
            job = turn.popleft()
        elif due:
            job = due.pop(now)
        else:
            continue
        age = now - job.outcome.accepted
        job.polls += 1
        job.outcome.polls += 1
        if age >= job.outcome.duration:
            job.outcome.delay = age - job.outcome.duration
            done.append(job.outcome)
            if policy is not None:
                policy.observe(DurationSample(job.stratum, job.last_unsettled_age, age), job.last_unsettled_age)
            continue
        previous, job.last_unsettled_age = job.last_unsettled_age, age
        wait(job, now, previous)
    return done


class Known(PollingPolicy):
    """A policy for known distributions that has each task due again at once, so that only the priority decides."""

    def __init__(self, durations: dict[str, Durations]) -> None:
        self._truth = {name: known_in_full(drawn) for name, drawn in durations.items()}

    def next_delay(self, context: PollContext, u: float) -> float:  # noqa: ARG002 - the protocol's
        return 1e-6

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
        pass

    def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float:
        return self._truth[stratum].expected_delay(last_unsettled_age, age)


def delay_ratio(
    durations: dict[str, Durations],
    *,
    rate: float,
    seed: int = 1,
    at_once: bool = False,
    jobs: int = 3000,
    policy: AdaptivePolling | Known | None = None,
) -> float:
    """Return the mean delay by priority over that in turn, at the same rate, once the first quarter has settled."""
    policy = policy or AdaptivePolling(delay_weight=1e4)
    by_priority = limited(policy, durations, rate=rate, seed=seed, at_once=at_once, jobs=jobs)
    in_turn = limited(None, durations, rate=rate, seed=seed, at_once=at_once, jobs=jobs)
    skip = 0 if at_once else jobs // 4
    return sum(job.delay for job in by_priority[skip:]) / sum(job.delay for job in in_turn[skip:])
