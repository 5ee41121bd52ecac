"""Streaming check that bytes are one complete MP4 file. Decodes nothing and keeps at most one header.

An MP4 file is a sequence of boxes (ISO/IEC 14496-12, section 4.2): four bytes of size, four of type, then the
contents. A size of 1 means that eight bytes of size follow the type, a size of 0 that the box runs to the end of the
file.
"""

from __future__ import annotations

from typing import Final

from pika_async.errors import shorten

__all__ = ["Mp4Validator", "NotMp4", "TruncatedMp4"]

#: Bytes of a box header: size and type.
BOX_HEADER_BYTES: Final = 8
#: Bytes of a box header with a 64-bit size.
LARGE_BOX_HEADER_BYTES: Final = 16
#: Bytes read before the first box is checked: every `ftyp` box has them, and an error can show them.
FIRST_BOX_HEADER_BYTES: Final = 16


class NotMp4(ValueError):  # noqa: N818 - names what the bytes are
    """The bytes are not an MP4 file; its text completes a sentence that begins with "the file"."""


class TruncatedMp4(NotMp4):
    """The bytes are the beginning of an MP4 file: it was cut off, or never finished."""


def _quote(kind: bytes) -> str:
    return shorten(kind.decode("latin-1"))


class Mp4Validator:
    """State of a walk over the boxes of one file, in chunks of any size.

    Checks that `ftyp` comes first, that there is exactly one `moov` and at least one `mdat`, and that the boxes cover
    the file without a gap. After an error, start again with a new instance.
    """

    __slots__ = (
        "_box_type", "_has_mdat", "_has_moof", "_has_moov", "_header", "_needed", "_remaining", "_runs_to_end",
        "offset",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Bytes of the file so far.
        self.offset = 0
        self._header = bytearray()
        self._needed = FIRST_BOX_HEADER_BYTES
        self._box_type = b""
        #: Bytes that the current box still lacks.
        self._remaining = 0
        #: Whether the current box runs to the end of the file.
        self._runs_to_end = False
        self._has_moov = self._has_mdat = self._has_moof = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Process the next bytes of the file, any number of them.

        :raises NotMp4: as soon as a header cannot belong to an MP4 file.
        """
        view = memoryview(data)
        while view:
            if self._runs_to_end or self._remaining:
                step = len(view) if self._runs_to_end else min(self._remaining, len(view))
                self._remaining = max(0, self._remaining - step)
            else:
                step = min(self._needed - len(self._header), len(view))
                self._header += view[:step]
            self.offset += step
            view = view[step:]
            if len(self._header) == self._needed:
                self._read_header()

    def add_box(self, offset: int, size: int, box_type: bytes) -> None:
        """Process a whole box, for a reader that seeks from header to header and reads no contents.

        :param offset: where the box begins, in bytes from the start of the file.
        :param size: bytes of the box with its header, as the header has it: 0 for a box that runs to the end.
        :param box_type: the four bytes of its type.
        :raises NotMp4: if the box does not begin where the previous one ended, or is not allowed there.
        """
        if self._runs_to_end or self._remaining or self._header or offset != self.offset:
            raise NotMp4(f"has box {_quote(box_type)} at byte {offset:,}, where no box begins")
        self._begin_box(box_type, size, BOX_HEADER_BYTES if self._box_type else FIRST_BOX_HEADER_BYTES)
        self._needed = BOX_HEADER_BYTES
        self.offset, self._remaining = offset + size, 0

    def finish(self, length: int | None = None) -> None:
        """Check that the file is complete.

        :param length: bytes of the file; required after `add_box`, which does not read to the end.
        :raises TruncatedMp4: if a box or a header is cut off, or `moov` or `mdat` is missing.
        """
        length = self.offset if length is None or self._runs_to_end else length
        if not length:
            raise TruncatedMp4("is empty")
        if length < self.offset:
            raise TruncatedMp4(f"ends {self.offset - length:,} bytes early inside box {_quote(self._box_type)}")
        if self._remaining:
            raise TruncatedMp4(f"ends {self._remaining:,} bytes early inside box {_quote(self._box_type)}")
        if self._header and not self._box_type:
            raise TruncatedMp4(f"is only {self.offset:,} bytes long: {shorten(self._header.decode('latin-1'))}")
        if self._header or length > self.offset:
            raise TruncatedMp4(f"ends inside the header of the box after {_quote(self._box_type)}")
        missing = [name for name, found in (("moov", self._has_moov), ("mdat", self._has_mdat)) if not found]
        if missing:
            raise TruncatedMp4(f"ends after box {_quote(self._box_type)} without a box {missing[0]!r}")

    @property
    def proves_its_end(self) -> bool:
        """Whether a file that passed `finish` is complete without a known length.

        False if the last box runs to the end of the file, wherever that is, and for a fragmented file without its
        closing `mfra` box: without its last fragment it would still be a valid file.
        """
        return not self._runs_to_end and (not self._has_moof or self._box_type == b"mfra")

    def _read_header(self) -> None:
        header = bytes(self._header)
        size, kind = int.from_bytes(header[:4], "big"), header[4:BOX_HEADER_BYTES]
        if not self._box_type and kind != b"ftyp":
            raise NotMp4(f"begins with {shorten(header.decode('latin-1'))}, not with an MP4 header")
        if size == 1:
            if len(header) < LARGE_BOX_HEADER_BYTES:
                self._needed = LARGE_BOX_HEADER_BYTES
                return
            size = int.from_bytes(header[BOX_HEADER_BYTES:LARGE_BOX_HEADER_BYTES], "big")
            if size < LARGE_BOX_HEADER_BYTES:
                raise NotMp4(f"has box {_quote(kind)} with an impossible size of {size:,} bytes")
        self._begin_box(kind, size, len(header))
        self._header.clear()
        self._needed = BOX_HEADER_BYTES
        self._remaining = max(0, size - len(header))

    def _begin_box(self, kind: bytes, size: int, header: int) -> None:
        """Check and record a box of `size` bytes (0: it runs to the end), `header` of which have been processed."""
        if not self._box_type and kind != b"ftyp":
            raise NotMp4(f"begins with box {_quote(kind)}, not with 'ftyp'")
        if size and size < header:
            raise NotMp4(f"has box {_quote(kind)} with an impossible size of {size:,} bytes")
        if kind == b"ftyp" and not size:
            raise NotMp4("has a box 'ftyp' that runs to the end and leaves no room for a video")
        if kind == b"moov" and self._has_moov:
            raise NotMp4("has a second box 'moov'")
        self._has_moov |= kind == b"moov"
        self._has_mdat |= kind == b"mdat"
        self._has_moof |= kind == b"moof"
        self._runs_to_end = not size
        self._box_type = kind
