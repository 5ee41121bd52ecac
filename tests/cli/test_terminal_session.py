"""A person with a spreadsheet at a real terminal: preview, question, faults, repetition, doubts, every video on disk."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from pika_async.emulator import Emulator
from tests.cli.command_line import ENV, KEY, serving
from tests.fakes.terminal import Terminal, open_terminal

pytestmark = pytest.mark.slow

ANIMALS: Final = ("Bär", "Hase", "Löwe", "Dachs", "Käuzchen")
#: Three of ten submissions meet a fault: a generation that fails, a refusal for now, an answer that is lost.
FAULTS: Final = (
    {"on": "create", "nth": [7, 23], "do": {"fault": "drop", "when": "before-reply"}},
    {"on": "create", "every": 5, "do": {"fault": "fails", "reason": "the content was refused by moderation"}},
    {"on": "create", "share": 0.1, "do": {"fault": "refuse", "as": "rate"}},
)
PRICE: Final = 0.28


def spreadsheet() -> bytes:
    """Return a table as a German Excel saves it: Windows-1252, semicolons, an empty row and two equal rows."""
    rows = [
        f"Ein {ANIMALS[n % 5]} läuft über die Straße, Szene {n};{'Inflate' if n % 3 == 0 else ''};Frühling"
        for n in range(40)
    ]
    rows[20:20] = [";;"]
    return "\r\n".join(["Prompt;Effect;Campaign", *rows, rows[3], ""]).encode("cp1252")


def announced(lines: list[str]) -> int:
    """Return the number of new charges in a preview."""
    return int(next(found[1] for line in lines if (found := re.search(r"(\d+) new charges?\b", line))))


def results(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of `results.jsonl` without those of jobs that were paid for again, by their index."""
    lines = map(json.loads, (folder / "clips/results.jsonl").read_text().splitlines())
    return sorted((row for row in lines if "~" not in row["key"]), key=lambda row: row["index"])


def statuses(folder: Path) -> set[str]:
    """Return the statuses of all jobs."""
    return {row["status"] for row in results(folder)}


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serving(*FAULTS, durations="lognormal:0.4,0.5") as emulator:
        yield emulator


@pytest.fixture(params=[80, 200])
def terminal(request: pytest.FixtureRequest, tmp_path: Path, emulator: Emulator) -> Iterator[Terminal]:
    """Open a terminal with the command on its path, an own home, and a key."""
    (tmp_path / "table.csv").write_bytes(spreadsheet())
    command = tmp_path / "bin" / "pika-async"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pika_async "$@"\n')
    command.chmod(0o755)
    environment = {
        "PATH": f"{command.parent}:{os.environ['PATH']}", "HOME": str(tmp_path), ENV["cometapi"]: KEY,
        "PIKA_ASYNC_BASE_URL": emulator.base_url("cometapi"), "PIKA_ASYNC_EXPECTED_SECONDS": "0.4",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    with open_terminal(tmp_path, columns=request.param, environment=environment) as opened:
        yield opened


def test_a_spreadsheet_becomes_videos_for_what_each_preview_announced(
    terminal: Terminal, emulator: Emulator, tmp_path: Path
) -> None:
    """The ledger grows by the announced number at each step, and in the end every row has its video."""
    batch = f"pika-async batch table.csv --out clips --price {PRICE}"
    preview, code = terminal.run(f"{batch} --dry-run")
    assert (code, announced(preview), len(emulator.ledger)) == (0, 41, 0)
    text = "\n".join(preview)
    assert "Windows-1252" in text
    assert "Campaign" in text
    assert "11.48" in text
    assert re.search(r"table\.csv:5\b.*table\.csv:43\b", text)

    refused, code = terminal.run(batch, (r"\[y/N\]", "n"))
    assert code != 0
    assert "nothing was sent" in "\n".join(refused)
    assert not emulator.ledger

    ran, code = terminal.run(batch, (r"\[y/N\]", "y"))
    assert (code, len(emulator.ledger)) == (1, announced(ran))
    assert re.search(r"this run: 41 new charges", "\n".join(ran))

    walk(terminal, emulator, tmp_path)
    _, code = terminal.run("pika-async resume clips")
    while "failed" in statuses(tmp_path):
        before = len(emulator.ledger)
        repeated, code = terminal.run("pika-async retry clips --failed --new-seed", (r"\[y/N\]", "y"))
        assert len(emulator.ledger) - before == announced(repeated) > 0
    again, code = terminal.run(batch)
    assert (code, announced(again)) == (0, 0)
    assert "41 known" in "\n".join(again)

    rows = results(tmp_path)
    assert [row["index"] for row in rows] == list(range(41))
    assert [row["metadata"]["Campaign"] for row in rows] == ["Frühling"] * 41
    assert all((tmp_path / "clips" / row["file"]).stat().st_size for row in rows)
    with (tmp_path / "clips/results.csv").open(encoding="utf-8-sig", newline="") as file:
        flat = [row for row in csv.DictReader(file) if "~" not in row["key"]]
    assert [row["Campaign"] for row in flat] == ["Frühling"] * 41
    assert KEY not in "\n".join(terminal.screen())


def walk(terminal: Terminal, emulator: Emulator, folder: Path) -> None:
    """Resolve both doubts at the terminal with the task ids that the provider's pages show."""
    start = len(terminal.screen())
    terminal.type("pika-async resolve clips; echo walked")
    known = {row["task_id"] for row in results(folder)}
    for number in (1, 2):
        lines = terminal.wait_for(rf"^{number} of 2", start)
        prompt = re.findall(r"'(Ein .*?)'", " ".join(lines))[-1]
        task_id = next(
            charge.task_id
            for charge in emulator.ledger
            if charge.task_id not in known and without_blanks(charge.prompt) == without_blanks(prompt)
        )
        known.add(task_id)
        terminal.wait_for(r"\[q\] quit:", start)
        terminal.type("t")
        terminal.wait_for("task id:", start)
        start = len(terminal.screen()) - 1
        terminal.type(task_id)
    terminal.wait_for("^walked", start)


def without_blanks(text: str) -> str:
    """Return `text` as it is compared with a screen, which breaks lines."""
    return re.sub(r"\s", "", text)
