"""Writer of the page: whole at each time, never over a file of the user, and in proportion to what changed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pika_async import Job, JobStatus
from pika_async.errors import JournalUnusable
from pika_async.polling.durations import DurationSample
from pika_async.report import writer
from pika_async.report.cards import card_of
from pika_async.report.page import static_files
from pika_async.report.writer import GalleryWriter, pause_after
from tests.fakes.page_data import page_data
from tests.report.jobs import failed, made, succeeded


def test_the_page_has_every_job_in_the_order_of_the_batch(tmp_path: Path) -> None:
    """Unfinished jobs are counted: those that were added by status, the others as waiting."""
    gallery = GalleryWriter(tmp_path, "t")
    gallery.expect(["a", "b", "c", "d"])
    gallery.add(succeeded("b", index=1))
    gallery.add(failed("a", "no", index=0))
    gallery.add(made("c", index=2, status=JobStatus.PLANNED))
    assert gallery.write() == tmp_path / "index.html"
    data = page_data(tmp_path)
    assert [card["key"] for card in data["cards"]] == ["a", "b"]
    assert data["head"]["unfinished"] == {"planned": 2}
    assert [group["reason"] for group in data["head"]["groups"]] == ["no"]


def test_a_job_is_shown_as_it_is_now(tmp_path: Path) -> None:
    """A card is replaced by that of the same key, and leaves the page if its job is sent again."""
    gallery = GalleryWriter(tmp_path, "t")
    gallery.add(failed("a", "no"))
    gallery.write()
    gallery.add(succeeded("a"))
    gallery.write()
    assert [card["status"] for card in page_data(tmp_path)["cards"]] == ["succeeded"]
    gallery.add(made("a"))
    gallery.write()
    assert page_data(tmp_path)["cards"] == []


def test_each_job_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing again joins the lines."""
    encoded: list[str] = []

    def counted(job: Job, root: Path, **more: Any) -> dict[str, Any]:
        encoded.append(job.key)
        return card_of(job, root, **more)

    monkeypatch.setattr(writer, "card_of", counted)
    gallery = GalleryWriter(tmp_path, "t")
    for key in ("a", "b", "c"):
        gallery.add(succeeded(key))
        gallery.write()
    assert encoded == ["a", "b", "c"]
    assert len(page_data(tmp_path)["cards"]) == 3


def test_the_order_follows_an_index_that_changes(tmp_path: Path) -> None:
    """Each job has one card, in the order of the batch, whatever came first."""
    gallery = GalleryWriter(tmp_path, "t")
    for key, index in (("c", 2), ("a", 0), ("b", 1)):
        gallery.add(succeeded(key, index=index))
    gallery.write()
    assert [card["key"] for card in page_data(tmp_path)["cards"]] == ["a", "b", "c"]
    gallery.add(succeeded("a", index=5))
    gallery.add(made("b", index=1))
    gallery.write()
    assert [card["key"] for card in page_data(tmp_path)["cards"]] == ["c", "a"]


