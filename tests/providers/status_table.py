"""The verdict that each HTTP status must have alone, from the promises and not from the code."""

from __future__ import annotations

from pika_async.providers._verdicts import SubmitVerdict

REJECTED = {400, 404, 405, 409, 413, 415, 422}
STOP = {401, 402, 403, 407}
WAIT = {421, 425, 429, 521, 523, 525, 526, 530}


def expected_verdict(status: int) -> SubmitVerdict:
    if 300 <= status < 400:
        return SubmitVerdict.WRONG_URL
    for statuses, verdict in (
        (REJECTED, SubmitVerdict.REJECTED),
        (STOP, SubmitVerdict.STOP),
        (WAIT, SubmitVerdict.WAIT),
    ):
        if status in statuses:
            return verdict
    return SubmitVerdict.UNKNOWN
