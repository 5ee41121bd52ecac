"""Lines of `results.jsonl`: every reader splits them correctly, and no file of a user is overwritten."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import GenerationFailed, GenerationRequest, Job, JobStatus
from pika_async.cli.results import COLUMNS, ResultsWriter, json_line, read_results, result_row


def job(key: str = "k", **changes: Any) -> Job:
    return Job(key=key, request=GenerationRequest("a cat"), provider="native", base_url="http://h", **changes)


def test_a_planned_job_has_every_column() -> None:
    """Unknown values are null."""
    made = result_row(job(), Path())
    assert tuple(made) == COLUMNS
    assert {name for name, value in made.items() if value is None} == {
        "task_id", "video_url", "file", "sha256", "error", "submitted_at", "settled_at", "points",
        "metadata",
    }  # fmt: skip


def test_times_are_utc_and_files_are_relative(tmp_path: Path) -> None:
    """Times are ISO 8601 with Z and milliseconds; a file outside the folder keeps its path."""
    at = datetime(2026, 1, 2, 3, 4, 5, 6000, UTC)
    inside = job(status=JobStatus.SUCCEEDED, file=tmp_path / "videos" / "k.mp4", submitted_at=at, settled_at=at)
    made = result_row(inside, tmp_path)
    assert (made["settled_at"], made["file"]) == ("2026-01-02T03:04:05.006Z", "videos/k.mp4")
    assert result_row(inside, tmp_path / "other")["file"] == str(tmp_path / "videos" / "k.mp4")


def test_an_error_is_its_type_and_its_message() -> None:
    """It is an object with both, and with the kind."""
    error = GenerationFailed(key="k", provider="native", task_id="t", reason="moderation")
    fields = {"type": "GenerationFailed", "kind": error.kind, "message": error.message}
    assert result_row(job(error=error), Path())["error"] == fields


@given(st.dictionaries(st.text(), st.none() | st.text() | st.integers() | st.lists(st.text())), st.booleans())
def test_a_line_is_one_line_of_printable_text(record: dict[str, Any], ascii_only: bool) -> None:
    """Any record, lone surrogates included, reads back equal, and no reader splits its line."""
    line = json_line(record, ascii_only=ascii_only)
    assert json.loads(line) == record
    assert line.splitlines() == [line[:-1]]
    assert line[:-1].isprintable()
    assert line.encode()


def test_a_key_has_one_line_and_a_file_is_never_overwritten(tmp_path: Path) -> None:
    """Only the first line of a key is written."""
    with ResultsWriter(tmp_path / "results.jsonl") as results:
        assert results.write(job())
        assert results.write(job(status=JobStatus.CANCELED)) is None
        assert len(read_results(tmp_path / "results.jsonl")) == 1
    with pytest.raises(FileExistsError):
        ResultsWriter(tmp_path / "results.jsonl")
    (tmp_path / "results.jsonl").write_text('{"key": "a"}\n\n[1]\n')
    with pytest.raises(ValueError, match=r"results.jsonl:3: must be a JSON object"):
        read_results(tmp_path / "results.jsonl")
