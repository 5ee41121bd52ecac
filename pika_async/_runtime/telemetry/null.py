"""Null telemetry, which is also the interface of all telemetry.

Records nothing.
"""

from __future__ import annotations

import enum

from pika_async._planning.actions import ActiveJob
from pika_async.jobs import Job
from pika_async.polling.durations import DurationSample
from pika_async.providers._provider import Provider
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure

__all__ = ["NullTelemetry", "RequestKind"]


class RequestKind(enum.Enum):
    """The kinds of HTTP requests to a gateway."""

    #: A paid submission.
    SUBMISSION = "submission"
    #: A free poll.
    POLL = "poll"
    #: Any other free request: for a result at another address, a cancellation, a price, a balance, an upload.
    FREE = "free"


class NullTelemetry:
    """Telemetry that records nothing. No method raises, here or in `OtelTelemetry`."""

    def for_gateway(self, provider: Provider, base_url: str) -> NullTelemetry:  # noqa: ARG002 - for `OtelTelemetry`
        """Return the telemetry of the requests to one gateway, which records the same jobs."""
        return self

    def job_started(self, active: ActiveJob) -> None:
        """Record that a job became active: newly planned, resumed, or confirmed after it was in doubt."""

    def job_finished(self, active: ActiveJob) -> None:
        """Record that a job is no longer active, with its status."""

    def request_started(self, kind: RequestKind, request: HttpRequest, active: ActiveJob | None) -> object:
        """Record that *request* is about to be sent.

        :param active: the job that it is sent for; None for a poll outside the schedule.
        :return: the context that `request_finished` needs.
        """

    def request_finished(self, started: object, response: HttpResponse | TransportFailure | None) -> None:
        """Record the result of a request. Call it in the task that called `request_started`.

        :param started: what `request_started` returned.
        :param response: None if the request was cancelled.
        """

    def submission_finished(self, job: Job, queue_time: float | None = None) -> None:
        """Record the verdict of a submission: accepted, in doubt, or neither.

        :param queue_time: seconds since the job was planned; None if unknown.
        """

    def duration_observed(self, sample: DurationSample, age: float) -> None:
        """Record the duration of a settled task.

        :param sample: the bounds of the duration, in seconds.
        :param age: seconds from acceptance to the poll that found the task settled.
        """
