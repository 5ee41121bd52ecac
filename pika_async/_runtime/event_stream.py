"""Job events for iterators and hooks, read from the journal in order.

A consumer is only the number of the last event that it read, so a slow one needs no buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import anyio

from pika_async._journal.protocol import Journal
from pika_async._runtime.tasks import was_cancelled
from pika_async.errors import InvalidRequest, JournalFailed
from pika_async.jobs import Job, JobEvent, JobSettled, event_of
from pika_async.logs import log_job

__all__ = ["EventStream", "Hook"]

#: Called with each job that settles. An awaitable result is awaited.
Hook = Callable[[Job], Awaitable[Any] | Any]
#: Seconds that closing waits for all hooks together, even if the submissions took all of its time.
MIN_HOOKS_GRACE_S: Final = 1.0
#: Seconds that a cancelled hook has to clean up.
HOOK_CLEANUP_S: Final = 1.0

_log = logging.getLogger("pika_async.event_stream")


class EventStream:
    """The events between one opening of a client and its close.

    :param journal: numbers the changes of jobs.
    :param before_exit: awaited before a `KeyboardInterrupt` or `SystemExit` of a hook ends the event loop; it keeps the
        receipts of submissions under way, which the end of the loop would cancel.
    """

    def __init__(self, journal: Journal, before_exit: Callable[[], Awaitable[None]]) -> None:
        self._journal = journal
        self._before_exit = before_exit
        #: Whether there has been a consumer. Without one, closing need not wait for pending writes.
        self._has_consumers = False
        #: The number of the last change before the close; None while the client is open.
        self._last_number: int | None = None
        self._waits: set[anyio.CancelScope] = set()
        self._hooks: set[asyncio.Task[None]] = set()

    @property
    def owns_current_task(self) -> bool:
        """Whether the running task calls a hook. Closing from it would wait for itself."""
        return asyncio.current_task() in self._hooks

    def stream(self, after: int | None) -> AsyncGenerator[JobEvent, None]:
        """Yield the events after number *after*, or from now on if it is None; see `PikaClient.events`."""
        self._has_consumers = True
        newest = self._journal.revision
        if after is None:
            after = newest
        elif isinstance(after, bool) or not isinstance(after, int) or not 0 <= after <= newest:
            reason = f"must be the number of an event of this journal, 0 to {newest}"
            raise InvalidRequest(field="after", value=after, reason=reason)
        return self._events_after(after)

    async def _events_after(self, after: int) -> AsyncGenerator[JobEvent, None]:
        while self._last_number is None or after < self._last_number:
            changes: list[tuple[int, Job]] | None = None
            with anyio.CancelScope() as scope:
                self._waits.add(scope)
                try:
                    changes = await self._journal.changes(after)
                finally:
                    self._waits.discard(scope)
            if changes is None:  # cancelled by `close`
                continue
            if not changes:  # the journal was closed
                return
            for number, job in changes:
                # Changes after the last number were made after the client was opened again.
                if self._last_number is not None and number > self._last_number:
                    return
                after = number
                event = event_of(number, job)
                if event is not None:
                    yield event

    def add_hook(self, hook: Hook) -> None:
        """Call *hook* with each job that settles from now on."""
        settled = self.stream(None)
        task = asyncio.create_task(self._run_hook(hook, settled), name=f"pika_async hook {hook!r:.60}")
        self._hooks.add(task)
        task.add_done_callback(self._on_hook_ended)

    async def _run_hook(self, hook: Hook, events: AsyncGenerator[JobEvent, None]) -> None:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, JobSettled):
                    try:
                        await _call_hook(hook, event.job)
                    except (KeyboardInterrupt, SystemExit):
                        await self._before_exit()
                        raise

    def _on_hook_ended(self, task: asyncio.Task[None]) -> None:
        self._hooks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s ended", task.get_name(), exc_info=task.exception())

    async def close(self, end: float) -> None:
        """Let every consumer end after the last change so far, and wait for the hooks.

        Call it when no job changes any more.

        :param end: the time of the loop until which the hooks are awaited; they have 1 s in any case.
        """
        if not self._has_consumers:
            return
        with contextlib.suppress(JournalFailed):  # changes in the fallback file get their events once they are imported
            await self._journal.save()  # commits every earlier write
        self._last_number = self._journal.revision
        for scope in self._waits:
            scope.cancel()
        if not self._hooks:
            return
        grace = max(end - asyncio.get_running_loop().time(), MIN_HOOKS_GRACE_S)
        _, late = await asyncio.wait(self._hooks, timeout=grace)
        for task in late:
            _log.error(
                "%s has not finished after %.1f s and is cancelled; it misses the remaining jobs",
                task.get_name(),
                grace,
            )
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=HOOK_CLEANUP_S)


async def _call_hook(hook: Hook, job: Job) -> None:
    try:
        result = hook(job)
        if inspect.isawaitable(result):
            await result
    except asyncio.CancelledError as error:
        if was_cancelled(error):
            raise
        log_job(_log, logging.ERROR, job, "the hook %r was cancelled", hook, exc_info=True)
    except Exception:  # the caller's code; it must not end the stream
        log_job(_log, logging.ERROR, job, "the hook %r failed", hook, exc_info=True)
