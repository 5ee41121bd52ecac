"""Tables of the polling policy in virtual time, beside its theoretical bound and other libraries.

    python benchmarks/simulate.py [steady] [known] [peers] [progress] [queue] [drift] [cold] ...

Pure Python, one process, a few minutes for all. A ratio of polls is always against the best fixed interval that an
oracle finds on the same jobs for the same mean delay: below 1 is better. Each figure is the median of five seeds, with
its range.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from random import Random

import attrs
from accounts import fill
from budgets import Known, delay_ratio
from shapes import PROGRESS, QUEUES, SHAPES, Durations, drift, lognormal
from waiting import Costs, Outcome, best_fixed, fixed, follow, known_in_full, optimum, run

from pika_async.polling import AdaptivePolling, Distribution, DurationSample, Schedule

#: No constant of the policy was tuned on these.
SEEDS = (31, 415, 9_265, 35_897, 932_384)
#: Number of jobs that settle before the policy counts as steady.
WARM = 500


def median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):6.3f}  ({min(values):.3f} to {max(values):.3f})"


def ratio(jobs: Sequence[Outcome]) -> float:
    costs = Costs.of(jobs)
    return costs.polls / best_fixed(jobs, costs.delay)


def steady() -> None:
    """Learned online, 2,000 jobs over 200 slots."""
    print(f"{'':16}{'polls':>7}{'delay':>7}  {'ratio, seen by polls':26}{'ratio, exact settles':26}{'known F':>8}")
    for name, durations in SHAPES.items():
        seen, exact, best, polls, delays = [], [], [], [], []
        truth = known_in_full(durations) if name != "constant" else None
        for seed in SEEDS:
            jobs = run(AdaptivePolling(), durations, seed=seed)[WARM:]
            costs = Costs.of(jobs)
            seen.append(ratio(jobs))
            polls.append(costs.polls)
            delays.append(costs.delay)
            exact.append(ratio(run(AdaptivePolling(), durations, seed=seed, exact=True)[WARM:]))
            if truth is not None and seed in SEEDS[:2]:
                best.append(optimum(jobs, truth, costs.delay) / best_fixed(jobs, costs.delay))
        known = f"{statistics.median(best):8.3f}" if best else "       -"
        print(
            f"{name:16}{statistics.median(polls):7.2f}{statistics.median(delays):7.2f}  {median(seen):26}"
            f"{median(exact):26}{known}"
        )


def known() -> None:
    """The schedule alone, for a distribution that is known, at three weights."""
    for name, durations in SHAPES.items():
        if name == "constant":
            continue
        random = Random(5)
        jobs = [Outcome(durations(i, random)) for i in range(4000)]
        truth = known_in_full(durations)
        cells = []
        for weight in (50, 200, 800):
            began = time.perf_counter()
            schedule = Schedule.of(truth, weight / 60)
            took = time.perf_counter() - began
            polls, delay = follow(jobs, schedule.after)
            against = polls / best_fixed(jobs, delay)
            cells.append(f"{weight}: {polls:5.2f} polls {delay:5.2f} s {against:.3f} {1e3 * took:.1f} ms")
        print(f"{name:16}", " | ".join(cells))


def peers() -> None:
    """The settings that other libraries ship with, on jobs of a minute (sigma 0.5)."""
    durations = lognormal(60, 0.5)
    random = Random(7)
    jobs = [Outcome(durations(i, random)) for i in range(4000)]
    for name, interval in (("fal 0.1 s", 0.1), ("replicate 0.5 s", 0.5), ("openai 1 s", 1.0), ("comfy 5 s", 5.0)):
        polls, delay = fixed(jobs, interval)
        print(f"{name:28}{polls:8.1f} polls {delay:6.2f} s delay")
    draws: dict[str, Callable[[int], float]] = {
        "runway 6 +- 1.5 s": lambda _polls: random.uniform(4.5, 7.5),
        "backoff, full jitter, cap 60": lambda count: random.uniform(0, min(60.0, 2.0 ** min(count, 9))),
    }
    for name, draw in draws.items():
        polls = delay = 0.0
        for job in jobs:
            age, count = 0.0, 0
            while age < job.duration:
                age += draw(count)
                count += 1
            polls += count
            delay += age - job.duration
        print(f"{name:28}{polls / len(jobs):8.1f} polls {delay / len(jobs):6.2f} s delay")
    costs = Costs.of(run(AdaptivePolling(), durations)[WARM:])
    print(f"{'SDK':28}{costs.polls:8.1f} polls {costs.delay:6.2f} s delay, 99 % within {costs.worst:.1f} s")


def known_error(durations: Durations, seed: int) -> float:
    """Return the ratio of one poll, then the best schedule for a minute known but for 10 %: about what noise allows."""
    jobs = run(AdaptivePolling(), durations, seed=seed, progress=PROGRESS["noisy"])[WARM:]
    delay = Costs.of(jobs).delay
    truth = Distribution.lognormal(60, 0.1)
    random = Random(seed)
    alike = [Outcome(60 * math.exp(0.1 * random.gauss(0, 1))) for _ in jobs]
    return (1 + optimum(alike, truth, delay)) / best_fixed(jobs, delay)


def progress() -> None:
    """With progress: the ratio, and the same over the ratio without; what a known error of 10 % would give."""
    for name in ("lognormal 0.5", "lognormal 1.0", "bimodal"):
        plain = [ratio(run(AdaptivePolling(), SHAPES[name], seed=seed)[WARM:]) for seed in SEEDS]
        print(f"{name:16}{'none':14}{median(plain)}")
        for shape, report in PROGRESS.items():
            found = [ratio(run(AdaptivePolling(), SHAPES[name], seed=seed, progress=report)[WARM:]) for seed in SEEDS]
            against = [a / b for a, b in zip(found, plain, strict=True)]
            if shape == "noisy":
                print(f"{'':16}{'10 %, known':14}{median([known_error(SHAPES[name], seed) for seed in SEEDS])}")
            print(f"{'':16}{shape:14}{median(found):28} against none {median(against)}")


def queue() -> None:
    """A queue of random length before a generation of a minute (sigma 0.25), reported or hidden."""
    for name, queues in QUEUES.items():
        shape = SHAPES["lognormal 0.25"]
        hidden, reported = (
            [
                ratio(run(AdaptivePolling(), shape, seed=seed, queues=queues, reports_queue=reports)[WARM:])
                for seed in SEEDS
            ]
            for reports in (False, True)
        )
        against = [a / b for a, b in zip(reported, hidden, strict=True)]
        print(
            f"{name:18} hidden {median(hidden)} reported {median(reported)} against hidden {median(against)}",
            flush=True,
        )
    for name in ("lognormal 0.25", "lognormal 1.0", "bimodal", "exponential"):
        hidden, reported = (
            [ratio(run(AdaptivePolling(), SHAPES[name], seed=seed, progress=progress)[WARM:]) for seed in SEEDS]
            for progress in (None, PROGRESS["stuck at 0"])
        )
        against = [a / b for a, b in zip(reported, hidden, strict=True)]
        print(f'{name:18} always reported as "queued", against hidden {median(against)}', flush=True)


def drifts() -> None:
    """The median doubles or halves after 1,000 of 2,000 jobs; the best interval is one for all 2,000."""
    for sigma in (0.25, 0.5):
        for name, first, then in (("doubles", 60, 120), ("halves", 120, 60), ("halves", 60, 30)):
            cells = [
                median([ratio(run(AdaptivePolling(), shape, seed=seed, exact=exact)) for seed in SEEDS])
                for shape in (drift(first, then, sigma, 1000),)
                for exact in (False, True)
            ]
            print(f"sigma {sigma}: {first} s {name:8} {cells[0]:28} exact settles {cells[1]}")


def cold() -> None:
    """All at once: nothing known, then with 256 of an earlier batch. Makespan: last found settled over last settled."""
    for name in ("lognormal 0.25", "lognormal 0.5", "lognormal 1.0", "bimodal", "exponential"):
        for count in (500, 10_000):
            cells = []
            for prior in (False, True):
                ratios, spans = [], []
                for seed in SEEDS[: 5 if count < 1000 else 2]:
                    policy = AdaptivePolling()
                    if prior:
                        random = Random(seed + 7)
                        for i in range(256):
                            length = SHAPES[name](i, random)
                            policy.observe(DurationSample("a", 0.96 * length, 1.04 * length))
                    jobs = run(policy, SHAPES[name], jobs=count, slots=None, seed=seed)
                    ratios.append(ratio(jobs))
                    last = max(jobs, key=lambda job: job.duration + job.delay)
                    spans.append((last.duration + last.delay) / max(job.duration for job in jobs))
                cells.append(f"{median(ratios)} makespan {statistics.median(spans):.3f}")
            print(f"{name:16}{count:6} cold {cells[0]:48} with priors {cells[1]}", flush=True)


def mixed() -> None:
    """Three models at once, each a stratum of its own, then all in one stratum."""
    shapes = (lognormal(20, 0.3), lognormal(60, 0.3), lognormal(240, 0.3))

    def durations(i: int, random: Random) -> float:
        return shapes[i % 3](i, random)

    for name, strata in (("apart", lambda i: "abc"[i % 3]), ("in one", lambda _: "a")):
        found = [ratio(run(AdaptivePolling(), durations, seed=seed, strata=strata)[WARM:]) for seed in SEEDS]
        print(f"three models {name:8}{median(found)}")


def budget() -> None:
    """Mean delay at equal rates of polls, by priority over in turn; learned online."""
    three = {"quick": lognormal(20, 0.3), "usual": lognormal(60, 0.3), "slow": lognormal(240, 0.3)}
    cases: list[tuple[str, dict[str, Durations], bool]] = [
        ("three models", three, False),
        ("bimodal", {"a": SHAPES["bimodal"]}, False),
        ("sigma 0.5", {"a": SHAPES["lognormal 0.5"]}, False),
        ("sigma 0.5 at once", {"a": SHAPES["lognormal 0.5"]}, True),
    ]
    for name, shapes, at_once in cases:
        for rate in (10, 30):
            found = [delay_ratio(shapes, rate=rate, seed=seed, at_once=at_once) for seed in SEEDS]
            known = delay_ratio(shapes, rate=rate, seed=SEEDS[0], at_once=at_once, policy=Known(shapes))
            print(f"{name:20}{rate:4} polls/s {median(found)} with known durations {known:.3f}", flush=True)


def slots() -> None:
    """An account of K slots, 10 K jobs or more; list scheduling with known slot times is the bound."""
    for name in ("constant", "lognormal 0.25", "lognormal 0.5", "lognormal 1.0", "bimodal"):
        for room, count in ((5, 200), (20, 400), (50, 1000), (200, 2000)):
            found = [fill(SHAPES[name], jobs=count, room=room, seed=seed) for seed in SEEDS]
            refusals = statistics.median([each.refusals for each in found])
            spans = median([each.ratio for each in found])
            print(f"{name:16} K {room:4} makespan {spans} refusals a job {refusals:.2f}", flush=True)


@attrs.define
class _Timed:
    """A policy with the time spent in it."""

    policy: AdaptivePolling
    spent: float = 0.0
    waits: int = 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self.policy, name)

        def timed(*args: object) -> object:
            began = time.perf_counter()
            try:
                return method(*args)
            finally:
                self.spent += time.perf_counter() - began
                self.waits += name == "next_delay"

        return timed


def cpu() -> None:
    """Time in the policy for each poll, everything included, the least of three runs; contains one timer call."""
    for count, room in ((2000, 200), (20_000, 10_000), (100_000, None)):
        least = min(
            1e6 * timed.spent / timed.waits
            for timed in (_Timed(AdaptivePolling()) for _ in range(3 if count < 50_000 else 1))
            if run(timed, SHAPES["lognormal 0.5"], jobs=count, slots=room)  # type: ignore[arg-type]
        )
        print(f"{count:7} jobs, {room or count:7} in flight: {least:.2f} us a poll")


TABLES: dict[str, Callable[[], None]] = {
    "steady": steady, "known": known, "peers": peers, "progress": progress, "queue": queue, "drift": drifts,
    "cold": cold, "mixed": mixed, "budget": budget, "slots": slots, "cpu": cpu,
}  # fmt: skip

if __name__ == "__main__":
    for chosen in sys.argv[1:] or TABLES:
        print(f"\n== {chosen}: {TABLES[chosen].__doc__}", flush=True)
        TABLES[chosen]()
