"""The jobs that are not at rest, and who waits for them: taken on, told of, put down. Sends and asks nothing."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable

import attrs

from pika_async._journal import Journal
from pika_async._planning.actions import Entry, Watcher
from pika_async._planning.planner import Agenda
from pika_async._runtime.telemetry import Silent
from pika_async.errors import ClientClosed, JournalFailed, PikaError, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job

__all__ = ["Desk", "now"]

_log = logging.getLogger("pika_async.desk")


def now() -> float:
    """The running loop's time: what every time of the agenda is given in."""
    return asyncio.get_running_loop().time()


class Desk:
    """Open while a scheduler works at it. What it tells others of, the journal has."""

    def __init__(self, agenda: Agenda, journal: Journal, telemetry: Silent | None = None) -> None:
        self.agenda = agenda
        self.journal = journal
        self.telemetry = telemetry or Silent()
        #: The jobs that are not at rest, by key.
        self.active: dict[str, Entry] = {}
        self.is_open = False
        #: Whether nothing is taken on any more.
        self.is_shut = False
        #: Jobs of batches whose files are on their way.
        self.fetching = 0
        #: The defect that ended the scheduler, if one did.
        self.failure: BaseException | None = None
        self.wake = asyncio.Event()
        self._observers: set[asyncio.Event] = set()

    def check_failure(self) -> None:
        """:raises RuntimeError: if a defect ended the scheduler."""
        if self.failure is not None:
            raise RuntimeError("the scheduler failed; see its cause") from self.failure

    def check(self) -> None:
        """:raises ClientClosed: if the scheduler was stopped.
        :raises RuntimeError: if a defect ended it.
        """
        self.check_failure()
        if not self.is_open:
            raise ClientClosed(provider=self.agenda.provider)

    def check_intake(self) -> None:
        """:raises ClientClosed: also if nothing is taken on any more.
        :raises RuntimeError: see `check`.
        """
        self.check()
        if self.is_shut:
            raise ClientClosed(provider=self.agenda.provider)

    @property
    def is_empty(self) -> bool:
        """Whether every job is at rest, and nothing that settled is being fetched for a batch."""
        return not self.active and not self.fetching

    def seen(self, job: Job) -> Job:
        """`job` with the looks that are not in its record yet."""
        entry = self.active.get(job.key)
        return job if entry is None or not entry.polls else attrs.evolve(job, polls=job.polls + entry.polls)

    def nudge(self) -> None:
        """Something changed: decide again."""
        self.wake.set()
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

    # --- in and out -------------------------------------------------------------------------------------------------

    async def plan(self, job: Job, watcher: Watcher, *, kept: bool = False) -> None:
        """Take `job` on: planned ones to submit, accepted ones to look at. `watcher` hears of every change.

        `kept`: the journal has it as it is.

        :raises JournalFailed: if it could not be kept.
        """
        self.check_intake()
        if job.status is JobStatus.TIMED_OUT:
            job, kept = job.reopened(), False
        entry = Entry(job, job.stratum, (watcher,))
        self.active[job.key] = entry  # before anything is awaited: who comes meanwhile watches this one
        try:
            if not kept:
                await self.journal.keep(job)
            self.check_intake()
        except BaseException:
            self.unwatch_of(entry, watcher)  # the caller hears of it by this error
            if self.is_open and entry.watchers:  # others came meanwhile, and want it still
                self.go_on(entry)
            elif self.is_open:  # else `rest_all` sees to it
                del self.active[job.key]
                self.nudge()
            raise
        self.go_on(entry)

    def go_on(self, entry: Entry) -> None:
        """Look at an accepted job, submit a planned one."""
        stop = self.agenda.gate.stop
        job = entry.job
        self.telemetry.began(entry)
        if job.task_id is not None:
            age = 0.0 if job.submitted_at is None else time.time() - job.submitted_at.timestamp()
            self.agenda.resume(entry, age, now(), random.random())
            self.tell(entry, at_rest=False)
        elif stop is not None:
            self.put_down(entry, attrs.evolve(job, error=stop))
        else:
            entry.looked_at, entry.deadline_at = now(), math.inf  # what was in doubt is sent with patience of its own
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
            self.rest(entry)

    async def withdraw(self, key: str, error: PikaError) -> None:
        """Cancel a job unless it has been sent or somebody else waits for it."""
        entry = self.active.get(key)
        job = self.journal.get(key) if entry is None else entry.job
        if entry is not None:
            if entry.watchers or not self.agenda.withdraw(entry):
                return
            del self.active[key]  # who asks for it from now on asks anew
        if job is not None and job.status is JobStatus.PLANNED:
            job = job.canceled(error, time.time())
            await self.keep(job)
            if entry is not None:
                entry.job = job
                self._told(entry)
        self.nudge()

    def halt(self, error: SubmissionsStopped) -> None:
        """Send no more: every planned job comes to rest as it is."""
        if self.agenda.gate.stop is None:
            _log.warning("%s", error)
        self.agenda.gate.stop = error
        planned = list(self.agenda.ready)
        self.agenda.ready.clear()
        for entry in planned:
            self.put_down(entry, attrs.evolve(entry.job, error=error))

    def shut(self) -> None:
        """Take nothing more on, and send no more: what is planned comes to rest as it is, what was sent goes on."""
        self.is_shut = True
        self.agenda.gate.stop = self._closed
        self.halt(self.agenda.gate.stop)
        self.nudge()

    @property
    def _closed(self) -> SubmissionsStopped:
        return self.agenda.gate.stop or ClientClosed(provider=self.agenda.provider)

    def lift(self) -> None:
        """Try again after a stop: somebody asked for it.

        :raises ClientClosed: if nothing is taken on any more.
        """
        self.check_intake()
        if self.agenda.gate.stop is not None:
            self.agenda.gate = type(self.agenda.gate)()

    def resolved(self, job: Job) -> None:
        """A person has said what became of a job in doubt, and kept it: if its callback is waited for, it goes on."""
        entry = self.active.get(job.key)
        if entry is None:
            return
        entry.job = job
        if job.is_final:
            self.rest(entry)
        else:
            self.go_on(entry)

    async def settle(self, entry: Entry, job: Job) -> None:
        """`job` is settled: keep it, then tell."""
        entry.job = job
        await self.keep(job)
        self.rest(entry)

    def put_down(self, entry: Entry, job: Job) -> None:
        """`job` is at rest and says why: what a crash would lose of that is learned again."""
        entry.job = job
        self.journal.note(job)
        self.rest(entry)

    async def keep(self, job: Job) -> None:
        """Keep `job`. A journal that fails has rescued it, and stops the submissions."""
        try:
            await self.journal.keep(job)
        except JournalFailed as error:
            self.halt(attrs.evolve(error, provider=self.agenda.provider))

    def rest(self, entry: Entry) -> None:
        if self.active.get(entry.job.key) is entry:
            del self.active[entry.job.key]
        self._told(entry)
        self.tell(entry, at_rest=True)
        self.nudge()

    def _told(self, entry: Entry) -> None:
        """Who watches from outside hears how a job came to rest."""
        job = entry.job
        why = "" if job.error is None else f" ({job.error.type})"
        log_job(_log, _level(job), job, "%s%s", job.status.value, why)
        self.telemetry.rested(entry)

    @staticmethod
    def tell(entry: Entry, *, at_rest: bool) -> None:
        for watcher in entry.watchers:
            watcher(entry.job, at_rest)

    def rest_all(self) -> None:
        """Nothing goes on: whoever waits is told how its job stands."""
        self.agenda.gate.stop = stop = self._closed
        for entry in list(self.active.values()):
            job = self.agenda.counted(entry)
            if job.is_in_flight:
                self.agenda.lookout.forget(entry)
            self.put_down(entry, attrs.evolve(job, error=stop) if job.status is JobStatus.PLANNED else job)


def _level(job: Job) -> int:
    """A doubt needs a person, a job's end is a milestone; what a stop or the closing puts down as it is, is neither."""
    if job.status is JobStatus.UNKNOWN:
        return logging.WARNING
    put_down = not job.is_final and (job.error is None or isinstance(job.error, SubmissionsStopped))
    return logging.DEBUG if put_down else logging.INFO
