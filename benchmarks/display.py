"""CPU of the terminal display of `batch`, beside the same batch without it.

    python benchmarks/display.py [JOBS] [ROUNDS]

Each round runs `batch` on JOBS requests (default 10,000) twice, in a process of its own on a terminal of 80 columns
that is read all the time: with the display and without it, the order changing from round to round. Both have the
gallery, downloads are off, and the emulator is another process. Two figures come of it: the CPU of the steps of the
display's own task and of its forecasts, over that of the batch, and the CPU of the batch with the display over that
without. The second holds everything, noise too. The bound is 3 %.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Generator
from pathlib import Path
from types import coroutine
from typing import Any

from cpu_meter import CpuMeter
from gateway import Server, run_server

from pika_async.__main__ import main as run_command
from pika_async._planning.time_left import time_left
from pika_async.cli import forecast
from pika_async.cli.progress import ProgressDisplay

BOUND = 0.03
#: Durations of the generations in seconds: a batch of 10,000 takes a minute or two.
DURATIONS = "lognormal:20,0.5"


@coroutine
def each_step(meter: CpuMeter, work: Awaitable[None]) -> Generator[Any, Any, None]:
    """Await `work`, counting in `meter` its own steps and not those of other tasks between them."""
    steps = work.__await__()
    step, value = meter.timed(steps.send), None
    while True:
        try:
            found = step(value)
        except StopIteration:
            return
        try:
            value = yield found
        except BaseException as error:
            step, value = meter.timed(steps.throw), error
        else:
            step = meter.timed(steps.send)


def run_child(argv: list[str], report: Path, *, display: bool) -> None:
    """Run the command in this process, and write what its display cost."""
    updates, forecasts = CpuMeter(), CpuMeter()
    update_live = ProgressDisplay._update_live
    ProgressDisplay._update_live = lambda self, live: each_step(updates, update_live(self, live))  # type: ignore[method-assign]
    forecast.time_left = forecasts.timed(time_left)  # type: ignore[attr-defined]
    if not display:
        ProgressDisplay.__aenter__ = lambda self: asyncio.sleep(0, self)  # type: ignore[method-assign]
    started, cpu = time.monotonic(), time.process_time()
    code = run_command(argv)
    figures = {
        "code": code, "seconds": time.monotonic() - started, "cpu": time.process_time() - cpu,
        "updates": sum(updates.seconds), "forecasts": sum(forecasts.seconds), "forecast_count": len(forecasts.seconds),
    }  # fmt: skip
    report.write_text(json.dumps(figures))


def run_batch(folder: Path, server: Server, *, display: bool) -> dict[str, float]:
    """Run the batch once on a terminal that is read; return its figures."""
    out, report = folder / f"out-{time.monotonic_ns()}", folder / "report.json"
    argv = ["batch", str(folder / "input.jsonl"), "--out", str(out), "--no-download", "--yes", "--provider", "native"]
    argv += ["--base-url", server.url, "--expected-seconds", "20"]
    leader, follower = pty.openpty()
    environment = {**os.environ, "PIKA_API_KEY": server.key, "TERM": "xterm-256color", "COLUMNS": "80"}
    command = [sys.executable, __file__, "child", str(report), "display" if display else "none", *argv]
    reader = threading.Thread(target=drain, args=[leader])
    with subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        reader.start()
        process.wait()
    reader.join()
    os.close(leader)
    figures: dict[str, float] = json.loads(report.read_text())
    assert figures["code"] == 0, "the batch failed"
    return figures


def drain(leader: int) -> None:
    """Read a terminal until nothing writes to it any more."""
    while True:
        try:
            if not os.read(leader, 65_536):
                return
        except OSError:
            return


def main(jobs: int, rounds: int) -> None:
    """Run all rounds and print a row for each figure."""
    shown: list[dict[str, float]] = []
    plain: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        lines = (json.dumps({"key": f"job-{number:05d}", "prompt": f"take {number}"}) for number in range(jobs))
        (folder / "input.jsonl").write_text("\n".join(lines), encoding="utf-8")
        for number in range(rounds):
            for display in (True, False) if number % 2 == 0 else (False, True):
                with run_server(durations=DURATIONS) as server:
                    (shown if display else plain).append(run_batch(folder, server, display=display))
    shares = [(one["updates"] + one["forecasts"]) / one["cpu"] for one in shown]
    with_display = statistics.median(one["cpu"] for one in shown)
    without = statistics.median(one["cpu"] for one in plain)
    seconds = statistics.median(one["seconds"] for one in shown)
    print(f"| batch of {jobs:,} jobs, {rounds} rounds | {seconds:.0f} s, CPU {with_display:.1f} s |")
    for name in ("updates", "forecasts"):
        print(f"| CPU of the {name} | {statistics.median(one[name] for one in shown):.2f} s |")
    share = statistics.median(shares)
    print(f"| CPU of the display over the batch's | {share:.2%}, ratio to the bound {share / BOUND:.2f} |")
    more = with_display / without - 1
    print(f"| CPU with the display over without | {1 + more:.3f}, ratio to the bound {more / BOUND:.2f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        run_child(sys.argv[4:], Path(sys.argv[2]), display=sys.argv[3] == "display")
    else:
        arguments = [int(argument) for argument in sys.argv[1:]]
        main(*(arguments + [10_000, 3][len(arguments) :]))
