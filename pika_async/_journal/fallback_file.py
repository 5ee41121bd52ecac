"""File for records that the database did not accept, with disk space reserved in advance. Does not parse its lines."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pika_async._journal.side_files import numbered, side_paths
from pika_async._journal.system_calls import open_file, sync_folder, user_id, write_at

__all__ = ["FallbackFile"]

#: Bytes reserved in advance, so that the last receipts can be written to a full disk: about 800 of them.
RESERVED_BYTES: Final = 256 * 1024

_log = logging.getLogger("pika_async.journal")


class FallbackFile:
    """Lines in `<path>.fallback`, or in the system's temporary folder where that file cannot be written.

    The lines are followed by zero bytes: the reserved space.
    """

    def __init__(self, path: Path) -> None:
        self._journal = path
        #: The file beside the journal.
        self.path = Path(f"{path}.fallback")

    def _candidates(self) -> list[Path]:
        """Return the files to try, in order."""
        return side_paths(self._journal, ".fallback")

    @property
    def files(self) -> list[Path]:
        """The files that hold lines."""
        return [candidate for candidate in self._candidates() if self._content(candidate)]

    def reserve(self) -> None:
        """Empty the file and reserve its space on the disk; if that fails, `append` still tries to write."""
        with contextlib.suppress(OSError):
            descriptor = self._open(self.path, os.O_RDWR | os.O_CREAT)
            try:
                write_at(descriptor, bytes(RESERVED_BYTES), 0)
                os.ftruncate(descriptor, RESERVED_BYTES)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_folder(self.path.parent)

    def append(self, lines: Sequence[bytes]) -> Path | None:
        """Write `lines` and sync them to the disk; return the file, or None if no file could be written."""
        for candidate in self._candidates():
            with contextlib.suppress(OSError):
                descriptor = self._open(candidate, os.O_RDWR | os.O_CREAT)
                try:
                    _append_bytes(descriptor, b"".join(lines))
                finally:
                    os.close(descriptor)
                with contextlib.suppress(OSError):  # the lines are in the file; its name may survive a power cut anyway
                    sync_folder(candidate.parent)
                return candidate
        return None

    def read_lines(self) -> list[bytes]:
        """Return the lines of both files; the last one may be incomplete.

        :raises OSError: if the file beside the journal cannot be read.
        """
        return [line for candidate in self._candidates() for line in self._content(candidate).split(b"\n") if line]

    def clear(self) -> None:
        """Remove the lines and reserve the space again."""
        self.reserve()
        self._unlink(self._candidates()[1:])

    def remove(self) -> None:
        """Remove both files."""
        self._unlink(self._candidates())

    def _unlink(self, files: list[Path]) -> None:
        for file in files:
            with contextlib.suppress(OSError):
                os.close(self._open(file, os.O_RDONLY))  # fails for a file that is not ours, which then stays
                file.unlink()

    def set_aside(self) -> bool:
        """Rename the files that hold lines, for a person to inspect; return False if a rename failed."""
        for candidate in self._candidates():
            if self._content(candidate):
                target = numbered(Path(f"{candidate}.broken"))
                _log.error("%s holds lines that cannot be read; it is kept as %s", candidate, target)
                try:
                    candidate.rename(target)
                except OSError:
                    return False
        return True

    def _content(self, file: Path) -> bytes:
        """Return the bytes before the reserved zeros; none for a file that is missing or, elsewhere, unreadable."""
        try:
            descriptor = self._open(file, os.O_RDONLY)
        except OSError as error:
            if file == self.path and not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise
            return b""
        with open(descriptor, "rb") as opened:  # noqa: PTH123 - a descriptor, not a path
            return opened.read().partition(b"\0")[0]

    def _open(self, file: Path, flags: int) -> int:
        """Open a regular file without following a link.

        The temporary folder is shared with other users, so a file there must also belong to this user.

        :raises OSError: if the file cannot be opened, or is one of those.
        """
        descriptor = open_file(file, flags)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or (file != self.path and status.st_uid != user_id()):
            os.close(descriptor)
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(file))
        return descriptor


def _append_bytes(descriptor: int, data: bytes) -> None:
    """Write `data` over the zeros after the lines, and sync; on an error overwrite the written part with zeros."""
    with open(descriptor, "rb", closefd=False) as opened:
        start = end = len(opened.read().partition(b"\0")[0])
    remaining = memoryview(data)
    try:
        while remaining:
            written = write_at(descriptor, remaining, end)
            remaining, end = remaining[written:], end + written
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            write_at(descriptor, bytes(end - start), start)
        raise
