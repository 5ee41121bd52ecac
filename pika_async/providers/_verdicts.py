"""Verdicts on submissions and polls: whether to send again, as pure tables. Sends nothing and waits for nothing.

A verdict on a submission rests on one proof: nothing leaves this machine before the send phase is `SENT`. An
exception's class alone decides nothing. Nor does a text of the provider, with three exceptions: "no available channel"
beside 503, "Invalid URL" beside 404, and words on the key or the balance beside a refusal. None of them turns an answer
that leaves it open whether the request was accepted into one that does not.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import attrs

from pika_async.errors.base import ErrorKind, strip_control
from pika_async.models.results import Receipt
from pika_async.providers._codes import (
    NO_QUOTA,
    PLAIN_REFUSALS,
    fingerprint,
    has_no_channel,
    is_account_code,
    is_account_phrase,
    is_busy_code,
    is_request_code,
    is_wrong_path,
    model_in,
)
from pika_async.providers._failure import as_number
from pika_async.providers._kinds import kind_of_failure, kind_of_transport_failure
from pika_async.providers._wire import HttpResponse, SendPhase, TransportFailure

__all__ = [
    "PollVerdict",
    "SubmitOutcome",
    "SubmitVerdict",
    "classify_failure",
    "classify_poll",
    "classify_poll_code",
    "classify_response",
    "minimal_outcome",
    "poll_after",
    "retry_after",
]

#: The longest `Retry-After` that is honoured, in seconds: a gateway's wrong clock must not stop a batch for a day.
RETRY_AFTER_CAP: Final = 300.0
#: How much of a provider's message is kept with a job, in characters.
REASON_LIMIT: Final = 500
#: How much of a failure code is kept, in characters.
CODE_LIMIT: Final = 100
#: How much of an answer without a receipt is kept with a job in doubt, in characters.
EXCERPT_LIMIT: Final = 400


class SubmitVerdict(enum.Enum):
    """What to do about one submission."""

    #: Nothing left this machine: send again, within the retry limits.
    NOT_SENT = "not_sent"
    #: The provider refused it for now, before doing anything: wait, then send again.
    WAIT = "wait"
    #: The request is at fault: do not send it again.
    REJECTED = "rejected"
    #: The credential, the balance or the certificate is at fault: park every job of the account, fail none.
    STOP = "stop"
    #: A web page, a redirect or "no such path" came instead of the gateway's API: stop, and keep this job planned.
    WRONG_URL = "wrong_url"
    #: It may have been accepted and charged: never send again.
    UNKNOWN = "unknown"
    #: A task id was read.
    ACCEPTED = "accepted"


@attrs.frozen(kw_only=True)
class SubmitOutcome:
    """Verdict on a submission with the facts of its answer."""

    verdict: SubmitVerdict
    #: Why, for messages; printable, at most `REASON_LIMIT` long, "" if accepted.
    reason: str = ""
    #: Set exactly when accepted.
    task_id: str | None = None
    #: See `Receipt.handle`; None unless accepted.
    handle: str | None = None
    #: None if no answer came.
    http_status: int | None = None
    #: The delay in seconds that the provider asks for, where the verdict is `WAIT` and it asks for one.
    retry_after: float | None = None
    #: The provider's own id of the request, where the answer has one; its support asks for it.
    request_id: str | None = None
    #: Whether a whole answer came with a status of success, and neither a task id nor a failure could be read in it: a
    #: web page, an unknown wire. False for every other doubt.
    unreadable: bool = False
    #: The failure code of the body as text, a word where it has one; None if it has none or was not read.
    code: str | None = None
    #: The number in the body that stands for an HTTP status, beside a status of success; None if there is none.
    body_status: int | None = None
    #: Whether this machine failed before the network came into it (`NOT_SENT`): a file that cannot be read just now.
    local: bool = False
    #: Whether a `local` failure would come again at every attempt.
    lasting: bool = False
    #: The model that the provider names in a "retry later" answer (`WAIT`): other models may pass. None: names none.
    model: str | None = None
    #: Status, code and words of a provider's refusal (`REJECTED`, `STOP`, `WAIT`, `WRONG_URL`), without ids and numbers
    #: that differ each time: equal fingerprints are the same refusal. "" for every other outcome.
    fingerprint: str = ""
    #: The failure in people's terms.
    kind: ErrorKind = "other"

    @property
    def is_rate_limited(self) -> bool:
        """Whether the provider answers "too many requests", as a status or in the body of a success."""
        return 429 in (self.http_status, self.body_status)


_REJECTED: Final = frozenset({400, 404, 405, 409, 413, 415, 422})
_STOP: Final = frozenset({401, 402, 403, 407})
#: 521, 523, 525, 526, 530: the front end never reached the gateway.
_WAIT: Final = frozenset({421, 425, 429, 521, 523, 525, 526, 530})
_REDIRECTS: Final = range(300, 400)
#: The headers in which gateways of this family (new-api and its forks) and their front ends name a request.
_REQUEST_IDS: Final = (
    "x-oneapi-request-id", "x-new-api-request-id", "x-fal-request-id", "x-request-id", "request-id", "cf-ray",
)  # fmt: skip


def classify_failure(failure: TransportFailure) -> SubmitOutcome:
    """Return the verdict on a submission without an answer: what was handed to a connection may have arrived."""
    if failure.phase is SendPhase.SENT:
        verdict = SubmitVerdict.UNKNOWN
    elif failure.kind == "certificate":
        verdict = SubmitVerdict.STOP
    elif failure.kind == "url":
        verdict = SubmitVerdict.WRONG_URL
    else:
        verdict = SubmitVerdict.NOT_SENT
    return SubmitOutcome(verdict=verdict, reason=failure.detail, kind=kind_of_transport_failure(failure.kind))


def classify_response(
    response: HttpResponse,
    receipt: Receipt,
    *,
    lenient: bool = False,
    now: float = 0.0,
    own_verdict: SubmitVerdict | None = None,
) -> SubmitOutcome:
    """Return the verdict on a submission with an answer.

    :param receipt: what `Provider.decode_receipt` read from `response`.
    :param lenient: count a bare 503 as a refusal, which most gateways mean by it but none documents (default False).
    :param now: unix seconds, for a `Retry-After` that is a date, in an answer without a `Date`.
    :param own_verdict: see `Provider.own_verdict`; None: the tables of this module decide.
    """
    status = response.status
    verdict: SubmitVerdict
    if own_verdict is not None and own_verdict is not SubmitVerdict.ACCEPTED:  # which only a task id proves
        verdict = own_verdict
    elif 200 <= status < 300:
        verdict = _judge_success(response, receipt, lenient=lenient)
    else:
        verdict = _judge_status(status, response, receipt, lenient=lenient)
    if verdict is SubmitVerdict.ACCEPTED:
        return SubmitOutcome(verdict=verdict, task_id=receipt.task_id, handle=receipt.handle, http_status=status)
    waits, in_doubt = verdict is SubmitVerdict.WAIT, verdict is SubmitVerdict.UNKNOWN
    silent = in_doubt and status < 300 and receipt.failure_code is None
    return SubmitOutcome(
        verdict=verdict,
        reason=strip_control(_reason(verdict, response, receipt)[:REASON_LIMIT]),
        http_status=status,
        retry_after=retry_after(response.headers, now) if waits else None,
        request_id=_request_id(response.headers),
        unreadable=silent and (response.complete or response.is_html),
        body_status=_body_status(receipt) if status < 300 else None,
        code=receipt.failure_code and strip_control(receipt.failure_code[:CODE_LIMIT]),
        model=model_in(receipt.message, receipt.raw) if waits else None,
        fingerprint="" if in_doubt else fingerprint(status, receipt.failure_code, receipt.message),
        kind=kind_of_failure(receipt.failure_code, receipt.message, _body_status(receipt) if status < 300 else status),
    )


def minimal_outcome(response: HttpResponse, receipt: Receipt) -> SubmitOutcome:
    """Return an outcome where `classify_response` has failed: accepted with a task id, else in doubt."""
    status, task_id = response.status, receipt.task_id
    if task_id and receipt.failure_code is None and 200 <= status < 300 and not response.is_markup:
        return SubmitOutcome(verdict=SubmitVerdict.ACCEPTED, task_id=task_id, http_status=status)
    reason = f"HTTP {status}: {response.body[:EXCERPT_LIMIT]!r}"[:REASON_LIMIT]
    return SubmitOutcome(verdict=SubmitVerdict.UNKNOWN, reason=reason, http_status=status)


def _request_id(headers: Mapping[str, str]) -> str | None:
    return next((strip_control(headers[name][:100]) for name in _REQUEST_IDS if headers.get(name)), None)


def _judge_success(response: HttpResponse, receipt: Receipt, *, lenient: bool) -> SubmitVerdict:
    if receipt.failure_code is not None:
        # A body that names a task and says failure contradicts itself.
        return SubmitVerdict.UNKNOWN if receipt.task_id else _judge_body(response, receipt, lenient=lenient)
    return SubmitVerdict.ACCEPTED if receipt.task_id and not response.is_markup else SubmitVerdict.UNKNOWN


def _body_status(receipt: Receipt) -> int | None:
    """Return the number of a failure: the receipt's own, that of its code, or 429 for a word that means it."""
    if receipt.failure_status is not None or receipt.failure_code is None:
        return receipt.failure_status
    return 429 if is_busy_code(receipt.failure_code) else as_number(receipt.failure_code)


