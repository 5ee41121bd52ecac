"""What callbacks save: the same jobs without them, with them, with 30 % of them lost, and with all of them lost.

    python benchmarks/callbacks.py [JOBS]

The four run side by side, each a whole client in a process of its own against an emulator of its own (another
process) that draws the same durations for all: lognormal, 15 s in the median, sigma 0.5. First a cold batch of JOBS
at once, whose policy knows nothing but the median; then a steady flow of JOBS, 50 in flight, of a client that knows
nothing either. Callbacks come over sockets to the client's own receiver.

A delay runs from the ledger's settle time to the moment at which the client had read the answer that told of it
(`Job.settled_at`, whole milliseconds). CPU is the client's process from opening to closing, its receiver included. The
makespan runs from the start to the last job that was seen settled. That a callback is taken to be under way for 2 s,
and that it causes one look in 5 s, is not scaled: against tasks of a minute both weigh four times less than here.
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

from gateway import watched

from pika_async import AdaptivePolling, CallbackReceiver, JobStatus, Limits, PikaClient

MEDIAN, SIGMA = 15.0, 0.5
#: Jobs in flight in the steady flow.
FLOW = 50
#: The share of callbacks that is lost; None: nobody listens.
MODES: dict[str, float | None] = {"no callbacks": None, "callbacks": 0.0, "30 % lost": 0.3, "all lost": 1.0}


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def batch(url: str, key: str, count: int, at_once: int, *, listens: bool) -> dict[str, Any]:
    """`count` jobs, never more than `at_once` in flight."""
    port = free_port()
    receiver = CallbackReceiver(f"http://127.0.0.1:{port}", port=port) if listens else None
    room = Limits(max_in_flight=at_once, submitting=16)
    policy = AdaptivePolling(expected_seconds=MEDIAN)
    rows = []
    apart = time.time() - time.monotonic()
    began, cpu = time.monotonic(), time.process_time()
    async with PikaClient(
        "cometapi", api_key=key, base_url=url, polling=policy, limits=room, callbacks=receiver
    ) as pika:

        async def prompts() -> AsyncIterator[str]:
            for number in range(count):
                yield f"job {number}"

        async for job in pika.as_settled(prompts()):
            assert job.status is JobStatus.SUCCEEDED, job
            assert job.settled_at is not None
            rows.append((job.request.prompt, job.task_id, job.settled_at.timestamp() - apart, job.polls))
    return {"rows": rows, "began": began, "cpu": time.process_time() - cpu}


def measure(mode: str, count: int, at_once: int) -> tuple[float, ...]:
    """Polls a job; delay: mean, half, 95 %; makespan; CPU a job in ms.

    :raises AssertionError: if a job was not settled once, or its charge is not the only one.
    """
    lost = MODES[mode]
    script = [{"on": "callback", "share": lost, "do": "lost"}] if lost else []
    with watched(durations=f"lognormal:{MEDIAN},{SIGMA}", seed=1, scenario=script, provider="cometapi") as server:
        given = json.dumps([server.url, server.key, count, at_once, lost is not None])
        command = [sys.executable, __file__, "batch", given]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        ledger = server.ledger()
    charges = {charge.prompt: charge for charge in ledger}
    assert Counter(row[0] for row in found["rows"]) == Counter(charge.prompt for charge in ledger)
    assert len(charges) == len(ledger) == count
    assert all(charges[prompt].task_id == task for prompt, task, _, _ in found["rows"])
    delays = [seen - charges[prompt].settles_at for prompt, _, seen, _ in found["rows"]]
    shares = quantiles(delays, n=20)
    return (
        fmean(row[3] for row in found["rows"]),
        fmean(delays),
        shares[9],
        shares[18],
        max(row[2] for row in found["rows"]) - found["began"],
        1e3 * found["cpu"] / count,
    )


def table(title: str, count: int, at_once: int) -> None:
    """All four side by side."""
    with ThreadPoolExecutor(len(MODES)) as pool:
        running = {mode: pool.submit(measure, mode, count, at_once) for mode in MODES}
        found = {mode: each.result() for mode, each in running.items()}
    print(f"\n{title}; every job settled once, charged once; in brackets over no callbacks")
    print("| | polls a job | mean delay | half within | 95 % within | makespan | CPU a job |\n|---" + "|---" * 6 + "|")
    for mode, row in found.items():
        ratios = [value / base for value, base in zip(row, found["no callbacks"], strict=True)]
        units = ["", " s", " s", " s", " s", " ms"]
        cells = [
            f"{value:.{2 if unit != ' ms' else 1}f}{unit} ({ratio:.2f})"
            for value, unit, ratio in zip(row, units, ratios, strict=True)
        ]
        print(f"| {mode} | {' | '.join(cells)} |", flush=True)


def main(count: int) -> None:
    """Both tables."""
    print(
        f"tasks lognormal, {MEDIAN:.0f} s in the median, sigma {SIGMA}; the four rows side by side, the same durations"
    )
    table(f"a cold batch, {count} at once", count, count)
    table(f"a steady flow, {count} jobs, {FLOW} in flight", count, FLOW)


if __name__ == "__main__":
    if sys.argv[1:2] == ["batch"]:
        url, key, count, at_once, listens = json.loads(sys.argv[2])
        print(json.dumps(asyncio.run(batch(url, key, count, at_once, listens=listens))))
    else:
        main(*map(int, sys.argv[1:] or ["200"]))
