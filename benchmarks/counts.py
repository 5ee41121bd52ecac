"""Counts of work that do not depend on the clock, checked against those recorded for this version of Python.

    python benchmarks/counts.py             # print them beside the recorded ones
    python benchmarks/counts.py --check     # the same; exit code 1 if one has grown beyond its tolerance
    python benchmarks/counts.py --record    # write them to counts.json

The whole client runs in virtual time against a gateway in memory (see `virtual_loop.py`), so each run does the same on
every machine. Calls are those of functions in Python and in C: of the package's code ("own"), and of everything
("all"). A GET with aiohttp and `json.loads` is the bound of a poll. Work of threads takes no virtual time, so only
changes of the same moment share a commit. Each commit is one sync beside those that are counted.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from cost import peer, sdk
from lean_gateway import VIDEO_BYTES, Gateway, make_video
from virtual_loop import ORIGIN, run
from work_counter import WorkCounter

from pika_async import FixedInterval, Limits, PikaClient
from pika_async.polling.policy import PollingPolicy

RECORDS = Path(__file__).with_name("counts.json")
#: Tasks that are polled together, and submissions.
TASKS = 40
#: Jobs of a batch, which are all in flight at once.
JOBS = 100
#: Tasks whose polls or submissions are counted do not end meanwhile.
TASK_SECONDS = 1e6
#: Growth that is accepted, by the last word of a count's name: the libraries' own calls change with their releases, and
#: the random numbers of a run with each change of their order.
TOLERANCES = {"all": 0.10, "own": 0.03, "polls": 0.05, "ms": 0.10}
DEFAULT_TOLERANCE = 0.03
#: Beginning of the names of counts that are bounds: they are recorded and not checked, as they follow our delay.
LOOP = "loop of equal delay"
#: Modules that the package or a library would use where they are installed, and that change what is counted.
HIDDEN_MODULES = ("opentelemetry", "orjson", "sniffio", "uvloop")

Counts = dict[str, float]


@attrs.define
class Measurement:
    """One scenario in virtual time: its gateway and what was counted."""

    gateway: Gateway
    counter: WorkCounter = attrs.field(factory=WorkCounter)

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        random.seed(0)
        with self.counter.watching_files():
            run(main, self.gateway, self.counter.paused)

    def calls(self, name: str, units: int) -> Counts:
        """Return the calls for each of `units`."""
        return {
            f"{name}, calls, own": self.counter.own_calls / units,
            f"{name}, calls, all": self.counter.calls / units,
        }


def _measurement(seconds: float) -> Measurement:
    """Return a measurement against tasks of `seconds` in the median."""
    return Measurement(Gateway(seconds, 0.5, 1, 0.05, make_video(VIDEO_BYTES), base_url=ORIGIN))


def _client(policy: PollingPolicy, **options: Any) -> PikaClient:
    limits = Limits(max_in_flight=TASKS)
    return PikaClient(
        "native", api_key="sk-benchmark-00000000", base_url=ORIGIN, polling=policy, limits=limits, **options
    )


def measure_polls(name: str, tasks: int) -> Counts:
    """Count the work of polls of unsettled tasks, all in flight at once, every 2 s. The policy is in the jobs."""
    measurement = _measurement(TASK_SECONDS)
    counter, gateway = measurement.counter, measurement.gateway

    async def main() -> None:
        async with _client(FixedInterval(2)) as pika:
            batch = asyncio.ensure_future(pika.run([f"prompt {number}" for number in range(tasks)]))
            await asyncio.sleep(60)
            before, sent = gateway.polls, gateway.received[b"GET"]
            with counter.counting():
                await asyncio.sleep(60)
            counts[f"{name}, number"] = polls = gateway.polls - before
            counts[f"{name}, bytes sent"] = (gateway.received[b"GET"] - sent) / polls
            batch.cancel()
            await asyncio.wait({batch})

    counts: Counts = {}
    measurement.run(main())
    return measurement.calls(name, int(counts.pop(f"{name}, number"))) | counts


def measure_bare_polls() -> Counts:
    """Count the work of GETs with aiohttp alone, one after another."""
    measurement = _measurement(TASK_SECONDS)
    headers = {"Authorization": "Bearer sk-benchmark-00000000"}

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{ORIGIN}/pika/generate", json={"promptText": "a"}, headers=headers) as answer:
                address = f"{ORIGIN}/pika/feed/{(await answer.json())['id']}"
            for number in range(TASKS + 1):  # the first one opens the connection
                with measurement.counter.counting() if number else measurement.counter.paused():
                    async with session.get(address, headers=headers) as answer:
                        json.loads(await answer.read())["videos"]

    measurement.run(main())
    return {"poll by bare aiohttp, calls, all": measurement.counter.calls / TASKS}


def measure_submissions() -> Counts:
    """Count the work of submissions until their task ids are known, without a journal."""
    measurement = _measurement(TASK_SECONDS)
    counter, gateway = measurement.counter, measurement.gateway

    async def main() -> None:
        async with _client(FixedInterval(10_000)) as pika:
            with counter.counting():
                batch = asyncio.ensure_future(pika.run([f"prompt {number}" for number in range(TASKS)]))
                await asyncio.sleep(60)
            assert len(gateway.tasks) == TASKS
            assert gateway.polls == 0
            batch.cancel()
            await asyncio.wait({batch})

    measurement.run(main())
    return measurement.calls("submission", TASKS) | {"submission, bytes sent": gateway.received[b"POST"] / TASKS}


def measure_jobs(name: str, jobs: int = JOBS, *, journal: bool, downloads: bool) -> Counts:
    """Count the work of jobs of 9 s in the median from the opening of the client to its closing."""
    measurement = _measurement(9)
    counter, gateway = measurement.counter, measurement.gateway

    async def main() -> None:
        with counter.counting():
            await sdk(ORIGIN, jobs, Path(folder), journal=journal, downloads=downloads)

    with tempfile.TemporaryDirectory() as folder:
        measurement.run(main())
    counts = measurement.calls(name, jobs) | {f"{name}, polls": gateway.polls / jobs}
    counts[f"{name}, delay in ms"] = 1e3 * gateway.figures()["delay"]
    if journal:
        counts |= {f"{name}, statements": counter.statements / jobs, f"{name}, commits": counter.commits / jobs}
    if journal or downloads:
        counts[f"{name}, syncs"] = counter.syncs / jobs
    return counts


def measure_loop(name: str, delay_ms: float, *, downloads: bool) -> Counts:
    """Count the work of the same jobs in the hand-written loop of `cost.py` whose interval leads to the same delay."""
    measurement = _measurement(9)

    async def main() -> None:
        with measurement.counter.counting():
            await peer(ORIGIN, JOBS, Path(folder), interval=2 * delay_ms / 1e3, downloads=downloads)

    with tempfile.TemporaryDirectory() as folder:
        measurement.run(main())
    return {f"{name}, calls, all": measurement.counter.calls / JOBS}


SCENARIOS: tuple[Callable[[], Counts], ...] = (
    lambda: measure_polls("poll", TASKS),
    lambda: measure_polls("poll of a single task", 1),
    measure_bare_polls,
    measure_submissions,
    lambda: measure_jobs("job", journal=False, downloads=False),
    lambda: measure_jobs("job with journal", journal=True, downloads=False),
    lambda: measure_jobs("job with download", journal=False, downloads=True),
    lambda: measure_jobs("job with both", journal=True, downloads=True),
)


def measure() -> Counts:
    """Return every count, by its name."""
    measure_jobs("first uses", 2, journal=True, downloads=True)  # which import modules
    counts: Counts = {}
    for scenario in SCENARIOS:
        counts |= scenario()
    for name, end, downloads in (("job", "", False), ("job with download", " with download", True)):
        counts |= measure_loop(f"{LOOP}{end}", counts[f"{name}, delay in ms"], downloads=downloads)
    return {name: round(value, 2) for name, value in counts.items()}


def problems(measured: Counts, recorded: Counts | None, version: str) -> list[str]:
    """Return a sentence for each count that has grown beyond its tolerance, or is measured or recorded alone."""
    again = "`nox -s bench -- --record` records the counts of this version of Python anew"
    if recorded is None:
        return [f"counts.json has no counts for Python {version}; {again}"]
    found = []
    for name in [*measured, *(name for name in recorded if name not in measured)]:
        if name not in recorded or name not in measured:
            found.append(f"{name!r} is {'measured' if name in measured else 'recorded'} alone; {again}")
            continue
        tolerance = math.inf if name.startswith(LOOP) else TOLERANCES.get(name.rsplit(" ", 1)[1], DEFAULT_TOLERANCE)
        if measured[name] > recorded[name] * (1 + tolerance):
            found.append(
                f"{name!r} has grown: recorded {recorded[name]:g}, measured {measured[name]:g}, more than the accepted "
                f"{tolerance:.0%}; if that is intended, {again}"
            )
    return found


def has_fallen(measured: Counts, recorded: Counts) -> list[str]:
    """Return the names of counts that are below the recorded ones by more than their tolerance."""
    return [
        name
        for name, value in measured.items()
        if value * (1 + TOLERANCES.get(name.rsplit(" ", 1)[1], DEFAULT_TOLERANCE)) < recorded.get(name, 0)
    ]


def show(measured: Counts, recorded: Counts | None) -> None:
    """Print the counts beside the recorded ones, and those of a poll beside bare aiohttp."""
    print(f"{'for each':44}{'recorded':>10}{'measured':>10}{'ratio':>7}")
    for name, value in measured.items():
        before = (recorded or {}).get(name)
        ratio = f"{value / before:7.3f}" if before else ""
        print(f"{name:44}{'-' if before is None else format(before, 'g'):>10}{value:10g}{ratio}")
    bare = measured["poll by bare aiohttp, calls, all"]
    for name in ("poll", "poll of a single task"):
        print(f"{name}: {measured[f'{name}, calls, all'] / bare:.2f} times the calls of a GET with bare aiohttp")
    for name in ("job", "job with journal", "job with download", "job with both"):
        loop = f"{LOOP} with download" if name in {"job with download", "job with both"} else LOOP
        times = measured[f"{name}, calls, all"] / measured[f"{loop}, calls, all"]
        print(f"{name}: {times:.2f} times the calls of a hand-written {loop}")


def main(arguments: list[str]) -> int:
    """Measure, then print, check or record; return the exit code."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    records: dict[str, Counts] = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    measured, recorded = measure(), records.get(version)
    show(measured, recorded)
    if "--record" in arguments:
        records[version] = measured
        RECORDS.write_text(json.dumps(dict(sorted(records.items())), indent=1) + "\n")
        print(f"recorded in {RECORDS.name} for Python {version}")
        return 0
    found = problems(measured, recorded, version)
    for sentence in found:
        print(sentence, file=sys.stderr)
    if recorded is not None and (fallen := has_fallen(measured, recorded)):
        print(f"{len(fallen)} counts have fallen beyond their tolerance; record them, so that they stay there")
    return 1 if found and "--check" in arguments else 0


if __name__ == "__main__":
    if sys.flags.hash_randomization:
        code = [f"import runpy, sys; sys.modules.update(dict.fromkeys({HIDDEN_MODULES}))"]
        code += [f"sys.path.insert(0, {str(RECORDS.parent)!r}); runpy.run_path({__file__!r}, run_name='__main__')"]
        os.execve(  # noqa: S606 - the modules are hidden before anything is imported, and hashes are the same each time
            sys.executable,
            [sys.executable, "-c", "; ".join(code), *sys.argv[1:]],
            os.environ | {"PYTHONHASHSEED": "0"},
        )
    sys.exit(main(sys.argv[1:]))