def _judge_body(response: HttpResponse, receipt: Receipt, *, lenient: bool) -> SubmitVerdict:
    """Judge a failure beside a status of success: its number as that HTTP status would be, without one its word."""
    code, number = receipt.failure_code or "", _body_status(receipt)
    if number is None or number < 0:
        if is_account_code(code) or is_account_phrase(receipt.message):
            return SubmitVerdict.STOP
        if is_busy_code(code) or has_no_channel(receipt.message):
            return SubmitVerdict.WAIT
        return SubmitVerdict.REJECTED if number is None and is_request_code(code) else SubmitVerdict.UNKNOWN
    if number == 503 or (number in PLAIN_REFUSALS and is_busy_code(code)):
        return SubmitVerdict.STOP if code == NO_QUOTA else SubmitVerdict.WAIT
    # A number is not a redirect: the base URL has answered in JSON.
    return SubmitVerdict.UNKNOWN if number in _REDIRECTS else _judge_status(number, response, receipt, lenient=lenient)


def _judge_status(status: int, response: HttpResponse, receipt: Receipt, *, lenient: bool) -> SubmitVerdict:
    if status in _REDIRECTS or (status == 404 and (response.is_html or is_wrong_path(receipt.message))):
        return SubmitVerdict.WRONG_URL
    code = receipt.failure_code
    # Within a 5xx or a 408 a code proves nothing, but for the one that is sent before anything else is done.
    if status in _STOP or code == NO_QUOTA or (status in PLAIN_REFUSALS and is_account_code(code)):
        return SubmitVerdict.STOP
    if status in _REJECTED and is_account_phrase(receipt.message):
        return SubmitVerdict.STOP
    if status in _REJECTED or (status == 500 and code == "invalid_request"):
        return SubmitVerdict.REJECTED
    if status in _WAIT:
        return SubmitVerdict.WAIT
    if status == 503:
        refused = "retry-after" in response.headers or has_no_channel(receipt.message)
        return SubmitVerdict.WAIT if refused or lenient else SubmitVerdict.UNKNOWN
    return SubmitVerdict.UNKNOWN


