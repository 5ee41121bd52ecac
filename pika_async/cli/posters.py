"""Poster frames of videos on disk, where PyAV is installed; without it there are none, and nothing fails."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["draw_posters"]

_log = logging.getLogger("pika_async.posters")


def draw_posters(videos: Iterable[Path], folder: Path) -> int:
    """The first frame of each video as `folder`/NAME.jpg, best effort; how many there are. Blocks: use a thread."""
    try:
        av = importlib.import_module("av")
        importlib.import_module("PIL")
    except ImportError:
        return 0
    made = 0
    for video in videos:
        try:
            folder.mkdir(exist_ok=True)
            _draw(av, video, folder / f"{video.stem}.jpg")
            made += 1
        except Exception as error:  # a provider's file: whatever the decoder raises, it has no poster
            _log.info("no poster of %s: %r", video.name, error)
    return made


def _draw(av: Any, video: Path, poster: Path) -> None:
    with av.open(str(video)) as container:
        frame = next(container.decode(video=0))
    with poster.open("xb") as file:
        frame.to_image().save(file, "JPEG", quality=80)
