"""Bounds that all accounts of a client share. Pure: decides nothing."""

from __future__ import annotations

import math

import attrs

from pika_async._planning.limits import MAX_IN_FLIGHT, TokenBucket
from pika_async._planning.money import Spending

__all__ = ["SharedBounds"]


@attrs.define(kw_only=True)
class SharedBounds:
    """Counts, rates and money of a client over all its accounts.

    :param name: names the client in the error of a limit.
    :param max_in_flight: maximum number of accepted jobs.
    :param submitting_limit: maximum number of submissions under way.
    :param polling_limit: maximum number of polls under way.
    :param submit_rate: rate of submissions.
    :param poll_rate: rate of polls.
    :param spending: charges and money, with the limits of the client.
    """

    name: str = ""
    max_in_flight: float = MAX_IN_FLIGHT
    submitting_limit: float = math.inf
    polling_limit: float = math.inf
    submit_rate: TokenBucket = attrs.field(factory=lambda: TokenBucket(None))
    poll_rate: TokenBucket = attrs.field(factory=lambda: TokenBucket(None))
    spending: Spending = attrs.field(factory=Spending)
    #: Number of accepted jobs that are not finished.
    in_flight: int = 0
    #: Number of submissions under way.
    submitting: int = 0
    #: Number of polls under way.
    polling: int = 0
    #: Number of jobs that more than one account can take and that are in the queue of none.
    waiting: int = 0
    #: Number of batches that may queue another job.
    sources: int = 0

    @property
    def has_room(self) -> bool:
        """Whether one more submission may begin beside those under way."""
        return self.submitting < self.submitting_limit and self.in_flight + self.submitting < self.max_in_flight
