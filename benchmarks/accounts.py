"""An account of K slots that `AdaptiveConcurrency` fills, beside list scheduling; in virtual time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from random import Random
from typing import Any

import attrs
from shapes import Durations

from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async.polling import AdaptivePolling, DurationSample, PollContext


@attrs.define
class Filled:
    makespan: float
    bound: float
    refusals: float

    @property
    def ratio(self) -> float:
        return self.makespan / self.bound


def list_schedule(durations: Sequence[float], slots: float) -> float:
    """Return the time at which the last settles if each free slot takes the next job at once (Graham, 1966)."""
    if slots >= len(durations):
        return max(durations)
    ends = [0.0] * int(slots)
    for duration in durations:
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


def fill(
    durations: Durations,
    *,
    jobs: int = 2000,
    room: float = 200,
    seed: int = 1,
    trip: float = 0.2,
    concurrent: int = 8,
    slots: AdaptiveConcurrency | None = None,
    policy: Any = None,
) -> Filled:
    """Send all jobs through an account with *room* slots; an answer takes *trip* seconds, half of it each way."""
    slots = AdaptiveConcurrency() if slots is None else slots
    policy = AdaptivePolling() if policy is None else policy
    random, chance = Random(seed), Random(seed + 1)
    plan = [durations(i, random) for i in range(jobs)]
    events: list[tuple[float, int, str, Any]] = []
    order = refused = submitting = in_flight = held = seen = 0
    ready = list(range(jobs))[::-1]
    woken = math.inf

    def at(time: float, what: str, data: Any = None) -> None:
        nonlocal order
        order += 1
        heapq.heappush(events, (time, order, what, data))

    def submit(now: float) -> None:
        nonlocal submitting, woken
        while ready and submitting < concurrent and slots.has_capacity(in_flight, submitting):
            begins = slots.ready_at(now)
            if begins > now:
                if begins < woken or woken <= now:
                    woken = begins
                    at(begins, "wake")
                return
            slots.on_submit_started(now)
            submitting += 1
            at(now + trip / 2, "arrives", (ready.pop(), now))

    submit(0.0)
    now = 0.0
    while seen < jobs:
        now, _, what, data = heapq.heappop(events)
        if what == "arrives":
            job, sent_at = data
            accepted = held < room
            if accepted:
                held += 1
                at(now + plan[job], "frees")
            at(now + trip / 2, "answers", (job, sent_at, accepted, now))
        elif what == "answers":
            job, sent_at, accepted, began = data
            submitting -= 1
            if accepted:
                in_flight += 1
                slots.on_accepted(now)
                age = now - began
                at(now + policy.next_delay(PollContext("a", age, 0), chance.random()), "poll", [job, began, age, 0])
            else:
                refused += 1
                ready.append(job)
                slots.on_rejected(in_flight, sent_at, now)
        elif what == "frees":
            held -= 1
        elif what == "poll":
            job, began, last_unsettled_age, polls = data
            age = now - began
            if age >= plan[job]:
                in_flight -= 1
                seen += 1
                policy.observe(DurationSample("a", last_unsettled_age, age), last_unsettled_age)
                slots.on_settled(began + last_unsettled_age, now)
            else:
                wait = policy.next_delay(PollContext("a", age, polls + 1, None, last_unsettled_age), chance.random())
                at(now + wait, "poll", [job, began, age, polls + 1])
        submit(now)
    return Filled(now, list_schedule(plan, room), refused / jobs)
