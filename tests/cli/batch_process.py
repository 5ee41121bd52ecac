"""Batches that run in a process of their own, to be interrupted, killed or cut off from their terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pika_async.emulator import Emulator
from tests.cli.command_line import ENV, KEY
from tests.fakes.child_process import ChildProcess

#: A command inherits ignored signals, and nohup makes the suite ignore some: restore them. Not with a `preexec_fn`: the
#: emulator has threads, and forking a process with threads may deadlock.
LAUNCHER = """
import runpy, signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
"""


def start_batch(emulator: Emulator, folder: Path, *more: str) -> ChildProcess:
    """Start a batch of 40 prompts in a process of its own."""
    (folder / "b.txt").write_text("\n".join(f"prompt {number}" for number in range(40)))
    argv = [sys.executable, "-c", LAUNCHER, "batch", "b.txt", "--provider", "yescale"]
    argv += ["--base-url", emulator.base_url("yescale"), *more]
    return ChildProcess(
        argv,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, ENV["yescale"]: KEY},
    )


#: Seconds after which a step that takes one second on an idle machine counts as hanging.
HANG_S = 60


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline, f"the condition is still false after {HANG_S} s"
        time.sleep(0.02)


def start_board(folder: Path, *more: str) -> ChildProcess:
    argv = [sys.executable, "-c", LAUNCHER, "board", "pika-out", *more]
    return ChildProcess(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def address(process: ChildProcess) -> str:
    """Return the whole address that a process prints."""
    return process.read_errors_until("token=").partition("board: ")[2].strip()
