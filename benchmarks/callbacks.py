"""Savings by callbacks: the same jobs without callbacks, with all of them, with 30 % lost, and with all lost.

    python benchmarks/callbacks.py [JOBS]

The four modes run concurrently. Each is a whole client in a separate process, with its own emulator in another process.
All draw the same durations: lognormal, 15 s in the median, sigma 0.5. The first table is a cold batch of JOBS at once,
whose policy knows only the median; the second is a steady flow of JOBS, 50 in flight, of another cold client. Callbacks
are sent over sockets to the client's own receiver.

A delay runs from the settle time in the ledger until the client has read the answer that reported it (`Job.settled_at`,
in whole milliseconds). CPU is that of the client's process from opening to closing, with its receiver. The makespan is
the time from the start until the last job was found settled. The 2 s grace for a callback and the limit of one poll in
5 s are not scaled: relative to tasks of a minute, both weigh four times less than here.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean, quantiles
from typing import Any

from gateway import run_server

from pika_async import AdaptivePolling, CallbackReceiver, JobStatus, Limits, PikaClient

MEDIAN_S = 15.0
SIGMA = 0.5
#: Jobs in flight in the steady flow.
FLOW_IN_FLIGHT = 50
#: Fraction of the callbacks that is lost; None: the client has no receiver.
MODES: dict[str, float | None] = {"no callbacks": None, "callbacks": 0.0, "30 % lost": 0.3, "all lost": 1.0}


def free_port() -> int:
    """Return an unused port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def run_batch(url: str, key: str, count: int, in_flight: int, *, callbacks: bool) -> dict[str, Any]:
    """Run *count* jobs, at most *in_flight* at a time, and return a row for each and the CPU seconds."""
    port = free_port()
    receiver = CallbackReceiver(f"http://127.0.0.1:{port}", port=port) if callbacks else None
    limits = Limits(max_in_flight=in_flight, submitting=16)
    policy = AdaptivePolling(expected_seconds=MEDIAN_S)
    rows = []
    clock_offset = time.time() - time.monotonic()
    started, cpu = time.monotonic(), time.process_time()
    async with PikaClient(
        "cometapi", api_key=key, base_url=url, polling=policy, limits=limits, callbacks=receiver
    ) as pika:

        async def prompts() -> AsyncIterator[str]:
            for number in range(count):
                yield f"job {number}"

        async for job in pika.as_settled(prompts()):
            assert job.status is JobStatus.SUCCEEDED, job
            assert job.settled_at is not None
            rows.append((job.request.prompt, job.task_id, job.settled_at.timestamp() - clock_offset, job.polls))
    return {"rows": rows, "started": started, "cpu": time.process_time() - cpu}


def measure(mode: str, count: int, in_flight: int) -> tuple[float, ...]:
    """Return polls per job, delay (mean, median, 95 %), makespan and CPU per job in ms.

    :raises AssertionError: if a job did not settle exactly once, or has not exactly one charge.
    """
    lost = MODES[mode]
    script = [{"on": "callback", "share": lost, "do": "lost"}] if lost else []
    with run_server(durations=f"lognormal:{MEDIAN_S},{SIGMA}", seed=1, scenario=script, provider="cometapi") as server:
        arguments = json.dumps([server.url, server.key, count, in_flight, lost is not None])
        command = [sys.executable, __file__, "batch", arguments]
        result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        ledger = server.ledger()
    rows = result["rows"]
    charges = {charge.prompt: charge for charge in ledger}
    assert Counter(row[0] for row in rows) == Counter(charge.prompt for charge in ledger)
    assert len(charges) == len(ledger) == count
    assert all(charges[prompt].task_id == task_id for prompt, task_id, _, _ in rows)
    delays = [settled_at - charges[prompt].settles_at for prompt, _, settled_at, _ in rows]
    percentiles = quantiles(delays, n=20)
    return (
        fmean(row[3] for row in rows),
        fmean(delays),
        percentiles[9],
        percentiles[18],
        max(row[2] for row in rows) - result["started"],
        1e3 * result["cpu"] / count,
    )


def print_table(title: str, count: int, in_flight: int) -> None:
    """Run the four modes concurrently and print a row for each."""
    with ThreadPoolExecutor(len(MODES)) as pool:
        futures = {mode: pool.submit(measure, mode, count, in_flight) for mode in MODES}
        results = {mode: future.result() for mode, future in futures.items()}
    print(f"\n{title}; every job settled once and has one charge; in brackets: relative to no callbacks")
    header = "| | polls per job | mean delay | half within | 95 % within | makespan | CPU per job |"
    print(f"{header}\n|---{'|---' * 6}|")
    for mode, row in results.items():
        ratios = [value / base for value, base in zip(row, results["no callbacks"], strict=True)]
        units = ["", " s", " s", " s", " s", " ms"]
        cells = [
            f"{value:.{2 if unit != ' ms' else 1}f}{unit} ({ratio:.2f})"
            for value, unit, ratio in zip(row, units, ratios, strict=True)
        ]
        print(f"| {mode} | {' | '.join(cells)} |", flush=True)


def main(count: int) -> None:
    """Print both tables."""
    print(f"tasks lognormal, {MEDIAN_S:.0f} s in the median, sigma {SIGMA}; four concurrent rows, the same durations")
    print_table(f"a cold batch, {count} at once", count, count)
    print_table(f"a steady flow, {count} jobs, {FLOW_IN_FLIGHT} in flight", count, FLOW_IN_FLIGHT)


if __name__ == "__main__":
    if sys.argv[1:2] == ["batch"]:
        url, key, count, in_flight, callbacks = json.loads(sys.argv[2])
        print(json.dumps(asyncio.run(run_batch(url, key, count, in_flight, callbacks=callbacks))))
    else:
        main(*map(int, sys.argv[1:] or ["200"]))
