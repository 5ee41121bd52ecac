"""Shape and length of a downloaded file, from its header. Decodes nothing and never fails: a file may have neither."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

import attrs

__all__ = ["MediaFacts", "read_media_facts"]

#: Largest box `moov` that is read, in bytes.
MAX_FACTS_BYTES: Final = 2 << 20
#: Most boxes that are visited in one file.
MAX_BOXES: Final = 1_000
#: Bytes of a picture that are searched for its shape.
PICTURE_HEADER_BYTES: Final = 1 << 16
#: Largest width or height that is believed, in pixels.
MAX_PIXELS: Final = 1 << 15
_CONTAINERS: Final = frozenset({b"moov", b"trak"})
#: Markers of JPEG that begin a frame, and so hold its shape.
_JPEG_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


@attrs.frozen(kw_only=True)
class MediaFacts:
    """Shape and length of a file, as far as its header has them.

    :param shape: width and height in pixels; default None, unknown.
    :param seconds: length of a video; default None, unknown.
    """

    shape: tuple[int, int] | None = None
    seconds: float | None = None


def read_media_facts(path: Path) -> MediaFacts:
    """Return what the header of the MP4, PNG, GIF or JPEG at `path` has; nothing if it cannot be read.

    Blocks: in an event loop, use a thread.
    """
    try:
        with path.open("rb") as file:
            start = file.read(12)
            if start[4:8] in {b"ftyp", b"free", b"skip", b"wide"}:
                return _mp4_facts(_index(file))
            file.seek(0)
            return MediaFacts(shape=_checked(*_picture_shape(file.read(PICTURE_HEADER_BYTES))))
    except (OSError, ValueError, struct.error, IndexError):
        return MediaFacts()


def _index(file: BinaryIO) -> bytes:
    """Return the content of the box `moov`, which may stand at either end of the file."""
    position = 0
    for _ in range(MAX_BOXES):
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:
            size, header = struct.unpack(">Q", file.read(8))[0], 16
        if kind == b"moov":
            return file.read(min(size - header, MAX_FACTS_BYTES) if size else MAX_FACTS_BYTES)
        if size < header:
            break
        position += size
    raise ValueError


def _mp4_facts(index: bytes) -> MediaFacts:
    shape, seconds = None, None
    spans = [(0, len(index))]
    for _ in range(MAX_BOXES):
        if not spans:
            break
        start, end = spans.pop()
        if end - start < 8:
            continue
        size, kind = struct.unpack_from(">I4s", index, start)
        if size < 8:
            continue
        spans.append((start + size, end))
        content = index[start + 8 : min(start + size, end)]
        if kind in _CONTAINERS:
            spans.append((start + 8, min(start + size, end)))
        elif kind == b"mvhd":
            seconds = _length(content)
        elif kind == b"tkhd" and shape is None:  # tracks of sound have the shape 0 x 0
            width, height = struct.unpack(">II", content[-8:])
            shape = _checked(width >> 16, height >> 16)
    return MediaFacts(shape=shape, seconds=seconds)


def _length(content: bytes) -> float | None:
    scale, duration = struct.unpack_from(">IQ", content, 20) if content[0] else struct.unpack_from(">II", content, 12)
    seconds = duration / scale if scale else 0.0
    return round(seconds, 2) if 0 < seconds < 86_400 else None


def _picture_shape(content: bytes) -> tuple[int, int]:
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", content, 16)
        return width, height
    if content.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", content, 6)
        return width, height
    if not content.startswith(b"\xff\xd8"):
        raise ValueError
    position = 2
    while content[position] == 0xFF:
        if content[position + 1] in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content, position + 5)
            return width, height
        position += 2 + struct.unpack_from(">H", content, position + 2)[0]
    raise ValueError


def _checked(width: int, height: int) -> tuple[int, int] | None:
    return (width, height) if 0 < width <= MAX_PIXELS and 0 < height <= MAX_PIXELS else None
