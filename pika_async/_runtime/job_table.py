"""The jobs that are not at rest, and who waits for them: taken on, told of, put down. Sends and asks nothing."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable

import attrs

from pika_async._journal.protocol import Journal
from pika_async._planning.actions import ActiveJob, JobObserver
from pika_async._planning.planner import Planner
from pika_async._runtime.telemetry import NullTelemetry
from pika_async.errors import ClientClosed, JournalFailed, PikaError, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job

__all__ = ["JobTable", "now"]

_log = logging.getLogger("pika_async.job_table")


def now() -> float:
    """The running loop's time: what every time of the agenda is given in."""
    return asyncio.get_running_loop().time()


class JobTable:
    """Open while a scheduler works at it. What it tells others of, the journal has."""

    def __init__(self, planner: Planner, journal: Journal, telemetry: NullTelemetry | None = None) -> None:
        self.planner = planner
        self.journal = journal
        self.telemetry = telemetry or NullTelemetry()
        #: The jobs that are not at rest, by key.
        self.jobs: dict[str, ActiveJob] = {}
        self.is_open = False
        #: Whether nothing is taken on any more.
        self.is_shut = False
        #: Jobs of batches whose files are on their way.
        self.fetching = 0
        #: The defect that ended the scheduler, if one did.
        self.failure: BaseException | None = None
        self.wake_event = asyncio.Event()
        self._observers: set[asyncio.Event] = set()

    def check_failure(self) -> None:
        """:raises RuntimeError: if a defect ended the scheduler."""
        if self.failure is not None:
            raise RuntimeError("the scheduler failed; see its cause") from self.failure

    def require_open(self) -> None:
        """:raises ClientClosed: if the scheduler was stopped.
        :raises RuntimeError: if a defect ended it.
        """
        self.check_failure()
        if not self.is_open:
            raise ClientClosed(provider=self.planner.provider)

    def check_intake(self) -> None:
        """:raises ClientClosed: also if nothing is taken on any more.
        :raises RuntimeError: see `check`.
        """
        self.require_open()
        if self.is_shut:
            raise ClientClosed(provider=self.planner.provider)

    @property
    def is_empty(self) -> bool:
        """Whether every job is at rest, and nothing that settled is being fetched for a batch."""
        return not self.jobs and not self.fetching

    def with_pending_polls(self, job: Job) -> Job:
        """`job` with the looks that are not in its record yet."""
        active = self.jobs.get(job.key)
        return job if active is None or not active.polls else attrs.evolve(job, polls=job.polls + active.polls)

    def wake(self) -> None:
        """Something changed: decide again."""
        self.wake_event.set()
        for event in self._observers:
            event.set()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
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

    async def add(self, job: Job, observer: JobObserver, *, kept: bool = False) -> None:
        """Take `job` on: planned ones to submit, accepted ones to look at. `watcher` hears of every change.

        `kept`: the journal has it as it is.

        :raises JournalFailed: if it could not be kept.
        """
        self.check_intake()
        if job.status is JobStatus.TIMED_OUT:
            job, kept = job.reopened(), False
        active = ActiveJob(job, job.stratum, (observer,))
        self.jobs[job.key] = active  # before anything is awaited: who comes meanwhile watches this one
        try:
            if not kept:
                await self.journal.save(job)
            self.check_intake()
        except BaseException:
            self._unsubscribe(active, observer)  # the caller hears of it by this error
            if self.is_open and active.observers:  # others came meanwhile, and want it still
                self.activate(active)
            elif self.is_open:  # else `rest_all` sees to it
                del self.jobs[job.key]
                self.wake()
            raise
        self.activate(active)

    def activate(self, active: ActiveJob) -> None:
        """Look at an accepted job, submit a planned one."""
        stop = self.planner.throttle.stop
        job = active.job
        self.telemetry.job_started(active)
        if job.task_id is not None:
            age = 0.0 if job.submitted_at is None else time.time() - job.submitted_at.timestamp()
            self.planner.resume(active, age, now(), random.random())
            self.notify(active, finished=False)
        elif stop is not None:
            self.park(active, attrs.evolve(job, error=stop))
        else:
            active.last_seen_unsettled_at, active.deadline_at = (
                now(),
                math.inf,
            )  # what was in doubt is sent with patience of its own
            self.planner.queue(active)
        self.wake()

    def subscribe(self, key: str, observer: JobObserver) -> bool:
        """Let `watcher` hear of the job from now on; False if it is at rest."""
        active = self.jobs.get(key)
        if active is None:
            return False
        active.observers = (*active.observers, observer)
        return True

    def unsubscribe(self, key: str, observer: JobObserver) -> None:
        """`watcher` hears no more of the job."""
        active = self.jobs.get(key)
        if active is not None:
            self._unsubscribe(active, observer)

    @staticmethod
    def _unsubscribe(active: ActiveJob, observer: JobObserver) -> None:
        active.observers = tuple(other for other in active.observers if other != observer)

    def release(self, key: str, observer: JobObserver) -> None:
        """`watcher` wants the job no more; if nobody does and it was not sent, it comes to rest as planned."""
        self.unsubscribe(key, observer)
        active = self.jobs.get(key)
        if active is not None and not active.observers and self.planner.cancel_queued(active):
            self.remove(active)

    async def withdraw(self, key: str, error: PikaError) -> None:
        """Cancel a job unless it has been sent or somebody else waits for it."""
        active = self.jobs.get(key)
        job = self.journal.get(key) if active is None else active.job
        if active is not None:
            if active.observers or not self.planner.cancel_queued(active):
                return
            del self.jobs[key]  # who asks for it from now on asks anew
        if job is not None and job.status is JobStatus.PLANNED:
            job = job.canceled(error, time.time())
            await self.save(job)
            if active is not None:
                active.job = job
                self._log_finished(active)
        self.wake()

    def stop_submitting(self, error: SubmissionsStopped) -> None:
        """Send no more: every planned job comes to rest as it is."""
        if self.planner.throttle.stop is None:
            _log.warning("%s", error)
        self.planner.throttle.stop = error
        planned = list(self.planner.submit_queue)
        self.planner.submit_queue.clear()
        for active in planned:
            self.park(active, attrs.evolve(active.job, error=error))

    def close_intake(self) -> None:
        """Take nothing more on, and send no more: what is planned comes to rest as it is, what was sent goes on."""
        self.is_shut = True
        self.planner.throttle.stop = self._closed
        self.stop_submitting(self.planner.throttle.stop)
        self.wake()

    @property
    def _closed(self) -> SubmissionsStopped:
        return self.planner.throttle.stop or ClientClosed(provider=self.planner.provider)

    def allow_submitting(self) -> None:
        """Try again after a stop: somebody asked for it.

        :raises ClientClosed: if nothing is taken on any more.
        """
        self.check_intake()
        if self.planner.throttle.stop is not None:
            self.planner.throttle = type(self.planner.throttle)()

    def resolved(self, job: Job) -> None:
        """A person has said what became of a job in doubt, and kept it: if its callback is waited for, it goes on."""
        active = self.jobs.get(job.key)
        if active is None:
            return
        active.job = job
        if job.is_final:
            self.remove(active)
        else:
            self.activate(active)

    async def finish(self, active: ActiveJob, job: Job) -> None:
        """`job` is settled: keep it, then tell."""
        active.job = job
        await self.save(job)
        self.remove(active)

    def park(self, active: ActiveJob, job: Job) -> None:
        """`job` is at rest and says why: what a crash would lose of that is learned again."""
        active.job = job
        self.journal.save_later(job)
        self.remove(active)

    async def save(self, job: Job) -> None:
        """Keep `job`. A journal that fails has written it to its fallback file, and stops the submissions."""
        try:
            await self.journal.save(job)
        except JournalFailed as error:
            self.stop_submitting(attrs.evolve(error, provider=self.planner.provider))

    def remove(self, active: ActiveJob) -> None:
        if self.jobs.get(active.job.key) is active:
            del self.jobs[active.job.key]
        self._log_finished(active)
        self.notify(active, finished=True)
        self.wake()

    def _log_finished(self, active: ActiveJob) -> None:
        """Who watches from outside hears how a job came to rest."""
        job = active.job
        why = "" if job.error is None else f" ({job.error.type})"
        log_job(_log, _level(job), job, "%s%s", job.status.value, why)
        self.telemetry.job_finished(active)

    @staticmethod
    def notify(active: ActiveJob, *, finished: bool) -> None:
        for observer in active.observers:
            observer(active.job, finished)

    def detach_all(self) -> None:
        """Nothing goes on: whoever waits is told how its job stands."""
        self.planner.throttle.stop = stop = self._closed
        for active in list(self.jobs.values()):
            job = self.planner.with_poll_count(active)
            if job.is_in_flight:
                self.planner.poll_queue.record_censored(active)
            self.park(active, attrs.evolve(job, error=stop) if job.status is JobStatus.PLANNED else job)


def _level(job: Job) -> int:
    """A doubt needs a person, a job's end is a milestone; what a stop or the closing puts down as it is, is neither."""
    if job.status is JobStatus.UNKNOWN:
        return logging.WARNING
    put_down = not job.is_final and (job.error is None or isinstance(job.error, SubmissionsStopped))
    return logging.DEBUG if put_down else logging.INFO
