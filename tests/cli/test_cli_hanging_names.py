"""Ends of commands while the resolver hangs, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cli.batch_process import HANG_S
from tests.cli.command_line import ENV, KEY

#: Runs a command whose resolver hangs for longer than the test; "asyncio" as the first argument hides uvloop.
LAUNCHER: Final = """
import runpy, signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_DFL)
if sys.argv.pop(1) == "asyncio":
    sys.modules["uvloop"] = None
def hang(*_, **__):
    print("resolving", file=sys.stderr, flush=True)
    time.sleep(600)
socket.getaddrinfo = hang
runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_resolver_that_hangs_does_not_delay_the_end(tmp_path: Path, loop: str) -> None:
    """SIGTERM ends the batch with its summary, its results and exit code 130; nothing is in doubt."""
    (tmp_path / "b.txt").write_text("a cat\na dog\n")
    argv = [sys.executable, "-c", LAUNCHER, loop, "batch", "b.txt", "--provider", "native"]
    argv += ["--base-url", "https://gateway.example"]
    env = os.environ | {ENV["native"]: KEY}
    with subprocess.Popen(argv, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            while "resolving" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=HANG_S)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "0 still in flight, 2 not sent; nothing is lost" in err
    assert "Traceback" not in err
    assert len((tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()) == 2
