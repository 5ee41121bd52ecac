"""Whether bytes are one whole MP4 file, told while they stream; decodes nothing and keeps at most one header.

An MP4 is a row of boxes (ISO/IEC 14496-12, section 4.2): four bytes of size, four of type, then what the size says. A
size of 1 means that eight bytes of size follow the type, a size of 0 that the box runs to the end of the file.
"""

from __future__ import annotations

from typing import Final

from pika_async.errors import shorten

__all__ = ["Mp4Validator", "NotMp4", "TruncatedMp4"]

#: Bytes of a header: size and type, and with a 64-bit size.
SHORT, LONG = 8, 16
#: The first box is judged when this many bytes are there: every `ftyp` has them, and a message can show them.
OPENING: Final = 16


class NotMp4(ValueError):  # noqa: N818 - what the bytes are, rather than what went wrong
    """The bytes are no MP4 file; `str()` says why, as the end of a sentence that begins with "the file"."""


class TruncatedMp4(NotMp4):
    """Everything so far was right, but more should have come: the file is cut, or was never finished."""


def _name(kind: bytes) -> str:
    return shorten(kind.decode("latin-1"))


class Mp4Validator:
    """Follows the boxes of one file from its first byte to its last, whatever the chunks.

    Holds: `ftyp` comes first, there is one `moov` and at least one `mdat`, and the sizes tile the file exactly. Once it
    has raised, it is of no more use: begin again with a new one.
    """

    __slots__ = ("_end", "_fragmented", "_header", "_kind", "_left", "_mdat", "_moov", "_need", "offset")

    def __init__(self) -> None:
        #: Bytes walked so far.
        self.offset = 0
        self._header = bytearray()
        self._need = OPENING
        self._kind = b""
        #: Bytes that the current box still wants.
        self._left = 0
        #: True inside a box that runs to the end of the file.
        self._end = False
        self._moov = self._mdat = self._fragmented = False

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Walks over the next bytes of the file, any number of them.

        :raises NotMp4: as soon as a header cannot belong to an MP4 file.
        """
        view = memoryview(data)
        while view:
            if self._end or self._left:
                step = len(view) if self._end else min(self._left, len(view))
                self._left = max(0, self._left - step)
            else:
                step = min(self._need - len(self._header), len(view))
                self._header += view[:step]
            self.offset += step
            view = view[step:]
            if len(self._header) == self._need:
                self._read_header()

    def box(self, offset: int, size: int, kind: bytes) -> None:
        """Walks over one whole box at once: for a reader that seeks from header to header and reads no contents.

        `offset` is where the box begins, `size` its bytes with the header, as written: 0 runs to the end of the file.

        :raises NotMp4: if the box does not begin where the last one ended, or may not stand there.
        """
        if self._end or self._left or self._header or offset != self.offset:
            raise NotMp4(f"has box {_name(kind)} at byte {offset:,}, where no box begins")
        self._enter(kind, size, SHORT if self._kind else OPENING)
        self._need = SHORT
        self.offset, self._left = offset + size, 0

    def finish(self, length: int | None = None) -> None:
        """Says that the file is over, at `length` bytes: needed after `box`, which does not see where it ends.

        :raises EndsEarly: if a box or a header is cut, or `moov` or `mdat` has not come.
        """
        length = self.offset if length is None or self._end else length
        if not length:
            raise TruncatedMp4("is empty")
        if length < self.offset:
            raise TruncatedMp4(f"ends {self.offset - length:,} bytes early inside box {_name(self._kind)}")
        if self._left:
            raise TruncatedMp4(f"ends {self._left:,} bytes early inside box {_name(self._kind)}")
        if self._header and not self._kind:
            raise TruncatedMp4(f"is only {self.offset:,} bytes long: {shorten(self._header.decode('latin-1'))}")
        if self._header or length > self.offset:
            raise TruncatedMp4(f"ends inside the header of the box after {_name(self._kind)}")
        missing = [name for name, seen in (("moov", self._moov), ("mdat", self._mdat)) if not seen]
        if missing:
            raise TruncatedMp4(f"ends after box {_name(self._kind)} without a box {missing[0]!r}")

    @property
    def proves_its_end(self) -> bool:
        """Whether a finished walk proves that nothing was cut off behind it.

        Not so for a last box that runs to the end of the file, whatever its end is, nor for a fragmented file without
        its closing `mfra`: one fragment less is as good a file. Then only a known length tells.
        """
        return not self._end and (not self._fragmented or self._kind == b"mfra")

    def _read_header(self) -> None:
        header = bytes(self._header)
        size, kind = int.from_bytes(header[:4], "big"), header[4:SHORT]
        if not self._kind and kind != b"ftyp":
            raise NotMp4(f"begins with {shorten(header.decode('latin-1'))}, not with an MP4 header")
        if size == 1:
            if len(header) < LONG:
                self._need = LONG
                return
            size = int.from_bytes(header[SHORT:LONG], "big")
            if size < LONG:
                raise NotMp4(f"has box {_name(kind)} with an impossible size of {size:,} bytes")
        self._enter(kind, size, len(header))
        self._header.clear()
        self._need = SHORT
        self._left = max(0, size - len(header))

    def _enter(self, kind: bytes, size: int, header: int) -> None:
        """Takes note of a box of `size` bytes, 0 for "to the end", of which `header` have been walked."""
        if not self._kind and kind != b"ftyp":
            raise NotMp4(f"begins with box {_name(kind)}, not with 'ftyp'")
        if size and size < header:
            raise NotMp4(f"has box {_name(kind)} with an impossible size of {size:,} bytes")
        if kind == b"ftyp" and not size:
            raise NotMp4("has a box 'ftyp' that runs to the end and leaves no room for a video")
        if kind == b"moov" and self._moov:
            raise NotMp4("has a second box 'moov'")
        self._moov |= kind == b"moov"
        self._mdat |= kind == b"mdat"
        self._fragmented |= kind == b"moof"
        self._end = not size
        self._kind = kind
