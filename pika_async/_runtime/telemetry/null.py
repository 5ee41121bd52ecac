"""Telemetry that nobody listens to, and with that the list of what there is to tell. Keeps nothing, costs nothing."""

from __future__ import annotations

import enum

from pika_async._planning.actions import ActiveJob
from pika_async.jobs import Job
from pika_async.polling.durations import DurationSample
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure

__all__ = ["NullTelemetry", "RequestKind"]


class RequestKind(enum.Enum):
    """The two calls of a gateway."""

    #: The paid one.
    SUBMISSION = "submission"
    #: The free one, whoever wants to know.
    POLL = "poll"


class NullTelemetry:
    """Every call returns at once. None raises, here or where somebody listens."""

    def job_started(self, entry: ActiveJob) -> None:
        """`entry` was taken on: planned, or accepted by an earlier process; or it goes on after a doubt."""

    def job_finished(self, entry: ActiveJob) -> None:
        """`entry` is at rest; its job says how."""

    def request_started(self, call: RequestKind, request: HttpRequest, entry: ActiveJob | None) -> object:
        """`request` is about to be sent, for `entry` or for nobody's schedule; what `answered` wants to be given."""

    def request_finished(self, sending: object, answer: HttpResponse | TransportFailure | None) -> None:
        """What came back, in the same task; None: nobody waited for it any more."""

    def submission_finished(self, job: Job, waited: float | None = None) -> None:
        """A submission of `job`, planned `waited` seconds ago, has its verdict: accepted, in doubt, or neither."""

    def duration_observed(self, seen: DurationSample, age: float) -> None:
        """A task has settled as `seen` says, and a look at `age` seconds found it so."""
