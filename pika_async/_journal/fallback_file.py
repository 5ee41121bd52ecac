"""Where records go that the database refused: lines in a file whose room was taken while there was room."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

__all__ = ["FallbackFile"]

#: Bytes that are taken beforehand, so that a full disk has room for the last receipts.
RESERVED_BYTES: Final = 64 * 1024

_log = logging.getLogger("pika_async.journal")


class FallbackFile:
    """Lines at `<path>.fallback`, or in the system's temporary folder where even that cannot be written."""

    def __init__(self, path: Path) -> None:
        #: The file beside the journal.
        self.path = Path(f"{path}.fallback")

    def _candidates(self) -> list[Path]:
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        with contextlib.suppress(OSError):  # no temporary folder at all
            return [self.path, Path(tempfile.gettempdir(), f"pika_async-{name}.fallback")]
        return [self.path]

    def reserve(self) -> None:
        """Take the room, and forget what was in it; what cannot be taken is written all the same when it has to be."""
        with contextlib.suppress(OSError):
            file = self._open(self.path, os.O_RDWR | os.O_CREAT)
            try:
                os.pwrite(file, bytes(RESERVED_BYTES), 0)
                os.ftruncate(file, RESERVED_BYTES)
                os.fsync(file)
            finally:
                os.close(file)

    def append(self, lines: Sequence[bytes]) -> Path | None:
        """Write `lines` to the disk; returns where, None if nowhere."""
        for place in self._candidates():
            with contextlib.suppress(OSError):
                file = self._open(place, os.O_RDWR | os.O_CREAT)
                try:
                    _append_bytes(file, b"".join(lines))
                finally:
                    os.close(file)
                return place
        return None

    def read_lines(self) -> list[bytes]:
        """The lines that are there, a torn last one included.

        :raises OSError: if the file beside the journal cannot be read.
        """
        return [line for place in self._candidates() for line in self._content(place).split(b"\n") if line]

    def clear(self) -> None:
        """Forget the lines and keep the room."""
        self.reserve()
        self._unlink(self._candidates()[1:])

    def remove(self) -> None:
        """Remove the files."""
        self._unlink(self._candidates())

    def _unlink(self, places: list[Path]) -> None:
        for place in places:
            with contextlib.suppress(OSError):
                os.close(self._open(place, os.O_RDONLY))  # ours, or it stays
                place.unlink()

    def set_aside(self) -> bool:
        """Keep the files under another name, for a person to look at; whether that could be done."""
        for place in self._candidates():
            if self._content(place):
                names = (Path(f"{place}.broken{number or ''}") for number in itertools.count())
                aside = next(name for name in names if not name.exists())
                _log.error("%s holds lines that cannot be read; it is kept as %s", place, aside)
                try:
                    place.rename(aside)
                except OSError:
                    return False
        return True

    def _content(self, place: Path) -> bytes:
        try:
            file = self._open(place, os.O_RDONLY)
        except OSError as error:
            if place == self.path and not isinstance(error, FileNotFoundError):
                raise
            return b""
        with open(file, "rb") as opened:  # noqa: PTH123 - a descriptor, not a path
            return opened.read().partition(b"\0")[0]

    def _open(self, place: Path, flags: int) -> int:
        """:raises OSError: also if it is a link or no plain file, or lies elsewhere and is of another user."""
        file = os.open(place, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode) or (place != self.path and facts.st_uid != os.geteuid()):
            os.close(file)
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(place))
        return file


def _append_bytes(file: int, data: bytes) -> None:
    """Over the zeros behind what is written. A part that was written before an error is taken back."""
    with open(file, "rb", closefd=False) as opened:
        start = end = len(opened.read().partition(b"\0")[0])
    left = memoryview(data)
    try:
        while left:
            written = os.pwrite(file, left, end)
            left, end = left[written:], end + written
        os.fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            os.pwrite(file, bytes(end - start), start)
        raise
