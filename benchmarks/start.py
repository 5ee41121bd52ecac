"""CPU time of a start: of the import, and of the commands that need no gateway, over that of importing aiohttp.

    python benchmarks/start.py [ROUNDS]

Each figure is the CPU time of a whole process, its Python included, from which nothing is subtracted. The rounds are
interleaved; the ratio is the median of the ratios within the rounds. Modules are compiled before the first round.
"""

from __future__ import annotations

import os
import statistics
import sys
from typing import Final

CLIENT: Final = "pika_async.PikaClient('native', api_key='k', base_url='http://127.0.0.1:1', journal='start.db')"
#: Arguments of Python in each row; the first row is the peer.
ROWS: Final = {
    "import aiohttp": ("-c", "import aiohttp"),
    "import pika_async": ("-c", "import pika_async"),
    "from pika_async import PikaClient": ("-c", "from pika_async import PikaClient"),
    "the same, and a client with a journal": (
        "-c",
        f"import pika_async; {CLIENT}",
    ),
    "pika-async --version": ("-m", "pika_async", "--version"),
    "pika-async --help": ("-m", "pika_async", "--help"),
    "pika-async status FOLDER": ("-m", "pika_async", "status", "no-such-folder"),
    "python, nothing imported": ("-c", ""),
}
#: Highest ratio that is aimed at, by row.
AIMS: Final = {"import pika_async": 1.15, "pika-async --version": 1.5, "pika-async --help": 1.5}


def cpu_seconds(arguments: tuple[str, ...]) -> float:
    """Run Python and return the CPU time of its process."""
    quiet = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    # Without its byte code each start would compile every module.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = os.posix_spawn(sys.executable, [sys.executable, *arguments], environment, file_actions=quiet)
    _, _, usage = os.wait4(child, 0)
    return usage.ru_utime + usage.ru_stime


def main(rounds: int) -> None:
    for arguments in ROWS.values():
        cpu_seconds(arguments)
    taken: dict[str, list[float]] = {row: [] for row in ROWS}
    for _ in range(rounds):
        for row, arguments in ROWS.items():
            taken[row].append(cpu_seconds(arguments))
    peer = taken["import aiohttp"]
    print(f"{rounds} interleaved rounds, Python {sys.version.split()[0]}\n")
    print("| what | CPU, median | over aiohttp's | range | aim |")
    print("|---|---|---|---|---|")
    for row, seconds in taken.items():
        ratios = [one / other for one, other in zip(seconds, peer, strict=True)]
        print(
            f"| `{row}` | {statistics.median(seconds) * 1000:.0f} ms | {statistics.median(ratios):.2f} "
            f"| {min(ratios):.2f} to {max(ratios):.2f} | {AIMS.get(row, '')} |"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
