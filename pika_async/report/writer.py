"""Writer of the gallery of one folder, also while its batch runs. No write blocks the event loop."""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import attrs

from pika_async._planning.money import cost
from pika_async._planning.repetition import is_archived
from pika_async.errors import PikaError
from pika_async.jobs import Job, JobStatus
from pika_async.polling.durations import DurationSample
from pika_async.report.cards import card_of, folder_subject, is_shown, problem_groups, problem_of, shell_command
from pika_async.report.media_facts import read_media_facts
from pika_async.report.page import Facets, card_line, facets_of, is_own_page, page_text, static_files, with_poster
from pika_async.report.posters import draw_posters
from pika_async.report.timeline_section import TimelineSection

__all__ = ["GalleryWriter", "pause_after"]

#: Shortest time between two writes, in seconds.
MIN_PAUSE_S: Final = 3.0
#: The pause after a write, in times of its own length: writing takes at most a fortieth of one core.
PAUSE_FACTOR: Final = 40
#: Seconds for which an interrupt waits for a write under way.
LOCK_TIMEOUT_S: Final = 2.0
#: Bytes at the beginning of an `index.html` in which the mark of ours stands.
PAGE_START_BYTES: Final = 2_000


def pause_after(write_s: float) -> float:
    """Return the seconds from the end of a write that took `write_s` seconds to the beginning of the next one."""
    return max(MIN_PAUSE_S, PAUSE_FACTOR * write_s)


