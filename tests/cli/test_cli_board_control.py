"""`--board-control`: a batch in a process of its own that its board pauses, resumes, narrows and cancels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from pika_async import FixedInterval, JobStatus, SubmissionInDoubt
from pika_async.cli.board_control import BatchControl
from pika_async.cli.terminal import Terminal
from pika_async.errors import PikaError
from tests.cli.batch_process import HANG_S, LAUNCHER, wait_until
from tests.cli.board_page import paused_batch
from tests.cli.command_line import ENV, KEY, CommandLine
from tests.fakes.memory_gateway import client, gateway


def resume(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", LAUNCHER, "resume", "pika-out", "--no-download", *more]
    env = {**os.environ, ENV["yescale"]: KEY}
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=HANG_S, check=False, env=env)


def test_a_paused_batch_goes_on_or_is_canceled(tmp_path: Path) -> None:
    """Nothing is sent in a pause; what is canceled then is not charged, and the batch ends with a summary."""
    with paused_batch(tmp_path) as (emulator, batch, page):
        assert page.head()["batch"] == {"open": True, "paused": True, "room": 3}
        wait_until(lambda: not page.head()["unfinished"].keys() - {"planned"})
        sent = len(emulator.ledger)
        assert page.change("room", jobs=2)[0] == 200
        assert batch.poll() is None
        assert page.change("resume")[0] == 200
        wait_until(lambda: len(emulator.ledger) > sent)
        status, reply = page.change("cancel")
        assert (status, "canceled" in reply["done"]) == (200, True)
        _, errors = batch.communicate(timeout=HANG_S)
        assert batch.returncode == 1
        assert "from the board: paused" in errors
        assert "canceled before anything was sent" in errors
        canceled = 40 - len(emulator.ledger)
        assert f"{canceled} canceled" in errors
        assert canceled > 0
        assert "to continue" not in errors
        assert resume(tmp_path).returncode == 1
        assert 40 - len(emulator.ledger) == canceled
        lines = [json.loads(line) for line in (tmp_path / "pika-out/results.jsonl").read_text().splitlines()]
        assert sum(line["status"] == "canceled" for line in lines) == canceled
        assert len(lines) == 40


def test_a_paused_batch_is_ended_by_ctrl_c_and_resumed(tmp_path: Path) -> None:
    """What is planned stays planned, and a resume sends it; nothing is paid for twice."""
    with paused_batch(tmp_path) as (emulator, batch, _):
        batch.send_signal(signal.SIGINT)
        batch.communicate(timeout=HANG_S)
        assert batch.returncode == 130
        assert len(emulator.ledger) < 40
        assert resume(tmp_path, "--max-in-flight", "40").returncode == 0
        assert len(emulator.ledger) == 40


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("room", {"jobs": 0}, "max_in_flight: must be an integer from 1 to 10000, not 0"),
        ("room", {"jobs": "many"}, "max_in_flight: must be an integer"),
        ("room", {}, "max_in_flight: must be an integer"),
        ("pause", {"for": 3}, "is not an argument of pause"),
        ("resolve", {}, "key: None must be the key of a job in doubt"),
        ("resolve", {"key": "none", "charged": False}, "is not the key of a job"),
        ("resolve", {"key": "none", "charged": "no"}, "must be true or false"),
        ("shutdown", {}, "there is no such change"),
    ],
)
@pytest.mark.anyio
async def test_a_change_that_cannot_be_made_names_the_reason(name: str, arguments: Any, reason: str) -> None:
    """Nothing is changed."""

    control = BatchControl(Terminal())
    async with client(gateway()) as pika:
        with control.over(pika):
            with pytest.raises((LookupError, PikaError)) as caught:
                await control.change(name, arguments)
            assert reason in str(caught.value)
            assert (pika.stats().paused, pika.stats().max_in_flight) == (False, 10_000)
    assert control.state()["open"] is False
    with pytest.raises(LookupError, match="no batch runs here"):
        await control.change("pause", {})


@pytest.mark.anyio
async def test_a_doubt_is_resolved_and_followed_while_the_batch_is_paused() -> None:
    """A task id that a person gives is polled at once, and its video found."""
    at = gateway([{"on": "create", "nth": 1, "do": "drop"}], durations="constant:0.1")
    control = BatchControl(Terminal())
    async with client(at, polling=FixedInterval(0.02)) as pika:
        with control.over(pika):
            with pytest.raises(SubmissionInDoubt):
                await pika.submit("a cat", key="cat")
            await control.change("pause", {})
            done = await control.change("resolve", {"key": "cat", "task_id": at.ledger[0].task_id})
            assert "it is followed" in done
            settled = pika.jobs(JobStatus.SUCCEEDED)
            with anyio.fail_after(HANG_S):
                while not [job.key async for job in settled]:
                    await anyio.sleep(0.02)
            assert pika.stats().paused
    assert len(at.ledger) == 1


@pytest.mark.anyio
async def test_a_pause_and_a_room_hold_for_the_next_provider() -> None:
    """A command may run several clients, one after the other."""
    control = BatchControl(Terminal())
    async with client(gateway()) as first, client(gateway()) as second:
        with control.over(first):
            await control.change("pause", {})
            await control.change("room", {"jobs": 3})
        with control.over(second):
            assert (second.stats().paused, second.stats().max_in_flight) == (True, 3)


def test_the_control_needs_a_board(cli: CommandLine, tmp_path: Path) -> None:
    """Nothing is sent; the command `board` has no such option."""
    (tmp_path / "b.txt").write_text("a cat")
    result = cli("batch", str(tmp_path / "b.txt"), "--provider", "yescale", "--board-control")
    assert result.code == 2
    assert "--board-control needs --board" in result.err
    assert cli("board", "nowhere", "--board-control").code == 2
