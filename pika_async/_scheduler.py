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
from typing import Any, Final, assert_never

import anyio
import attrs
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from pika_async._exchange import Exchange, describe
from pika_async._journal import Journal
from pika_async.agenda import Agenda, Decision, Entry, Expire, GiveUp, Look, Poll, Sleep, Stop, Submit, Watcher
from pika_async.errors import AccountStopped, ClientClosed, PikaError, ProviderBusy, SubmissionsStopped
from pika_async.lifecycle import Job, JobStatus, judged
from pika_async.retrying import Judgement, PollVerdict, Verdict

__all__ = ["Scheduler"]

_log = logging.getLogger("pika_async.scheduler")
#: Seconds that closing waits for the answers of submissions that are on their way.
CLOSE_GRACE: Final = 20.0
Queue = MemoryObjectSendStream[Entry]


class Scheduler:
    """Runs the jobs of one client in the running loop, between `start` and `stop`."""

    def __init__(self, agenda: Agenda, exchange: Exchange, journal: Journal) -> None:
        self.agenda = agenda
        self._exchange = exchange
        self._journal = journal
        #: The jobs that are not at rest, by key.
        self.active: dict[str, Entry] = {}
        self._wake = asyncio.Event()
        self._observers: set[asyncio.Event] = set()
        self._root: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        #: One for each submission that is on its way: what ends the group does not end it.
        self._sends: set[anyio.CancelScope] = set()

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
        self.check()

    @property
    def is_here(self) -> bool:
        """Whether the running task is one of the scheduler's own, which it would wait for in vain."""
        return asyncio.current_task() in self._tasks

    def check_failure(self) -> None:
        """:raises RuntimeError: if a defect ended the scheduler."""
        if self._failure is not None:
            raise RuntimeError("the scheduler failed; see its cause") from self._failure

    async def stop(self) -> None:
        """Send nothing more, wait for the answers that are on their way (at most 20 s), then stop looking.

        Jobs in flight stay as they are in the journal: accepted, with their task ids.
        """
        self.agenda.closing = True
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(CLOSE_GRACE):
                await self.until(lambda: not self.agenda.submitting or self._group is None)
            for scope in self._sends:
                scope.cancel()
            if self._root is not None and not self._root.done():
                self._root.cancel()
                await asyncio.wait({self._root})
            self._root = None
            await self._rest_all()

    async def _rest_all(self) -> None:
        """Nothing goes on: whoever waits is told how its job stands."""
        stop = self.agenda.gate.stop or ClientClosed(provider=self.agenda.provider)
        self.agenda.gate.stop = stop
        for entry in list(self.active.values()):
            job = self.agenda.counted(entry)
            try:
                await self._settle(entry, attrs.evolve(job, error=stop) if job.status is JobStatus.PLANNED else job)
            except Exception:  # of the journal: whoever waits is told all the same
                _log.exception("job %s: the journal failed", describe(job))
                self._rest(entry)

    async def _main(self, started: asyncio.Event) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                submits = self._crew("submit", self.agenda.limits.submitting, self._submit)
                polls = self._crew("poll", self.agenda.limits.polling, self._poll)
                started.set()
                try:
                    await self._loop(submits, polls)
                finally:  # whatever ends it: what was sent may still be answered, for a while
                    for scope in self._sends:
                        scope.deadline = min(scope.deadline, _now() + CLOSE_GRACE)
            # The group swallows the cancellation of one of its tasks, and with it the whole group's.
            self._failure = RuntimeError("a task of the scheduler was cancelled from outside")
        except asyncio.CancelledError as error:
            if not self.agenda.closing:
                self._failure = error
            raise
        except BaseException as error:  # a defect: whoever waits must hear of it
            _log.exception("the scheduler failed")
            self._failure = error
        finally:
            self._group = None
            started.set()
            self.nudge()
            if self._failure is not None:
                await self._rest_all()

    def _crew(self, name: str, size: int, work: Callable[[Entry], Awaitable[None]]) -> Queue:
        """`size` workers that share one queue; the agenda never hands out more than there are workers."""
        send, receive = anyio.create_memory_object_stream[Entry](size)
        for number in range(size):
            self.spawn(self._labour, receive.clone(), work, name=f"pika_async {name} {number}")
        receive.close()
        return send

    @staticmethod
    async def _labour(queue: MemoryObjectReceiveStream[Entry], work: Callable[[Entry], Awaitable[None]]) -> None:
        async with queue:
            async for entry in queue:
                await work(entry)

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Run `function` beside the loop until it ends or the scheduler stops."""
        self.check()
        assert self._group is not None  # noqa: S101 - `check` has said so
        self._group.start_soon(self._own, function, args, name=name)

    async def _own(self, function: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._tasks.add(task)
        try:
            await function(*args)
        finally:
            self._tasks.discard(task)

    def seen(self, job: Job) -> Job:
        """`job` with the looks that are not in its record yet."""
        entry = self.active.get(job.key)
        return job if entry is None or not entry.polls else attrs.evolve(job, polls=job.polls + entry.polls)

    def check(self) -> None:
        """:raises ClientClosed: if the scheduler was stopped.
        :raises RuntimeError: if a defect ended it.
        """
        self.check_failure()
        if self._group is None:
            raise ClientClosed(provider=self.agenda.provider)

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _loop(self, submits: Queue, polls: Queue) -> None:
        with submits, polls:
            while True:
                await self._carry_out(self.agenda.next(_now()), submits, polls)

    async def _carry_out(self, decision: Decision, submits: Queue, polls: Queue) -> None:
        match decision:
            case Submit(entry):
                self.agenda.submit_begins(entry, _now())
                submits.send_nowait(entry)
            case Poll(entry):
                self.agenda.poll_begins(entry, _now())
                polls.send_nowait(entry)
            case Expire(entry):
                await self._settle(entry, self.agenda.expire(entry))
            case GiveUp(entry):
                error = ProviderBusy(
                    key=entry.job.key, provider=entry.job.provider, seconds=self.agenda.limits.patience,
                    reason="the account has no room or no rate left",
                )  # fmt: skip
                await self._settle(entry, attrs.evolve(entry.job, error=error))
            case Stop(error):
                await self.halt(error)
            case Sleep(until):
                with anyio.CancelScope(deadline=until):
                    await self._wake.wait()
                self._wake.clear()
            case _:
                assert_never(decision)

    def nudge(self) -> None:
        """Something changed: decide again."""
        self._wake.set()
        for event in self._observers:
            event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that only a nudge can make true."""
        event = asyncio.Event()
        self._observers.add(event)
        try:
            while not condition():
                await event.wait()
                event.clear()
        finally:
            self._observers.discard(event)

    # --- jobs in and out --------------------------------------------------------------------------------------------

    async def plan(self, job: Job, watcher: Watcher) -> None:
        """Take `job` on: planned ones to submit, accepted ones to look at. `watcher` hears of every change."""
        self.check()
        if job.status is JobStatus.TIMED_OUT:
            job = job.reopened()
        entry = Entry(job, job.stratum, (watcher,))
        self.active[job.key] = entry  # before anything is awaited: who comes meanwhile watches this one
        try:
            await self._journal.keep(job)
            self.check()
        except BaseException:
            self.unwatch_of(entry, watcher)  # the caller hears of it by this error
            if self._group is not None and entry.watchers:  # others came meanwhile, and want it still
                self._begin(entry)
            elif self._group is not None:  # else `_rest_all` sees to it
                del self.active[job.key]
            raise
        self._begin(entry)

    def _begin(self, entry: Entry) -> None:
        stop = self.agenda.gate.stop
        if entry.job.task_id is not None:
            self.agenda.adopt(entry, _now(), random.random())
            self._tell(entry, at_rest=False)
        elif stop is not None:
            self.spawn(self._settle, entry, attrs.evolve(entry.job, error=stop), name="pika_async refusal")
        else:
            self.agenda.plan(entry)
        self.nudge()

    def watch(self, key: str, watcher: Watcher) -> bool:
        """Let `watcher` hear of the job from now on; False if it is at rest."""
        entry = self.active.get(key)
        if entry is None:
            return False
        entry.watchers = (*entry.watchers, watcher)
        return True

    def unwatch(self, key: str, watcher: Watcher) -> None:
        """`watcher` hears no more of the job."""
        entry = self.active.get(key)
        if entry is not None:
            self.unwatch_of(entry, watcher)

    @staticmethod
    def unwatch_of(entry: Entry, watcher: Watcher) -> None:
        entry.watchers = tuple(other for other in entry.watchers if other != watcher)

    def release(self, key: str, watcher: Watcher) -> None:
        """`watcher` wants the job no more; if nobody does and it was not sent, it comes to rest as planned."""
        self.unwatch(key, watcher)
        entry = self.active.get(key)
        if entry is not None and not entry.watchers and self.agenda.withdraw(entry):
            self._rest(entry)

    async def withdraw(self, key: str, error: PikaError) -> None:
        """Cancel a job unless it has been sent or somebody else waits for it."""
        entry = self.active.get(key)
        job = self._journal.get(key) if entry is None else entry.job
        if entry is not None:
            if entry.watchers or not self.agenda.withdraw(entry):
                return
            del self.active[key]  # who asks for it from now on asks anew
        if job is not None and job.status is JobStatus.PLANNED:
            await self._journal.keep(job.canceled(error, time.time()))
        self.nudge()

    async def halt(self, error: SubmissionsStopped) -> None:
        """Send no more: every planned job comes to rest as it is, and with a stopped account the others too."""
        if self.agenda.gate.stop is None:
            _log.warning("%s", error)
        self.agenda.gate.stop = error
        planned = list(self.agenda.ready)
        self.agenda.ready.clear()  # before anything is awaited: what is planned from now on is another matter
        for entry in planned:
            await self._settle(entry, attrs.evolve(entry.job, error=error))

    def lift(self) -> None:
        """Try again after a stop: somebody asked for it."""
        if self.agenda.gate.stop is not None:
            self.agenda.gate = type(self.agenda.gate)()

    async def _settle(self, entry: Entry, job: Job) -> None:
        """`job` is at rest: keep it, then tell."""
        entry.job = job
        await self._journal.keep(job)
        self._rest(entry)

    def _rest(self, entry: Entry) -> None:
        if self.active.get(entry.job.key) is entry:
            del self.active[entry.job.key]
        self._tell(entry, at_rest=True)
        self.nudge()

    @staticmethod
    def _tell(entry: Entry, *, at_rest: bool) -> None:
        for watcher in entry.watchers:
            watcher(entry.job, at_rest)

    # --- workers ----------------------------------------------------------------------------------------------------

    async def _submit(self, entry: Entry) -> None:
        """Intent, send, verdict, in the order that makes a payment provable; a cancelled send keeps what it learned."""
        entry.job = entry.job.submitting()
        await self._journal.intend(entry.job)
        self._tell(entry, at_rest=False)
        sent_at = _now()
        judgement = Judgement(verdict=Verdict.UNKNOWN, reason="left before the answer came")
        scope = anyio.CancelScope(shield=True)  # `stop` and `_main` bound it; a sibling's end does not end it
        self._sends.add(scope)
        try:
            with scope:
                judgement = await self._exchange.submit(entry.job.request)
        except Exception as error:  # a defect: whether it was sent is not known
            _log.exception("job %s: the submission failed", describe(entry.job))
            judgement = Judgement(verdict=Verdict.UNKNOWN, reason=f"the submission failed: {error!r}")
        finally:
            self._sends.discard(scope)
            with anyio.CancelScope(shield=True):
                await self._judged(entry, judgement, sent_at)

    async def _judged(self, entry: Entry, judgement: Judgement, sent_at: float) -> None:
        _log.debug("job %s: %s %s", describe(entry.job), judgement.verdict.value, judgement.task_id or judgement.reason)
        holder = None if judgement.task_id is None else self._journal.holder(judgement.task_id)
        if holder is not None and holder != entry.job.key:
            reason = f"the provider answered with task {judgement.task_id}, which is job {holder}'s"
            judgement = attrs.evolve(judgement, verdict=Verdict.UNKNOWN, reason=reason, task_id=None)
        entry.job = judged(entry.job, judgement, time.time())
        await self._journal.keep(entry.job)
        stop = self.agenda.submit_ends(entry, judgement, sent_at, _now(), random.random())
        if entry.job.status in {JobStatus.REJECTED, JobStatus.UNKNOWN}:
            self._rest(entry)
        else:
            self._tell(entry, at_rest=False)
        if stop is not None:
            await self.halt(stop.error)
        elif self.agenda.gate.stop is not None and entry.job.status is JobStatus.PLANNED:
            await self.halt(self.agenda.gate.stop)
        self.nudge()

    async def _poll(self, entry: Entry) -> None:
        assert entry.job.task_id is not None  # noqa: S101 - only accepted jobs are looked at
        look = await self._exchange.poll(entry.job.task_id)
        await self.looked(entry, look)

    async def looked(self, entry: Entry, look: Look) -> None:
        """What a look brought, taken in."""
        before = entry.job
        job = self.agenda.poll_ends(entry, look, _now(), time.time(), random.random())
        if job.is_final or job.status is JobStatus.TIMED_OUT:
            await self._settle(entry, job)
        elif job is not before:
            await self._journal.keep(job)
            self._tell(entry, at_rest=False)
        if look.verdict is PollVerdict.STOP:
            await self._park(AccountStopped(provider=job.provider, reason=look.reason, http_status=look.http_status))
        self.nudge()

    async def _park(self, error: AccountStopped) -> None:
        """The account is stopped: nothing is asked or sent any more, and nothing is failed for it."""
        await self.halt(error)
        for entry in self.agenda.park_all():
            await self._settle(entry, attrs.evolve(self.agenda.counted(entry), error=error))


def _now() -> float:
    return asyncio.get_running_loop().time()
