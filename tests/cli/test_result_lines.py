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
        "account", "cost", "metadata",
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


# --- a file that is continued -----------------------------------------------------------------------------------------


def written(path: Path, *jobs: Job) -> Path:
    """Return *path*, to which one more command has written *jobs*."""
    with ResultsWriter(path, continues=True) as results:
        for one in jobs:
            results.write(one)
        results.finish()
    return path


def keys(path: Path) -> list[str]:
    return [row["key"] for row in read_results(path)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def test_lines_that_are_true_are_left_alone(path: Path) -> None:
    """A command that changes nothing opens the file and neither writes nor replaces it; one that adds a job appends."""
    jobs = [job("b"), job("a")]
    before = written(path, *jobs).stat()
    content = path.read_bytes()
    after = written(path, *reversed(jobs)).stat()
    assert (after.st_ino, after.st_mtime_ns, path.read_bytes()) == (before.st_ino, before.st_mtime_ns, content)
    grown = written(path, *jobs, job("c")).stat()
    assert (grown.st_ino, path.read_bytes()[: len(content)], keys(path)) == (before.st_ino, content, ["b", "a", "c"])


@pytest.mark.parametrize("others", [[], ["gone"]], ids=["alone", "with a job that is gone"])
def test_a_line_that_is_not_true_any_more_goes_at_the_end(path: Path, others: list[str]) -> None:
    """Until then the later line of the key counts; the replaced file has the other lines in their order."""
    written(path, job("a"), job("b"), *map(job, others), job("c"))
    inode = path.stat().st_ino
    with ResultsWriter(path, continues=True) as results:
        results.write(job("c"))
        results.write(job("a", status=JobStatus.CANCELED))
        results.write(job("b"))
        assert keys(path) == ["a", "b", *others, "c", "a"]
        assert path.stat().st_ino == inode
        results.finish()
    assert [(row["key"], row["status"]) for row in read_results(path)] == [
        ("b", "planned"), ("c", "planned"), ("a", "canceled"),
    ]  # fmt: skip
    assert path.stat().st_ino != inode
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("left", [1, 10, -1], ids=lambda left: f"cut at {left}")
def test_an_incomplete_last_line_is_removed(path: Path, left: int) -> None:
    """However a command was ended in the middle of a line, the next one has that job's line whole, and once."""
    content = written(path, job("a"), job("b")).read_bytes()
    last = content.splitlines(keepends=True)[-1]
    path.write_bytes(content.removesuffix(last) + last[:left])
    with ResultsWriter(path, continues=True) as results:
        assert keys(path) == ["a"]
        results.write(job("a"))
        results.write(job("b"))
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    "line", ["[1]", "{}", '{"key": 1}', "", "not JSON", '{"key": "a", "status": "mine"}', "[" * 9999]
)
def test_lines_of_others_go_at_the_end(path: Path, line: str) -> None:
    """A line that is not of a job, or not the one that its job has, does not outlive the command."""
    content = written(path, job("a")).read_bytes()
    path.write_bytes(line.encode() + b"\n" + content)
    written(path, job("a"))
    assert path.read_bytes() == content


def test_a_file_that_a_link_leads_to_is_not_changed(path: Path, tmp_path: Path) -> None:
    """A link in the place of the file is replaced, as the file itself would be."""
    other = tmp_path / "other"
    other.write_text("mine")
    path.symlink_to(other)
    written(path, job("a"))
    assert (other.read_text(), path.is_symlink(), keys(path)) == ("mine", False, ["a"])


def test_a_replacement_that_fails_leaves_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file keeps every line, and no part of a new one stays."""
    written(path, job("a"), job("gone"))

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        written(path, job("a"))
    assert (keys(path), list(path.parent.iterdir())) == (["a", "gone"], [path])


def test_rows_are_in_the_order_of_the_input(path: Path) -> None:
    """They are those of this command, also where the disk has not taken one, and can be iterated again."""
    written(path, job("z", index=0), job("old"))
    with ResultsWriter(path, continues=True) as results:
        results.write(job("b", index=2))
        results.write(job("a", index=2))
        results.write(job("z", index=0))
        results.close()
        with pytest.raises(ValueError, match="closed"):
            results.write(job("lost", index=1))
        rows = results.rows
    for _ in range(2):
        assert [(row["index"], row["key"]) for row in rows] == [(0, "z"), (1, "lost"), (2, "a"), (2, "b")]


def test_some_jobs_are_replaced_and_the_lines_of_the_others_stay(path: Path) -> None:
    """A job keeps the index of its line; one without a line gets none; lines of others go."""
    written(path, job("a", index=7), job("b", index=3))
    with path.open("a") as file:
        file.write('{"key": "mine", "index": 1}\n')
    with ResultsWriter(path, continues=True) as results:
        results.replace([job("a", status=JobStatus.CANCELED), job("never")])
        results.finish()
        rows = list(results.rows)
    assert [(row["key"], row["index"], row["status"]) for row in read_results(path)] == [
        ("b", 3, "planned"), ("a", 7, "canceled"),
    ]  # fmt: skip
    assert [row["key"] for row in rows] == ["b", "a"]
