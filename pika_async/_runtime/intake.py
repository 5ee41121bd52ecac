"""The intake of an open client: whether it accepts and submits jobs. Holds no jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable

import attrs

from pika_async._planning.actions import ActiveJob
from pika_async._planning.planner import Planner
from pika_async.errors import ClientClosed, SubmissionsStopped
from pika_async.jobs import Job

__all__ = ["Intake"]

_log = logging.getLogger("pika_async.intake")


class Intake:
    """The states of the intake: open, closed to new jobs (draining), closed, failed; and whether jobs are submitted.

    :param planner: holds the reason for which nothing is submitted, if there is one.
    :param park: parks a queued job that is not going to be submitted.
    """

    def __init__(self, planner: Planner, park: Callable[[ActiveJob, Job], None]) -> None:
        self._planner = planner
        self._park = park
        #: Whether the scheduler runs.
        self.is_open = False
        #: Whether new jobs are refused, as during a drain.
        self.refuses_jobs = False
        #: The defect that ended the scheduler, if one did.
        self.failure: BaseException | None = None

    def require_sound(self) -> None:
        """:raises RuntimeError: if a defect ended the scheduler."""
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

    def stop_submitting(self, reason: SubmissionsStopped) -> None:
        """Submit nothing more; park every queued job with `reason` as its error."""
        if self._planner.stop_reason is None:
            _log.warning("%s", reason)
        for active in self._planner.stop_submitting(reason):
            self._park(active, attrs.evolve(active.job, error=reason))

    def close(self) -> SubmissionsStopped:
        """Accept and submit nothing more; park every queued job. Return the reason, that of an earlier stop if any."""
        self.refuses_jobs = True
        reason = self._planner.stop_reason or ClientClosed(provider=self._planner.provider)
        for active in self._planner.stop_submitting(reason):
            self._park(active, attrs.evolve(active.job, error=reason))
        return reason
