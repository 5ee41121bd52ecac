"""Tells of jobs what the journal has, in order: to those who iterate, and to hooks. Keeps nothing for anybody.

A reader is a number: it reads on behind it at its own pace, and what it has not read yet is in the journal.
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
from pika_async._runtime.gateway import was_cancelled
from pika_async.errors import InvalidRequest, JournalFailed
from pika_async.jobs import Job, JobEvent, JobSettled, event_of
from pika_async.logs import log_job

__all__ = ["EventStream", "Hook"]

#: Is given each job that settles; what it returns is awaited where it can be.
Hook = Callable[[Job], Awaitable[Any] | Any]
#: Seconds that closing waits for hooks, all together.
HOOKS_GRACE: Final = 20.0
#: Seconds for a hook that was cancelled to clean up.
HOOK_CLEANUP: Final = 1.0

_log = logging.getLogger("pika_async.event_stream")


class EventStream:
    """What is told during one opening of a client."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        #: Whether anybody ever asked: else nothing is numbered.
        self._is_read = False
        #: The number of the last change of this opening, once it is known.
        self._until: int | None = None
        self._waits: set[anyio.CancelScope] = set()
        self._hooks: set[asyncio.Task[None]] = set()

    @property
    def owns_current_task(self) -> bool:
        """Whether the running task is one that calls a hook, for which closing would wait in vain."""
        return asyncio.current_task() in self._hooks

    def stream(self, after: int | None) -> AsyncGenerator[JobEvent, None]:
        """See `PikaClient.events`."""
        self._is_read = True
        newest = self._journal.revision
        if after is None:
            after = newest
        elif isinstance(after, bool) or not isinstance(after, int) or not 0 <= after <= newest:
            reason = f"is no number of an event of this journal, whose latest is {newest}"
            raise InvalidRequest(field="after", value=after, reason=reason)
        return self._behind(after)

    async def _behind(self, after: int) -> AsyncGenerator[JobEvent, None]:
        while self._until is None or after < self._until:
            changes: list[tuple[int, Job]] | None = None
            with anyio.CancelScope() as scope:
                self._waits.add(scope)
                try:
                    changes = await self._journal.changes(after)
                finally:
                    self._waits.discard(scope)
            if changes is None:  # the end is known now
                continue
            if not changes:  # the journal was closed
                return
            for number, job in changes:
                if self._until is not None and number > self._until:  # of a later opening
                    return
                after = number
                event = event_of(number, job)
                if event is not None:
                    yield event

    def add_hook(self, hook: Hook) -> None:
        """Call `hook` with each job that settles from now on."""
        settled = self.stream(None)
        task = asyncio.create_task(self._run_hook(hook, settled), name=f"pika_async hook {hook!r:.60}")
        self._hooks.add(task)
        task.add_done_callback(self._ended)

    async def _run_hook(self, hook: Hook, events: AsyncGenerator[JobEvent, None]) -> None:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, JobSettled):
                    await _give(hook, event.job)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._hooks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("%s ended", task.get_name(), exc_info=task.exception())

    async def close(self) -> None:
        """Nothing changes any more: whoever reads ends with what there is. Waits for the hooks, at most 20 s."""
        if not self._is_read:
            return
        with contextlib.suppress(JournalFailed):  # what it could not keep is told when it is taken in
            await self._journal.save()  # all that was asked for before is committed now
        self._until = self._journal.revision
        for scope in self._waits:
            scope.cancel()
        if not self._hooks:
            return
        _, late = await asyncio.wait(self._hooks, timeout=HOOKS_GRACE)
        for task in late:
            _log.error("%s has not ended after %g s; what is left is not given to it", task.get_name(), HOOKS_GRACE)
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=HOOK_CLEANUP)


async def _give(hook: Hook, job: Job) -> None:
    try:
        result = hook(job)
        if inspect.isawaitable(result):
            await result
    except asyncio.CancelledError as error:
        if was_cancelled(error):
            raise
        log_job(_log, logging.ERROR, job, "the hook %r was cancelled", hook, exc_info=True)
    except Exception:  # the user's own: it is told, and ends nothing
        log_job(_log, logging.ERROR, job, "the hook %r failed", hook, exc_info=True)
