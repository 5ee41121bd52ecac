"""Keeping of the lease of a worker in the database, and the end of those of others that have expired."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from pika_async.engines import shared_statements
from pika_async.engines.database import Database
from pika_async.engines.leases import Lease
from pika_async.errors import JournalFailed, PikaError

__all__ = ["LeaseKeeper"]

#: Seconds after which an extension that the database did not answer is asked for again, unless it is due sooner.
BEAT_AGAIN_S: Final = 1.0

_log = logging.getLogger("pika_async.lease_keeper")


class LeaseKeeper:
    """Keeper of one lease.

    :param database: an open database.
    :param lease: the lease, which sees what becomes of it.
    """

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self._lease = lease

    async def begin(self, row: Mapping[str, Any]) -> None:
        """Insert the worker with its lease.

        :param row: what else is to be known of the worker.
        """
        asked_at = time.monotonic()
        await self._database.run(
            shared_statements.insert_worker, {**row, "id": self._lease.worker, "ttl": self._lease.ttl}
        )
        self._lease.on_extended(asked_at)

    async def keep(self) -> None:
        """Extend the lease until it has ended."""
        wait = self._lease.interval
        while True:
            await asyncio.sleep(wait)
            asked_at, wait = time.monotonic(), self._lease.interval
            try:
                if await self._database.run_once(shared_statements.beat, self._lease.worker):
                    self._lease.on_extended(asked_at)
                else:
                    self._lease.end("it was not extended in time")
            except JournalFailed as error:
                _log.info("the lease could not be extended yet: %s", error.reason)
                self._lease.on_missed()
                wait = min(wait, BEAT_AGAIN_S)

    async def end_expired(self) -> None:
        """End the leases of others that have expired, if it is certain that they could have been extended."""
        if self._lease.may_end_others:
            for worker in await self._database.run(shared_statements.end_expired):
                _log.warning("the lease of %s has expired: its jobs are taken over", worker)

    async def end(self) -> None:
        """End the lease at once, so that others need not wait; without an answer of the database it expires."""
        with contextlib.suppress(PikaError):
            await self._database.run(shared_statements.end_lease, self._lease.worker, "closed")
