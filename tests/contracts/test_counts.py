"""The check of the counts that do not depend on the clock: it finds growth, and needs a record."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import counts
import pytest
import run

from pika_async._runtime.task_poller import TaskPoller

RECORD = {"poll, calls, own": 100.0, "poll, calls, all": 200.0, "poll, bytes sent": 186.0}
RECORD_ANEW = "nox -s bench -- --record"


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of records for this version of Python, and a measurement that finds exactly these counts."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    file = tmp_path / "counts.json"
    file.write_text(json.dumps({version: RECORD}))
    monkeypatch.setattr(counts, "RECORDS", file)
    monkeypatch.setattr(counts, "measure", lambda: dict(RECORD))
    monkeypatch.setattr(counts, "show", lambda *_: None)
    return file


def test_equal_counts_pass(records: Path) -> None:
    assert counts.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("name", "grown"), [("poll, calls, own", 104.0), ("poll, calls, all", 221.0), ("poll, bytes sent", 192.0)]
)
def test_growth_is_found(
    name: str, grown: float, records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence has the name, both values, and how to record anew; only `--check` fails for it."""
    monkeypatch.setattr(counts, "measure", lambda: RECORD | {name: grown})
    assert counts.main(["--check"]) == 1
    sentence = capsys.readouterr().err
    for part in (repr(name), f"recorded {RECORD[name]:g}", f"measured {grown:g}", RECORD_ANEW):
        assert part in sentence
    assert counts.main([]) == 0


def test_growth_within_its_tolerance_passes(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The libraries' own calls may grow more than those of the package."""
    monkeypatch.setattr(
        counts, "measure", lambda: {"poll, calls, own": 102.0, "poll, calls, all": 219.0, "poll, bytes sent": 190.0}
    )
    assert counts.main(["--check"]) == 0


def test_a_fall_passes_and_is_printed(
    records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(counts, "measure", lambda: RECORD | {"poll, calls, own": 50.0})
    assert counts.main(["--check"]) == 0
    assert "1 counts have fallen" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{}", '{"2.7": {"poll, calls, own": 1.0}}', None])
def test_a_missing_record_is_an_error(content: str | None, records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the version of Python, or the whole file."""
    records.unlink() if content is None else records.write_text(content)
    assert counts.main(["--check"]) == 1
    assert RECORD_ANEW in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"poll, calls, own": None}, {"a new count": 1.0}])
def test_a_count_without_its_counterpart_is_an_error(
    change: dict[str, Any], records: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A renamed or new count is recorded before it is checked."""
    measured = {name: value for name, value in (RECORD | change).items() if value is not None}
    monkeypatch.setattr(counts, "measure", lambda: measured)
    assert counts.main(["--check"]) == 1
    assert "alone" in capsys.readouterr().err


def test_a_record_keeps_those_of_other_versions(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded passes the check."""
    records.write_text('{"2.7": {"poll, calls, own": 1.0}}')
    monkeypatch.setattr(counts, "measure", lambda: {"poll, calls, own": 7.0})
    assert counts.main(["--record"]) == 0
    assert counts.main(["--check"]) == 0
    assert json.loads(records.read_text())["2.7"] == {"poll, calls, own": 1.0}


def test_the_file_has_the_oldest_supported_python() -> None:
    """The version that CI checks with."""
    assert "3.11" in json.loads(counts.RECORDS.read_text())


def test_two_runs_count_the_same_and_more_work_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole client runs: a poll that does something of ours ten times more has more calls of ours."""
    first = counts.measure_polls("poll", 4)
    assert counts.measure_polls("poll", 4) == first
    poll = TaskPoller.poll

    async def poll_with_growth(self: TaskPoller, *args: Any) -> Any:
        for _ in range(10):
            self._is_known("1")
        return await poll(self, *args)

    monkeypatch.setattr(TaskPoller, "poll", poll_with_growth)
    grown = counts.measure_polls("poll", 4)
    assert grown["poll, calls, own"] > 1.1 * first["poll, calls, own"]
    assert grown["poll, bytes sent"] == first["poll, bytes sent"]


def test_a_command_line_names_benchmarks_and_their_arguments() -> None:
    """Without a name all are run; the options of the counts run these alone."""
    assert run.chosen([]) == list(run.BENCHMARKS)
    assert [(each.name, each.arguments) for each in run.chosen(["cost", "300", "1", "plots"])] == [
        ("cost", ("300", "1")),
        ("plots", ()),
    ]
    assert [(each.name, each.arguments) for each in run.chosen(["--check"])] == [("counts", ("--check",))]
    with pytest.raises(SystemExit, match="must be one of counts"):
        run.chosen(["no-such-benchmark"])


def test_every_benchmark_is_a_script_with_a_limit() -> None:
    for benchmark in run.BENCHMARKS:
        assert (run.FOLDER / f"{benchmark.name}.py").is_file()
        assert benchmark.limit_minutes > 0
