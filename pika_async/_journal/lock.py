"""One owner for one journal: a lock on a file beside it, which the system takes back from a process that dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pika_async.errors import JournalInUse

__all__ = ["FileLock"]


class FileLock:
    """Whoever holds `<path>.lock`. The file stays when it is let go: removing it would let two hold it."""

    def __init__(self, path: Path) -> None:
        """Take it.

        :raises JournalInUse: if another has it, in this process or in another.
        :raises OSError: if the file cannot be made.
        """
        self._file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._file, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            if pid == str(os.getpid()):
                reason = "another client of this process; share that one among your tasks, or close it first"
            else:
                reason = f"process {pid}; wait for it or stop it, or give each process a file and one client of its own"
            raise JournalInUse(setting="journal", reason=f"{path} is in use by {reason}") from None
        except OSError:
            os.close(self._file)
            raise
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    @staticmethod
    def was_here(path: Path) -> bool:
        """Whether there ever was an owner of `path`."""
        return Path(f"{path}.lock").exists()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)
