"""Streaming check that bytes are one complete MP4 file. Decodes nothing and keeps only the index, box `moov`.

An MP4 file is a sequence of boxes (ISO/IEC 14496-12, section 4.2): four bytes of size, four of type, then the
contents. A size of 1 means that eight bytes of size follow the type, a size of 0 that the box runs to the end of the
file. The index says where each chunk of pictures and sound begins: if every chunk begins in a box that is complete, the
file is, whatever length the server has stated and whatever bytes follow.
"""

from __future__ import annotations

import struct
from typing import Final

from pika_async._http.byte_walk import NotMedia, TruncatedMedia
from pika_async.errors import shorten

__all__ = ["FIRST_BOX_TYPES", "Mp4Validator", "NotMp4", "TruncatedMp4"]

#: Bytes of a box header: size and type.
BOX_HEADER_BYTES: Final = 8
#: Bytes of a box header with a 64-bit size.
LARGE_BOX_HEADER_BYTES: Final = 16
#: Smallest `ftyp` box in bytes.
MIN_FTYP_BYTES: Final = 16
#: Boxes of padding, which may come before `ftyp`.
PADDING_TYPES: Final = frozenset({b"free", b"skip", b"wide"})
#: Types of a first box.
FIRST_BOX_TYPES: Final = frozenset({b"ftyp", *PADDING_TYPES})
#: Boxes inside `moov` that hold, at some depth, the positions of the chunks.
INDEX_CONTAINERS: Final = frozenset({b"trak", b"mdia", b"minf", b"stbl"})
#: Boxes of chunk positions, and the `struct` code of one.
CHUNK_OFFSET_CODES: Final = {b"stco": "I", b"co64": "Q"}
#: Largest `moov` box that is read, in bytes. A video of an hour has about 1 MB.
MAX_INDEX_BYTES: Final = 2 << 20
#: Most boxes in it that are read; a video has fewer than 100. Both bounds keep one step of the event loop short.
MAX_INDEX_BOXES: Final = 10_000


class NotMp4(NotMedia):
    """The bytes are not an MP4 file; its text completes a sentence that begins with "the file"."""


class TruncatedMp4(NotMp4, TruncatedMedia):
    """The bytes are the beginning of an MP4 file: it was cut off, or never finished."""


class _Index:
    """Positions of the chunks in a `moov` box.

    :param content: the content of the box.
    """

    def __init__(self, content: bytes) -> None:
        #: First byte of the last chunk; None if there is none or the index cannot be read.
        self.last_chunk: int | None = None
        #: Whether fragments follow, whose chunks are not in this index.
        self.is_fragmented = False
        try:
            self._read(content)
        except (ValueError, struct.error):
            self.last_chunk = None

    def _read(self, content: bytes) -> None:
        spans = [(0, len(content))]
        boxes = 0
        while spans:
            start, end = spans.pop()
            while start < end:
                boxes += 1
                if boxes > MAX_INDEX_BOXES:
                    raise ValueError
                size, kind = struct.unpack_from(">I4s", content, start)
                header = BOX_HEADER_BYTES
                if size == 1:
                    size, header = struct.unpack_from(">Q", content, start + 8)[0], LARGE_BOX_HEADER_BYTES
                size = size or end - start
                if not header <= size <= end - start:
                    raise ValueError
                if kind in INDEX_CONTAINERS:
                    spans.append((start + header, start + size))
                elif kind in CHUNK_OFFSET_CODES:
                    count = struct.unpack_from(">I", content, start + header + 4)[0]
                    if header + 8 + count * struct.calcsize(CHUNK_OFFSET_CODES[kind]) > size:
                        raise ValueError
                    offsets = struct.unpack_from(f">{count}{CHUNK_OFFSET_CODES[kind]}", content, start + header + 8)
                    self.last_chunk = max((*offsets, self.last_chunk or 0)) if count else self.last_chunk
                self.is_fragmented |= kind == b"mvex"
                start += size


def _quote(kind: bytes) -> str:
    return shorten(kind.decode("latin-1"))


