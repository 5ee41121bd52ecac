"""An account that holds K tasks and refuses more, filled by `Slots`, beside list scheduling; in virtual time."""

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
    """When the last settles if each free slot takes the next at once (Graham, 1966)."""
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
    abreast: int = 8,
    slots: AdaptiveConcurrency | None = None,
    policy: Any = None,
) -> Filled:
    """All jobs through an account with `room` slots; a call's answer takes `trip` seconds, half of it each way."""
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
        while ready and submitting < abreast and slots.has_capacity(in_flight, submitting):
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
                at(now + policy.next_delay(PollContext("a", age, 0), chance.random()), "look", [job, began, age, 0])
            else:
                refused += 1
                ready.append(job)
                slots.on_rejected(in_flight, sent_at, now)
        elif what == "frees":
            held -= 1
        elif what == "look":
            job, began, looked, looks = data
            age = now - began
            if age >= plan[job]:
                in_flight -= 1
                seen += 1
                policy.observe(DurationSample("a", looked, age), looked)
                slots.on_settled(began + looked, now)
            else:
                wait = policy.next_delay(PollContext("a", age, looks + 1, None, looked), chance.random())
                at(now + wait, "look", [job, began, age, looks + 1])
        submit(now)
    return Filled(now, list_schedule(plan, room), refused / jobs)