@attrs.define
class GalleryWriter:
    """Writer of `root`/index.html. Each job is encoded once; writing again costs a join and a write.

    :param title: title of the page.
    :param maker: command that makes the page; default "batch".
    :param price: price of one charge; default None, unknown.
    :param load_samples: returns the duration samples, once the command has ended; default None.
    :param expected_seconds: expected duration of a generation, in seconds above 0; default 60.
    :param subject: the words of a command that name the jobs; default: `root`.
    """

    root: Path
    title: str
    maker: str = "batch"
    price: float | None = None
    load_samples: Callable[[], Iterable[DurationSample]] | None = None
    expected_seconds: float = 60.0
    subject: Sequence[str] = attrs.field()
    #: Keys of all jobs of the command, finished or not.
    _expected: set[str] = attrs.field(factory=set, init=False)
    _pending: dict[str, Job] = attrs.field(factory=dict, init=False)
    _jobs: dict[str, Job] = attrs.field(factory=dict, init=False)
    #: Cards without a video, or whose download failed, and the states of the jobs that have no card.
    _problems: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)
    _unfinished: dict[str, str] = attrs.field(factory=dict, init=False)
    _lines: dict[str, str] = attrs.field(factory=dict, init=False)
    _facets: dict[str, Facets] = attrs.field(factory=dict, init=False)
    #: Points and prices of the cards that have them.
    _points: dict[str, float] = attrs.field(factory=dict, init=False)
    _charged: set[str] = attrs.field(factory=set, init=False)
    #: Index and key of each line, in the order of the page.
    _order: list[tuple[int, str]] = attrs.field(factory=list, init=False)
    _section: TimelineSection = attrs.field(init=False)
    _is_checked: bool = attrs.field(default=False, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _stops_drawing: threading.Event = attrs.field(factory=threading.Event, init=False)

    @subject.default
    def _default_subject(self) -> Sequence[str]:
        return folder_subject(self.root)

    def __attrs_post_init__(self) -> None:
        self._section = TimelineSection(expected_seconds=self.expected_seconds)

    def expect(self, keys: Collection[str]) -> None:
        """Count the jobs of `keys` as unfinished until they are added."""
        self._expected.update(keys)
        self._section.timeline.expect(keys)

    def add(self, job: Job) -> None:
        """Put `job` on the page with the next write, in place of what the page has of it."""
        self._pending[job.key] = job

    def add_active(self, jobs: Iterable[Job]) -> None:
        """Put those of `jobs` on the page that have changed since the last write."""
        for job in jobs:
            if self._jobs.get(job.key) is not job:
                self.add(job)

    def set_learned(self, account: str, samples: Iterable[DurationSample], room: float | None) -> None:
        """Replace what was learned of an account; see `TimelineSection.set_learned`."""
        self._section.set_learned(account, samples, room)

    @asynccontextmanager
    async def refreshing(self, update: Callable[[], object] | None = None) -> AsyncIterator[None]:
        """Write the page again while the body runs, after changes, at intervals that follow what a write takes.

        A write that fails is tried again with the next change; the last one tells.

        :param update: called in the event loop before each write, to add the jobs that are active; default None.
        """
        async with anyio.create_task_group() as group:
            group.start_soon(self._refresh, update, name="pika_async gallery")
            try:
                yield
            finally:
                group.cancel_scope.cancel()

    async def _refresh(self, update: Callable[[], object] | None) -> None:
        pause = MIN_PAUSE_S
        while True:
            await anyio.sleep(pause)
            if update is not None:
                update()
            if not self._pending:
                pause = MIN_PAUSE_S
                continue
            started = time.perf_counter()
            with contextlib.suppress(OSError):
                await anyio.to_thread.run_sync(self.write)
            pause = pause_after(time.perf_counter() - started)

    def write(self, *, is_running: bool = True) -> Path:
        """Write the page in one step, so that a reader sees the old one or the new one; return its path.

        Blocks: in an event loop, use a thread.

        :param is_running: whether the command goes on; default True.
        :raises FileExistsError: if another file than a page of ours stands there; it is left as it is.
        :raises OSError: if it cannot be written.
        """
        path = self.root / "index.html"
        if not self._lock.acquire(timeout=LOCK_TIMEOUT_S):
            raise TimeoutError(errno.ETIMEDOUT, "another write has not ended")
        try:
            self._require_own(path)
            self._encode_pending()
            timeline, durations = self._figures(is_running=is_running)
            text = page_text(
                self._head(is_running=is_running),
                [self._lines[key] for _, key in self._order],
                facets=[self._facets[key] for _, key in self._order],
                title=self.title, maker=self.maker, timeline=timeline,
                durations=durations,
            )  # fmt: skip
            self._write_static()
            _replace(path, text.encode("ascii", "xmlcharrefreplace") if text.isascii() else text.encode())
        finally:
            self._lock.release()
        return path

    def finish(self, *, posters: bool = True) -> Path:
        """Write the page of a command that has ended, then once more with poster frames; return its path.

        Blocks: in an event loop, use a thread.

        :param posters: whether to draw the poster frames that are missing; default True.
        :raises OSError: if it cannot be written; see `write`.
        """
        path = self.write(is_running=False)
        files = [job.file for job in self._jobs.values() if job.file is not None] if posters else []
        wanted = takewhile(lambda _: not self._stops_drawing.is_set(), files)
        if files and draw_posters(wanted, self.root / "posters"):
            for key in self._lines:
                if self._has_poster(key):
                    self._lines[key] = with_poster(self._lines[key])
            path = self.write(is_running=False)
        return path

    def stop_drawing(self) -> None:
        """Draw no further poster frame, from any thread: `finish` then writes the page with those that it has."""
        self._stops_drawing.set()

    def _has_poster(self, key: str) -> bool:
        return (self.root / "posters" / f"{key}.jpg").is_file()

    def _require_own(self, path: Path) -> None:
        if self._is_checked:
            return
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if not is_own_page(file.read(PAGE_START_BYTES).decode("utf-8", "replace")):
                raise FileExistsError(errno.EEXIST, "it is not a gallery, and is never overwritten")
        self._is_checked = True

    def _encode_pending(self) -> None:
        may_have_posters = (self.root / "posters").is_dir()
        moved = False
        for key in list(self._pending):  # the event loop may add others meanwhile
            earlier = self._jobs.get(key)
            job = self._jobs[key] = self._pending.pop(key)
            if not is_archived(job):
                self._section.timeline.add(job)
            had_line = self._lines.pop(key, None) is not None
            for known in (self._problems, self._unfinished):
                known.pop(key, None)
            if not is_shown(job):
                self._add_cost({"key": key})
                self._unfinished[key] = job.status.value
                moved |= had_line
                continue
            has_poster = may_have_posters and job.file is not None and self._has_poster(key)
            facts = None if job.file is None else read_media_facts(job.file)
            card = card_of(job, self.root, facts=facts, has_poster=has_poster, price=self.price, subject=self.subject)
            self._lines[key], self._facets[key] = card_line(card), facets_of(card)
            self._add_cost(card)
            if (problem := problem_of(card)) is not None:
                self._problems[key] = problem
            if not had_line:
                self._order.append((job.index, key))
            moved |= had_line and earlier is not None and earlier.index != job.index
        if moved:
            self._order = [(self._jobs[key].index, key) for key in self._lines]
        self._order.sort()  # what is sorted already costs little

    def _add_cost(self, card: dict[str, Any]) -> None:
        key = card["key"]
        self._points.pop(key, None)
        self._charged.discard(key)
        if "points" in card:
            self._points[key] = card["points"]
        if "cost" in card:
            self._charged.add(key)

    def _head(self, *, is_running: bool) -> dict[str, Any]:
        unfinished = Counter(self._unfinished.values())
        unfinished[JobStatus.PLANNED.value] += len(self._expected.difference(self._jobs))
        unfinished += Counter()  # without zeros
        return {
            "running": is_running,
            "unfinished": dict(unfinished),
            "totals": {
                "points": math.fsum(self._points.values()),
                "cost": cost(self.price, len(self._charged)) if self._charged and self.price is not None else 0,
            },
            "resume": shell_command("resume", self.subject),
            "groups": problem_groups(self._problems.values(), self.subject),
            "written": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }

    def _figures(self, *, is_running: bool) -> tuple[str | None, str | None]:
        """Return the figure of the timeline and those of the learned durations, as far as there is anything to draw."""
        if self.load_samples is not None and not is_running:
            with contextlib.suppress(PikaError):  # a journal that cannot be read any more
                self._section.set_all_samples(self.load_samples())
        return self._section.figures(time.time() if is_running else None)

    def _write_static(self) -> None:
        folder = self.root / "assets"
        folder.mkdir(exist_ok=True)
        for name, content in static_files().items():
            path = folder / name
            if not path.is_file() or path.read_bytes() != content:
                _replace(path, content)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
