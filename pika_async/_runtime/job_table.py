"""Table of active jobs and their observers, and the intake that guards it.

Observers are notified after a change has been saved. Performs no network I/O.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from pika_async._journal.protocol import Journal
from pika_async._planning.actions import ActiveJob, JobObserver, Park
from pika_async._planning.last_seen import last_seen_in
from pika_async._planning.planner import Planner
from pika_async._runtime.pacing import Pace
from pika_async._runtime.telemetry.null import NullTelemetry
from pika_async.errors import ClientClosed, JobCanceled, JournalFailed, PikaError, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.logs import log_job

__all__ = ["Intake", "JobTable", "now"]

_log = logging.getLogger("pika_async.job_table")


def now() -> float:
    """Return the running loop's time, the clock of every time of the planner."""
    return asyncio.get_running_loop().time()


class Intake:
    """The states of the intake: open, closed to new jobs (draining), closed, failed; and whether jobs are submitted.

    :param planner: holds the reason for which nothing is submitted, if there is one.
    :param wake: wakes the scheduler, which parks the queued jobs after a stop.
    """

    def __init__(self, planner: Planner, wake: Callable[[], None]) -> None:
        self._planner = planner
        self._wake = wake
        #: Whether the scheduler runs.
        self.is_open = False
        #: Whether new jobs are refused, as during a drain.
        self.refuses_jobs = False
        #: The defect that ended the scheduler, if one did.
        self.failure: BaseException | None = None

    def require_sound(self) -> None:
        """Require that no defect has ended the scheduler.

        :raises RuntimeError: if one did.
        """
        if self.failure is not None:
            raise RuntimeError("the scheduler failed; see its cause") from self.failure

    def require_open(self) -> None:
        """Require that the scheduler runs.

        :raises ClientClosed: if the scheduler was stopped.
        :raises RuntimeError: if a defect ended it.
        """
        self.require_sound()
        if not self.is_open:
            raise ClientClosed(provider=self._planner.provider)

    def require_accepting(self) -> None:
        """Require that new jobs are accepted.

        :raises ClientClosed: if the client is closed or is being drained.
        :raises RuntimeError: if a defect ended the scheduler.
        """
        self.require_open()
        if self.refuses_jobs:
            raise ClientClosed(provider=self._planner.provider)

    def allow_submitting(self) -> None:
        """Submit again after a stop. The caller has checked that new jobs are accepted."""
        self._planner.allow_submitting()

    def stop_submitting(self, reason: SubmissionsStopped, account: str | None = None) -> None:
        """Submit nothing more to an account, or to all: jobs that no other account takes are parked with `reason`."""
        is_new = not self._planner.has_stopped(account)
        self._planner.stop_submitting(reason, account)
        if is_new:
            wait = None if account is None else self._planner.reopenings.seconds_until(account, now())
            _log.warning("%s%s", reason, "" if wait is None else f" (tried again with one job in {wait:.0f} s)")
        self._wake()

    def stop_account(self, account: str, error: SubmissionsStopped) -> None:
        """Submit nothing more to an account, and poll none of its tasks. Its accepted jobs are parked with `error`."""
        self.stop_submitting(error, account)
        self._planner.stop_polling(account, error)

    def close(self) -> SubmissionsStopped:
        """Accept and submit nothing more. Return the reason, that of an earlier stop if any.

        The scheduler, or else `JobTable.detach_all`, parks every queued job with it as error.
        """
        self.refuses_jobs = True
        reason = self._planner.stop_reason or ClientClosed(provider=self._planner.provider)
        self._planner.stop_submitting(reason)
        self._wake()
        return reason


