"""Followers of jobs for the live board: read them beside what drives them, in a thread, and write nothing.

It reads when it is asked to, so that a board without readers costs nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import anyio
import anyio.to_thread
import attrs

from pika_async._journal.protocol import MAX_STATES, JobState
from pika_async._journal.reader import Reader
from pika_async._planning.repetition import is_archived, is_archived_key
from pika_async.errors import PikaError
from pika_async.jobs import Job, JobStatus
from pika_async.polling.adaptive import EXPECTED_SECONDS
from pika_async.polling.durations import DurationSample
from pika_async.report.board_feed import BoardCard, BoardFeed
from pika_async.report.cards import card_of, file_facts, folder_subject, is_shown, is_shown_status
from pika_async.report.media_facts import read_media_facts
from pika_async.report.timeline_section import TimelineSection

__all__ = ["ChangeFollower", "ChangeReader", "JournalFollower", "read_pause"]

#: Shortest and longest time between two reads of the journal, in seconds.
READ_INTERVAL_S: Final = 0.5
MAX_READ_INTERVAL_S: Final = 0.75
#: The pause after a read, in times of the CPU that it took.
READ_PAUSE_FACTOR: Final = 100
#: Most jobs whose download is checked in one read.
MAX_DOWNLOADS_AT_ONCE: Final = 500


def read_pause(cpu_s: float) -> float:
    """Return the seconds from one read to the next, after one that took `cpu_s` seconds of CPU."""
    return min(max(READ_INTERVAL_S, READ_PAUSE_FACTOR * cpu_s), MAX_READ_INTERVAL_S)


class ChangeReader(Protocol):
    """What a follower reads; `Reader` documents the calls.

    :raises PikaError: from each call, if it cannot be read at this moment.
    """

    def reading(self) -> AbstractContextManager[None]: ...

    def committed_states(self, after: int) -> list[tuple[int, JobState]]: ...

    def committed_jobs(self, keys: Collection[str]) -> Iterable[Job]: ...

    def committed_downloads(self, keys: Collection[str]) -> Mapping[str, tuple[Path | str, datetime | None] | None]: ...

    def samples(self) -> Iterable[DurationSample]: ...


@attrs.frozen(kw_only=True)
class _Page:
    """What one read has found, up to a revision of what is read."""

    revision: int
    #: CPU that it took, in seconds.
    cpu_s: float
    #: Whether there was no more to read.
    is_last: bool
    #: Jobs that have no card, each with the revision of its change.
    states: list[tuple[int, JobState]]
    #: Jobs that have a card, each with the revision of its change, and its facts in `_awaited` if its file may come.
    jobs: list[tuple[int, Job, BoardCard, dict[str, Any] | None]]
    #: Cards that got a file, with the time of its download.
    downloads: list[tuple[BoardCard, datetime | None]]


@attrs.define
class ChangeFollower:
    """Reader of jobs that keeps `feed` up to date.

    :param root: folder that links of files are relative to; a file elsewhere is not linked.
    :param reader: reads the jobs.
    :param price: price of one charge; default None, unknown.
    :param subject: the words of a command that name the jobs; default: `root`.
    """

    root: Path
    reader: ChangeReader
    price: float | None = attrs.field(default=None, kw_only=True)
    subject: Sequence[str] = attrs.field(kw_only=True)
    feed: BoardFeed = attrs.field(init=False)
    #: Error of the last read; None while the jobs can be read.
    error: PikaError | None = attrs.field(default=None, init=False)
    section: TimelineSection = attrs.field(init=False)
    #: Latest state of each job that has no card.
    _states: dict[str, JobState] = attrs.field(factory=dict, init=False)
    #: Facts of the cards whose file may still come, by key: a finished download gets no revision in the journal.
    _awaited: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)
    _may_have_posters: bool = attrs.field(default=False, init=False)
    _reading: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)
    #: Seconds from the last read to the next.
    pause_s: float = attrs.field(default=READ_INTERVAL_S, init=False)
    #: Time of the last read on the monotonic clock; None before the first one.
    _read_at: float | None = attrs.field(default=None, init=False)

    @subject.default
    def _default_subject(self) -> Sequence[str]:
        return folder_subject(self.root)

    def __attrs_post_init__(self) -> None:
        self.feed = BoardFeed(self.subject)
        self.section = TimelineSection(expected_seconds=EXPECTED_SECONDS)

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read the changes, unless that was done within `pause_s`; an error is kept until the next read.

        :param at_once: whether to read in any case; default False.
        """
        async with self._reading:
            if at_once or self._read_at is None or time.monotonic() - self._read_at >= self.pause_s:
                await self._read()
                self._read_at = time.monotonic()

    async def _read(self) -> None:
        cpu_s = 0.0
        while True:
            after = self.feed.revision
            try:
                page = await anyio.to_thread.run_sync(self._read_page, after)
            except PikaError as error:
                self.error = error
                return
            self.error = None
            self._put(page)
            cpu_s += page.cpu_s
            self.pause_s = read_pause(cpu_s)
            if page.is_last:
                return

    def _read_page(self, after: int) -> _Page:
        """Return the next changes, and the downloads that have ended. Runs in a thread.

        Only a job that gets a card is read whole, and only once: jobs change often before they settle.
        """
        started = time.thread_time()
        self._may_have_posters = (self.root / "posters").is_dir()
        with self.reader.reading():
            changed = self.reader.committed_states(after)
            downloads, whole = self._finished_downloads(after)
            states = []
            for revision, state in changed:
                if is_shown_status(state.status):
                    whole[state.key] = revision
                else:
                    states.append((revision, state))
            read = self.reader.committed_jobs(whole) if whole else ()
            jobs = [(whole[job.key], job, *self._card(job)) for job in read if is_shown(job)]  # else it changed since
        return _Page(
            revision=changed[-1][0] if changed else after,
            cpu_s=time.thread_time() - started,
            is_last=len(changed) < MAX_STATES,
            states=states,
            jobs=sorted(jobs, key=lambda one: one[0]),
            downloads=[one for one in downloads if one[0].key not in whole],
        )

    def _finished_downloads(self, after: int) -> tuple[list[tuple[BoardCard, datetime | None]], dict[str, int]]:
        """Return the cards that got a file, and the keys of the jobs that must be read whole for their error."""
        keys = list(self._awaited)[:MAX_DOWNLOADS_AT_ONCE]
        for key in keys:
            self._awaited[key] = self._awaited.pop(key)  # the next read takes others
        cards, whole = [], {}
        for key, download in self.reader.committed_downloads(keys).items() if keys else ():
            if download is None:
                whole[key] = after
                continue
            place, at = download
            if isinstance(place, str):
                card, file = self._awaited[key] | {"stored": place}, None
            else:
                file, facts = place, read_media_facts(place)
                card = self._awaited[key] | file_facts(
                    key, file, self.root, facts=facts, has_poster=self._has_poster(key)
                )
            cards.append((BoardCard.of(card, self.root, file=file), at))
        return cards, whole

    def _has_poster(self, key: str) -> bool:
        return self._may_have_posters and (self.root / "posters" / f"{key}.jpg").is_file()

    def _card(self, job: Job) -> tuple[BoardCard, dict[str, Any] | None]:
        has_poster = job.file is not None and self._has_poster(job.key)
        facts = None if job.file is None else read_media_facts(job.file)
        card = card_of(job, self.root, facts=facts, has_poster=has_poster, price=self.price, subject=self.subject)
        is_awaited = job.status is JobStatus.SUCCEEDED and not job.is_downloaded and job.error is None
        return BoardCard.of(card, self.root, file=job.file), card if is_awaited else None

    def _put(self, page: _Page) -> None:
        for card, at in page.downloads:
            self.feed.put(card, page.revision)
            del self._awaited[card.key]
            if not is_archived_key(card.key):
                self.section.timeline.add_download(card.key, at)
        for revision, state in page.states:
            self.feed.put_state(state, revision)
            if self._states.get(state.key) != state:  # else only its progress has changed
                self._states[state.key] = state
                self._awaited.pop(state.key, None)
                self.section.timeline.add_active(state.key, state.status, state.submitted_at)
        for revision, job, card, awaited in page.jobs:
            self.feed.put(card, revision)
            self._states.pop(job.key, None)
            self._awaited.pop(job.key, None)
            if awaited is not None:
                self._awaited[job.key] = awaited
            if not is_archived(job):
                self.section.timeline.add(job)
        self.feed.revision = page.revision

    async def figures(self, now: float) -> tuple[str | None, str | None]:
        """Return the timeline and the learned durations as HTML; see `TimelineSection.figures`."""

        def draw() -> tuple[str | None, str | None]:
            with contextlib.suppress(PikaError):
                self.section.set_all_samples(self.reader.samples())
            return self.section.figures(now)

        return await anyio.to_thread.run_sync(draw)


class JournalFollower(ChangeFollower):
    """Follower of the journal of a folder.

    :param root: folder of the batch.
    :param journal: its journal.
    :param price: price of one charge; default None, unknown.
    """

    def __init__(self, root: Path, journal: Path, price: float | None = None) -> None:
        super().__init__(root, Reader(journal), price=price)
