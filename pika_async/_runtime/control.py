"""Control of what a client sends: pause, room, and the cancellation of what is planned. Sends nothing."""

from __future__ import annotations

import abc
import time
from collections.abc import Iterable
from typing import Final, Protocol

from pika_async._planning.limits import checked_max_in_flight
from pika_async._runtime.admission import BatchAdmission
from pika_async._runtime.cancellation import cancel_sent, cancel_unsent
from pika_async._runtime.job_files import find_job
from pika_async._runtime.job_table import JobTable, now
from pika_async._runtime.open_accounts import OpenAccounts
from pika_async._runtime.pacing import paced
from pika_async.config.client import ClientConfig
from pika_async.errors import JobCanceled
from pika_async.jobs import Job, JobStatus

__all__ = ["SubmissionControl"]

#: Jobs that are canceled with one write.
CANCELED_AT_ONCE: Final = 256


class OpenSession(Protocol):
    """The part of `Session` that is controlled; see there."""

    @property
    def config(self) -> ClientConfig: ...

    @property
    def table(self) -> JobTable: ...

    @property
    def accounts(self) -> OpenAccounts: ...

    @property
    def admissions(self) -> Iterable[BatchAdmission]: ...


class SubmissionControl(abc.ABC):
    """The control of a client over its submissions, while it is open."""

    @abc.abstractmethod
    def _require_session(self, *, accepting: bool = False) -> OpenSession: ...

    def pause_submitting(self) -> None:
        """Start no further submission until `resume_submitting`; polls, callbacks and downloads go on.

        Submissions under way keep their receipts. Jobs that wait to be sent stay planned, lose no patience, and go on
        to wait: a batch with such jobs does not end. Closing the client ends the pause. Has no effect while paused.

        :raises ClientNotOpen: before the client is opened and after it is closed.
        """
        session = self._require_session()
        session.table.planner.pause(now())
        session.table.wake()

    def resume_submitting(self) -> None:
        """Submit again after `pause_submitting`. Has no effect while not paused.

        :raises ClientNotOpen: before the client is opened and after it is closed.
        """
        session = self._require_session()
        session.table.planner.unpause(now())
        session.table.wake()

    def set_max_in_flight(self, jobs: int) -> None:
        """Replace `Limits.max_in_flight` until the client is closed; jobs above a lower number are followed on.

        :param jobs: the maximum number of accepted jobs, from 1 to 10,000 or, if that is more, `Limits.max_in_flight`.
        :raises ConfigurationError: if it is not such an integer; nothing is changed.
        :raises ClientNotOpen: before the client is opened and after it is closed.
        """
        session = self._require_session()
        checked = checked_max_in_flight(jobs, session.config.limits.max_in_flight)
        session.table.planner.set_max_in_flight(checked)
        session.table.wake()

    async def cancel(self, job: Job | str) -> Job:
        """Cancel a job: withdraw it if it was not sent, else ask the provider, where it can. Charges nothing.

        A job that was not sent is settled as `canceled`. A task that the provider agrees to cancel is polled at once,
        and settles as the provider says: as failed, or as succeeded where it was too late. `wait` waits for that. A job
        that has settled stays as it is. One that is being sent is waited for.

        :param job: a job of this client, or its key.
        :return: the job as it is then.
        :raises InvalidRequest: if the provider cannot cancel a task, or the job is in doubt.
        :raises AcceptedElsewhere: if this client does not have the account that accepted the job.
        :raises TaskNotFound: if the provider denies the task.
        :raises ExchangeFailed: if no usable answer came; cancel again.
        :raises UnknownJob: if no job has that key.
        :raises JournalFailed: if the job could not be saved.
        :raises ClientNotOpen: before the client is opened and after it is closed.
        """
        session = self._require_session()
        found = await cancel_unsent(session.table, find_job(session.table.journal, job))
        if found.is_final:
            return found
        return await cancel_sent(session.table, session.accounts.of(found).gateway, found)

    async def cancel_planned(self) -> int:
        """Cancel every job that was not sent; return how many there were. Charges nothing, ends nothing that was sent.

        These are the jobs that wait to be sent and the planned ones of the journal, of this provider and address. A
        running batch of a sequence, or of `resume`, also cancels what it reaches later. Each is settled as
        `canceled`, with `JobCanceled` as its error: waiting calls get it, `resume` does not send it, and a later call
        with the same request does.

        :raises ClientNotOpen: before the client is opened and after it is closed.
        """
        session = self._require_session()
        for admission in list(session.admissions):
            admission.cancel_rest()
        canceled = await session.table.cancel_queued()
        return canceled + await _cancel_unreached(session)


async def _cancel_unreached(session: OpenSession) -> int:
    """Cancel the planned jobs of the journal that are not active; return their number."""
    table, config = session.table, session.config
    keys = [job.key async for job in paced(table.journal.all(JobStatus.PLANNED)) if config.account_of(job) is not None]
    count = 0
    for start in range(0, len(keys), CANCELED_AT_ONCE):
        page, at = keys[start : start + CANCELED_AT_ONCE], time.time()
        found = [job for key in page if key not in table.jobs and (job := table.journal.get(key)) is not None]
        planned = [job for job in found if job.status is JobStatus.PLANNED]
        if planned:
            await table.save(*(job.canceled(JobCanceled(key=job.key, provider=job.provider), at) for job in planned))
        count += len(planned)
    return count
