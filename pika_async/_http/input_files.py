"""Check of files to send: pictures or videos by their first bytes, and complete as far as their structure proves it.

The content decides, whatever the name of a file or the type in a data URI says. Reads no files.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pika_async._http.byte_walk import NotMedia, TruncatedMedia
from pika_async._http.marks import MARK_BYTES, PICTURE_KINDS, VIDEO_KINDS, FileKind, recognize
from pika_async._http.media import MediaValidator
from pika_async.errors import shorten

__all__ = ["WrongInput", "check_structure", "kind_of_input"]

#: Bytes of a file that nothing recognizes, as an error shows them.
SHOWN_BYTES: Final = 16
#: The field that takes videos; every other one takes pictures.
VIDEO_FIELD: Final = "video"


class WrongInput(ValueError):  # noqa: N818 - names what the file is
    """A file that cannot be sent; the text has what it must be, what it is, and the way out."""


def kind_of_input(field: str, head: bytes) -> FileKind:
    """Return the kind of a file to send by its first `MARK_BYTES` bytes, or all of a shorter one.

    :param field: the field of the request.
    :raises WrongInput: if the field takes no such file.
    """
    is_video = field == VIDEO_FIELD
    kind = recognize(head[:MARK_BYTES])
    if kind is not None and kind in (VIDEO_KINDS if is_video else PICTURE_KINDS):
        return kind
    must = "must be an MP4, QuickTime or WebM video" if is_video else "must be a PNG, JPEG, WebP or GIF picture"
    if kind is not None:
        raise WrongInput(f"{must}, but is {kind.title}; {'give a video' if is_video else kind.way_out}")
    shown = shorten(head[:SHOWN_BYTES].decode("latin-1"))
    raise WrongInput(f"{must}, but begins with {shown}; give {'an MP4' if is_video else 'a PNG or JPEG'}")


def check_structure(field: str, kind: FileKind, chunks: Iterable[bytes]) -> None:
    """Refuse a file that was cut, and a picture that no decoder can read. Players make more of a damaged video.

    :param chunks: the whole content of the file, in chunks of any size.
    :raises WrongInput: if the file is incomplete or damaged.
    """
    validator = MediaValidator()
    try:
        for chunk in chunks:
            validator.feed(chunk)
        validator.finish()
    except TruncatedMedia as error:
        raise WrongInput(f"must be a whole file, but {error}: it was cut; get a whole copy of it") from None
    except NotMedia as error:
        if field != VIDEO_FIELD:
            raise WrongInput(f"must be a sound {kind.name} file, but {error}; save it anew as PNG or JPEG") from None
