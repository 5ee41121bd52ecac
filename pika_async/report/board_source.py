"""Follower of a journal for the live board: reads it beside a running batch, in a thread, and writes nothing.

It reads when it is asked to, so that a board without readers costs nothing.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import attrs

from pika_async._journal.reader import Reader
from pika_async._planning.repetition import is_archived
from pika_async.errors import PikaError
from pika_async.jobs import Job, JobStatus
from pika_async.polling.adaptive import EXPECTED_SECONDS
from pika_async.report.board_feed import BoardFeed
from pika_async.report.cards import card_of, is_shown
from pika_async.report.media_facts import read_media_facts
from pika_async.report.timeline_section import TimelineSection

__all__ = ["READ_INTERVAL_S", "JournalFollower"]

#: Seconds between two reads of the journal.
READ_INTERVAL_S: Final = 0.5
#: Most jobs whose download is checked in one read.
MAX_DOWNLOADS_AT_ONCE: Final = 200


@attrs.define
class JournalFollower:
    """Reader of the journal of `root` that keeps `feed` up to date.

    :param root: folder of the batch.
    :param journal: its journal.
    :param price: price of one charge; default None, unknown.
    """

    root: Path
    journal: Path
    price: float | None = None
    feed: BoardFeed = attrs.field(init=False)
    #: Error of the last read; None while the journal can be read.
    error: PikaError | None = attrs.field(default=None, init=False)
    section: TimelineSection = attrs.field(init=False)
    _reader: Reader = attrs.field(init=False)
    #: Jobs whose file may still come, by key: a finished download gets no revision in the journal.
    _awaited: dict[str, Job] = attrs.field(factory=dict, init=False)
    _reading: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)
    #: Time of the last read on the monotonic clock; None before the first one.
    _read_at: float | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.feed = BoardFeed(self.root)
        self.section = TimelineSection(expected_seconds=EXPECTED_SECONDS)
        self._reader = Reader(self.journal)

    async def refresh(self) -> None:
        """Read the journal, unless that was done within `READ_INTERVAL_S`; an error is kept until the next read."""
        async with self._reading:
            if self._read_at is None or time.monotonic() - self._read_at >= READ_INTERVAL_S:
                await self._read()
                self._read_at = time.monotonic()

    async def _read(self) -> None:
        while True:
            try:
                found = await anyio.to_thread.run_sync(self._read_page, self.feed.revision)
            except PikaError as error:
                self.error = error
                return
            self.error = None
            self._put(found)
            if all(revision <= 0 for revision, *_ in found):
                return

    def _read_page(self, after: int) -> list[tuple[int, Job, dict[str, object]]]:
        """Return changed jobs with their cards, then finished downloads with the revision 0. Runs in a thread."""
        with self._reader.reading():
            changed = self._reader.committed_changes(after)
            found = changed or self._finished_downloads()
        return [(revision, job, self._card(job)) for revision, job in found]

    def _finished_downloads(self) -> list[tuple[int, Job]]:
        found = []
        for key, known in list(self._awaited.items())[:MAX_DOWNLOADS_AT_ONCE]:
            self._awaited[key] = self._awaited.pop(key)  # the next read takes others
            job = self._reader.get(key)
            if job is not None and (job.file, job.error) != (known.file, known.error):
                found.append((0, job))
        return found

    def _card(self, job: Job) -> dict[str, object]:
        if not is_shown(job):
            return {}
        has_poster = job.file is not None and (self.root / "posters" / f"{job.key}.jpg").is_file()
        facts = None if job.file is None else read_media_facts(job.file)
        return card_of(job, self.root, facts=facts, has_poster=has_poster, price=self.price)

    def _put(self, found: list[tuple[int, Job, dict[str, object]]]) -> None:
        for revision, job, card in found:
            self.feed.put(job, card, revision)
            if not is_archived(job):
                self.section.timeline.add(job)
            self._awaited.pop(job.key, None)
            if job.status is JobStatus.SUCCEEDED and job.file is None:
                self._awaited[job.key] = job

    async def figures(self, now: float) -> tuple[str | None, str | None]:
        """Return the timeline and the learned durations as HTML; see `TimelineSection.figures`."""

        def draw() -> tuple[str | None, str | None]:
            with contextlib.suppress(PikaError):
                self.section.set_all_samples(self._reader.samples())
            return self.section.figures(now)

        return await anyio.to_thread.run_sync(draw)
