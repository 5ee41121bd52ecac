"""Makespan of a batch over four accounts of which three fail, over list scheduling on the rooms that were left.

    python benchmarks/failover.py [JOBS] [ROOM] [SEEDS]

Virtual time, in memory, about five seconds a seed; run from the repository. One gateway is cut off from a tenth of the
jobs on, one has a balance for an eighth, one has no channel for half of its submissions. The bound gives each task of
the three that live, in the order of acceptance and with its own duration, to the place that is free first. The broke
one has places for as many tasks as its balance pays for.
"""

from __future__ import annotations

import heapq
import random
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the transport in memory is that of the tests

from pika_async import Account, BatchReport, GenerationRequest, Limits, PikaClient
from pika_async.emulator import Gateway, Scenario
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport

NAMES = ("cometapi", "native", "yescale", "gptge")


def run(jobs: int, room: int, seed: int) -> tuple[Gateway, BatchReport]:
    """Run one batch, and return the gateway with its ledger."""
    random.seed(seed)
    rules: list[dict[str, Any]] = [
        {"on": "create", "provider": "cometapi", "nth": jobs // 10, "do": "die"},
        {"on": "create", "provider": "yescale", "after": jobs // 8, "do": {"fault": "refuse", "as": "quota"}},
        {"on": "create", "provider": "gptge", "share": 0.5, "do": {"fault": "refuse", "as": "no-channel"}},
    ]
    at = Gateway(durations="lognormal:60,0.5", seed=seed, scenario=Scenario.of(rules))

    async def main() -> BatchReport:
        accounts = [Account(name, base_url=f"{ORIGIN}/{name}", max_in_flight=room) for name in NAMES]
        options: dict[str, Any] = {"transport": MemoryTransport(at), "limits": Limits(submitting=16), "deadline": 900.0}
        async with PikaClient(accounts, **options) as pika:
            return await pika.run([GenerationRequest(f"p{number}", key=f"k{number}") for number in range(jobs)])

    return at, virtual_clock.run(main())


def bound(at: Gateway, room: int, balance: int) -> float:
    """Return the end of list scheduling of the tasks of the living: each place takes the next one once it is free."""
    tasks = [charge.settles_at - charge.charged_at for charge in at.ledger if charge.provider != "cometapi"]
    places = [(0.0, name) for name in NAMES[1:] for _ in range(room)]
    heapq.heapify(places)
    left, end = {"yescale": balance}, 0.0
    for seconds in tasks:
        free, name = heapq.heappop(places)
        while left.get(name, 1) < 1:
            free, name = heapq.heappop(places)
        if name in left:
            left[name] -= 1
        heapq.heappush(places, (free + seconds, name))
        end = max(end, free + seconds)
    return end


def main() -> None:
    jobs, room, seeds = map(int, (sys.argv[1:] + ["600", "25", "5"][len(sys.argv) - 1 :])[:3])
    ratios = []
    for seed in range(seeds):
        at, report = run(jobs, room, seed)
        charged = Counter(charge.prompt for charge in at.ledger)
        assert max(charged.values()) == 1
        living = [charge for charge in at.ledger if charge.provider != "cometapi"]
        took = max(charge.settles_at for charge in living) - min(charge.charged_at for charge in at.ledger)
        best = bound(at, room, jobs // 8)
        ratios.append(took / best)
        found = dict(Counter(job.status.value for job in report.jobs))
        print(f"seed {seed}: {took:7.1f} s, bound {best:7.1f} s, ratio {took / best:.3f}; {found}")
    print(f"ratio: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
