"""Display of `generate` while its one job runs."""

from __future__ import annotations

import re

import attrs
import pytest

from pika_async import GenerationRequest
from pika_async.cli.waiting import waiting_line
from pika_async.jobs import Job, JobStatus
from tests.cli.command_line import CommandLine, serving

JOB = Job(
    key="a", request=GenerationRequest(prompt="p"), provider="native", base_url="http://a", status=JobStatus.RUNNING
)


@pytest.mark.parametrize(
    ("job", "elapsed", "expected", "line"),
    [
        (JOB, 65.4, (40.0, 100.0), "running, 0:01:05 elapsed, expected 40 to 100 s"),
        (attrs.evolve(JOB, progress=40), 1.0, None, "running 40 %, 0:00:01 elapsed"),
        (None, 0.0, (0.0, 0.0), "waiting, 0:00:00 elapsed"),
    ],
)
def test_the_line_has_state_and_times(
    job: Job | None, elapsed: float, expected: tuple[float, float] | None, line: str
) -> None:
    """What is not known is left out."""
    assert waiting_line(job, elapsed, expected) == line


def test_a_pipe_gets_a_line_at_the_start(cli: CommandLine) -> None:
    """It stands behind the task id, once."""
    with serving(durations="constant:0.3") as emulator:
        ran = cli("generate", "a cat", "--provider", "native", "--base-url", emulator.base_url("native"), "--yes")
    assert ran.code == 0
    assert re.findall(r"^.*0:00:00 elapsed.*$", ran.err, re.MULTILINE) == [
        "queued, 0:00:00 elapsed, expected 30 s to 2 min"
    ], ran.err


def test_a_terminal_gets_a_live_line_that_goes_away(cli: CommandLine) -> None:
    """State and times are redrawn in place; the last output is the result."""
    cli.monkeypatch.setenv("FORCE_COLOR", "1")
    cli.monkeypatch.setenv("TERM", "xterm-256color")
    cli.monkeypatch.setenv("COLUMNS", "80")
    with serving(durations="constant:0.3") as emulator:
        ran = cli("generate", "a cat", "--provider", "native", "--base-url", emulator.base_url("native"), "--yes")
    assert ran.code == 0
    assert re.search(r"(queued|running).* elapsed", ran.err)
    assert "\x1b[2K" in ran.err
