"""Streaming check that bytes are one complete video or picture, recognized by its own marks.

MP4 boxes are checked by `mp4`. Of the other kinds the structure is walked as far as it proves where the file ends; the
contents are not decoded. Bytes behind that end are allowed and kept: hosts append line ends and padding, and players
ignore them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Final

from pika_async._http.byte_walk import ByteWalk, NotMedia, Skip, SkipTo, Steps, Take, TruncatedMedia
from pika_async._http.marks import GIF, JPEG, PICTURE_KINDS, PNG, WEBM, WEBP, FileKind, is_page
from pika_async._http.mp4 import FIRST_BOX_TYPES, Mp4Validator
from pika_async.errors import shorten

__all__ = ["MEDIA_SUFFIXES", "PICTURE_SUFFIXES", "MediaValidator"]

#: Bytes read before the kind is decided: enough for the mark of every result, and for an error to show.
HEAD_BYTES: Final = 16
#: Bytes of the signature of a PNG.
PNG_SIGNATURE_BYTES: Final = 8
SEGMENT_ID: Final = b"\x18\x53\x80\x67"
CLUSTER_ID: Final = b"\x1f\x43\xb6\x75"
#: EBML elements that may stand anywhere: Void and CRC-32.
GLOBAL_EBML_IDS: Final = frozenset({b"\xec", b"\xbf"})
#: Longest EBML header in bytes; a usual one has 40.
MAX_EBML_HEADER_BYTES: Final = 4096
#: Longest id of an EBML element in bytes.
MAX_EBML_ID_BYTES: Final = 4
#: Types of the first chunk of a WebP file.
WEBP_CHUNKS: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X"})
#: A WebP file holds at least its form type and one chunk header.
MIN_RIFF_BYTES: Final = 12
#: JPEG markers without a length: an escaped byte of a scan, TEM, and the restart markers.
JPEG_BARE: Final = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
JPEG_SCAN: Final = 0xDA
JPEG_END: Final = 0xD9
JPEG_MARK: Final = 0xFF
#: Flag of a GIF that a color table follows, and the bits of its size.
GIF_TABLE: Final = 0x80
GIF_TABLE_SIZE: Final = 0x07


def _walk_png() -> Steps:
    """Walk the chunks of a PNG from IHDR to IEND."""
    yield Skip(PNG_SIGNATURE_BYTES)
    seen: set[bytes] = set()
    while b"IEND" not in seen:
        header = yield Take(8)
        size, kind = int.from_bytes(header[:4], "big"), header[4:]
        if not kind.isalpha() or size >> 31 or not (seen or kind == b"IHDR"):
            raise NotMedia(f"has a chunk {shorten(kind.decode('latin-1'))} where no PNG has one")
        seen.add(kind)
        yield Skip(size + 4)
    if b"IDAT" not in seen:
        raise NotMedia("is a PNG without a picture")


def _walk_gif() -> Steps:
    """Walk the blocks of a GIF to its trailer."""
    yield Skip(6)
    screen = yield Take(7)
    yield Skip(_gif_table_bytes(screen[4]))
    pictures = 0
    while (mark := (yield Take(1))) != b";":
        if mark == b"!":
            yield Skip(1)
        elif mark == b",":
            picture = yield Take(9)
            yield Skip(_gif_table_bytes(picture[8]) + 1)
            pictures += 1
        else:
            raise NotMedia(f"has a block {shorten(mark.decode('latin-1'))} where no GIF has one")
        while size := (yield Take(1))[0]:
            yield Skip(size)
    if not pictures:
        raise NotMedia("is a GIF without a picture")


def _gif_table_bytes(flags: int) -> int:
    return 3 << ((flags & GIF_TABLE_SIZE) + 1) if flags & GIF_TABLE else 0


def _walk_jpeg() -> Steps:
    """Walk the markers of a JPEG to its end marker, over other bytes between two of them, as decoders do."""
    yield Skip(2)
    scans = 0
    while True:
        yield SkipTo(b"\xff")
        code = JPEG_MARK
        while code == JPEG_MARK:  # a marker may be padded
            code = (yield Take(1))[0]
        if code == JPEG_END:
            break
        if code in JPEG_BARE:
            continue
        size = int.from_bytes((yield Take(2)), "big")
        if size < 2:
            raise NotMedia("has a segment that no JPEG has")
        yield Skip(size - 2)
        scans += code == JPEG_SCAN
    if not scans:
        raise NotMedia("is a JPEG without a picture")


def _walk_webp() -> Steps:
    """Read the size of a WebP and the type of its first chunk."""
    header = yield Take(16)
    size = int.from_bytes(header[4:8], "little")
    if header[12:] not in WEBP_CHUNKS or size < MIN_RIFF_BYTES:
        raise NotMedia(f"has a chunk {shorten(header[12:].decode('latin-1'))} where no WebP has one")
    yield Skip(size - 8)


def _ebml_element(*, may_end: bool = False) -> Generator[Take, bytes, tuple[bytes, int | None, int]]:
    """Read the header of an EBML element; return its id, the size of its content (None: unknown), and its own size."""
    id_head = yield Take(1, may_end)
    id_length = 9 - id_head[0].bit_length()
    if id_length > MAX_EBML_ID_BYTES:
        raise NotMedia("has an element that no WebM has")
    element_id = id_head + (yield Take(id_length - 1)) if id_length > 1 else id_head
    size_head = (yield Take(1))[0]
    length = 9 - size_head.bit_length()
    if not size_head:
        raise NotMedia("has an element of impossible size")
    rest = (yield Take(length - 1)) if length > 1 else b""
    bits = 7 * length
    size = int.from_bytes(bytes([size_head]) + rest, "big") & ((1 << bits) - 1)
    return element_id, None if size == (1 << bits) - 1 else size, id_length + length


def _walk_webm() -> Steps:
    """Walk the elements of a WebM. With an unknown size of its segment it may end behind any of them."""
    _, size, _ = yield from _ebml_element()
    if size is None or size > MAX_EBML_HEADER_BYTES or b"webm" not in (yield Take(size)):
        raise NotMedia("has an EBML header, but not that of a WebM")
    element_id = b""
    while element_id != SEGMENT_ID:
        element_id, size, _ = yield from _ebml_element()
        if element_id not in {SEGMENT_ID, *GLOBAL_EBML_IDS} or (size is None and element_id != SEGMENT_ID):
            raise NotMedia("has another element than a segment behind its header")
        if element_id != SEGMENT_ID:
            yield Skip(size or 0)
    left = size  # bytes of the segment; None: unknown
    clusters = 0
    while left is None or left > 0:
        element_id, size, header = yield from _ebml_element(may_end=left is None and clusters > 0)
        clusters += element_id == CLUSTER_ID
        if size is None and element_id != CLUSTER_ID:
            raise NotMedia("has an element of unknown size that is not a cluster")
        left = None if left is None else left - header - (size or 0)
        yield Skip(size or 0)  # a cluster of unknown size is entered
    if left or not clusters:
        raise NotMedia("has a segment without a cluster" if not left else "has an element larger than its segment")


#: The walk over the structure of each kind of result beside MP4.
WALKS: Final[Mapping[FileKind, Callable[[], Steps]]] = {
    WEBM: _walk_webm,
    GIF: _walk_gif,
    PNG: _walk_png,
    JPEG: _walk_jpeg,
    WEBP: _walk_webp,
}
#: The endings of all kinds.
MEDIA_SUFFIXES: Final = (".mp4", *(kind.suffix for kind in WALKS))
#: The endings of the kinds that a browser shows as a picture.
PICTURE_SUFFIXES: Final = tuple(kind.suffix for kind in PICTURE_KINDS)


class MediaValidator:
    """State of the check of one file, in chunks of any size. After an error, start again with a new instance."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._mp4: Mp4Validator | None = None
        self._walk: ByteWalk | None = None
        self._kind: FileKind | None = None

    @property
    def name(self) -> str:
        """Name of the kind of file, "media" until it is known."""
        return self._kind.name if self._kind is not None else "media" if self._mp4 is None else "MP4"

    @property
    def suffix(self) -> str:
        """Ending of file names of this kind."""
        return ".mp4" if self._kind is None else self._kind.suffix

    @property
    def is_page(self) -> bool:
        """Whether the bytes begin like a web page or a JSON document."""
        return is_page(bytes(self._head))

    @property
    def is_whole(self) -> bool:
        """Whether the bytes so far prove by themselves that the file is complete, whatever follows."""
        if self._walk is not None:
            return self._walk.ended
        return self._mp4 is not None and self._mp4.is_whole

    @property
    def proves_its_end(self) -> bool:
        """Whether a file that passed `finish` is complete without a known length."""
        return self.is_whole or (self._mp4 is not None and self._mp4.proves_its_end)

    @property
    def skippable(self) -> int:
        """Number of the next bytes whose check takes one step."""
        if self._walk is not None:
            return self._walk.skippable
        return 0 if self._mp4 is None else self._mp4.skippable

    def feed(self, data: bytes) -> None:
        """Process the next bytes of the file, any number of them.

        :raises NotMedia: as soon as they cannot belong to a file of a known kind.
        """
        if self._mp4 is None and self._walk is None:
            missing = HEAD_BYTES - len(self._head)
            self._head += data[:missing]
            if len(self._head) < HEAD_BYTES:
                return
            self._recognize()
            self._feed(bytes(self._head))
            data = data[missing:]
        self._feed(data)

    def _feed(self, data: bytes) -> None:
        if self._mp4 is not None:
            self._mp4.feed(data)
        elif self._walk is not None:
            self._walk.feed(data)

    def _recognize(self) -> None:
        head = bytes(self._head)
        if head[4:8] in FIRST_BOX_TYPES:
            self._mp4 = Mp4Validator()
            return
        self._kind = next((kind for kind in WALKS if kind.matches(head)), None)
        if self._kind is None:
            known = ", ".join(["MP4", *(kind.name for kind in WALKS)])
            raise NotMedia(f"begins with {shorten(head.decode('latin-1'))}, which is none of {known}")
        self._walk = ByteWalk(WALKS[self._kind]())

    def finish(self) -> None:
        """Check that the file is complete.

        :raises TruncatedMedia: if its end is missing.
        """
        if self._mp4 is not None:
            self._mp4.finish()
        elif self._walk is None:
            shown = shorten(bytes(self._head).decode("latin-1"))
            raise TruncatedMedia(f"is only {len(self._head)} bytes long: {shown}" if self._head else "is empty")
        elif not self._walk.may_end:
            raise TruncatedMedia(f"ends after {self._walk.offset:,} bytes, before its end mark")
