"""Calls of the operating system that Windows lacks, each with the nearest that it has. Decides nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

__all__ = ["is_process_alive", "open_file", "read_at", "set_mode", "start_flush", "sync_folder", "user_id", "write_at"]

#: Flags of each opening. Windows has `O_BINARY` alone, and without it writes two bytes for each line feed. Elsewhere a
#: link at the end of the path is an error, and the opening of a pipe does not wait.
_OPEN_FLAGS: Final[int] = sum(getattr(os, f"O_{name}", 0) for name in ("BINARY", "CLOEXEC", "NOFOLLOW", "NONBLOCK"))
#: Flag that opens a folder; None on Windows, which opens none.
_FOLDER_FLAG: Final[int | None] = getattr(os, "O_DIRECTORY", None)


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file without following a link and return its descriptor, which no child process inherits.

    :param flags: those of `os.open`.
    :param mode: the permissions of a new file; default: its user may read and write it.
    :raises OSError: if it cannot be opened, or is a link.
    """
    return os.open(path, flags | _OPEN_FLAGS, mode)


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return at most `size` bytes from `offset` on. On Windows the position of the descriptor moves."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, size)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> int:
    """Write at `offset` and return the number of bytes written. On Windows the position of the descriptor moves."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.write(descriptor, data)


def start_flush(descriptor: int, offset: int, size: int) -> None:
    """Let the disk begin to write a part of a file; a later `fsync` waits for the rest. Does nothing beside Linux.

    :raises OSError: never; a file system that refuses the advice writes when it likes.
    """
    if hasattr(os, "posix_fadvise"):
        # "Not needed" makes Linux begin to write what is dirty; what is not written yet stays in memory.
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_DONTNEED)


def sync_folder(folder: Path) -> None:
    """Sync the names in `folder` to the disk. Does nothing on Windows, where the file system keeps a log of names."""
    if _FOLDER_FLAG is None:
        return
    descriptor = os.open(folder, os.O_RDONLY | _FOLDER_FLAG | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_mode(descriptor: int, mode: int) -> None:
    """Set the permissions of an open file. Does nothing on Windows, where a file has those of its folder."""
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, mode)


def user_id() -> int:
    """Return the number of this user, as `st_uid` of a file shows it: 0 on Windows, for each user."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def is_process_alive(pid: int) -> bool:
    """Return whether a process with this id runs; True on Windows, where asking would interrupt it.

    :param pid: id of a process, above 0.
    """
    if os.name == "nt" or pid < 1:
        return pid > 0
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
