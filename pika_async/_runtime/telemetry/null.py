"""Telemetry that nobody listens to, and with that the list of what there is to tell. Keeps nothing, costs nothing."""

from __future__ import annotations

import enum

from pika_async._planning.actions import Entry
from pika_async.jobs import Job
from pika_async.polling import Observation
from pika_async.providers._wire import HttpRequest, HttpResponse, NoAnswer

__all__ = ["Call", "Silent"]


class Call(enum.Enum):
    """The two calls of a gateway."""

    #: The paid one.
    SUBMISSION = "submission"
    #: The free one, whoever wants to know.
    POLL = "poll"


class Silent:
    """Every call returns at once. None raises, here or where somebody listens."""

    def began(self, entry: Entry) -> None:
        """`entry` was taken on: planned, or accepted by an earlier process; or it goes on after a doubt."""

    def rested(self, entry: Entry) -> None:
        """`entry` is at rest; its job says how."""

    def sends(self, call: Call, request: HttpRequest, entry: Entry | None) -> object:
        """`request` is about to be sent, for `entry` or for nobody's schedule; what `answered` wants to be given."""

    def answered(self, sending: object, answer: HttpResponse | NoAnswer | None) -> None:
        """What came back, in the same task; None: nobody waited for it any more."""

    def judged(self, job: Job, waited: float | None = None) -> None:
        """A submission of `job`, planned `waited` seconds ago, has its verdict: accepted, in doubt, or neither."""

    def learned(self, seen: Observation, age: float) -> None:
        """A task has settled as `seen` says, and a look at `age` seconds found it so."""
