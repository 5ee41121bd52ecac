"""Carries out the agenda: one loop, one heap, a few workers. Holds no arithmetic and keeps no task per waiting job.

The loop lives in a task of its own, so that a client may be entered and left in different tasks; everything else is a
child of that task's group. What a worker learns is kept by the journal before anything else sees it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Generic, TypeVar, assert_never

import anyio
import attrs
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from pika_async._planning.actions import Decision, Entry, Expire, GiveUp, Look, Poll, Sleep, Stop, Submit, Unheard
from pika_async._runtime.gateway import Exchange
from pika_async._runtime.job_table import Desk, now
from pika_async._runtime.submitter import Submissions
from pika_async.errors import AccountStopped, ProviderBusy
from pika_async.jobs import JobStatus
from pika_async.logs import log_job
from pika_async.providers._verdicts import PollVerdict

__all__ = ["Scheduler"]

_log = logging.getLogger("pika_async.scheduler")
#: Seconds that closing waits for the answers of submissions that are on their way.
CLOSE_GRACE: Final = 20.0
Queue = MemoryObjectSendStream[Entry]


class Scheduler:
    """Runs the jobs of one client in the running loop, between `start` and `stop`."""

    def __init__(self, desk: Desk, exchange: Exchange, submissions: Submissions) -> None:
        self.desk = desk
        self._agenda = desk.agenda
        self._exchange = exchange
        self._submissions = submissions
        self._root: asyncio.Task[None] | None = None
        self._crew: Crew[Entry] | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to carry out the agenda."""
        started = asyncio.Event()
        self._root = asyncio.create_task(self._main(started), name="pika_async scheduler")
        try:
            await started.wait()
        except BaseException:
            await self.stop()
            raise
        self.desk.check()

    @property
    def is_here(self) -> bool:
        """Whether the running task is one of the scheduler's own, which it would wait for in vain."""
        return self._crew is not None and self._crew.is_here

    async def stop(self) -> None:
        """Send nothing more, wait for the answers that are on their way (at most 20 s), then stop looking.

        Jobs in flight stay as they are in the journal: accepted, with their task ids.
        """
        self._agenda.closing = True
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CLOSE_GRACE):
                await self.desk.until(lambda: not self._agenda.submitting or self._crew is None)
            self._submissions.cancel()
            if self._root is not None and not self._root.done():
                self._root.cancel()
                await asyncio.wait({self._root})
            self._root = None
            self.desk.rest_all()

    async def _main(self, started: asyncio.Event) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._crew = Crew(group)
                submits = self._crew.workers("submit", self._agenda.limits.submitting, self._submissions.submit)
                polls = self._crew.workers("poll", self._agenda.limits.polling, self._poll)
                self.desk.is_open = True
                started.set()
                try:
                    await self._loop(submits, polls)
                finally:  # whatever ends it: what was sent may still be answered, for a while
                    self._submissions.end_within(CLOSE_GRACE)
            # The group swallows the cancellation of one of its tasks, and with it the whole group's.
            self.desk.failure = RuntimeError("a task of the scheduler was cancelled from outside")
        except asyncio.CancelledError as error:
            if not self._agenda.closing:
                self.desk.failure = error
            raise
        except BaseException as error:  # a defect: whoever waits must hear of it
            _log.exception("the scheduler failed")
            self.desk.failure = error
        finally:
            self._crew = None
            self.desk.is_open = False
            started.set()
            self.desk.nudge()
            if self.desk.failure is not None:
                self.desk.rest_all()

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Run `function` beside the loop until it ends or the scheduler stops."""
        self.desk.check()
        assert self._crew is not None  # noqa: S101 - `check` has said so
        self._crew.spawn(function, *args, name=name)

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _loop(self, submits: Queue, polls: Queue) -> None:
        with submits, polls:
            while True:
                await self._carry_out(self._agenda.next(now()), submits, polls)

    async def _carry_out(self, decision: Decision, submits: Queue, polls: Queue) -> None:
        match decision:
            case Submit(entry):
                self._agenda.submit_begins(entry, now())
                submits.send_nowait(entry)
            case Poll(entry):
                self._agenda.poll_begins(entry, now())
                polls.send_nowait(entry)
            case Expire(entry):
                self.desk.put_down(entry, self._agenda.expire(entry))
            case GiveUp(entry):
                error = ProviderBusy(
                    key=entry.job.key, provider=entry.job.provider, seconds=self._agenda.limits.patience,
                    reason="the account has no room or no rate left",
                )  # fmt: skip
                self.desk.put_down(entry, attrs.evolve(entry.job, error=error))
            case Unheard(entry):
                self.desk.rest(entry)
            case Stop(error):
                self.desk.halt(error)
            case Sleep(until):
                with anyio.CancelScope(deadline=until):
                    await self.desk.wake.wait()
                self.desk.wake.clear()
            case _:
                assert_never(decision)

    # --- looks ------------------------------------------------------------------------------------------------------

    async def _poll(self, entry: Entry) -> None:
        assert entry.job.task_id is not None  # noqa: S101 - only accepted jobs are looked at
        look = await self._exchange.poll(entry.job.task_id, entry)
        await self.looked(entry, look)

    async def looked(self, entry: Entry, look: Look) -> None:
        """What a look brought, taken in."""
        before = entry.job
        log_job(_log, logging.DEBUG, before, "look %d: %s", before.polls + entry.polls, _found(look))
        job = self._agenda.poll_ends(entry, look, now(), time.time(), random.random())
        if job.is_final or job.status is JobStatus.TIMED_OUT:
            await self.desk.settle(entry, job)
        elif job is not before:
            self.desk.journal.note(job)
            self.desk.tell(entry, at_rest=False)
        if look.verdict is PollVerdict.STOP:
            self._park(AccountStopped(provider=job.provider, reason=look.reason, http_status=look.http_status))
        self.desk.nudge()

    def _park(self, error: AccountStopped) -> None:
        """The account is stopped: nothing is asked or sent any more, and nothing is failed for it."""
        self.desk.halt(error)
        for entry in self._agenda.take_doubts():
            self.desk.rest(entry)
        for entry in self._agenda.park_all():
            self.desk.put_down(entry, attrs.evolve(self._agenda.counted(entry), error=error))


def _found(look: Look) -> str:
    """What a look brought, for the log: no words of a gateway; without an answer the reason is our own."""
    if look.snapshot is not None:
        return f"{look.verdict.value}, {look.snapshot.state.value}"
    return f"{look.verdict.value}, {look.reason if look.http_status is None else f'HTTP {look.http_status}'}"


T = TypeVar("T")


class Crew(Generic[T]):
    """The children of one task group."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_here(self) -> bool:
        """Whether the running task is one of them, which would wait for the group in vain."""
        return asyncio.current_task() in self._tasks

    def workers(self, name: str, size: int, work: Callable[[T], Awaitable[None]]) -> MemoryObjectSendStream[T]:
        """A queue with `size` workers; who puts never more in than there are idle workers never waits."""
        send, receive = anyio.create_memory_object_stream[T](size)
        for number in range(size):
            self.spawn(self._labour, receive.clone(), work, name=f"pika_async {name} {number}")
        receive.close()
        return send

    @staticmethod
    async def _labour(queue: MemoryObjectReceiveStream[T], work: Callable[[T], Awaitable[None]]) -> None:
        async with queue:
            async for item in queue:
                await work(item)

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Run `function` until it ends or the group does."""
        self._group.start_soon(self._own, function, args, name=name)

    async def _own(self, function: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._tasks.add(task)
        try:
            await function(*args)
        finally:
            self._tasks.discard(task)
