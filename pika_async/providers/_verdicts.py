"""May it be sent again? The verdict on each submission and each poll, as pure tables; sends and waits for nothing.

The verdicts on a submission rest on one proof: nothing left this machine before the phase marker fired. An exception's
class alone decides nothing, and neither does a substring of a text that the provider wrote, but for the two phrases
named below, which count only beside their own HTTP status.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import attrs

from pika_async.errors import strip_control
from pika_async.models import Receipt
from pika_async.providers._wire import HttpResponse, SendPhase, TransportFailure

__all__ = [
    "PollVerdict",
    "SubmitOutcome",
    "SubmitVerdict",
    "classify_failure",
    "classify_poll",
    "classify_poll_code",
    "classify_response",
    "poll_after",
    "retry_after",
]

#: The longest `Retry-After` that is honoured, in seconds: a gateway's clock or mistake must not stop a batch for a day.
RETRY_AFTER_CAP: Final = 300.0
#: How much of what a provider says is kept with a job, in characters.
REASON_LIMIT: Final = 500


class SubmitVerdict(enum.Enum):
    """What is known of one submission."""

    #: Nothing left this machine: send again within the budget.
    NOT_SENT = "not_sent"
    #: The provider said no before doing anything: wait, then send again.
    WAIT = "wait"
    #: The request is at fault: do not send it again.
    REJECTED = "rejected"
    #: Credential, balance or certificate: park every job of the account, fail none.
    STOP = "stop"
    #: No gateway answered there, but a web page or a redirect: stop, and reject this job.
    WRONG_URL = "wrong_url"
    #: Perhaps accepted and charged: never send again.
    UNKNOWN = "unknown"
    #: A task id was read.
    ACCEPTED = "accepted"


@attrs.frozen(kw_only=True)
class SubmitOutcome:
    """A verdict and what led to it. `retry_after` is the provider's own wish in seconds, where it gave one."""

    verdict: SubmitVerdict
    reason: str = ""
    task_id: str | None = None
    http_status: int | None = None
    retry_after: float | None = None
    #: What the provider calls this request, where it said: what its support asks for.
    request_id: str | None = None
    #: A web page came with a status of success: perhaps a proxy's, perhaps the base URL is another site.
    page: bool = False


_REJECTED: Final = frozenset({400, 404, 405, 409, 413, 415, 422})
_STOP: Final = frozenset({401, 402, 403, 407})
#: 521, 523, 525, 526, 530: the front end says that it never reached the gateway.
_WAIT: Final = frozenset({421, 425, 429, 521, 523, 525, 526, 530})
#: Said before anything is done, under whatever status.
_NO_QUOTA: Final = "insufficient_user_quota"
_STOP_CODES: Final = frozenset({_NO_QUOTA, "insufficient_quota", "invalid_api_key"})
_NO_CHANNEL: Final = ("no available channel", "无可用渠道")
_REDIRECTS: Final = range(300, 400)
#: Where gateways of this family (new-api and its kin), and the front ends before them, name a request.
_REQUEST_IDS: Final = ("x-oneapi-request-id", "x-new-api-request-id", "x-request-id", "request-id", "cf-ray")


def classify_failure(failure: TransportFailure) -> SubmitOutcome:
    """The verdict when no status line was read: what was handed to a connection may have arrived."""
    if failure.phase is SendPhase.SENT:
        verdict = SubmitVerdict.UNKNOWN
    elif failure.kind == "certificate":
        verdict = SubmitVerdict.STOP
    elif failure.kind == "url":
        verdict = SubmitVerdict.WRONG_URL
    else:
        verdict = SubmitVerdict.NOT_SENT
    return SubmitOutcome(verdict=verdict, reason=failure.detail)


def classify_response(
    response: HttpResponse, receipt: Receipt, *, lenient: bool = False, now: float = 0.0
) -> SubmitOutcome:
    """The verdict on a submission that was answered. `now` (unix seconds) serves a `Retry-After` without a `Date`.

    `lenient` counts a bare 503 as a refusal, which most gateways mean by it but none documents.
    """
    status = response.status
    if 200 <= status < 300:
        verdict = _judge_success(response, receipt)
    else:
        verdict = _judge_status(status, response, receipt, lenient=lenient)
    return SubmitOutcome(
        verdict=verdict,
        reason=strip_control(_reason(verdict, response, receipt)[:REASON_LIMIT]),
        task_id=receipt.task_id if verdict is SubmitVerdict.ACCEPTED else None,
        http_status=status,
        retry_after=retry_after(response.headers, now) if verdict is SubmitVerdict.WAIT else None,
        request_id=_request_id(response.headers),
        page=verdict is SubmitVerdict.UNKNOWN and status < 300 and response.is_html,
    )


