"""Runner of the benchmarks, one after another: `nox -s bench`.

    python benchmarks/run.py                    # all of them
    python benchmarks/run.py cost 300 1 feed    # these; words that are not names are arguments of the name before them
    python benchmarks/run.py --check            # the counts that do not depend on the clock; also --record

Each runs in a process group of its own, which is ended after its time limit. A benchmark that fails or takes longer
does not keep the others from running. The times are printed at the end. The exit code is 1 if one has failed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs

FOLDER = Path(__file__).parent


@attrs.frozen
class Benchmark:
    """A script of this folder, with the arguments of its section in the README, and its time limit."""

    name: str
    arguments: tuple[str, ...]
    limit_minutes: float


#: First the counts, a start, and what one process costs; whole batches; virtual time; terminals and browsers.
BENCHMARKS = (
    Benchmark("counts", (), 2),
    Benchmark("start", ("15",), 3),
    Benchmark("feed", ("300", "10", "5"), 6),
    Benchmark("journal", ("500", "5"), 10),
    Benchmark("submissions", ("128", "3", "8"), 10),
    Benchmark("cost", ("300", "1"), 10),
    Benchmark("downloads", ("3", "8"), 10),
    Benchmark("peers", ("100", "2"), 20),
    Benchmark("memory", ("10000",), 8),
    Benchmark("responsiveness", ("100000", "10000"), 10),
    Benchmark("callbacks", ("200",), 6),
    Benchmark("settling", ("500", "1"), 15),
    Benchmark("estimates", ("10", "60"), 8),
    Benchmark("failover", ("600", "25", "5"), 5),
    Benchmark("cluster", ("5000", "1000", "20"), 15),
    Benchmark("cluster_database", ("1500", "200", "2"), 5),
    Benchmark("simulate", (), 12),
    Benchmark("time_left", ("8",), 8),
    Benchmark("plots", (), 4),
    Benchmark("display", ("10000", "1"), 18),
    Benchmark("gallery", ("10000",), 12),
    Benchmark("board", ("6000", "200", "1000", "2"), 15),
)
#: Options of `counts`, which run it alone.
COUNT_OPTIONS = ("--check", "--record")


def chosen(words: list[str]) -> list[Benchmark]:
    """Return the benchmarks that a command line names, all without one.

    :raises SystemExit: if the first word is not the name of a benchmark.
    """
    if words and words[0] in COUNT_OPTIONS:
        words = ["counts", *words]
    known, found = {benchmark.name: benchmark for benchmark in BENCHMARKS}, list[Benchmark]()
    arguments: dict[int, list[str]] = {}
    for word in words:
        if word in known:
            found.append(known[word])
        elif not found:
            raise SystemExit(f"{word!r} must be one of {', '.join(known)}, or one of {', '.join(COUNT_OPTIONS)}")
        else:
            arguments.setdefault(len(found) - 1, []).append(word)
    given = [
        attrs.evolve(benchmark, arguments=tuple(arguments[number])) if number in arguments else benchmark
        for number, benchmark in enumerate(found)
    ]
    return given or list(BENCHMARKS)


def run(benchmark: Benchmark) -> str:
    """Run one benchmark; return how it ended: "ok", its exit code, or that it took too long."""
    command = [sys.executable, f"{FOLDER / benchmark.name}.py", *benchmark.arguments]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            code = process.wait(benchmark.limit_minutes * 60)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"ended after its limit of {benchmark.limit_minutes:g} minutes"
    return "ok" if code == 0 else f"exit code {code}"


def main(words: list[str]) -> int:
    """Run what is named; return the exit code."""
    benchmarks, results = chosen(words), list[tuple[Benchmark, str, float]]()
    limit = sum(benchmark.limit_minutes for benchmark in benchmarks)
    for benchmark in benchmarks:
        print(f"\n=== {benchmark.name} {' '.join(benchmark.arguments)}", flush=True)
        began = time.monotonic()
        results.append((benchmark, run(benchmark), time.monotonic() - began))
    if len(results) > 1:
        print(f"\n=== {sum(seconds for *_, seconds in results) / 60:.1f} minutes, of at most {limit:g}")
        for benchmark, result, seconds in results:
            print(f"{benchmark.name:16}{seconds:7.0f} s, {result}")
    return int(any(result != "ok" for _, result, _ in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
