"""Exclusive lock on a journal file. The kernel releases the lock of a process that dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from pika_async.errors import JournalInUse

__all__ = ["FileLock"]


class FileLock:
    """Advisory lock (`flock`) on `<path>.lock`, held from construction until `release`.

    The lock file is never removed: a process that had opened the removed file and one that made a new file could both
    hold a lock.
    """

    def __init__(self, path: Path) -> None:
        """Acquire the lock without waiting.

        :param path: the journal, after links are resolved.
        :raises JournalInUse: if it is held, by another client of this process or by another process.
        :raises OSError: if the lock file cannot be made or locked.
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
        """Whether `path` has a lock file, so that a journal of ours was opened there before."""
        return Path(f"{path}.lock").exists()

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)
