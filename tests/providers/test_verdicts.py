"""Verdicts on submissions and polls: every status, header and body, without a socket."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import find_provider
from pika_async.models import Receipt
from pika_async.providers._verdicts import (
    REASON_LIMIT,
    RETRY_AFTER_CAP,
    PollVerdict,
    SubmitVerdict,
    classify_failure,
    classify_poll,
    classify_response,
    poll_after,
    retry_after,
)
from pika_async.providers._wire import HttpResponse, SendPhase, TransportFailure
from tests.providers.status_table import STOP, expected_verdict

NOW = 1_767_348_000.0  # 2026-01-02 10:00:00 UTC
DATE = "Fri, 02 Jan 2026 10:00:00 GMT"


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


# -- submissions ---------------------------------------------------------------------------------------------------


def test_every_status_has_its_verdict() -> None:
    """A status alone gives the verdict of the table; a status without a row is in doubt, never refused."""
    outcomes = {
        status: classify_response(HttpResponse(status=status), Receipt()).verdict for status in range(100, 1000)
    }
    assert {status: expected_verdict(status) for status in outcomes} == outcomes


def test_a_task_id_counts_only_in_a_success() -> None:
    """Every 2xx with a task id is accepted with that id; the id of any other answer is ignored."""
    outcomes = {
        status: classify_response(HttpResponse(status=status, body=b"{}"), Receipt(task_id="t-1"))
        for status in range(100, 1000)
    }
    expected = {
        status: (SubmitVerdict.ACCEPTED, "t-1") if 200 <= status < 300 else (expected_verdict(status), None)
        for status in outcomes
    }
    assert expected == {status: (outcome.verdict, outcome.task_id) for status, outcome in outcomes.items()}


def test_no_quota_stops_under_any_status() -> None:
    """`insufficient_user_quota` stops the account under every status."""
    receipt = Receipt(failure_code="insufficient_user_quota")
    statuses = [*range(200, 300), *range(400, 600)]
    assert {SubmitVerdict.STOP} == {
        classify_response(HttpResponse(status=status), receipt).verdict for status in statuses
    }


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524])
def test_only_a_500_is_rejected_for_its_code(status: int) -> None:
    """`invalid_request` rejects the request with status 500 and with no other 5xx."""
    verdict = classify_response(HttpResponse(status=status), Receipt(failure_code="invalid_request")).verdict
    assert (SubmitVerdict.REJECTED if status == 500 else SubmitVerdict.UNKNOWN) == verdict


@pytest.mark.parametrize(
    "headers, message, verdict",
    [
        ({}, "", SubmitVerdict.UNKNOWN),
        ({}, "the upstream closed the channel", SubmitVerdict.UNKNOWN),
        ({}, "No Available Channel for model pika", SubmitVerdict.WAIT),
        ({}, "当前分组下对于模型无可用渠道", SubmitVerdict.WAIT),
        ({"retry-after": "9"}, "", SubmitVerdict.WAIT),
        ({"retry-after": "garbage"}, "", SubmitVerdict.WAIT),
    ],
)
def test_503(headers: Mapping[str, str], message: str, verdict: SubmitVerdict) -> None:
    """A 503 is repeated only with `Retry-After` or a "no channel" phrase, or always in lenient mode."""
    answer = HttpResponse(status=503, headers=headers)
    assert verdict == classify_response(answer, Receipt(message=message)).verdict
    assert classify_response(answer, Receipt(message=message), lenient=True).verdict == SubmitVerdict.WAIT


@pytest.mark.parametrize("status", [500, 502, 504, 520, 522, 524])
def test_a_phrase_counts_only_beside_its_status(status: int) -> None:
    """Neither "no available channel" nor `Retry-After` makes another 5xx repeatable, in lenient mode or not."""
    answer = HttpResponse(status=status, headers={"retry-after": "1"})
    receipt = Receipt(message="no available channel")
    assert {SubmitVerdict.UNKNOWN} == {
        classify_response(answer, receipt, lenient=lenient).verdict for lenient in (True, False)
    }


@pytest.mark.parametrize(
    "phase, kind, verdict",
    [
        *((SendPhase.SENT, kind, SubmitVerdict.UNKNOWN) for kind in ("certificate", "url", "timeout", "dns", "other")),
        (SendPhase.UNSENT, "certificate", SubmitVerdict.STOP),
        (SendPhase.UNSENT, "url", SubmitVerdict.WRONG_URL),
        *(
            (SendPhase.UNSENT, kind, SubmitVerdict.NOT_SENT)
            for kind in ("dns", "connect", "tls", "timeout", "proxy", "other")
        ),
    ],
)
def test_no_answer(phase: SendPhase, kind: str, verdict: SubmitVerdict) -> None:
    """A sent request without an answer is in doubt; an unsent one is sent again, unless its certificate or URL is bad."""
    assert verdict == classify_failure(TransportFailure(phase=phase, kind=kind, detail="")).verdict


# -- polls ---------------------------------------------------------------------------------------------------------


def test_every_status_of_a_poll() -> None:
    """A 2xx is decoded, four statuses stop the account, a 404 denies the task; after any other the task is polled again."""
    expected = dict.fromkeys(range(100, 1000), PollVerdict.AGAIN)
    expected |= dict.fromkeys(range(200, 300), PollVerdict.READ) | dict.fromkeys(STOP, PollVerdict.STOP)
    expected[404] = PollVerdict.MISSING
    assert expected == {status: classify_poll(HttpResponse(status=status), None) for status in expected}


@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_task_that_does_not_exist(status: int) -> None:
    """`task_not_exist` denies the task under every status; a 404 that is a web page does not."""
    assert classify_poll(HttpResponse(status=status), "task_not_exist") == PollVerdict.MISSING
    page = HttpResponse(status=404, headers={"content-type": "Text/HTML"})
    assert classify_poll(page, None) == PollVerdict.AGAIN


# -- properties ----------------------------------------------------------------------------------------------------

texts = st.text(max_size=40) | st.just("long " * 400)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "content-type", "content-encoding", "location"]),
    texts | st.sampled_from([DATE, "1", "-1", "nan", "inf", "1e999", "9" * 400, "text/html", "gzip"]),
)
bodies = st.binary(max_size=80) | st.sampled_from(
    [b"", b"{}", b"[]", b"null", b'{"id":', b"<html>", b'{"code":NaN}', b"[" * 5000, b'{"error":{"code":[]}}']
)
answers = st.builds(
    HttpResponse, status=st.integers(0, 1000), headers=headers, body=bodies, complete=st.booleans()
)  # fmt: skip
receipts = st.builds(
    Receipt, task_id=st.none() | texts, failure_code=st.none() | texts | st.sampled_from(["429", "400"]), message=texts
)  # fmt: skip


@given(answers, receipts, st.booleans(), st.floats(allow_nan=False, allow_infinity=False))
def test_classifying_a_response_never_raises(answer: HttpResponse, receipt: Receipt, lenient: bool, now: float) -> None:
    """Any answer has a verdict; accepted ones exactly have a task id, and only `WAIT` has a `retry_after`."""
    outcome = classify_response(answer, receipt, lenient=lenient, now=now)
    assert (outcome.verdict is SubmitVerdict.ACCEPTED) == bool(outcome.task_id)
    if outcome.retry_after is not None:
        assert outcome.verdict is SubmitVerdict.WAIT
        assert 0 <= outcome.retry_after <= RETRY_AFTER_CAP
    assert outcome.reason.isprintable()
    assert len(outcome.reason) <= REASON_LIMIT


@given(answers, st.sampled_from(["cometapi", "yescale", "gptge", "native"]))
def test_any_bytes_are_decoded_and_classified(answer: HttpResponse, provider: str) -> None:
    """Any answer of a gateway gives a receipt and a verdict."""
    receipt = find_provider(provider).decode_receipt(answer)
    assert classify_response(answer, receipt).http_status == answer.status


@given(answers, st.none() | texts)
def test_classifying_a_poll_never_raises(answer: HttpResponse, failure_code: str | None) -> None:
    """Any answer to a poll has a verdict, and only a 2xx is decoded."""
    verdict = classify_poll(answer, failure_code)
    assert verdict is not PollVerdict.READ or 200 <= answer.status < 300


# -- Retry-After ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("300", 300.0),
        ("301", 300.0),
        ("86400", 300.0),
        ("1e308", 300.0),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("-inf", None),
        ("1e999", None),
        ("7 seconds", None),
        ("Fri, 02 Jan 2026 10:00:09 GMT", 9.0),
        ("Fri, 02 Jan 2026 10:00:09", 9.0),
        ("Fri, 02 Jan 2026 10:00:09 -0000", 9.0),
        ("Friday, 02-Jan-26 10:00:09 GMT", 9.0),
        ("Fri Jan  2 10:00:09 2026", 9.0),
        ("Fri, 02 Jan 2026 12:00:09 +0200", 9.0),
        ("Fri, 02 Jan 2026 09:59:00 GMT", 0.0),
        ("Fri, 02 Jan 2099 10:00:00 GMT", 300.0),
        ("Fri, 99 Jan 2026 10:00:00 GMT", None),
        ("Fri, 02 Jan 99999 10:00:00 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Seconds or any of the three forms of an HTTP date give 0 to 300 seconds; invalid text gives None."""
    assert seconds == retry_after({"retry-after": text, "date": DATE}, now=12345.0)


