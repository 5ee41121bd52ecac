"""What the answers about an unsettled task last said, and the errors that repeat it. Pure: polls nothing."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pika_async._planning.actions import NOTHING_SEEN, ActiveJob, PollResult
from pika_async.errors import DeadlineExceeded, PikaError, TaskNotFound
from pika_async.models import LastSeen

__all__ = ["deadline_exceeded", "last_seen_after", "last_seen_in", "task_not_found"]

#: How much of a provider's words is kept with each unsettled job, in characters.
MAX_SEEN_REASON_LENGTH: Final = 200
#: How much of a status word is kept, in characters.
MAX_STATUS_LENGTH: Final = 64
#: The longest URL that is kept, in characters: a part of one would be of no use.
MAX_URL_LENGTH: Final = 4096

#: Most tasks are seen alike, and share one record.
_shared = lru_cache(maxsize=256)(LastSeen)


def last_seen_after(before: LastSeen, result: PollResult) -> LastSeen:
    """Return the latest facts after a poll. A poll without a usable answer adds its fault to the facts before it."""
    snapshot = result.snapshot
    if snapshot is None:
        status = "" if result.http_status in {None, 200} else f"HTTP {result.http_status}"
        reason = ": ".join(filter(None, (status, result.reason)))
        return _shared(before.status, reason[:MAX_SEEN_REASON_LENGTH], before.url)
    url = snapshot.url if snapshot.url is not None and len(snapshot.url) <= MAX_URL_LENGTH else None
    return _shared(snapshot.word[:MAX_STATUS_LENGTH], snapshot.reason[:MAX_SEEN_REASON_LENGTH], url or before.url)


def last_seen_in(error: PikaError | None) -> LastSeen:
    """Return the facts that the error of a job holds which timed out, so that a later run repeats them."""
    if not isinstance(error, DeadlineExceeded):
        return NOTHING_SEEN  # one record for all: a waiting job is to take little memory
    return LastSeen(error.last_status, error.last_reason, error.last_url)


def deadline_exceeded(active: ActiveJob) -> DeadlineExceeded:
    """Return the error of a job that is past its deadline."""
    job, seen = active.job, active.last_seen
    return DeadlineExceeded(
        key=job.key, provider=job.provider, task_id=job.task_id, seconds=active.deadline_at - active.accepted_at,
        last_status=seen.status, last_reason=seen.reason, last_url=seen.url,
    )  # fmt: skip


def task_not_found(active: ActiveJob, seconds: float, reason: str) -> TaskNotFound:
    """Return the error of a job whose task was not found for `seconds`; `reason` is that of the latest answer."""
    job, seen = active.job, active.last_seen
    earlier = ", ".join(filter(None, (seen.status, seen.url)))
    return TaskNotFound(
        key=job.key, provider=job.provider, task_id=job.task_id,
        reason=f"not found {active.rare.not_found_count} times over {seconds:.0f} s: {reason}"
        + (f"; before that: {earlier}" if earlier else ""),
    )  # fmt: skip
