"""Errors of a worker as its caller sees them: those of its arguments, and the one that ended it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pika_async.engines.leases import MIN_TTL_S, Lease
from pika_async.errors import ConfigurationError, JournalFailed, LeaseEnded, PikaError

__all__ = ["check_worker", "plain_errors"]


def check_worker(max_jobs: int, lease_ttl: float) -> None:
    """Check the arguments of a worker.

    :raises ConfigurationError: names the one that cannot work.
    """
    if not isinstance(max_jobs, int) or max_jobs < 1:
        raise ConfigurationError(setting="max_jobs", reason=f"must be an integer >= 1, not {max_jobs!r}")
    if not lease_ttl >= MIN_TTL_S:
        raise ConfigurationError(setting="lease_ttl", reason=f"must be >= {MIN_TTL_S} seconds, not {lease_ttl!r}")


@contextlib.contextmanager
def plain_errors(lease: Lease) -> Iterator[None]:
    """Raise the error that ended a worker instead of the group of its tasks; a defect stays in its group."""
    try:
        yield
    except BaseExceptionGroup as group:
        if (refused := group.subgroup(ConfigurationError)) is not None:
            raise _first_error(refused) from None
        if group.subgroup(LeaseEnded) is not None:
            raise LeaseEnded(provider="", reason=lease.ended or "") from None
        if (failed := group.subgroup(JournalFailed)) is not None:  # a start without the database
            raise _first_error(failed) from None
        raise


def _first_error(group: BaseExceptionGroup[PikaError]) -> PikaError:
    """Return the first error in a group."""
    first = group.exceptions[0]
    return _first_error(first) if isinstance(first, BaseExceptionGroup) else first