def _reason(verdict: SubmitVerdict, response: HttpResponse, receipt: Receipt) -> str:
    code = f"{receipt.failure_code}: " if receipt.failure_code else ""
    if verdict is SubmitVerdict.WRONG_URL and response.status in _REDIRECTS:
        return "a redirect, which is never followed with a paid request"
    if verdict is SubmitVerdict.WRONG_URL:
        missing = f"the gateway has no such path: {receipt.message}"
        return missing if is_wrong_path(receipt.message) else "a web page instead of the gateway's API"
    if verdict is not SubmitVerdict.UNKNOWN:
        return f"{code}{receipt.message or response.excerpt() or 'empty answer'}"
    # Of a success without a receipt the beginning is kept: it may hold an id that only a person can recognize.
    text = response.excerpt(EXCERPT_LIMIT) if response.status < 300 else receipt.message or response.excerpt()
    page = "a web page (is the base URL right?): " if response.status < 300 and response.is_html else ""
    return f"HTTP {response.status}: {code}{page}{text or 'empty answer'}"


class PollVerdict(enum.Enum):
    """What to do about the answer to one poll. Polls are free, so nearly every verdict is `AGAIN`."""

    #: Decode the answer.
    READ = "read"
    #: No usable answer: poll again later.
    AGAIN = "again"
    #: The answer is about another task: discard it and poll again later.
    MISMATCH = "mismatch"
    #: The provider answered that there is no such task.
    MISSING = "missing"
    #: The credential or the balance is at fault: park the jobs of the account, fail none.
    STOP = "stop"


def classify_poll(response: HttpResponse, failure_code: str | None) -> PollVerdict:
    """Return the verdict on the answer to a poll, before its body is decoded."""
    status = response.status
    if failure_code == "task_not_exist" or (status == 404 and not response.is_html):
        return PollVerdict.MISSING
    if status in _STOP:
        return PollVerdict.STOP
    return PollVerdict.READ if 200 <= status < 300 else PollVerdict.AGAIN


def classify_poll_code(code: str) -> PollVerdict:
    """Return the verdict on a poll that was answered with 200 and an explicit failure `code` instead of a status."""
    if is_account_code(code) or as_number(code) in _STOP:
        return PollVerdict.STOP
    return PollVerdict.MISSING if code in {"task_not_exist", "404"} else PollVerdict.AGAIN


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the delay of `Retry-After` in seconds, 0 to 300; None if it is missing or invalid.

    A date is compared with the answer's own `Date`, so that a wrong clock on either side does not matter.

    :param now: unix seconds, for an answer without a `Date`.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        later, sent = _unix(text), _unix(headers.get("date", ""))
        if later is None:
            return None
        seconds = later - (now if sent is None else sent)
    return min(RETRY_AFTER_CAP, max(0.0, seconds)) if math.isfinite(seconds) else None


def poll_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds to wait before the next poll that a server asks for, 0 to 300; None if it asks for none.

    `openai-poll-after-ms` is the header of OpenAI's long-running tasks, which gateways for them pass on; it is
    preferred to `Retry-After`.
    """
    try:
        seconds = float(headers["openai-poll-after-ms"]) / 1000
    except (KeyError, ValueError):
        return retry_after(headers, now)
    return min(RETRY_AFTER_CAP, max(0.0, seconds)) if math.isfinite(seconds) else None


def _unix(date: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(date)
        # HTTP dates are in GMT (RFC 9110, 5.6.7), also where they name no zone: never in the zone of this machine.
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
