"""Repetition of submissions whose answer was lost, at gateways that recognise them by an idempotency key. Pure.

Sends nothing. Such a gateway answers the same request with the job of the first one, so that nothing is charged twice.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Final

from pika_async._planning.backoff import backoff_delay
from pika_async.providers._provider import Provider
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from pika_async.providers._wire import HttpRequest

__all__ = ["MAX_REPEATS", "is_within_window", "repeat_delay", "repeatable_text", "request_from_text"]

#: Repetitions of one submission in a row; a later run of the same request repeats it again.
MAX_REPEATS: Final = 16
#: The longest wait between two of them, in seconds.
MAX_REPEAT_DELAY_S: Final = 8.0


def repeatable_text(provider: Provider, request: HttpRequest) -> str | None:
    """Return a submission as the journal keeps it for a repetition; None if the gateway would not recognise it."""
    idempotency = provider.idempotency
    if idempotency is None or idempotency.header not in request.headers or request.body is None:
        return None
    facts = {"url": request.url, "headers": dict(request.headers), "body": request.body.decode()}
    return json.dumps(facts)


def request_from_text(text: str) -> HttpRequest:
    """Return the submission that `repeatable_text` has kept, byte for byte.

    :raises Exception: of any kind, if the text was not made by it.
    """
    facts = json.loads(text)
    body = facts["body"].encode()
    return HttpRequest(method="POST", url=facts["url"], body=body, headers=facts["headers"], paid=True)


def is_within_window(provider: Provider, sent_at: datetime, now: datetime) -> bool:
    """Return whether the gateway still knows the key of a submission that was first sent at `sent_at`."""
    idempotency = provider.idempotency
    return idempotency is not None and now < sent_at + timedelta(seconds=idempotency.window)


def repeat_delay(outcome: SubmitOutcome, repeats: int, u: float) -> float | None:
    """Return the seconds before a submission in doubt is sent again; None if that would tell nothing more.

    Only an acceptance ends the doubt about a submission: any other answer to its repetition leaves open what the first
    one did.

    :param outcome: that of the submission or of its latest repetition.
    :param repeats: number of repetitions so far.
    :param u: a uniform random number in [0, 1), for the jitter.
    """
    ends = outcome.verdict in {SubmitVerdict.ACCEPTED, SubmitVerdict.STOP}
    if ends or outcome.unreadable or repeats >= MAX_REPEATS:
        return None
    return outcome.retry_after or backoff_delay(repeats, u, cap=MAX_REPEAT_DELAY_S)
