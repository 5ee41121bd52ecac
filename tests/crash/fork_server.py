"""Fork server: processes forked from one that has imported everything, which start in a tenth of the time.

`python -m tests.crash.fork_server` reads one JSON line per process from standard input and reports starts and exits on
standard output. When its input is closed, it kills its processes. It has no threads and no event loop, so that a fork
copies none.
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

from tests.crash import victim_process

__all__ = ["ForkServer", "ForkedProcess"]

ROOT: Final = Path(__file__).parents[2]


# --- the server process -----------------------------------------------------------------------------------------------


def serve() -> None:
    """Fork a process for each line of standard input until it is closed. Never returns."""
    with contextlib.suppress(ImportError):
        importlib.import_module("uvloop")
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    running: set[int] = set()
    pending = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _reap(running)
        if 0 in ready:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if not pid:
                    _run_order(order)
                running.add(pid)
                _report(order["number"], pid)
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    sys.exit(0)


def _reap(running: set[int]) -> None:
    for pid in list(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            running.discard(pid)
            _report(-pid, os.waitstatus_to_exitcode(status))


def _report(identifier: int, value: int) -> None:
    os.write(1, f"{identifier} {value}\n".encode())


def _run_order(order: Mapping[str, Any]) -> None:
    """Run the ordered command in the forked process. Never returns."""
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
    sys.exit(victim_process.run(order["argv"]))


# --- the client, in the tests -----------------------------------------------------------------------------------------


class ForkedProcess:
    """A process that was forked; the interface of `subprocess.Popen`, with the methods that the tests use."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended = threading.Event()
        self.code = 0

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal number; None while the process runs."""
        return self.code if self.ended.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code.

        :raises subprocess.TimeoutExpired: the process still runs after *timeout* seconds.
        """
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired("forked process", timeout or 0)
        return self.code

    def send_signal(self, number: int) -> None:
        """Send signal *number* unless the process has ended."""
        if not self.ended.is_set():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Fork server process, running while the context is open. Thread-safe."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.fork_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            cwd=ROOT, start_new_session=True,
        )  # fmt: skip
        self._lock = threading.Lock()
        self._numbers = 0
        self._started: dict[int, ForkedProcess] = {}
        self._processes: dict[int, ForkedProcess] = {}
        self._changed = threading.Condition(self._lock)
        self._reader = threading.Thread(target=self._read, name="fork-server")
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
            identifier, value = map(int, line.split())
            with self._changed:
                if identifier > 0:
                    self._started[identifier] = self._processes[value] = ForkedProcess(value)
                    self._changed.notify_all()
                else:
                    exited = self._processes.pop(-identifier)
                    exited.code = value
                    exited.ended.set()

    def start(self, argv: Sequence[str], folder: Path, env: Mapping[str, str], out: Path, err: Path) -> ForkedProcess:
        """Fork a process that runs *argv*; the files *out* and *err* must exist."""
        with self._changed:
            self._numbers += 1
            number = self._numbers
            order = {
                "number": number, "argv": list(argv), "folder": str(folder), "env": dict(env), "out": str(out),
                "err": str(err),
            }  # fmt: skip
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            assert self._changed.wait_for(lambda: number in self._started, 20)
            return self._started.pop(number)


if __name__ == "__main__":
    serve()
