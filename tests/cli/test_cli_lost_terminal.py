"""Batches whose terminal or reader is gone, in processes of their own with a real terminal or pipe."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.emulator import Emulator
from tests.cli.batch_process import HANG_S, wait_until
from tests.cli.command_line import ENV, KEY

#: Makes its standard input the controlling terminal, as a shell does, and restores what a runner may have ignored.
LAUNCHER: Final = """
import fcntl, runpy, signal, termios
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--json",), ("--log-level", "debug")])
def test_a_terminal_that_is_closed_loses_no_job(tmp_path: Path, more: tuple[str, ...]) -> None:
    """The window is closed while jobs run: exit code 130, no receipt is lost, every job has a line."""
    (tmp_path / "b.txt").write_text("\n".join(f"prompt {number}" for number in range(20)))
    with Emulator(api_key=KEY, render=False, durations="constant:600").in_thread() as emulator:
        argv = [sys.executable, "-c", LAUNCHER, "batch", "b.txt", "--provider", "native", "--yes", *more]
        argv += ["--base-url", emulator.base_url("native"), "--max-in-flight", "5"]
        master, terminal = pty.openpty()
        with subprocess.Popen(
            argv,
            cwd=tmp_path,
            env=os.environ | {ENV["native"]: KEY},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        ) as process:
            os.close(terminal)
            try:
                wait_until(lambda: len(emulator.ledger) == 5)
                os.close(master)  # the kernel sends SIGHUP, and every write fails with EIO
                assert process.wait(HANG_S) == 130
            finally:
                process.kill()
        records = [json.loads(line) for line in (tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()]
        accepted = {charge.task_id for charge in emulator.ledger}
        assert (len(records), {record["task_id"] for record in records} - {None}) == (20, accepted)
        journal = SqliteJournal(tmp_path / "pika-out" / "journal.db")
        assert {job.task_id for job in journal.all()} - {None} == accepted
        assert journal.interrupted_jobs() == []
