"""Settled jobs of a journal in memory: their records, and the order in which they are forgotten. Stores none."""

from __future__ import annotations

import pickle
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from functools import cache
from typing import Final

from pika_async._journal.packed import is_plain
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models import GenerationRequest, Video

__all__ = ["SettledOrder", "pack_settled", "status_of", "unpack_settled"]

#: Window of the compression, as a power of two: it holds the sample record and a long prompt.
WINDOW_BITS: Final = 13
#: Stale entries that are kept before the order is rebuilt.
MIN_STALE: Final = 64

_STATUSES: Final = tuple(JobStatus)


@cache
def _sample_record() -> bytes:
    """Return the record of a usual settled job: a record repeats most of it, and is stored as the difference."""
    url = "https://cdn.pika.art/v1/00000000-0000-4000-8000-000000000000/video_seed1000000000000000000.mp4"
    at = utc_from_timestamp(1_800_000_000.0)
    job = Job(
        key="job-0123456789abcdef", request=GenerationRequest("a video of", key="job-0123456789abcdef"),
        provider="cometapi", base_url="https://api.cometapi.com", status=JobStatus.SUCCEEDED, attempts=1, polls=5,
        task_id="00000000-0000-4000-8000-000000000000", submitted_at=at, settled_at=at, progress=100,
        video=Video(url=url, seed=1_000_000_000, duration=5.0, task_id="00000000-0000-4000-8000-000000000000"),
    )  # fmt: skip
    return pickle.dumps(job, pickle.HIGHEST_PROTOCOL)


def pack_settled(job: Job) -> Job | bytes:
    """Return a record of `job`, about 0.2 KiB beside its texts; the job itself if it refers to objects of others."""
    if not is_plain(job):
        return job
    packer = zlib.compressobj(1, zlib.DEFLATED, -WINDOW_BITS, 5, zdict=_sample_record())
    try:
        record = pickle.dumps(job, pickle.HIGHEST_PROTOCOL)
    except Exception:  # the metadata of a request may hold anything
        return job
    return bytes((_STATUSES.index(job.status),)) + packer.compress(record) + packer.flush()


def unpack_settled(stored: Job | bytes) -> Job:
    """Return the job of a record, or a job as it is."""
    if isinstance(stored, Job):
        return stored
    job: Job = pickle.loads(zlib.decompressobj(-WINDOW_BITS, zdict=_sample_record()).decompress(stored[1:]))  # noqa: S301 - made by `pack_settled`
    return job


def status_of(stored: Job | bytes) -> JobStatus:
    """Return the status of a stored job without decoding its record."""
    return stored.status if isinstance(stored, Job) else _STATUSES[stored[0]]


class SettledOrder:
    """Keys of the settled jobs, the first that settled first. A key takes 8 bytes."""

    def __init__(self) -> None:
        self._keys: deque[str] = deque()
        #: Number of entries of each key that no longer count; they are before the one that does.
        self._stale: Counter[str] = Counter()
        self._stale_count = 0
        #: Keys of the jobs that had to be kept when they were the oldest.
        self._kept: set[str] = set()

    def __len__(self) -> int:
        """Return the number of keys, without those that are kept."""
        return len(self._keys) - self._stale_count

    def add(self, key: str) -> None:
        """Add a job that has settled."""
        self._keys.append(key)

    def discard(self, key: str) -> None:
        """Remove a job that is no longer settled, or no longer has that key."""
        if key in self._kept:
            self._kept.remove(key)
            return
        self._stale[key] += 1
        self._stale_count += 1
        if self._stale_count > max(MIN_STALE, len(self)):
            self._keys = deque(self._live())

    def _live(self) -> Iterator[str]:
        for key in self._keys:
            if not self._is_stale(key):
                yield key

    def _is_stale(self, key: str) -> bool:
        if key not in self._stale:
            return False
        self._stale_count -= 1
        self._stale[key] -= 1
        if not self._stale[key]:
            del self._stale[key]
        return True

    def pop(self) -> str:
        """Remove and return the oldest key.

        :raises IndexError: if there is none.
        """
        while self._is_stale(key := self._keys.popleft()):
            pass
        return key

    def keep(self, key: str) -> None:
        """Keep the key that was popped, outside the order."""
        self._kept.add(key)

    def is_kept(self, key: str) -> bool:
        """Whether the key is kept outside the order."""
        return key in self._kept

    def before_latest(self, count: int) -> str | None:
        """Return the key before the latest `count`; None if there are not that many. Stale ones count."""
        return self._keys[-count - 1] if len(self._keys) > count else None
