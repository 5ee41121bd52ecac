"""A process that is killed between an upload and the submission, and the same command again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.cli.command_line import ENV, KEY, serving
from tests.http.media_files import made

#: Real processes that are killed: with the slowest cases, on one Python.
pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[2]
COUNT: Final = 8
#: The user's module: it records each upload, and kills the process once, at a named point.
HOST: Final = """
import os, pathlib, signal
from pika_async._http.transport import AiohttpTransport
from pika_async._journal.sqlite import SqliteJournal

def reach(point):
    if os.environ.get("KILL_AT") == point:
        os.kill(os.getpid(), signal.SIGKILL)

async def upload(data, name, content_type):
    with open("uploads.log", "a") as log:
        log.write(f"{len(data)} {name} {content_type}\\n")
    reach("uploaded")
    return "https://host.example/cat"

save_upload, send = SqliteJournal.save_upload, AiohttpTransport.send

async def saved(self, upload):
    await save_upload(self, upload)
    reach("remembered")

async def sent(self, request):
    answer = await send(self, request)
    if request.paid:
        reach("answered")
    return answer

SqliteJournal.save_upload, AiohttpTransport.send = saved, sent
"""


def run(folder: Path, url: str, *options: str, kill_at: str = "") -> subprocess.CompletedProcess[str]:
    command = ("batch", "b.csv", "--provider", "cometapi", "--base-url", url, "--out", "out", "--no-download")
    return subprocess.run(
        [sys.executable, "-m", "pika_async", *command, "--uploader", "host:upload", "--expected-seconds", "0.1",
         *options],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "KILL_AT": kill_at, ENV["cometapi"]: KEY},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("point, uploads, doubts", [("uploaded", 2, 0), ("remembered", 1, 0), ("answered", 1, 1)])
def test_a_kill_costs_at_most_one_more_upload(point: str, uploads: int, doubts: int, tmp_path: Path) -> None:
    """A kill before the address is saved costs one upload, a later one none; each row is paid once.

    One row at a time is sent until the kill.
    """
    (tmp_path / "host.py").write_text(HOST)
    (tmp_path / "cat.png").write_bytes(made("png"))
    rows = [f"row {number},cat.png\n" for number in range(COUNT)]
    (tmp_path / "b.csv").write_text("prompt,image\n" + "".join(rows))
    with serving() as emulator:
        url = emulator.base_url("cometapi")
        killed = run(tmp_path, url, "--max-in-flight", "1", kill_at=point)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(emulator.ledger) == doubts
        again = run(tmp_path, url)
        assert again.returncode == (1 if doubts else 0), again.stderr
        assert "Traceback" not in again.stderr
        times = Counter(charge.prompt for charge in emulator.ledger)
        assert times == {f"row {number}": 1 for number in range(COUNT)}
        assert {charge.body["image"] for charge in emulator.ledger} == {"https://host.example/cat"}
    log = (tmp_path / "uploads.log").read_text().splitlines()
    assert log == [f"{len(made('png'))} cat.png image/png"] * uploads