def _request_id(headers: Mapping[str, str]) -> str | None:
    return next((strip_control(headers[name][:100]) for name in _REQUEST_IDS if headers.get(name)), None)


def _judge_success(response: HttpResponse, receipt: Receipt) -> SubmitVerdict:
    if receipt.task_id:
        return SubmitVerdict.UNKNOWN if response.is_markup else SubmitVerdict.ACCEPTED
    code = receipt.failure_code
    if code is None:
        return SubmitVerdict.UNKNOWN
    if code in _STOP_CODES or code in {str(status) for status in _STOP}:
        return SubmitVerdict.STOP
    return SubmitVerdict.WAIT if code in {"429", "503"} else SubmitVerdict.REJECTED


def _judge_status(status: int, response: HttpResponse, receipt: Receipt, *, lenient: bool) -> SubmitVerdict:
    if status in _REDIRECTS or (status == 404 and response.is_html):
        return SubmitVerdict.WRONG_URL
    if status in _STOP or receipt.failure_code == _NO_QUOTA or (status < 500 and receipt.failure_code in _STOP_CODES):
        return SubmitVerdict.STOP
    if status in _REJECTED or (status == 500 and receipt.failure_code == "invalid_request"):
        return SubmitVerdict.REJECTED
    if status in _WAIT:
        return SubmitVerdict.WAIT
    if status == 503:
        said_so = "retry-after" in response.headers or any(said in receipt.message.lower() for said in _NO_CHANNEL)
        return SubmitVerdict.WAIT if said_so or lenient else SubmitVerdict.UNKNOWN
    return SubmitVerdict.UNKNOWN


def _reason(verdict: SubmitVerdict, response: HttpResponse, receipt: Receipt) -> str:
    if verdict is SubmitVerdict.ACCEPTED:
        return ""
    code = f"{receipt.failure_code}: " if receipt.failure_code else ""
    if verdict is SubmitVerdict.WRONG_URL and response.status in _REDIRECTS:
        return "a redirect, which is never followed with a paid request"
    if verdict is SubmitVerdict.WRONG_URL:
        return "a web page instead of the gateway's API"
    said = receipt.message or response.excerpt() or "empty answer"
    if verdict is SubmitVerdict.UNKNOWN and response.status < 300 and response.is_html:
        said = f"a web page (is the base URL right?): {said}"
    return f"HTTP {response.status}: {code}{said}" if verdict is SubmitVerdict.UNKNOWN else f"{code}{said}"


class PollVerdict(enum.Enum):
    """What is known after one look at a task. A look is free, so nearly everything is "again"."""

    #: Decode it.
    READ = "read"
    #: No usable answer: look again later.
    AGAIN = "again"
    #: The provider says that it knows no such task.
    MISSING = "missing"
    #: Credential or balance: park, fail nothing.
    STOP = "stop"


def classify_poll(response: HttpResponse, failure_code: str | None) -> PollVerdict:
    """The verdict on the answer to a poll, before its body is believed."""
    status = response.status
    if failure_code == "task_not_exist" or (status == 404 and not response.is_html):
        return PollVerdict.MISSING
    if status in _STOP:
        return PollVerdict.STOP
    return PollVerdict.READ if 200 <= status < 300 else PollVerdict.AGAIN


def classify_poll_code(code: str) -> PollVerdict:
    """The verdict on a poll that was answered with 200 and an explicit failure `code` instead of a status."""
    if code in _STOP_CODES or code in {str(status) for status in _STOP}:
        return PollVerdict.STOP
    return PollVerdict.MISSING if code in {"task_not_exist", "404"} else PollVerdict.AGAIN


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds that `Retry-After` asks for, 0 to 300; None for none or garbage.

    A date is compared with the answer's own `Date`, so that a wrong clock on either side does not matter.
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
    """The seconds, 0 to 300, before which a server that answered a poll wants no other; None for none or garbage.

    `openai-poll-after-ms` is what the clients of OpenAI's long-running tasks obey, and gateways of its kin pass on.
    """
    try:
        seconds = float(headers["openai-poll-after-ms"]) / 1000
    except (KeyError, ValueError):
        return retry_after(headers, now)
    return min(RETRY_AFTER_CAP, max(0.0, seconds)) if math.isfinite(seconds) else None


def _unix(date: str) -> float | None:
    try:
        parsed = parsedate_to_datetime(date)
        # HTTP dates are in GMT, said (RFC 9110, 5.6.7) or not: never in the zone of this machine.
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
