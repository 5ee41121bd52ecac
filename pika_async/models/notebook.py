"""HTML of videos, jobs and reports for notebooks: a player and a short table. Fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, urlsplit

from pika_async.errors import PikaError, strip_control

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


def video_html(video: ShownVideo) -> str:
    """Return a player and a short table of `video`."""
    return _player(_remote(video), video.poster) + _table(_video_rows(video))


def job_html(
    video: ShownVideo | None, file: Path | None, error: PikaError | None, facts: Mapping[str, object | None]
) -> str:
    """Return the player of a job if it has a video, and a short table.

    The player reads `file`, or the URL of the video where the browser cannot open that.

    :param facts: further rows by label; those without a value are left out.
    """
    sources = [] if file is None else [file_url(file)]
    sources += [] if video is None else _remote(video)
    player = _player(sources, None if video is None else video.poster)
    rows = [(label, str(value)) for label, value in facts.items() if value is not None]
    rows += [] if video is None else _video_rows(video)
    rows += [] if file is None else [("file", str(file))]
    rows += [] if error is None else [("error", error.message)]
    return player + _table(rows)


def report_html(counts: Mapping[str, int], seconds: float, stopped: PikaError | None) -> str:
    """Return the summary of a batch as a table.

    :param counts: number of jobs by status.
    :param stopped: why the rest was not sent; None if all of it was.
    """
    rows = [("jobs", str(sum(counts.values()))), *((label, str(count)) for label, count in counts.items() if count)]
    time = f"{seconds:.1f} s" if seconds < MAX_SECONDS else f"{seconds / 60:.1f} min"
    return _table([*rows, ("time", time), *([] if stopped is None else [("stopped", stopped.message)])])


def file_url(file: Path) -> str:
    """Return the URL of a file: relative to the page as the path is to the working directory, or a file URL."""
    path = quote(file.as_posix(), safe="/:" if file.is_absolute() else "/", errors="replace")
    return f"file:///{path.lstrip('/')}" if file.is_absolute() else f"./{path}"


def _video_rows(video: ShownVideo) -> list[tuple[str, str]]:
    rows = [("url", video.url)]
    rows += [] if video.seed is None else [("seed", str(video.seed))]
    return rows + ([] if video.duration is None else [("length", f"{video.duration:g} s")])


def _remote(video: ShownVideo) -> list[str]:
    return [video.url] if _is_fetchable(video.url) else []


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
    return escape(strip_control(text), quote=True)
