"""Estimates against what happened: charges, points and seconds of batches on the emulator, after one was learned.

python benchmarks/estimates.py [RUNS] [JOBS]
"""

from __future__ import annotations

import asyncio
import sys
import time

import attrs

from pika_async import AdaptivePolling, Estimate, Limits, PikaClient
from pika_async.emulator import Emulator

#: Jobs of the batch that is learned from.
LEARNED = 60
#: Median duration in seconds: 60 s of the emulator, shortened.
MEDIAN = 3.0
KEY = "benchmark"


@attrs.frozen
class Outcome:
    """An estimate, and what happened then."""

    estimate: Estimate
    seconds: float
    charges: int
    points: float


async def measure(seed: int, jobs: int, rooms: int | None) -> Outcome:
    """Learn one batch, estimate the next, and run it."""
    emulator = Emulator(
        api_key=KEY, render=False, durations="lognormal:60,0.5", time_scale=MEDIAN / 60, seed=seed
    )  # fmt: skip
    async with emulator:
        client = PikaClient(
            "cometapi", api_key=KEY, base_url=emulator.base_url("cometapi"), limits=Limits(max_in_flight=rooms),
            polling=AdaptivePolling(expected_seconds=MEDIAN),
        )  # fmt: skip
        async with client as pika:
            await pika.run([f"learned {number}" for number in range(LEARNED)])
            prompts = [f"prompt {number}" for number in range(jobs)]
            charges, estimate, begun = len(emulator.ledger), await pika.estimate(prompts), time.monotonic()
            report = await pika.run(prompts)
            points = sum(job.points or 0.0 for job in report.jobs)
            return Outcome(estimate, time.monotonic() - begun, len(emulator.ledger) - charges, points)


async def main(runs: int, jobs: int) -> None:
    """Print a table, with a row for each number of rooms."""
    print("| rooms | charges exact | points, largest error | seconds inside the range | median range | median |")
    print("|---|---|---|---|---|---|")
    for rooms in (None, 15):
        done = await asyncio.gather(*(measure(seed, jobs, rooms) for seed in range(runs)))
        exact = sum(one.estimate.new_charges == one.charges for one in done)
        error = max(abs((one.estimate.money or 0.0) / one.points - 1) for one in done)
        inside = sum(one.estimate.seconds[0] <= one.seconds <= one.estimate.seconds[1] for one in done)
        low, high, real = (
            sorted(values)[runs // 2]
            for values in zip(*((*one.estimate.seconds, one.seconds) for one in done), strict=True)
        )
        print(
            f"| {rooms or 'free'} | {exact} of {runs} | {error:.2%} | {inside} of {runs} | {low:.1f} to {high:.1f} s "
            f"| {real:.1f} s |"
        )


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*(arguments + [10, 60][len(arguments) :])))
