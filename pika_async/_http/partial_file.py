"""File of a download before and while it gets its name: written beside the target, then linked. Does no network I/O."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import attrs

from pika_async._http.download_state import AbortDownload
from pika_async._journal.system_calls import open_file, set_mode, start_flush, sync_folder, write_at
from pika_async.errors import shorten

__all__ = ["UNFINISHED_NAME", "Download", "PartialFile", "TargetFolders", "sha256_of"]

#: Names of files that a download has while it is under way.
UNFINISHED_NAME: Final = re.compile(r"\.pika-[0-9a-f]{24}\.(part|mode)")
#: Seconds without a write after which such a file is one that a killed process has left: a download that goes on writes
#: within minutes. Also the time between two searches of one folder.
STALE_S: Final = 3600.0
#: Bytes written and hashed in one call to a worker thread.
WRITE_BATCH_BYTES: Final = 1 << 20
#: Bytes after which the disk begins to write them, so that the sync of a large file at its end waits for few of them.
FLUSH_BYTES: Final = 8 << 20
#: Flags of an opening that fails if the name exists, even as a link: no existing file is ever written to.
NEW_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
#: Errors by which a share or a FUSE file system refuses `fsync` and `fchmod`; others, such as EIO, are failures.
REFUSAL_ERRNOS: Final = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF}
)
#: Errors of `os.link` on a file system without hard links.
NO_HARD_LINK_ERRNOS: Final = REFUSAL_ERRNOS | {errno.EMLINK, errno.EXDEV}

_log = logging.getLogger("pika_async.partial_file")


@attrs.frozen(kw_only=True)
class Download:
    """File on disk."""

    file: Path
    #: SHA-256 of its bytes in 64 hex digits.
    sha256: str
    #: In bytes.
    size: int


def _hash_file(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        fd = open_file(path, os.O_RDONLY)
        with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return hashlib.file_digest(file, "sha256").hexdigest()
    return None


async def sha256_of(path: Path) -> str | None:
    """Return the SHA-256 of a regular file in hex digits; None if it is missing or cannot be read."""
    return await anyio.to_thread.run_sync(_hash_file, path)


class TargetFolders:
    """What is known of the folders of targets: the permissions of new files, and calls that a file system refuses."""

    def __init__(self) -> None:
        self._refused_calls: dict[Path, object] = {}
        #: The folder of the latest new file, and the permissions there.
        self._latest_mode: tuple[Path, int] | None = None
        #: When each folder was searched for files of killed processes, on the monotonic clock.
        self._searched_at: dict[Path, float] = {}

    def default_mode(self, folder: Path) -> int:
        """Return the permissions of a new file in `folder`, found anew only if the last call was for another folder."""
        # Reading the umask requires setting it, for every thread of the process. Instead let the kernel apply it, and
        # the default ACL of the folder, to an empty file that is removed at once.
        latest = self._latest_mode  # read once: several threads download
        if latest is not None and latest[0] == folder:
            return latest[1]
        probe = folder / f".pika-{secrets.token_hex(12)}.mode"
        fd = open_file(probe, NEW_FILE_FLAGS, 0o666)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
        finally:
            os.close(fd)
            probe.unlink()
        self._latest_mode = folder, mode
        return mode

    def remove_stale(self, folder: Path, now: float) -> None:
        """Remove the files that killed processes have left in `folder`, unless it was searched within the last hour.

        Other processes, also of other machines, may download into the folder: a file that was written to within the
        last hour is left alone.

        :param now: time of the folder's file system, which need not be that of this machine, in unix seconds.
        """
        at = time.monotonic()
        if at - self._searched_at.get(folder, -STALE_S) < STALE_S:
            return
        self._searched_at[folder] = at
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if UNFINISHED_NAME.fullmatch(entry.name):
                    with contextlib.suppress(OSError):
                        if now - entry.stat(follow_symlinks=False).st_mtime > STALE_S:
                            Path(entry.path).unlink()

    def sync(self, folder: Path) -> None:
        """Sync the names in `folder`, unless it refuses that.

        :raises OSError: for any error that is not a refusal.
        """
        with self.tolerate("fsync", folder):
            sync_folder(folder)

    @contextlib.contextmanager
    def tolerate(self, call: str, folder: Path) -> Iterator[None]:
        """Suppress the refusal of a call that a whole, verified file does not need, with one warning for a folder.

        :raises OSError: for any error that is not a refusal.
        """
        try:
            yield
        except OSError as error:
            if error.errno not in REFUSAL_ERRNOS:
                raise
            mark = object()
            if self._refused_calls.setdefault(folder, mark) is mark:  # atomic: several threads download into one folder
                text = (
                    "the folder %s refuses %s (%s): files in it are whole and verified, but may not survive a power cut"
                )
                _log.warning(text, folder, call, error.strerror)


@attrs.frozen
class Batch:
    """Bytes to write in one turn of a thread.

    :param starts_again: whether they are the first ones of the file, and replace all that were written before.
    """

    chunks: list[bytes]
    starts_again: bool


class PartialFile:
    """Hidden file beside the target with the bytes of one download, and their digest.

    All methods but `append` and `take` block and run in a worker thread, one at a time.

    :param overwrite: whether the finished file takes the place of another one of its name, in one step.
    """

    def __init__(self, target: Path, folders: TargetFolders, *, overwrite: bool = False) -> None:
        self.target = target
        self._folders = folders
        self._overwrite = overwrite
        #: Its name until it is published.
        self.temporary = target.parent / f".pika-{secrets.token_hex(12)}.part"
        self._fd: int | None = None
        #: Whether there may be a temporary file.
        self.is_created = False
        self._restarts = self._pending_size = self._size = self._flushed = 0
        self._pending: list[bytes] = []
        self._starts_again = False
        self._digest = hashlib.sha256()

    def append(self, chunk: bytes, restarts: int) -> bool:
        """Buffer the next bytes; return whether `write` is due. Another value of `restarts` starts again at byte 0."""
        if restarts != self._restarts:
            self._restarts, self._starts_again = restarts, True
            self._pending, self._pending_size = [], 0
        self._pending.append(chunk)
        self._pending_size += len(chunk)
        return self._pending_size >= WRITE_BATCH_BYTES

    def take(self) -> Batch:
        """Take the buffered bytes; others may be appended while they are written."""
        batch = Batch(self._pending, self._starts_again)
        self._pending, self._pending_size, self._starts_again = [], 0, False
        return batch

    def write(self, batch: Batch) -> None:
        """Write and hash `batch`; create the file, and its folder, if missing."""
        if self._fd is None:
            self._fd = self._create()
        if batch.starts_again and self._size:
            os.ftruncate(self._fd, 0)
            self._size, self._flushed, self._digest = 0, 0, hashlib.sha256()
        data = batch.chunks[0] if len(batch.chunks) == 1 else b"".join(batch.chunks)
        self._digest.update(data)
        view = memoryview(data)
        while view:
            written = write_at(self._fd, view, self._size)
            self._size, view = self._size + written, view[written:]
        if self._size - self._flushed >= FLUSH_BYTES:
            self.start_flush()

    def _create(self) -> int:
        self.is_created = True
        try:
            fd = open_file(self.temporary, NEW_FILE_FLAGS)
        except FileNotFoundError:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            return open_file(self.temporary, NEW_FILE_FLAGS)
        self._folders.remove_stale(self.target.parent, os.fstat(fd).st_mtime)
        return fd

    def complete(self) -> None:
        """Write the remaining bytes, and give the file the user's default permissions."""
        self.write(self.take())
        assert self._fd is not None  # noqa: S101 - `write` opened it
        with self._folders.tolerate("chmod", self.target.parent):
            set_mode(self._fd, self._folders.default_mode(self.target.parent))

    def start_flush(self) -> None:
        """Let the disk begin to write what it does not write yet."""
        assert self._fd is not None  # noqa: S101 - `write` opened it
        start_flush(self._fd, self._flushed, self._size - self._flushed)
        self._flushed = self._size

    def sync(self) -> None:
        """Wait until the disk has the file, and close it: Windows neither renames nor removes an open one."""
        assert self._fd is not None  # noqa: S101 - `write` opened it
        with self._folders.tolerate("fsync", self.target.parent):
            os.fsync(self._fd)
        self._close()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far in hex digits."""
        return self._digest.hexdigest()

    def publish(self) -> None:
        """Give the synced file its name, which lasts once `TargetFolders.sync` has synced the folder."""
        if self._overwrite:
            self.temporary.replace(self.target)
        else:
            self._link_to_target()
            self.temporary.unlink(missing_ok=True)

    @property
    def download(self) -> Download:
        """The published file."""
        return Download(file=self.target, sha256=self.sha256, size=self._size)

    def discard(self) -> None:
        """Close the temporary file, and remove it if it still exists."""
        self._close()
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _link_to_target(self) -> None:
        # A hard link, because it fails if the name exists; a rename would replace the existing file.
        try:
            os.link(self.temporary, self.target, follow_symlinks=False)
        except FileExistsError:
            self._accept_existing()
        except OSError as error:
            if error.errno not in NO_HARD_LINK_ERRNOS:
                raise
            self._rename_to_target()

    def _rename_to_target(self) -> None:
        """Without hard links: create an empty file under the name, then replace it. A crash in between leaves it."""
        try:
            os.close(open_file(self.target, NEW_FILE_FLAGS))
        except FileExistsError:
            found = self.target.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size:
                self._accept_existing()
                return
        try:
            self.temporary.replace(self.target)
        except OSError:
            self.target.unlink(missing_ok=True)
            raise

    def _accept_existing(self) -> None:
        """Accept an existing file with the same bytes: an earlier download whose record was lost.

        :raises AbortDownload: if it holds other bytes; it is not overwritten.
        """
        if _hash_file(self.target) == self._digest.hexdigest():
            return
        raise AbortDownload(f"{shorten(str(self.target))} exists with other content and is not overwritten")