class Mp4Validator:
    """State of a walk over the boxes of one file, in chunks of any size.

    Checks that `ftyp` comes first, apart from padding, that there is exactly one `moov` and at least one `mdat`, and
    that the boxes cover the file without a gap. Any bytes may follow a complete file. After an error, start again with
    a new instance.
    """

    __slots__ = (
        "_box_type", "_end", "_has_ftyp", "_has_mdat", "_has_moof", "_has_moov", "_header", "_index", "_index_bytes",
        "_is_closed", "_needed", "_remaining", "_runs_to_end", "_trails", "offset",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Bytes of the file so far.
        self.offset = 0
        self._header = bytearray()
        self._needed = BOX_HEADER_BYTES
        self._box_type = b""
        #: Bytes that the current box still lacks.
        self._remaining = 0
        #: Where the last complete box ends.
        self._end = 0
        #: Whether the current box runs to the end of the file.
        self._runs_to_end = False
        #: Whether other bytes than a box have followed a complete file.
        self._trails = False
        #: Whether a fragmented file has its closing `mfra` box.
        self._is_closed = False
        #: Content of `moov` while it arrives; None outside of it.
        self._index_bytes: bytearray | None = None
        self._index: _Index | None = None
        self._has_ftyp = self._has_moov = self._has_mdat = self._has_moof = False

    @property
    def skippable(self) -> int:
        """Number of the next bytes that belong to the current box, and take one step."""
        return self._remaining

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Process the next bytes of the file, any number of them.

        :raises NotMp4: as soon as a header cannot belong to an MP4 file, unless the file before it is complete.
        """
        view = memoryview(data)
        while view:
            if self._trails or self._runs_to_end:
                step = len(view)
            elif self._remaining:
                step = min(self._remaining, len(view))
                self._remaining -= step
                if self._index_bytes is not None:
                    self._index_bytes += view[:step]
            else:
                step = min(self._needed - len(self._header), len(view))
                self._header += view[:step]
            self.offset += step
            view = view[step:]
            if len(self._header) == self._needed:
                self._read_header()
            if not self._remaining and not self._header:
                self._end_box()

    def finish(self) -> None:
        """Check that the file is complete.

        :raises TruncatedMp4: if a box or a header is cut off, or `moov` or `mdat` is missing, or a chunk of the index.
        """
        if self.is_whole:
            return
        if not self.offset:
            raise TruncatedMp4("is empty")
        if self._remaining:
            raise TruncatedMp4(f"ends {self._remaining:,} bytes early inside box {_quote(self._box_type)}")
        if self._header and not self._box_type:
            raise TruncatedMp4(f"is only {self.offset:,} bytes long: {shorten(self._header.decode('latin-1'))}")
        if self._header:
            raise TruncatedMp4(f"ends inside the header of the box after {_quote(self._box_type)}")
        missing = [name for name, found in (("moov", self._has_moov), ("mdat", self._has_mdat)) if not found]
        if missing:
            raise TruncatedMp4(f"ends after box {_quote(self._box_type)} without a box {missing[0]!r}")
        if self._index is not None and (self._index.last_chunk or 0) >= self.offset:
            raise TruncatedMp4("ends before the last chunk of its index")

    @property
    def is_whole(self) -> bool:
        """Whether the complete boxes so far are a complete file by themselves, whatever follows them.

        They are if every chunk of the index begins in one of them; a fragmented file, if it has its closing `mfra` box,
        since without its last fragment it would still be a valid file.
        """
        if not (self._has_ftyp and self._has_mdat and self._index is not None):
            return False
        if self._has_moof or self._index.is_fragmented:
            return self._is_closed
        return self._index.last_chunk is not None and self._index.last_chunk < self._end

    @property
    def proves_its_end(self) -> bool:
        """Whether a file that passed `finish` is complete without a known length.

        False if the last box runs to the end of the file, wherever that is, and for a fragmented file without its
        closing `mfra` box.
        """
        return self.is_whole or not (self._runs_to_end or self._has_moof)

    def _read_header(self) -> None:
        header = bytes(self._header)
        size, kind = int.from_bytes(header[:4], "big"), header[4:BOX_HEADER_BYTES]
        if size == 1 and len(header) < LARGE_BOX_HEADER_BYTES:
            self._needed = LARGE_BOX_HEADER_BYTES
            return
        if size == 1:
            size = int.from_bytes(header[BOX_HEADER_BYTES:], "big")
        problem = self._problem_of(kind, size, len(header))
        self._header.clear()
        self._needed = BOX_HEADER_BYTES
        if problem is None:
            self._begin_box(kind, size, len(header))
        elif self.is_whole:
            self._trails = True
        else:
            raise NotMp4(problem)

    def _problem_of(self, kind: bytes, size: int, header: int) -> str | None:
        """Return why no box of this type and size (0: it runs to the end) may stand here; None if it may."""
        if not self._has_ftyp and kind not in FIRST_BOX_TYPES:
            return f"begins with box {_quote(self._box_type or kind)}, not with 'ftyp'"
        if size and size < (MIN_FTYP_BYTES if kind == b"ftyp" else header):
            return f"has box {_quote(kind)} with an impossible size of {size:,} bytes"
        if not self._has_ftyp and not size:
            return f"has a box {_quote(kind)} that runs to the end and leaves no room for a video"
        return "has a second box 'moov'" if kind == b"moov" and self._has_moov else None

    def _begin_box(self, kind: bytes, size: int, header: int) -> None:
        self._has_ftyp |= kind == b"ftyp"
        self._has_moov |= kind == b"moov"
        self._has_mdat |= kind == b"mdat"
        self._has_moof |= kind == b"moof"
        self._runs_to_end = not size
        self._remaining = max(0, size - header)
        self._box_type = kind
        if kind == b"moov" and 0 < size <= MAX_INDEX_BYTES:
            self._index_bytes = bytearray()

    def _end_box(self) -> None:
        """Record that the boxes so far are complete."""
        if self._trails or self._runs_to_end:
            return
        self._end = self.offset
        self._is_closed |= self._box_type == b"mfra"
        if self._index_bytes is not None:
            self._index, self._index_bytes = _Index(bytes(self._index_bytes)), None
