"""Journal of a worker: the jobs that it drives, in memory, and each write also in the cluster's database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import attrs
import sqlalchemy as sa

from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent, SubmissionHeldError, Upload
from pika_async._planning.resolution import archive_keys
from pika_async.engines import job_reads, job_writes, shared_statements, statements
from pika_async.engines.bounds import Held
from pika_async.engines.database import Database, StatementRefused
from pika_async.engines.job_writes import Write
from pika_async.engines.leases import Lease
from pika_async.errors import JournalFailed, LeaseEnded
from pika_async.jobs import Job
from pika_async.logs import log_job
from pika_async.polling.durations import DurationSample

__all__ = ["ClusterJournal"]

#: Seconds after which what could not be saved is tried again.
UNSAVED_S: Final = 5.0
#: Seconds after which a submission is tried again that met a lease which was not extended in time.
LEASE_S: Final = 0.5
#: Writes that share a commit, at most, and questions that are asked at once.
WRITES_AT_ONCE: Final = 64
ASKED_AT_ONCE: Final = 256
#: Uploads that a worker knows at its start, the latest ones.
UPLOADS_AT_ONCE: Final = 10_000
#: Samples of other workers that are read at once, at most; the latest.
SAMPLES_AT_ONCE: Final = 1_000

_log = logging.getLogger("pika_async.cluster_journal")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@attrs.define(eq=False)
class _Waiting(Generic[T, R]):
    """A call that waits for a transaction, which it shares with others."""

    what: T
    done: asyncio.Future[R] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, result: R) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # its caller may have been cancelled


#: A write waits for why its job must not be sent: None, if it is not about to be sent, or may be.
_WaitingWrite = _Waiting[Write, Held | None]


class _Gathered(Generic[T, R]):
    """Questions that come while one is being asked, which are asked together after it.

    :param ask: answers some of them; what is missing there is None.
    """

    def __init__(self, ask: Callable[[list[T]], Awaitable[Mapping[T, R]]]) -> None:
        self._ask = ask
        self._waiting: list[_Waiting[T, R | None]] = []
        self._asking: asyncio.Future[None] | None = None

    async def answer(self, what: T) -> R | None:
        """Return the answer, or raise why there is none; the question is asked even if this call is cancelled."""
        waiting = _Waiting[T, R | None](what)
        self._waiting.append(waiting)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._ask_all())
        return await asyncio.shield(waiting.done)

    async def _ask_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:ASKED_AT_ONCE], self._waiting[ASKED_AT_ONCE:]
            try:
                answers = await self._ask([waiting.what for waiting in group])
            except Exception as error:
                for waiting in group:
                    waiting.fail(error)
            else:
                for waiting in group:
                    waiting.end(answers.get(waiting.what))


class ClusterJournal(MemoryJournal):
    """The jobs that one worker drives; see `Journal` for the calls.

    Reads are answered from memory, which has these jobs alone. What another worker has is asked for in the database.

    :param database: an open database.
    :param lease: the lease of the worker. When a write finds that it has ended, it is ended here too.
    """

    def __init__(self, database: Database, lease: Lease) -> None:
        super().__init__()
        self._database = database
        self._lease = lease
        self._late: dict[str, Job] = {}
        self._new_samples: list[DurationSample] = []
        #: What waits to be written, in order.
        self._writes: list[_WaitingWrite] = []
        self._writer: asyncio.Future[None] | None = None
        #: Jobs to be claimed, by their keys, and keys of the jobs that have a task.
        self._claims = _Gathered(self._claim_all)
        self._tasks = _Gathered(self._find_all)
        #: Jobs and their task ids that came too late.
        self._orphans: set[tuple[str, str]] = set()
        #: The id of the latest sample that was read.
        self._latest_sample = 0

    async def load(self) -> None:
        """Read what all workers share: settings, uploads, and the durations that were learned."""
        for name, value in (await self._database.run(shared_statements.select_settings)).items():
            self._settings[name] = json.loads(value)
        for upload in await self._database.run(shared_statements.select_uploads, UPLOADS_AT_ONCE):
            await super().save_upload(upload)
        self._latest_sample, samples = await self._database.run(shared_statements.select_samples)
        for sample in samples:
            super().add_sample(sample)

    async def new_samples(self) -> list[DurationSample]:
        """Return the samples that other workers have saved since the last call, or since `load`."""
        self._latest_sample, found = await self._database.run(
            shared_statements.select_new_samples, self._lease.worker, self._latest_sample, SAMPLES_AT_ONCE
        )
        return found

    async def close(self) -> None:
        """See `Journal`."""
        with contextlib.suppress(LeaseEnded):
            await self.flush()
        await super().close()

    # --- owned jobs -------------------------------------------------------------------------------------------------

    async def claim(self, key: str) -> Job | None:
        """Own a job from now on, and return it as it was left; None if a live worker has it, or there is none.

        :raises LeaseEnded: if the lease has ended.
        """
        claimed = await self._claims.answer(key)
        if claimed is None:
            return None
        job, intent = claimed
        if intent is not None:
            self._intents[key] = intent
            self._set_token(key, intent.callback_sha256)
        self._store(job)
        return job

    async def _claim_all(self, keys: list[str]) -> dict[str, tuple[Job, Intent | None]]:
        return await self._fenced(job_writes.claim_all, keys, self._lease.worker)

    async def release(self, key: str) -> None:
        """Give up a job, after all that was passed before is saved; another worker may own it.

        :raises LeaseEnded: if the lease has ended: others have the job, and its last state may not be saved.
        """
        late = self._late.pop(key, None)
        await self._write(Write(() if late is None else (late,), released=key))
        job = self.get(key)
        if job is not None:
            if job.settled_at is not None:
                self._settled.discard(key)
            self._intents.pop(key, None)
            self._count_cost(job, -1)
            self._drop(job)

    # --- writes -----------------------------------------------------------------------------------------------------

    async def record_intent(self, job: Job, intent: Intent) -> None:
        """See `Journal`. The bounds of the accounts over all workers are checked with it.

        Nothing is sent unless the lease is known to hold afterwards: the process may have been stopped meanwhile. If it
        is stopped between this check and its first byte, the request is sent late; the job is in doubt by then, and the
        task id is kept as an orphan.
        """
        self._late.pop(job.key, None)
        try:
            held = await self._write(Write((job,), intent))
        except LeaseEnded as error:
            raise SubmissionHeldError(UNSAVED_S, error.reason, error) from None
        if held is not None:
            raise SubmissionHeldError(held.seconds, held.reason, held.stop)
        if not self._lease.is_valid:
            await self.save(job.requeued())
            raise SubmissionHeldError(LEASE_S, "the lease has not been extended in time")
        await super().record_intent(job, intent)

    async def save(self, *jobs: Job, linger: bool = False) -> None:  # noqa: ARG002 - every write shares its commit
        """See `Journal`. Tried until it succeeds or the lease has ended: a task id must not be lost.

        The end of the lease is not an error here, as the worker ends by it: see `Lease.over`.
        """
        for job in jobs:
            self._late.pop(job.key, None)
        await super().save(*jobs)
        with contextlib.suppress(LeaseEnded):
            await self._write(Write(jobs))

    async def _write(self, write: Write) -> Held | None:
        """Write after all that was passed before, in one transaction with what waits meanwhile.

        :raises LeaseEnded: if the lease has ended; task ids that came too late are kept as orphans.
        """
        if self._lease.ended is not None:
            await self._save_orphans(write.jobs)
            raise self._lease_ended()
        waiting = _WaitingWrite(write)
        self._writes.append(waiting)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.ensure_future(self._write_all())
        return await asyncio.shield(waiting.done)

    async def _write_all(self) -> None:
        size = WRITES_AT_ONCE
        while self._writes:
            group, self._writes = self._writes[:size], self._writes[size:]
            try:
                writes = [waiting.what for waiting in group]
                results = await self._fenced(job_writes.write_all, self._lease.worker, writes)
            except LeaseEnded as error:
                group, self._writes = [*group, *self._writes], []
                await self._lose(group, error)
            except JournalFailed as error:
                if isinstance(error, StatementRefused):
                    size = await self._find_refused(group, error)
                    continue
                if self._database.is_given_up:
                    self._lease.end("the database did not answer")
                    group, self._writes = [*group, *self._writes], []
                    await self._lose(group, self._lease_ended())
                    continue
                _log.error("%s; trying again", error)
                # Nothing is sent without its intent. Its commit may have taken place, so that is undone.
                for waiting in group:
                    if waiting.what.intent is not None:
                        waiting.end(Held(UNSAVED_S, error.message))
                self._writes = [
                    waiting if waiting.what.intent is None else _undone(waiting.what) for waiting in group
                ] + self._writes
                await asyncio.sleep(UNSAVED_S)
            except Exception as error:  # a value that no column holds
                size = await self._find_refused(group, self._failed(repr(error)))
            else:
                await self._end_writes(group, results)

    async def _find_refused(self, group: list[_WaitingWrite], error: JournalFailed) -> int:
        """Let only the write fail that the database refuses; return how many to write at once until it is found."""
        if len(group) > 1:
            self._writes = [*group, *self._writes]
            return 1
        await self._lose(group, self._failed(error.reason))
        return WRITES_AT_ONCE

    async def _lose(self, group: Sequence[_WaitingWrite], error: LeaseEnded | JournalFailed) -> None:
        """Let writes fail; the task ids in them are kept elsewhere."""
        await self._save_orphans([job for waiting in group for job in waiting.what.jobs])
        for waiting in group:
            waiting.fail(error)

    def _failed(self, reason: str) -> JournalFailed:
        return JournalFailed(provider="", reason=reason, path=self._database.text)

    async def _end_writes(self, group: list[_WaitingWrite], results: list[Held | list[Job] | None]) -> None:
        lost = [job for result in results if isinstance(result, list) for job in result]
        if lost:
            await self._save_orphans(lost)
            self._lease.end(f"another worker has the job {lost[0].key}")
        for waiting, result in zip(group, results, strict=True):
            if isinstance(result, list) and result:
                waiting.fail(self._lease_ended())
            else:
                waiting.end(result if isinstance(result, Held) else None)

    async def _save_orphans(self, jobs: Sequence[Job]) -> None:
        lost = [
            job
            for job in jobs
            if job.task_id is not None and job.is_in_flight and (job.key, job.task_id) not in self._orphans
        ]
        for job in lost:
            self._orphans.add((job.key, job.task_id or ""))
            log_job(_log, logging.ERROR, job, "its task id %s could not be saved", job.task_id)
        with contextlib.suppress(JournalFailed):  # the log has them
            if lost:
                await self._database.run(statements.insert_orphans, self._lease.worker, lost)

    def save_later(self, job: Job) -> None:
        """See `Journal`."""
        super().save_later(job)
        self._late[job.key] = job

    def add_sample(self, sample: DurationSample) -> None:
        """See `Journal`."""
        super().add_sample(sample)
        self._new_samples.append(sample)

    async def flush(self) -> None:
        """Save what was passed to `save_later` and `add_sample`, after every write that has begun.

        :raises LeaseEnded: if the lease has ended.
        """
        late, self._late = self._late, {}
        new, self._new_samples = self._new_samples, []
        if late or not (self._writer is None or self._writer.done()):
            await self._write(Write(tuple(late.values())))
        if new:
            await self._database.run(shared_statements.insert_samples, self._lease.worker, new)

    async def archive(self, job: Job) -> Job:
        """See `Journal`."""
        self._late.pop(job.key, None)
        await self._write(Write(()))  # after all that was passed before under this key
        taken = await self._database.run(job_reads.keys_like, f"{job.key}~")
        key = next(name for name in archive_keys(job.key) if name not in taken and name not in self)
        archived = attrs.evolve(job, key=key)
        await self._fenced(job_writes.archive_owned, self._lease.worker, job.key, archived)
        self._rename(job, archived)
        return archived

    async def set_setting(self, name: str, value: Any) -> None:
        """See `Journal`."""
        await super().set_setting(name, value)
        await self._database.run(shared_statements.set_setting, name, json.dumps(value))

    async def save_upload(self, upload: Upload) -> None:
        """See `Journal`."""
        await super().save_upload(upload)
        await self._database.run(shared_statements.insert_upload, upload)

    async def find_task(self, provider: str, base_url: str, task_id: str) -> str | None:
        """See `Journal`. Asks the database."""
        return await self._tasks.answer((provider, base_url, task_id))

    async def _find_all(self, tasks: list[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
        return await self._database.run(job_reads.keys_for_tasks, tasks)

    async def _fenced(
        self, function: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run statements that require the lease; cancelling the call does not cancel them."""
        self._require_lease()
        work = asyncio.ensure_future(self._database.run(function, *args, **kwargs))
        try:
            return await asyncio.shield(work)
        except shared_statements.LeaseEndedError:
            self._lease.end("it was not extended in time")
            raise self._lease_ended() from None

    def _require_lease(self) -> None:
        if self._lease.ended is not None:
            raise self._lease_ended()

    def _lease_ended(self) -> LeaseEnded:
        return LeaseEnded(provider="", reason=self._lease.ended or "")


def _undone(write: Write) -> _WaitingWrite:
    """Return a write of the job of an intent as it was before."""
    (job,) = write.jobs
    return _WaitingWrite(Write((attrs.evolve(job.requeued(), attempts=job.attempts - 1),)))
