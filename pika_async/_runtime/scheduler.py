"""Driver of the planner: one loop and a few workers carry out its actions. Decides nothing.

The loop runs in its own task, so that a client may be opened and closed by different tasks; every other task is a child
of that task's group. No task is kept per waiting job. The result of a worker is saved before observers are notified.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar, assert_never

import anyio
import attrs
from anyio.abc import TaskGroup

from pika_async._http.answer_timeout import READ_MARGIN_S
from pika_async._planning.actions import (
    Action,
    ActiveJob,
    CallbackTimedOut,
    DeadlinePassed,
    Park,
    Poll,
    PollResult,
    Reject,
    StopSubmitting,
    Submit,
    SubmitTimedOut,
    WaitUntil,
)
from pika_async._runtime.job_table import JobTable, now
from pika_async._runtime.open_accounts import OpenAccounts
from pika_async._runtime.pacing import Pace
from pika_async.errors import AccountStopped, ProviderBusy
from pika_async.jobs import JobStatus
from pika_async.logs import log_job
from pika_async.providers._verdicts import PollVerdict

__all__ = ["Scheduler"]

_log = logging.getLogger("pika_async.scheduler")
Queue = asyncio.Queue[ActiveJob | None]


class SubmitWorker(Protocol):
    """The part of `Submitter` that the scheduler uses; see there."""

    async def submit(self, active: ActiveJob) -> None: ...

    def cancel(self) -> None: ...

    def set_deadline(self, seconds: float) -> None: ...


class Scheduler:
    """Runs the jobs of one client in the running loop, between `start` and `stop`.

    :param table: the active jobs, their planner and their intake.
    :param accounts: poll tasks.
    :param submitter: submits jobs.
    """

    def __init__(self, table: JobTable, accounts: OpenAccounts, submitter: SubmitWorker) -> None:
        self.table = table
        self._planner = table.planner
        self._intake = table.intake
        self._accounts = accounts
        self._submitter = submitter
        self._root: asyncio.Task[None] | None = None
        self._workers: WorkerPool[ActiveJob] | None = None
        #: Wakes the loop when the next job is due.
        self._timer: asyncio.TimerHandle | None = None
        #: The time of the loop by which closing should end; 0 before `stop`.
        self.close_by = 0.0

    # --- starting and stopping --------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the loop and its workers.

        :raises RuntimeError: if they failed to start.
        """
        started = asyncio.Event()
        self._root = asyncio.create_task(self._main(started), name="pika_async scheduler")
        try:
            await started.wait()
        except BaseException:
            await self.stop()
            raise
        self._intake.require_open()

    @property
    def owns_current_task(self) -> bool:
        """Whether the running task is one of the scheduler's own, for which `stop` would wait."""
        return self._workers is not None and self._workers.owns_current_task

    async def stop(self) -> None:
        """Submit nothing more, wait for the responses of submissions (at most `Limits.grace`), then stop polling.

        Jobs in flight keep their status and their task ids in the journal.
        """
        self._planner.close()
        self.close_by = now() + self._planner.limits.grace
        with anyio.CancelScope(shield=True):
            # The margin comes behind: after a stop of the process, the deadline is due before its responses are read.
            for end in (self.close_by, None):
                with anyio.CancelScope(deadline=now() + READ_MARGIN_S if end is None else end):
                    await self.table.wait_for(lambda: not self._planner.shared.submitting or self._workers is None)
            self._submitter.cancel()
            if self._root is not None and not self._root.done():
                self._root.cancel()
                await asyncio.wait({self._root})
            self._root = None
            await self.table.detach_all()

    async def _main(self, started: asyncio.Event) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._workers = WorkerPool(group)
                submits = self._workers.start_workers("submit", self._planner.limits.submitting, self._submitter.submit)
                polls = self._workers.start_workers("poll", self._planner.limits.polling, self._poll)
                self._intake.is_open = True
                started.set()
                try:
                    await self._loop(submits, polls)
                finally:  # however the loop ends, responses of submissions are awaited for a while
                    self._submitter.set_deadline(self._planner.limits.grace)
                    for queue, size in (
                        (submits, self._planner.limits.submitting),
                        (polls, self._planner.limits.polling),
                    ):
                        for _ in range(size):
                            queue.put_nowait(None)
            # The group swallows the cancellation of one of its tasks, and with it the whole group's.
            self._intake.failure = RuntimeError("a task of the scheduler was cancelled from outside")
        except asyncio.CancelledError as error:
            if not self._planner.closing:
                self._intake.failure = error
            raise
        except BaseException as error:  # a defect: every waiting call raises it
            _log.exception("the scheduler failed")
            self._intake.failure = error
        finally:
            self._workers = None
            self._intake.is_open = False
            started.set()
            self.table.wake()
            if self._intake.failure is not None:
                await self.table.detach_all()

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Start `function(*args)` in a task that ends with the scheduler; see `Spawn`."""
        self._intake.require_open()
        assert self._workers is not None  # noqa: S101 - `require_open` has checked it
        self._workers.spawn(function, *args, name=name)

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _loop(self, submits: Queue, polls: Queue) -> None:
        pace, time_now = Pace(), asyncio.get_running_loop().time
        opening_ahead = [account for account in self._accounts if account.gateway.opens_ahead]
        wake = self.table.wake_event
        try:
            while True:
                action = self._planner.next_action(time_now())
                if not isinstance(action, WaitUntil):
                    self._carry_out(action, submits, polls)
                    await pace.step()
                elif wake.is_set():
                    wake.clear()
                    await pace.step()
                else:
                    for account in opening_ahead:
                        account.gateway.prepare(self._planner.count_next(account.name, time_now()))
                    self._set_timer(action.until)
                    await wake.wait()  # other tasks have a turn
                    wake.clear()
                    pace = Pace()
        finally:
            self._set_timer(math.inf)

    def _carry_out(self, action: Action, submits: Queue, polls: Queue) -> None:
        match action:
            case Submit(active):
                self._planner.on_submit_started(active, now())
                submits.put_nowait(active)
            case Poll(active):
                self._planner.on_poll_started(active, now())
                polls.put_nowait(active)
            case DeadlinePassed(active):
                self.table.park(active, self._planner.expire(active))
            case SubmitTimedOut(active):
                error = ProviderBusy(
                    key=active.job.key, provider=active.job.provider, seconds=self._planner.limits.patience,
                    reason="the account has no room, no rate or no channel left",
                )  # fmt: skip
                self.table.park(active, attrs.evolve(active.job, error=error))
            case Reject(active, error):
                job = active.job.rejected(error, time.time())
                self.spawn(self.table.finish, active, job, name=f"pika_async refusal of {job.key}")
            case Park():
                self.table.park_stopped(action)
            case CallbackTimedOut(active):
                self.table.remove(active)
            case StopSubmitting(error, account):
                self._intake.stop_submitting(error, account)
            case _:
                assert_never(action)

    def _set_timer(self, at: float) -> None:
        """Let the loop run again at a time of its clock; at infinity not by itself."""
        if self._timer is not None:
            if self._timer.when() == at:  # as often: what was decided meanwhile is not the next to be due
                return
            self._timer.cancel()
        self._timer = None if at == math.inf else asyncio.get_running_loop().call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.table.wake_event.set()

    # --- polls ------------------------------------------------------------------------------------------------------

    async def _poll(self, active: ActiveJob) -> None:
        assert active.job.task_id is not None  # noqa: S101 - only accepted jobs are polled
        result = await self._accounts.of(active.job).gateway.poller.poll(active.job.task_id, active)
        await self.on_poll_result(active, result)

    async def on_poll_result(self, active: ActiveJob, result: PollResult) -> None:
        """Apply the result of a poll: save the job and notify its observers."""
        before = active.job
        if _log.isEnabledFor(logging.DEBUG):
            log_job(_log, logging.DEBUG, before, "poll %d: %s", before.polls + active.polls, _describe(result))
        job = self._planner.on_poll_finished(active, result, now(), time.time(), random.random())
        if job.is_final or job.status is JobStatus.TIMED_OUT:
            await self.table.finish(active, job)
        elif job is not before:
            self.table.journal.save_later(job)
            self.table.notify(active, finished=False)
        if result.verdict is PollVerdict.STOP:  # no job fails because its account is stopped
            account = self._planner.account_of(active).name  # the job may have been accepted before jobs had accounts
            self._intake.stop_account(
                account,
                AccountStopped(
                    provider=account, reason=result.reason, http_status=result.http_status, kind=result.kind
                ),
            )
        self.table.wake()


def _describe(result: PollResult) -> str:
    """Describe a poll for the log, without a gateway's words; without an HTTP status the reason is our own."""
    if result.snapshot is not None:
        return f"{result.verdict.value}, {result.snapshot.state.value}"
    return f"{result.verdict.value}, {result.reason if result.http_status is None else f'HTTP {result.http_status}'}"


T = TypeVar("T")


class WorkerPool(Generic[T]):
    """The worker tasks and other tasks of one task group."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def owns_current_task(self) -> bool:
        """Whether the running task is one of the pool, for which the group would wait."""
        return asyncio.current_task() in self._tasks

    def start_workers(self, name: str, size: int, work: Callable[[T], Awaitable[None]]) -> asyncio.Queue[T | None]:
        """Start `size` workers and return their queue. Each None in it ends one of them."""
        queue = asyncio.Queue[T | None]()
        for number in range(size):
            self.spawn(self._work, queue, work, name=f"pika_async {name} {number}")
        return queue

    @staticmethod
    async def _work(queue: asyncio.Queue[T | None], work: Callable[[T], Awaitable[None]]) -> None:
        while (item := await queue.get()) is not None:
            await work(item)

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Start `function(*args)` in the group."""
        self._group.start_soon(self._tracked, function, args, name=name)

    async def _tracked(self, function: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._tasks.add(task)
        try:
            await function(*args)
        finally:
            self._tasks.discard(task)
