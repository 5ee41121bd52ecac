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
        self._descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            if pid == str(os.getpid()):
                reason = "another client of this process; share that one among your tasks, or close it first"
            else:
                reason = f"process {pid}; wait for it or stop it, or give each process a file and one client of its own"
            raise JournalInUse(setting="journal", reason=f"{path} is in use by {reason}") from None
        except OSError:
            os.close(self._descriptor)
            raise
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there ever was an owner of `path`."""
        return Path(f"{path}.lock").exists()

    def release(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)
