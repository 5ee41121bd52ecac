"""Jobs that a person has canceled on the board, and commands in their folder afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.cli.batch_process import HANG_S, LAUNCHER, start_batch
from tests.cli.board_page import paused_batch
from tests.cli.command_line import ENV, KEY
from tests.fakes.page_data import page_data


def lines(folder: Path) -> list[Any]:
    """Return the lines of the results in `folder`."""
    return [json.loads(line) for line in (folder / "pika-out/results.jsonl").read_text().splitlines()]


def cards(folder: Path) -> list[Any]:
    """Return the cards of the page in `folder`."""
    found: list[Any] = page_data(folder / "pika-out")["cards"]
    return found


def test_a_canceled_row_that_is_sent_again_has_one_line_and_one_card(tmp_path: Path) -> None:
    """The line and the card of before give way to those of the job that was sent; nothing is paid for twice."""
    with paused_batch(tmp_path) as (emulator, batch, page):
        assert page.change("cancel")[0] == 200
        batch.communicate(timeout=HANG_S)
        canceled = {line["key"] for line in lines(tmp_path) if line["status"] == "canceled"}
        assert canceled == {card["key"] for card in cards(tmp_path) if card["status"] == "canceled"}
        assert len(canceled) == 40 - len(emulator.ledger) > 0
        more = ("--no-download", "--max-in-flight", "40", "--expected-seconds", "0.3")
        with start_batch(emulator, tmp_path, *more) as again:
            again.communicate(timeout=HANG_S)
        assert again.returncode == 0
        assert len(emulator.ledger) == 40
        for found in (lines(tmp_path), cards(tmp_path)):
            assert len({one["key"] for one in found}) == len(found) == 40
            assert {one["status"] for one in found} == {"succeeded"}
        assert page_data(tmp_path / "pika-out")["head"]["groups"] == []


def test_another_provider_in_the_folder_leaves_what_was_canceled(tmp_path: Path) -> None:
    """Its own jobs are sent, and the canceled ones of the first keep their lines and their cards."""
    with paused_batch(tmp_path) as (emulator, batch, page):
        assert page.change("cancel")[0] == 200
        batch.communicate(timeout=HANG_S)
        before = Counter(line["status"] for line in lines(tmp_path))
        sent = len(emulator.ledger)
        (tmp_path / "other.txt").write_text("a heron\na kite")
        argv = [sys.executable, "-c", LAUNCHER, "batch", "other.txt", "--provider", "gptge", "--out", "pika-out"]
        argv += ["--base-url", emulator.base_url("gptge"), "--no-download", "--expected-seconds", "0.3"]
        env = {**os.environ, ENV["gptge"]: KEY}
        ran = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_S, check=False, env=env)
        assert ran.returncode == 0, ran.stderr
        assert len(emulator.ledger) == sent + 2
        for found in (lines(tmp_path), cards(tmp_path)):
            counts = Counter((one["provider"], one["status"]) for one in found)
            assert counts.pop(("gptge", "succeeded")) == 2
            assert counts == {("yescale", status): count for status, count in before.items()}
