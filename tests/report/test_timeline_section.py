"""Tests of the section with the timeline: on the page while the batch runs, and at its end."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import attrs

from pika_async.jobs import Job, JobStatus
from pika_async.polling.durations import DurationSample
from pika_async.report.timeline_section import TimelineSection
from pika_async.report.writer import GalleryWriter
from tests.report.jobs import made, succeeded

SENT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def running(key: str) -> Job:
    return attrs.evolve(made(key, status=JobStatus.RUNNING), task_id="t", submitted_at=SENT)


def page_of(gallery: GalleryWriter, *, is_running: bool = True) -> str:
    return gallery.write(is_running=is_running).read_text(encoding="utf-8")


def test_the_page_has_the_timeline_while_its_batch_runs(tmp_path: Path) -> None:
    """Jobs that were not taken in yet count as planned, active ones as in flight, and the style sheet is beside it."""
    gallery = GalleryWriter(tmp_path, "t")
    gallery.expect(["a", "b", "c"])
    assert 'id="timeline"' not in page_of(gallery)
    gallery.add_active([running("a")])
    page = page_of(gallery)
    assert "<b>2</b> <span>not accepted yet</span>" in page
    assert "<b>1</b> <span>in flight</span>" in page
    gallery.add(attrs.evolve(succeeded("a"), submitted_at=SENT, settled_at=SENT))
    assert "<b>0</b> <span>in flight</span>" not in page_of(gallery, is_running=False)
    assert (tmp_path / "assets" / "timeline.css").is_file()


def test_a_page_without_jobs_has_no_timeline(tmp_path: Path) -> None:
    """An empty page has no section with nothing in it."""
    assert 'id="timeline"' not in page_of(GalleryWriter(tmp_path, "t"))


def test_an_active_job_that_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    """Active jobs are given before each write; only what changed is encoded."""
    gallery, job = GalleryWriter(tmp_path, "t"), running("a")
    gallery.add_active([job])
    gallery.write()
    gallery.add_active([job])
    assert not gallery._pending
    gallery.add_active([attrs.evolve(job, progress=50)])
    assert list(gallery._pending) == ["a"]


def test_room_is_that_of_all_accounts_and_unknown_if_one_is() -> None:
    """A sum of the known ones alone would be less than what may run."""
    section = TimelineSection()
    section.timeline.add(running("a"))
    section.set_learned("one", [], 2)
    assert "room for about 2" in "".join(filter(None, section.figures(None)))
    section.set_learned("two", [], None)
    assert "room" not in "".join(filter(None, section.figures(None)))
    section.set_learned("two", [], 3)
    assert "room for about 5" in "".join(filter(None, section.figures(None)))


def test_learned_durations_are_of_every_account() -> None:
    """Each stratum has a figure; a second report of an account takes the place of the first."""
    section = TimelineSection()
    section.timeline.add(running("a"))
    assert section.figures(None)[1] is None
    for account in ("one", "two", "two"):
        section.set_learned(account, [DurationSample(f"{account}/-/text/plain", 1, 2)], None)
    markup = section.figures(None)[1] or ""
    assert markup.count('<p class="chart-name"') == 2
    assert markup.count("<b>1</b> <span>polls that found a task settled") == 2