@pytest.mark.parametrize("zone", ["UTC", "XST+5", "XST-9:30"])
def test_a_date_without_a_zone_is_in_gmt(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A date that names no zone is in GMT, not in the zone of this machine."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert retry_after({"retry-after": "Fri Jan  2 10:00:09 2026", "date": DATE}, NOW) == 9.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_without_a_date_header_the_callers_clock_is_used() -> None:
    """If the answer has no valid `Date`, the caller's clock is used; without the header there is no delay."""
    later = {"retry-after": http_date(NOW + 20)}
    assert retry_after(later, now=NOW) == 20.0
    assert retry_after({**later, "date": "garbage"}, now=NOW) == 20.0
    assert retry_after({"date": DATE}, now=NOW) is None


@given(st.integers(0, 2**31), st.integers(-1000, 1000), st.floats(-1e12, 1e12))
def test_a_date_is_compared_with_the_date_header(sent: int, wait: int, now: float) -> None:
    """With a `Date` in the answer the caller's clock does not matter."""
    answer = {"retry-after": http_date(sent + max(-sent, wait)), "date": http_date(sent)}
    assert min(300.0, max(0.0, float(wait))) == retry_after(answer, now)


@given(texts | st.floats().map(str) | st.integers().map(str), texts, st.floats())
def test_retry_after_is_within_bounds(text: str, date: str, now: float) -> None:
    """Any value of the header gives None or 0 to 300 seconds."""
    seconds = retry_after({"retry-after": text, "date": date}, now)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_CAP


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"openai-poll-after-ms": "2500"}, 2.5),
        ({"openai-poll-after-ms": "2500", "retry-after": "20"}, 2.5),
        ({"openai-poll-after-ms": "soon", "retry-after": "20"}, 20.0),
        ({"openai-poll-after-ms": "nan"}, None),
        ({"openai-poll-after-ms": "-7"}, 0.0),
        ({"openai-poll-after-ms": "1e12"}, 300.0),
    ],
)
def test_poll_after_reads_two_headers(headers: dict[str, str], seconds: float | None) -> None:
    """One header is in milliseconds, the other in seconds or a date; an invalid first one leaves the second."""
    assert poll_after(headers, NOW) == seconds
