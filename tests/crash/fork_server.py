"""Victims by fork from a process that has imported everything and done nothing: they begin in a tenth of the time.

`python -m tests.crash.fork_server` takes a line of JSON for each victim on standard input and tells of births and deaths on
standard output; when the input ends, so do its victims. It has no threads and no event loop, so that a fork copies none.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from tests.crash import victim

__all__ = ["Nursery", "Victim"]

ROOT: Final = Path(__file__).parents[2]


# --- the process itself -------------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a victim for each line, until there are no more; returns only in a victim, which is to be run."""
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    alive: set[int] = set()
    asked = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _bury(alive)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, asked = (asked + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if not pid:
                    _become(order)
                alive.add(pid)
                _tell(order["number"], pid)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    sys.exit(0)


def _bury(alive: set[int]) -> None:
    for pid in list(alive):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            alive.discard(pid)
            _tell(-pid, os.waitstatus_to_exitcode(status))


def _tell(who: int, what: int) -> None:
    os.write(1, f"{who} {what}\n".encode())


def _become(order: Mapping[str, Any]) -> None:
    """A victim: does not return."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.chdir(order["folder"])
    os.environ.update(order["env"])
    for number, (path, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (order["out"], os.O_WRONLY), (order["err"], os.O_WRONLY))
    ):
        file = os.open(path, flags)
        os.dup2(file, number)
        os.close(file)
    random.seed()
    sys.exit(victim.run(order["argv"]))


# --- the side of the tests ----------------------------------------------------------------------------------------------


class Victim:
    """A process that was forked; what `subprocess.Popen` says of one, as far as it is asked here."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended = threading.Event()
        self.code = 0

    def poll(self) -> int | None:
        """Its exit code, or minus the signal; None while it lives."""
        return self.code if self.ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        """:raises subprocess.TimeoutExpired: if it lives on."""
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired("victim", timeout or 0)
        return self.code

    def send_signal(self, number: int) -> None:
        """Nothing, if it has ended."""
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """The signal that nothing survives."""
        self.send_signal(signal.SIGKILL)


class Nursery:
    """Its process, for as long as the context lasts. May be used from many threads."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.fork_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._numbers = 0
        self._born: dict[int, Victim] = {}
        self._victims: dict[int, Victim] = {}
        self._told = threading.Condition(self._lock)
        self._reader = threading.Thread(target=self._read, name="nursery")
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._reader.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            who, what = map(int, line.split())
            with self._told:
                if who > 0:
                    self._born[who] = self._victims[what] = Victim(what)
                    self._told.notify_all()
                else:
                    dead = self._victims.pop(-who)
                    dead.code = what
                    dead.ended.set()

    def start(self, argv: Sequence[str], folder: Path, env: Mapping[str, str], out: Path, err: Path) -> Victim:
        """Give birth to one; `out` and `err` are there."""
        with self._told:
            self._numbers += 1
            number = self._numbers
            order = {
                "number": number, "argv": list(argv), "folder": str(folder), "env": dict(env), "out": str(out),
                "err": str(err),
            }  # fmt: skip
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            assert self._told.wait_for(lambda: number in self._born, 20)
            return self._born.pop(number)


if __name__ == "__main__":
    serve()
