"""Adaptive concurrency limit that all workers learn together: one state in the row of the account. Pure.

Each submission is checked against the row in the transaction that saves its intent, so the workers together try as many
and as often as a single client would, and one of them alone tries an account that is full. The copy of each worker says
when it may ask, and notes what the account answers, for the row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Self

import attrs

from pika_async._planning.concurrency import AdaptiveConcurrency

__all__ = ["SharedConcurrency", "SlotAnswer", "answered_text", "concurrency_of", "concurrency_text", "started_text"]

#: Answers that a worker keeps for the row while the database does not answer; of more the oldest are dropped.
MAX_ANSWERS: Final = 1_000


@attrs.frozen
class SlotAnswer:
    """Something that a worker has seen of the places of an account.

    :param kind: the answer to a submission, or "settled": a place is free.
    :param at: when it was seen, in seconds.
    :param since: when the submission was sent, or when the task was last seen unsettled.
    :param retry_after: seconds until the next submission, if the gateway asked for them.
    """

    kind: Literal["accepted", "rejected", "other", "settled"]
    at: float
    since: float = 0.0
    retry_after: float | None = None

    def apply_to(self, concurrency: AdaptiveConcurrency, accepted: int, shift: float = 0.0) -> None:
        """Record this answer.

        :param accepted: number of tasks of all workers that the account has accepted.
        :param shift: seconds by which the clock of `concurrency` is ahead of that of this answer.
        """
        at, since = self.at + shift, self.since + shift
        match self.kind:
            case "accepted":
                concurrency.on_accepted(at)
            case "rejected":
                concurrency.on_rejected(max(1, accepted), since, at, self.retry_after)
            case "settled":
                concurrency.on_settled(since, at)
            case "other":
                concurrency.on_other_answer(at)


def concurrency_of(row: Mapping[str, Any]) -> AdaptiveConcurrency | None:
    """Return what the row of an account has, on the database's clock; None if the account has refused nothing yet."""
    return None if row["concurrency"] is None else AdaptiveConcurrency(**json.loads(row["concurrency"]))


def concurrency_text(concurrency: AdaptiveConcurrency) -> str:
    """Return what a row keeps."""
    return json.dumps(concurrency.learned())


def started_text(row: Mapping[str, Any], now: float) -> str | None:
    """Return what the row keeps once a submission has begun; None if the account has refused nothing yet."""
    concurrency = concurrency_of(row)
    if concurrency is None:
        return None
    concurrency.on_submit_started(now)
    return concurrency_text(concurrency)


def answered_text(row: Mapping[str, Any], answers: Sequence[SlotAnswer], accepted: int, shift: float) -> str:
    """Return what the row keeps after answers that a worker has seen; see `SlotAnswer.apply_to`."""
    concurrency = concurrency_of(row) or AdaptiveConcurrency()
    for answer in answers:
        answer.apply_to(concurrency, accepted, shift)
    return concurrency_text(concurrency)


@attrs.define(kw_only=True)
class SharedConcurrency(AdaptiveConcurrency):
    """Copy of one worker, which notes what the account answers until the row has it.

    :param on_answer: called when there is something to report.
    """

    on_answer: Callable[[], object]
    #: What the row does not have yet.
    answers: list[SlotAnswer] = attrs.field(factory=list)

    @classmethod
    def of(cls, learned: AdaptiveConcurrency, on_answer: Callable[[], object]) -> Self:
        """Return a copy of what a worker has learned so far."""
        made = cls(ceiling=learned.ceiling, on_answer=on_answer)
        made.restore(learned)
        return made

    def on_accepted(self, now: float) -> None:
        """See `AdaptiveConcurrency`."""
        super().on_accepted(now)
        self._note(SlotAnswer("accepted", now))

    def on_rejected(self, in_flight: int, sent_at: float, now: float, retry_after: float | None = None) -> None:
        """See `AdaptiveConcurrency`."""
        super().on_rejected(in_flight, sent_at, now, retry_after)
        self._note(SlotAnswer("rejected", now, sent_at, retry_after))

    def on_other_answer(self, now: float) -> None:
        """See `AdaptiveConcurrency`."""
        super().on_other_answer(now)
        self._note(SlotAnswer("other", now))

    def on_settled(self, last_unsettled_at: float, now: float) -> None:
        """See `AdaptiveConcurrency`."""
        super().on_settled(last_unsettled_at, now)
        self._note(SlotAnswer("settled", now, last_unsettled_at))

    def _note(self, answer: SlotAnswer) -> None:
        if self.has_refused:  # before that there is nothing to be learned from an answer
            self.answers.append(answer)
            del self.answers[:-MAX_ANSWERS]
            self.on_answer()

    def adopt(self, learned: AdaptiveConcurrency, shift: float, accepted: int) -> None:
        """Take over what the row has, and then what it does not have yet.

        :param learned: what the row has.
        :param shift: seconds by which the clock of this worker is ahead of the database's.
        :param accepted: number of tasks of all workers that the account has accepted.
        """
        newest = AdaptiveConcurrency(**learned.learned(shift))
        for answer in self.answers:
            answer.apply_to(newest, accepted)
        self.restore(newest)
