"""Pictures and videos as callers have them: text, paths, bytes, open files, images of Pillow; converted to three types.

Imports no Pillow: an image is recognized by what it can do. Opens no file.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Awaitable, Callable
from pathlib import PurePath
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

from pika_async.errors.base import InvalidRequest

__all__ = ["MAX_MEDIA_BYTES", "BinaryFile", "MediaInput", "PillowImage", "Uploader", "to_media"]

#: The largest file that is read, in bytes: twice of what any documented gateway takes.
MAX_MEDIA_BYTES: Final = 100_000_000
#: Bytes that are read from an open file at once.
READ_CHUNK_BYTES: Final = 1 << 20
DATA_URI_PATTERN: Final = re.compile(r"\s*data:([^,]*),(.*)", re.DOTALL | re.IGNORECASE)
#: What an image of a mode that PNG does not have is converted to, where that is not "RGB": it keeps its transparency.
PNG_MODES: Final = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}


class BinaryFile(Protocol):
    """A file that is open for reading in binary mode."""

    def read(self, size: int, /) -> bytes: ...


class PillowImage(Protocol):
    """The part of `PIL.Image.Image` that is used."""

    @property
    def mode(self) -> Any:
        """The kind of its pixels, such as "RGB"."""

    def save(self, fp: Any, format: str | None = ...) -> None:  # noqa: A002 - Pillow's own name
        """Encode the image into an open file."""

    def convert(self, mode: str) -> Any:
        """Return the image in another mode."""


#: Every form of a picture or a video that a request takes.
MediaInput = str | PurePath | bytes | BinaryFile | PillowImage


#: (content, file name, content type) -> its http(s) URL.
Uploader = Callable[[bytes, str, str], Awaitable[str]]


def to_media(field: str, value: Any) -> Any:
    """Return the bytes of an open file, an image of Pillow or a data URI; every other value as it is.

    An open file is read once, from its position to its end, and stays open. An image is encoded as PNG.

    :raises InvalidRequest: if it cannot be read or encoded.
    """
    if isinstance(value, str):
        found = DATA_URI_PATTERN.match(value)
        return value if found is None else _decode_data_uri(field, value, found[1], found[2])
    if callable(getattr(value, "save", None)) and callable(getattr(value, "convert", None)):
        return _encode_png(field, value)
    return _read_file(field, value) if callable(getattr(value, "read", None)) else value


def _invalid(field: str, value: object, reason: str) -> InvalidRequest:
    return InvalidRequest(field=field, value=value, reason=reason)


def _decode_data_uri(field: str, value: str, kind: str, text: str) -> bytes:
    data: bytes | None
    try:
        compact = b"".join(unquote_to_bytes(text).split())
        data = base64.b64decode(compact + b"=" * (-len(compact) % 4), validate=True)
    except ValueError:
        data = None
    if data is None or not kind.lower().endswith(";base64"):
        reason = "must be a data URI in base64 (data:image/png;base64,...); give one, or a path, or bytes"
        raise _invalid(field, value, reason)
    if not data:
        raise _invalid(field, value, "must not be an empty data URI; give one with content")
    return data


def _encode_png(field: str, image: Any) -> bytes:
    """Encode an image of Pillow; one of a mode that PNG does not have is converted first."""
    try:
        try:
            return _saved(image)
        except OSError:
            converted = image.convert(PNG_MODES.get(image.mode, "RGB"))
            # A profile is that of the earlier mode; for LAB, Pillow makes one of sRGB with the time of day in it.
            getattr(converted, "info", {}).pop("icc_profile", None)
            return _saved(converted)
    except Exception as error:  # a file of which Pillow reads the rest only now may fail in any way
        raise _invalid(field, image, f"could not be encoded as PNG: {error}; give bytes or a path") from None


def _saved(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _read_file(field: str, file: Any) -> bytes:
    data = bytearray()
    while True:
        try:
            chunk = file.read(READ_CHUNK_BYTES)
        except Exception as error:  # closed, not open for reading, another kind of object
            reason = f"cannot be read: {error}; give a file that is open for reading in binary mode"
            raise _invalid(field, file, reason) from None
        if not isinstance(chunk, bytes):
            if callable(getattr(chunk, "close", None)):
                chunk.close()  # a coroutine, which nothing awaits
            kind = type(chunk).__name__
            reason = f"must be a file whose read returns bytes, not {kind}; open it in binary mode, or give its bytes"
            raise _invalid(field, file, reason)
        if not chunk:
            break
        data += chunk
        if len(data) > MAX_MEDIA_BYTES:
            raise _invalid(field, file, f"must be at most {MAX_MEDIA_BYTES:,} bytes long; give a smaller one, or a URL")
    if not data:
        raise _invalid(field, file, "must not be empty from its position on; seek(0) reads a file again")
    return bytes(data)
