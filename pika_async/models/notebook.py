"""HTML of videos, jobs and reports for notebooks: a player and a short table. Fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

from pika_async.errors.base import PikaError, strip_control

__all__ = ["job_html", "report_html", "video_html"]

#: Width of a player in pixels.
PLAYER_WIDTH: Final = 360
#: Characters of a text that are shown.
MAX_TEXT: Final = 300
#: Seconds up to which a time is shown in seconds.
MAX_SECONDS: Final = 120


class ShownVideo(Protocol):
    """The facts of a video that are shown."""

    @property
    def url(self) -> str: ...
    @property
    def poster(self) -> str | None: ...
    @property
    def seed(self) -> int | None: ...
    @property
    def duration(self) -> float | None: ...


class ShownStatus(Protocol):
    """A status with its words for people."""

    @property
    def label(self) -> str: ...


class ShownJob(Protocol):
    """The facts of a job that are shown."""

    @property
    def key(self) -> str: ...
    @property
    def status(self) -> ShownStatus: ...
    @property
    def request(self) -> ShownRequest: ...
    @property
    def provider(self) -> str: ...
    @property
    def task_id(self) -> str | None: ...
    @property
    def video(self) -> ShownVideo | None: ...
    @property
    def file(self) -> Path | None: ...
    @property
    def object_url(self) -> str | None: ...
    @property
    def error(self) -> PikaError | None: ...


class ShownRequest(Protocol):
    """The facts of a request that are shown."""

    @property
    def prompt(self) -> str: ...


class ShownReport(Protocol):
    """The facts of a report that are shown."""

    @property
    def counts(self) -> Mapping[Any, int]: ...
    @property
    def seconds(self) -> float: ...
    @property
    def stopped(self) -> PikaError | None: ...


def video_html(url: str, *, poster: str | None, seed: int | None, duration: float | None) -> str:
    """Return a player and a short table of the video at `url`."""
    return _player(_remote(url), poster) + _table(_video_rows(url, seed, duration))


def job_html(job: ShownJob) -> str:
    """Return the player of `job` if it has a video, and a short table.

    The player reads the file, or the URL of the video where the browser cannot open that.
    """
    sources = [] if job.file is None else [file_url(job.file)]
    sources += [] if job.video is None else _remote(job.video.url)
    rows = [("job", job.key), ("status", job.status.label), ("prompt", job.request.prompt), ("provider", job.provider)]
    rows += [] if job.task_id is None else [("task", job.task_id)]
    video = job.video
    rows += [] if video is None else _video_rows(video.url, video.seed, video.duration)
    rows += [] if job.file is None else [("file", str(job.file))]
    rows += [] if job.object_url is None else [("stored", job.object_url)]
    rows += [] if job.error is None else [("error", job.error.message)]
    return _player(sources, None if job.video is None else job.video.poster) + _table(rows)


def report_html(report: ShownReport) -> str:
    """Return the summary of a batch as a table."""
    counts = [(status.label, str(count)) for status, count in report.counts.items() if count]
    long = report.seconds >= MAX_SECONDS
    time = f"{report.seconds / 60:.1f} min" if long else f"{report.seconds:.1f} s"
    rows = [("jobs", str(sum(report.counts.values()))), *counts, ("time", time)]
    return _table(rows + ([] if report.stopped is None else [("stopped", report.stopped.message)]))


def file_url(file: Path) -> str:
    """Return the URL of a file: relative to the page as the path is to the working directory, or a file URL."""
    path = quote(file.as_posix(), safe="/:" if file.is_absolute() else "/", errors="replace")
    return f"file:///{path.lstrip('/')}" if file.is_absolute() else f"./{path}"


def _video_rows(url: str, seed: int | None, duration: float | None) -> list[tuple[str, str]]:
    rows = [("url", url)]
    rows += [] if seed is None else [("seed", str(seed))]
    return rows + ([] if duration is None else [("length", f"{duration:g} s")])


def _remote(url: str) -> list[str]:
    return [url] if _is_fetchable(url) else []


def _player(sources: Sequence[str], poster: str | None) -> str:
    """Return a player of the first source that the browser can open; nothing without one."""
    tags = "".join(f'<source src="{_text(source)}">' for source in sources)
    picture = f' poster="{_text(poster)}"' if poster is not None and _is_fetchable(poster) else ""
    return f'<video controls muted loop preload="none" width="{PLAYER_WIDTH}"{picture}>{tags}</video>' if tags else ""


def _is_fetchable(url: str) -> bool:
    """Return whether `url` is of http(s) with a host: no other scheme may run or read anything in a notebook."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return url.isprintable() and url.lower().startswith(("http://", "https://")) and bool(parts.netloc)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    left = 'style="text-align:left"'
    cells = (f"<th {left}>{_text(label)}</th><td {left}><bdi>{_cell(text)}</bdi></td>" for label, text in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _cell(text: str) -> str:
    short = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"
    if _is_fetchable(text):
        return f'<a href="{_text(text)}" target="_blank" rel="noopener noreferrer">{_text(short)}</a>'
    return _text(short)


def _text(text: str) -> str:
    """Return `text` without control characters, escaped for an element or an attribute in double quotes."""
    from html import escape  # noqa: PLC0415 - of a notebook alone

    return escape(strip_control(text), quote=True)
