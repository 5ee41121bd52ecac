"""Reads of the board: each job that gets a card is read whole once, and pauses follow what a read takes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import Job, JobStatus
from pika_async._journal import serialization
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import DownloadFailed
from pika_async.report.board_source import JournalFollower, read_pause
from tests.report.jobs import failed, made, succeeded

SENT = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys of the jobs that are decoded, as that happens."""
    keys: list[str] = []
    decode = serialization.job_from_row

    def noted(row: Any, folder: Path) -> Job:
        keys.append(row["key"])
        return decode(row, folder)

    monkeypatch.setattr("pika_async._journal.reader.job_from_row", noted)
    return keys


async def follow(root: Path, *changes: Job) -> JournalFollower:
    """Return a follower that has read the journal after each of the changes."""
    journal = SqliteJournal(root / "journal.db")
    await journal.open()
    try:
        follower = JournalFollower(root, root / "journal.db")
        for job in changes:
            await journal.save(job)
            await follower.refresh(at_once=True)
        return follower
    finally:
        await journal.close()


@pytest.mark.anyio
async def test_only_a_job_that_gets_a_card_is_read_whole(tmp_path: Path, decoded: list[str]) -> None:
    """Its progress is not; neither is a second read needed for its file."""
    file = tmp_path / "videos" / "a.mp4"
    file.parent.mkdir()
    file.write_bytes(b"")
    running = [made("a", status=JobStatus.RUNNING, progress=n, task_id="t", submitted_at=SENT) for n in (1, 2, 3)]
    done = succeeded("a", submitted_at=SENT, settled_at=SENT)
    follower = await follow(tmp_path, *running, done, attrs.evolve(done, file=file, downloaded_at=SENT))
    assert decoded == ["a"]
    assert follower.feed.files == {"./videos/a.mp4": file}
    (line,) = follower.feed.cards()
    assert '"file":"./videos/a.mp4"' in line
    series = follower.section.timeline.series()
    assert (series.downloaded[-1], series.succeeded[-1], series.total) == (1, 1, 1)


@pytest.mark.anyio
async def test_a_download_that_failed_is_a_problem(tmp_path: Path) -> None:
    """Its job has succeeded, and its card says why there is no file."""
    error = DownloadFailed(url="https://cdn.example/v.mp4", reason="HTTP 404")
    done = succeeded("a")
    follower = await follow(tmp_path, done, attrs.evolve(done, error=error))
    (line,) = follower.feed.cards()
    assert "download failed: HTTP 404" in line
    assert [group["count"] for group in follower.feed.head(is_running=True, written="now")["groups"]] == [1]


@pytest.mark.anyio
async def test_a_job_that_runs_again_awaits_no_file(tmp_path: Path) -> None:
    """It is only counted, also if it had succeeded."""
    follower = await follow(tmp_path, succeeded("a"), made("a"), failed("b", "no", index=1))
    assert len(follower.feed.cards()) == 1
    assert follower.feed.head(is_running=True, written="now")["unfinished"] == {"planned": 1}


@pytest.mark.parametrize(("cpu_s", "pause_s"), [(0.0, 0.5), (0.005, 0.5), (0.006, 0.6), (0.4, 0.75)])
def test_pauses(cpu_s: float, pause_s: float) -> None:
    """They keep a board to a small share of one core, and changes to a lag that a person does not notice."""
    assert read_pause(cpu_s) == pytest.approx(pause_s)
