"""Poster frames of downloaded videos, drawn if PyAV is installed. Never fails: a video may have no poster."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pika_async._http.media import PICTURE_SUFFIXES

__all__ = ["draw_posters"]

_log = logging.getLogger("pika_async.posters")


def draw_posters(videos: Iterable[Path], folder: Path) -> int:
    """Save the first frame of each video as `folder`/NAME.jpg; return the number of videos that have one.

    A picture needs none, and a poster that is newer than its video is left as it is.

    Blocks: in an event loop, use a thread.
    """
    try:
        av = importlib.import_module("av")
        importlib.import_module("PIL")
    except ImportError:
        return 0
    count = 0
    for video in videos:
        if video.suffix in PICTURE_SUFFIXES:
            continue
        try:
            poster = folder / f"{video.stem}.jpg"
            if not _is_newer(poster, video):
                folder.mkdir(exist_ok=True)
                _draw(av, video, poster)
            count += 1
        except Exception as error:  # the file comes from a provider: the decoder may raise anything
            _log.info("no poster of %s: %r", video.name, error)
    return count


def _is_newer(poster: Path, video: Path) -> bool:
    return poster.is_file() and poster.stat().st_mtime_ns >= video.stat().st_mtime_ns


def _draw(av: Any, video: Path, poster: Path) -> None:
    with av.open(str(video)) as container:
        frame = next(container.decode(video=0))
    part = poster.with_name(f".{poster.name}.part")
    with part.open("wb") as file:
        frame.to_image().save(file, "JPEG", quality=80)
    part.replace(poster)
