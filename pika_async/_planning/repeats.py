"""Repetition of submissions whose answer was lost, at gateways that recognise them by an idempotency key. Pure.

Sends nothing. Such a gateway answers the same request with the job of the first one, so that nothing is charged twice.
"""

from __future__ import annotations

import json
from datetime import datetime
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
#: A submission is not repeated in the last seconds of the window: it may take so long to arrive.
WINDOW_MARGIN_S: Final = 300.0
#: Seconds by which the clock may have been set back since a submission; beyond, its age is not known.
MAX_CLOCK_STEP_S: Final = 60.0


def repeatable_text(provider: Provider, request: HttpRequest, digest: str) -> str | None:
    """Return a submission as the journal keeps it for a repetition; None if the gateway would not recognise it.

    :param digest: of the API key with which it is sent: with another one the gateway may take it for a new submission.
    """
    idempotency = provider.idempotency
    if idempotency is None or idempotency.header not in request.headers or request.body is None:
        return None
    facts = {"url": request.url, "headers": dict(request.headers), "body": request.body.decode(), "digest": digest}
    return json.dumps(facts)


def request_from_text(text: str, digest: str) -> HttpRequest | None:
    """Return the submission that `repeatable_text` has kept, byte for byte; None if it was sent with another API key.

    :raises Exception: of any kind, if the text was not made by it.
    """
    facts = json.loads(text)
    if facts["digest"] != digest:
        return None
    body = facts["body"].encode()
    return HttpRequest(method="POST", url=facts["url"], body=body, headers=facts["headers"], paid=True)


def is_within_window(provider: Provider, sent_at: datetime, now: datetime) -> bool:
    """Return whether the gateway still knows the key of a submission that was first sent at `sent_at`, by the clock.

    Not where the clock was set back since then: its age is not known.
    """
    if provider.idempotency is None:
        return False
    age = (now - sent_at).total_seconds()
    return -MAX_CLOCK_STEP_S <= age < provider.idempotency.window - WINDOW_MARGIN_S


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
