"""Emulator in a process of its own, which a test kills and starts again with what it had charged.

Usage: `python -m tests.fakes.mortal_emulator FILE PORT CDN_PORT KEY ANSWERED`. It serves until it is killed, and writes each
task with its charge to FILE before the answer is sent. It begins with those that are in FILE. Of the submissions, the first
ANSWERED get an answer at once, and later ones none for as long as it matters.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pika_async.emulator import Charge, Emulator, gateway
from pika_async.emulator.ledger import Ledger
from pika_async.emulator.records import Task
from tests.fakes.raw_server import free_port

__all__ = ["MortalEmulator", "read_charges"]

ROOT: Final = Path(__file__).parents[2]


class WrittenLedger(Ledger):
    """Ledger that writes each task with its charge to the file `path`, and begins with those that are there."""

    path: ClassVar[Path]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for charge, task in read_tasks(self.path):
            self.charges.append(charge)
            self.tasks[task.id] = task

    def accept(self, *args: Any, **options: Any) -> Task:
        """See `Ledger`."""
        task = super().accept(*args, **options)
        with self.path.open("ab", buffering=0) as file:
            file.write(pickle.dumps((self.charges[-1], task)))
        return task


def read_tasks(path: Path) -> Iterator[tuple[Charge, Task]]:
    """Yield the charges and tasks of a file; a killed process may have left half of the last one."""
    if not path.exists():
        return
    with path.open("rb") as file, contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            yield pickle.load(file)


def read_charges(path: Path) -> list[Charge]:
    """Return the charges of a file."""
    return [charge for charge, _ in read_tasks(path)]


async def serve(path: Path, port: int, cdn_port: int, key: str, answered: int) -> None:
    """Serve until the process is killed."""
    WrittenLedger.path, gateway.Ledger = path, WrittenLedger  # type: ignore[attr-defined]
    emulator = Emulator(
        port=port,
        cdn_port=cdn_port,
        api_key=key,
        render=False,
        video_seconds=1.0,
        durations="constant:0.3",
        seed=time.time_ns(),  # a later process must not draw the task ids of this one
        scenario=[{"on": "create", "after": answered, "do": {"fault": "delay", "seconds": 60.0}}],
    )
    async with emulator:
        print("serving", flush=True)
        await asyncio.Event().wait()


class MortalEmulator:
    """The process, to be killed and started again at the same addresses.

    :param path: the file of its charges.
    :param key: the key that every account accepts.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._port, self._cdn_port = free_port(), free_port()
        self._process: subprocess.Popen[str] | None = None

    def base_url(self, provider: str) -> str:
        """Return the base URL for a client of *provider*."""
        return f"http://127.0.0.1:{self._port}/{provider}"

    @property
    def ledger(self) -> list[Charge]:
        """The charges so far, those of earlier processes included."""
        return read_charges(self._path)

    def start(self, answered: int = 1_000_000) -> None:
        """Start the process, and wait until it serves.

        :param answered: number of the submissions that get an answer.
        """
        command = (str(self._path), str(self._port), str(self._cdn_port), self._key, str(answered))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.mortal_emulator", *command], cwd=ROOT, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "serving\n"

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end of the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


if __name__ == "__main__":
    path, port, cdn_port, key, answered = sys.argv[1:]
    asyncio.run(serve(Path(path), int(port), int(cdn_port), key, int(answered)))