def test_a_poster_is_put_on_a_card_that_is_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Posters are drawn at the end; no job is encoded, and no file read, a second time for them."""
    jobs = [succeeded(key, file=tmp_path / f"{key}.mp4") for key in ("a", "b")]

    def draw(files: Iterable[Path], folder: Path) -> int:
        monkeypatch.setattr(writer, "card_of", None)
        folder.mkdir()
        (folder / "a.jpg").touch()
        return len(list(files))

    monkeypatch.setattr(writer, "draw_posters", draw)
    gallery = GalleryWriter(tmp_path, "t")
    for job in jobs:
        gallery.add(job)
    gallery.finish()
    assert [card.get("poster") for card in page_data(tmp_path)["cards"]] == ["./posters/a.jpg", None]


def test_a_page_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails, or a process that dies in it, leaves the page as it was; the next one is whole."""
    gallery = GalleryWriter(tmp_path, "t")
    gallery.add(succeeded("a"))
    gallery.write()
    before = (tmp_path / "index.html").read_bytes()
    original = Path.write_bytes

    def cut(path: Path, content: bytes) -> int:
        original(path, content[:100])
        raise OSError(28, "No space left on device")

    gallery.add(succeeded("b"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", cut)
        with pytest.raises(OSError, match="No space"):
            gallery.write()
    assert (tmp_path / "index.html").read_bytes() == before
    gallery.write()
    assert len(page_data(tmp_path)["cards"]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["assets", "index.html"]


def test_a_page_of_the_user_is_never_overwritten(tmp_path: Path) -> None:
    """Neither it nor the folder beside it changes."""
    (tmp_path / "index.html").write_text("<title>mine</title>")
    with pytest.raises(FileExistsError, match="never overwritten"):
        GalleryWriter(tmp_path, "t").write()
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_text() == "<title>mine</title>"


def test_static_files_are_written_only_if_they_differ(tmp_path: Path) -> None:
    """Those of another version are replaced."""
    gallery = GalleryWriter(tmp_path, "t")
    gallery.write()
    script, style = tmp_path / "assets" / "gallery.js", tmp_path / "assets" / "gallery.css"
    script.write_text("old")
    os.utime(style, ns=(1, 1))
    gallery.write()
    assert script.read_bytes() == static_files()["gallery.js"]
    assert style.stat().st_mtime_ns == 1


@pytest.mark.parametrize(("took", "pause"), [(0.0, 3.0), (0.05, 3.0), (0.1, 4.0), (2.0, 80.0)])
def test_the_pause_follows_what_a_write_takes(took: float, pause: float) -> None:
    """Writing takes at most a fortieth of the time, and never happens more often than every three seconds."""
    assert pause_after(took) == pause


def test_the_page_is_written_while_the_body_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written after a change, in a thread, and no longer once the body has ended."""
    monkeypatch.setattr(writer, "MIN_PAUSE_S", 0.01)
    monkeypatch.setattr(writer, "PAUSE_FACTOR", 0)
    gallery = GalleryWriter(tmp_path, "t")

    async def run() -> None:
        async with gallery.refreshing():
            for key in ("a", "b"):
                gallery.add(succeeded(key))
                while gallery._pending or len(gallery._lines) < ord(key) - 96:
                    await asyncio.sleep(0.005)

    asyncio.run(run())
    assert len(page_data(tmp_path)["cards"]) == 2
    assert page_data(tmp_path)["head"]["running"] is True


def test_a_page_that_cannot_be_written_stops_no_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last write tells."""
    monkeypatch.setattr(writer, "MIN_PAUSE_S", 0.01)
    gallery = GalleryWriter(tmp_path / "none", "t")

    async def run() -> None:
        async with gallery.refreshing():
            gallery.add(succeeded("a"))
            while gallery._pending:
                await asyncio.sleep(0.005)

    asyncio.run(run())
    with pytest.raises(OSError, match="No such file"):
        gallery.finish()


def test_the_timeline_stands_on_the_page_once_something_has_a_time(tmp_path: Path) -> None:
    """Learned durations are read when the command has ended; where the journal cannot be read, those of before stay."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    samples = [DurationSample(stratum="native/-/text/plain", lower=50, upper=60, accepted_at=at.timestamp())]
    gallery = GalleryWriter(tmp_path, "t", load_samples=lambda: samples)
    page = gallery.write()
    assert "Timeline" not in page.read_text()
    gallery.add(succeeded("a", submitted_at=at, settled_at=at + timedelta(seconds=60)))
    gallery.write()
    assert ("Timeline" in page.read_text(), "Learned durations" in page.read_text()) == (True, False)
    gallery.write(is_running=False)
    assert "Learned durations" in page.read_text()

    def unreadable() -> list[DurationSample]:
        raise JournalUnusable(setting="journal", reason="is locked")

    gallery.load_samples = unreadable
    gallery.finish()
    assert ("Timeline" in page.read_text(), "Learned durations" in page.read_text()) == (True, True)
