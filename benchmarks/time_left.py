"""Time left of running batches against what it took, in virtual time.

    python benchmarks/time_left.py [SEEDS]

Durations are lognormal with sigma 0.5 and a median of 60 s; nothing is known of them before a batch but an expectation.
From the moment at which a tenth of the jobs has settled, after every settled job, the range is compared with the time
that the rest of the batch took. A batch is measured against the end of the range that it missed: 1 is inside.
"""

from __future__ import annotations

import heapq
import math
import statistics
import sys
import time
from collections.abc import Iterator
from random import Random

import attrs

from pika_async._planning.time_left import Remaining, Stratum, time_left

MEDIAN = 60.0
SIGMA = 0.5
#: A settled task is found settled later than it has by up to this share of its duration.
LATE = 0.1
#: Jobs, and tasks in flight at a time.
BATCHES = ((40, 40), (200, 200), (1000, 1000), (40, 5), (200, 20), (200, 60), (500, 200), (1000, 50))
#: Medians that were expected, in seconds.
EXPECTED = (20.0, 60.0, 180.0)
#: States of a batch that are compared.
STATES = 40
#: While less than this share of the batch's time is left, the error counts as a share of that time instead.
END = 0.05


@attrs.frozen
class State:
    """A range, the time that the rest took, and that of the whole batch."""

    low: float
    high: float
    real: float
    whole: float

    @property
    def is_end(self) -> bool:
        """Whether hardly anything is left."""
        return self.real < END * self.whole

    @property
    def error(self) -> float:
        """Seconds by which the range was missed, as a share of the batch's."""
        return max(0.0, self.low - self.real, self.real - self.high) / self.whole

    @property
    def outside(self) -> float:
        """The factor by which the range was missed; 1 inside."""
        return max(1.0, self.real / self.high, self.low / self.real)


def states(jobs: int, rooms: int, expected: float, seed: int) -> Iterator[State]:
    """Run a batch; yield what is seen of it after settled jobs, from a tenth on."""
    random = Random(seed)
    durations = [MEDIAN * math.exp(random.gauss(0, SIGMA)) * (1 + random.uniform(0, LATE)) for _ in range(jobs)]
    running: list[tuple[float, float]] = []
    begun = 0
    for begun in range(min(jobs, rooms)):
        heapq.heappush(running, (durations[begun], 0.0))
    begun += 1
    seen, settled = [], []
    while running:
        now, accepted = heapq.heappop(running)
        settled.append(now - accepted)
        if begun < jobs:
            heapq.heappush(running, (now + durations[begun], now))
            begun += 1
        if running:
            seen.append((now, len(settled), [now - at for _, at in running], jobs - begun))
    end = now
    first = max(1, math.ceil(jobs / 10))
    seen = seen[first - 1 :]
    for now, count, ages, planned in seen[:: max(1, len(seen) // STATES)]:
        known = Stratum(settled=settled[:count], ages=ages, planned=planned)
        rest = Remaining(strata={"a": known}, rooms=rooms, expected=expected, longest=1800.0)
        low, high = time_left(rest)
        yield State(low, high, end - now, end)


def main(seeds: int) -> None:
    """Print a table, with a row for each batch and expectation."""
    print("| jobs | at a time | expected | inside | high over low | worst factor outside | worst error at the end |")
    print("|---|---|---|---|---|---|---|")
    began, count, worst = time.process_time(), 0, 1.0
    for jobs, rooms in BATCHES:
        for expected in EXPECTED:
            found = [state for seed in range(seeds) for state in states(jobs, rooms, expected, seed)]
            count += len(found)
            outside = max(state.outside for state in found if not state.is_end)
            worst = max(worst, outside)
            inside = sum(state.outside == 1 for state in found) / len(found)
            width = statistics.median(state.high / state.low for state in found)
            end = max((state.error for state in found if state.is_end), default=0.0)
            print(f"| {jobs} | {rooms} | {expected:.0f} s | {inside:.0%} | {width:.1f} | {outside:.2f} | {end:.0%} |")
    cpu = 1000 * (time.process_time() - began) / count
    print(f"worst of all {worst:.2f}; {cpu:.1f} ms of CPU for each range")


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["20"])[0]))
