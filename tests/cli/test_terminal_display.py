"""The live display at a real terminal: one bar, whole words, and messages above it that never tear it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pika_async.emulator import Emulator
from tests.cli.command_line import ENV, KEY, serving
from tests.fakes.terminal import Terminal, open_terminal

pytestmark = pytest.mark.slow

JOBS = 30


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serving(durations="lognormal:2,0.5", in_flight=10) as emulator:
        yield emulator


@pytest.fixture(params=[40, 80, 200])
def terminal(request: pytest.FixtureRequest, tmp_path: Path, emulator: Emulator) -> Iterator[Terminal]:
    """Open a terminal with a key and an input of `JOBS` rows."""
    (tmp_path / "b.csv").write_text("prompt\n" + "".join(f"cat number {n}\n" for n in range(JOBS)))
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), ENV["cometapi"]: KEY,
        "PIKA_ASYNC_BASE_URL": emulator.base_url("cometapi"), "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    with open_terminal(tmp_path, columns=request.param, environment=environment) as opened:
        yield opened


def test_log_lines_stand_above_one_whole_display(terminal: Terminal) -> None:
    """At each moment there is one bar, below every message; at the end there is none, and every log line is whole."""
    terminal.type(
        f"{sys.executable} -m pika_async batch b.csv --yes --no-download --price 0.28 --log-level debug; echo over=$?"
    )
    terminal.wait_for(r"elapsed")
    moments = [terminal.screen()]
    while not any(re.match(r"over=\d", line) for line in moments[-1]):
        moments.append(terminal.screen())
    whole = [lines for lines in moments if any("━" in line for line in lines)]
    assert len(whole) > 5
    for lines in whole:
        bars = [number for number, line in enumerate(lines) if "━" in line]
        assert len(bars) == 1, "\n".join(lines)
        below = " ".join(lines[bars[0] :])
        assert re.search(rf"of {JOBS}\b.* elapsed", below), below
        assert "DEBUG" not in below
    text = "\n".join(terminal.screen())
    assert "━" not in text
    assert "elapsed" not in text
    assert "over=0" in text
    joined = "".join(line.ljust(terminal.columns) for line in terminal.screen())
    assert len(re.findall(r"DEBUG", joined)) > JOBS
    assert any("so far" in " ".join(lines) for lines in whole)
    assert any(re.search(r"(s|min) left", " ".join(lines)) for lines in whole)