class JobTable:
    """The jobs of an open client that are not finished, by key.

    :param planner: decides when each job is submitted and polled.
    :param journal: saves each change before observers are notified.
    :param telemetry: measures jobs; default: none.
    """

    def __init__(self, planner: Planner, journal: Journal, telemetry: NullTelemetry | None = None) -> None:
        self.planner = planner
        self.journal = journal
        self.telemetry = telemetry or NullTelemetry()
        self.intake = Intake(planner, self.wake)
        #: The active jobs, by key.
        self.jobs: dict[str, ActiveJob] = {}
        #: Number of downloads for a batch, waiting or under way, by the key of the settled job.
        self.fetching: Counter[str] = Counter()
        journal.retain(self.fetching)
        #: Wakes the scheduler.
        self.wake_event = asyncio.Event()
        #: Planned jobs that are canceled as soon as what is under way with them has ended: a write or an upload.
        self.canceled: set[ActiveJob] = set()
        self._waiters: set[asyncio.Event] = set()
        self._latest_observers: tuple[JobObserver, ...] = ()  # one tuple for all jobs of a batch

    @property
    def is_empty(self) -> bool:
        """Whether every job is finished and no file is being downloaded for a batch."""
        return not self.jobs and not self.fetching

    def start_fetching(self, key: str) -> None:
        """Record a download of a settled job for a batch, which the journal must not forget until it has ended."""
        self.fetching[key] += 1

    def end_fetching(self, key: str) -> None:
        """Record the end of a download."""
        self.fetching[key] -= 1
        if not self.fetching[key]:
            del self.fetching[key]

    def with_pending_polls(self, job: Job) -> Job:
        """Return `job` with the polls that are not in its record yet."""
        active = self.jobs.get(job.key)
        return job if active is None or not active.polls else attrs.evolve(job, polls=job.polls + active.polls)

    def wake(self) -> None:
        """Wake the scheduler and every `wait_for`: something has changed."""
        self.wake_event.set()
        for event in self._waiters:
            event.set()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` is true; it is checked after each `wake`."""
        event = asyncio.Event()
        self._waiters.add(event)
        try:
            while not condition():
                await event.wait()
                event.clear()
        finally:
            self._waiters.discard(event)

    # --- active jobs ------------------------------------------------------------------------------------------------

    async def add(
        self,
        job: Job,
        observer: JobObserver,
        options: tuple[str, ...] = (),
        *,
        saved: bool = False,
        error: PikaError | None = None,
    ) -> None:
        """Add `job`: a planned job is submitted, an accepted one polled, one that timed out gets a new deadline.

        :param job: a job that is neither active nor final nor in doubt.
        :param observer: notified of every change.
        :param options: the accounts that can take a planned job; default: the one that the job is for.
        :param saved: whether the journal has `job` as it is.
        :param error: the error with which an earlier run left `job`, if any.
        :raises ClientClosed: if the client is closed or is being drained.
        :raises JournalFailed: if `job` could not be saved; `observer` is not notified.
        """
        self.intake.require_accepting()
        if job.status is JobStatus.TIMED_OUT:
            job, saved = job.reopened(), False
        if self._latest_observers != (observer,):
            self._latest_observers = (observer,)
        last_seen = job.last_seen or last_seen_in(error)
        active = ActiveJob(job, job.stratum, self._latest_observers, options, last_seen=last_seen)
        self.jobs[job.key] = active  # before the first await: other callers subscribe to this entry meanwhile
        try:
            if not saved:
                await self.journal.save(job)
            self.intake.require_accepting()
        except BaseException:
            self._unsubscribe(active, observer)  # this caller gets the exception
            if self.intake.is_open and active.observers:  # other callers have subscribed meanwhile
                self.activate(active)
            elif self.intake.is_open:  # else `detach_all` removes the job
                del self.jobs[job.key]
                self.wake()
            raise
        if active in self.canceled:
            await self.cancel([active])
        else:
            self.activate(active)

    def activate(self, active: ActiveJob) -> None:
        """Poll an accepted job, submit a planned one."""
        job = active.job
        active.options = active.options or (job.account or "",)
        stop = None if job.task_id is not None else self.planner.stop_for(active)
        self.telemetry.job_started(active)
        if job.task_id is not None:
            age = 0.0 if job.submitted_at is None else time.time() - job.submitted_at.timestamp()
            self.planner.resume(active, age, now(), random.random())
            self.notify(active, finished=False)
        elif stop is not None:
            self.park(active, attrs.evolve(job, error=stop))
        else:
            self.planner.queue(active, now())
        self.wake()

    def subscribe(self, key: str, observer: JobObserver) -> bool:
        """Notify `observer` of the next changes of an active job; return False if the job is not active."""
        active = self.jobs.get(key)
        if active is None:
            return False
        active.observers = (*active.observers, observer)
        return True

    def unsubscribe(self, key: str, observer: JobObserver) -> None:
        """Notify `observer` of no further change of the job."""
        active = self.jobs.get(key)
        if active is not None:
            self._unsubscribe(active, observer)

    @staticmethod
    def _unsubscribe(active: ActiveJob, observer: JobObserver) -> None:
        active.observers = tuple(other for other in active.observers if other != observer)

    def release(self, key: str, observer: JobObserver) -> None:
        """Unsubscribe `observer`; a queued job without any other observer is removed and stays planned."""
        self.unsubscribe(key, observer)
        active = self.jobs.get(key)
        if active is not None and not active.observers and self.planner.remove_unsent(active):
            self.remove(active)

    async def withdraw(self, key: str, error: PikaError) -> None:
        """Cancel a job with `error`, unless it has been sent or has an observer.

        One whose file is being uploaded is canceled after the upload.
        """
        active = self.jobs.get(key)
        job = self.journal.get(key) if active is None else active.job
        if active is not None:
            if active.observers:
                return
            if not self.planner.remove_unsent(active):
                active.rare = attrs.evolve(active.rare, withdrawal=error)
                return
            del self.jobs[key]  # a later request of this key is admitted anew
        if job is not None and job.status is JobStatus.PLANNED:
            job = job.canceled(error, time.time())
            await self.save(job)
            if active is not None:
                active.job = job
                self._log_finished(active)
        self.wake()

    async def cancel_queued(self) -> int:
        """Cancel every job that is not sent, observed or not; return their number.

        One whose file is being uploaded is canceled after the upload.
        """
        planned = [active for active in self.jobs.values() if active.job.status is JobStatus.PLANNED]
        queued = [active for active in planned if self.planner.remove_unsent(active)]
        self.canceled |= set(planned).difference(queued)
        await self.cancel(queued)
        return len(planned)

    async def cancel(self, jobs: Sequence[ActiveJob]) -> None:
        """Cancel planned jobs that are in no queue, and notify their observers."""
        self.canceled -= set(jobs)
        at = time.time()
        for active in jobs:
            job = active.job
            active.job = job.canceled(JobCanceled(key=job.key, provider=job.provider), at)
        await self.save(*(active.job for active in jobs))
        pace = Pace()
        for active in jobs:
            if self.jobs.get(active.job.key) is active:  # closing may have removed it meanwhile
                self.remove(active)
            await pace.step()

    async def drop(self, active: ActiveJob) -> None:
        """Remove a queued job without observers: canceled if its request was withdrawn, else planned."""
        if active.rare.withdrawal is not None:
            await self.withdraw(active.job.key, active.rare.withdrawal)
        elif self.planner.remove_unsent(active):
            self.remove(active)

    def on_resolved(self, before: Job, job: Job) -> None:
        """Apply a saved resolution of a job in doubt; if its callback is being waited for, the job becomes active."""
        self.planner.on_cost(before, job)
        active = self.jobs.get(job.key)
        if active is None:
            return
        active.job = job
        if job.is_final:
            self.remove(active)
        else:
            self.activate(active)

    async def finish(self, active: ActiveJob, job: Job) -> None:
        """Save the settled `job`, then notify its observers."""
        active.job = job
        await self.save(job, linger=True)
        self.remove(active)

    def park(self, active: ActiveJob, job: Job) -> None:
        """Remove the parked `job`. It is saved later: what a crash loses of it is learned again."""
        active.job = job
        self.journal.save_later(job)
        self.remove(active)

    def park_stopped(self, park: Park) -> None:
        """Park a job because of a stop, unless it has been removed meanwhile."""
        active = park.active
        if self.jobs.get(active.job.key) is active:
            self.park(active, attrs.evolve(self.planner.on_stopped(active), error=park.error))

    async def save(self, *jobs: Job, linger: bool = False) -> None:
        """Save `jobs`. If the journal fails, it keeps them in its fallback file, and submissions stop."""
        try:
            await self.journal.save(*jobs, linger=linger)
        except JournalFailed as error:
            self.intake.stop_submitting(attrs.evolve(error, provider=self.planner.provider))

    def remove(self, active: ActiveJob) -> None:
        """Remove a finished job and notify its observers."""
        if self.jobs.get(active.job.key) is active:
            del self.jobs[active.job.key]
            if not self.jobs:
                self._latest_observers = ()  # a finished batch is not kept
        self._log_finished(active)
        self.notify(active, finished=True)
        self.wake()

    def _log_finished(self, active: ActiveJob) -> None:
        """Log and measure how a job finished."""
        job = active.job
        why = "" if job.error is None else f" ({job.error.type})"
        log_job(_log, _level(job), job, "%s%s", job.status.value, why)
        self.telemetry.job_finished(active)

    @staticmethod
    def notify(active: ActiveJob, *, finished: bool) -> None:
        """Call every observer of a job, after its change has been saved."""
        for observer in active.observers:
            observer(active.job, finished)

    async def detach_all(self) -> None:
        """Close the intake, remove every active job and notify its observers; let other tasks run meanwhile.

        Queued jobs get the stop reason as `error`; accepted jobs keep their status.
        """
        stop = self.intake.close()
        pace = Pace()
        while (park := self.planner.next_stopped()) is not None:
            self.park_stopped(park)
            await pace.step()
        for active in list(self.jobs.values()):
            if self.jobs.get(active.job.key) is not active:
                continue  # removed meanwhile
            job = self.planner.detached(active)
            self.park(active, attrs.evolve(job, error=stop) if job.status is JobStatus.PLANNED else job)
            await pace.step()


def _level(job: Job) -> int:
    """Return WARNING for a doubt, INFO for a job that ended by itself, DEBUG for one that a stop or a closing ended."""
    if job.status is JobStatus.UNKNOWN:
        return logging.WARNING
    is_interrupted = not job.is_final and (job.error is None or isinstance(job.error, SubmissionsStopped))
    return logging.DEBUG if is_interrupted else logging.INFO
