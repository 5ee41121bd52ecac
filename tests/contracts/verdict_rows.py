"""The rows of the table of submission verdicts: what a gateway does on the wire, and the verdict that must follow."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from typing import Any

import aiohttp
import attrs

from pika_async.providers._verdicts import SubmitVerdict
from tests.fakes.raw_server import TASK, Act, answer, receipt

DATE = "Fri, 02 Jan 2026 10:00:00 GMT"
NINE_SECONDS_LATER = "Fri, 02 Jan 2026 10:00:09 GMT"
HTML = "<!DOCTYPE html><html><body>Hello</body></html>"
HTML_HEADERS = {"Content-Type": "text/html; charset=utf-8"}
LONG_TIMEOUT = aiohttp.ClientTimeout(total=10)
SHORT_READ_TIMEOUT = aiohttp.ClientTimeout(total=10, sock_read=0.2)
SHORT_TOTAL_TIMEOUT = aiohttp.ClientTimeout(total=0.2)


@attrs.frozen
class VerdictRow:
    """One row of the table: what the server does and the verdict that must follow, per provider."""

    name: str
    verdict: SubmitVerdict
    act: Callable[[str], Act]
    retry_after: float | None = None
    timeout: aiohttp.ClientTimeout = LONG_TIMEOUT


Body = str | bytes | Callable[[str], str | bytes]


def _bytes_act(raw: bytes | Callable[[str], bytes], then: Any = "keep") -> Callable[[str], Act]:
    return lambda provider: Act(raw(provider) if callable(raw) else raw, then)


def _reply_act(status: int | str, body: Body = b"", headers: dict[str, str] | None = None) -> Callable[[str], Act]:
    return lambda provider: Act(answer(status, body(provider) if callable(body) else body, headers))


def failure_body(code: str | int, message: str = "no") -> Callable[[str], str]:
    """Return a function that builds the body of an explicit failure in a provider's dialect."""

    def body(provider: str) -> str:
        if provider == "cometapi":
            return json.dumps({"code": code, "msg": message, "data": None})
        return json.dumps({"error": {"message": message, "type": "gateway_error", "param": "", "code": code}})

    return body


def _both(body: str, provider: str) -> str:
    """Return the fields of `body` beside those of a receipt."""
    return json.dumps({**json.loads(receipt(provider)), **{k: v for k, v in json.loads(body).items() if v is not None}})


def _receipt_bytes(provider: str) -> bytes:
    return receipt(provider).encode()


def _torn(provider: str) -> bytes:
    """An answer that is cut after the task id: its Content-Length is larger than its body."""
    return answer(200, b"", {"Content-Length": "4096"}) + _receipt_bytes(provider)[:-1] + b","


def _torn_before_id(_provider: str) -> bytes:
    return answer(200, b"", {"Content-Length": "4096"}) + b'{"code":200,"msg":"success"'


def _torn_within_id(provider: str) -> bytes:
    held, _, _ = _receipt_bytes(provider).partition(TASK.encode())
    return answer(200, b"", {"Content-Length": "4096"}) + held + TASK[:4].encode()


def _chunked(*chunks: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)


def _whole_chunks(provider: str) -> bytes:
    body = _receipt_bytes(provider)
    return _chunked(body[:9], body[9:]) + b"0\r\n\r\n"


def _until_the_end(provider: str) -> bytes:
    return b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + _receipt_bytes(provider)


def _after_interim(provider: str) -> bytes:
    return b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" + answer(200, _receipt_bytes(provider))


def _gzip_cut(provider: str) -> bytes:
    packed = gzip.compress(
        _receipt_bytes(provider)[:-1] + b',"more":"' + hashlib.sha512(b"noise").hexdigest().encode() * 9
    )
    return answer(200, b"", {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}) + packed[:-20]


A, R, S, W, U, X = (
    SubmitVerdict.ACCEPTED,
    SubmitVerdict.REJECTED,
    SubmitVerdict.STOP,
    SubmitVerdict.WAIT,
    SubmitVerdict.UNKNOWN,
    SubmitVerdict.WRONG_URL,
)

LOST_ANSWERS = [
    VerdictRow("no reply in time, by silence", U, _bytes_act(b"", "stall"), timeout=SHORT_READ_TIMEOUT),
    VerdictRow("no reply in time, in all", U, _bytes_act(b"", "stall"), timeout=SHORT_TOTAL_TIMEOUT),
    VerdictRow("FIN before the reply", U, _bytes_act(b"", "fin")),
    VerdictRow("RST before the reply", U, _bytes_act(b"", "rst")),
    VerdictRow("no HTTP", U, _bytes_act(b"SSH-2.0-OpenSSH_9.6\r\n", "fin")),
    VerdictRow("bad status line", U, _bytes_act(b"HTTP/1.1 OK 200\r\nContent-Length: 0\r\n\r\n")),
    VerdictRow("oversized header", U, _bytes_act(answer(200, receipt("gptge"), {"X-Long": "x" * 70_000}))),
    VerdictRow("oversized header of a refusal", U, _bytes_act(answer(400, "{}", {"X-Long": "x" * 70_000}))),
    VerdictRow("bad chunk", U, _bytes_act(_chunked() + b"what\r\n{}\r\n", "fin")),
    VerdictRow(
        "bad chunk with the headers, id held",
        A,
        _bytes_act(lambda provider: _chunked(_receipt_bytes(provider)) + b"what\r\n", "fin"),
    ),
    VerdictRow(
        "bad chunk later, id held", A, lambda name: Act(_chunked(_receipt_bytes(name)), "fin", later=b"what\r\n")
    ),
    VerdictRow(
        "bad chunk with the headers before the id", U, _bytes_act(_chunked(b'{"code":200,') + b"what\r\n", "fin")
    ),
    VerdictRow("bad chunk later before the id", U, lambda _: Act(_chunked(b'{"code":200,'), "fin", later=b"what\r\n")),
    VerdictRow(
        "two lengths", U, _bytes_act(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "fin")
    ),
    VerdictRow("cut in the status line, FIN", U, _bytes_act(b"HTTP/1.1 2", "fin")),
    VerdictRow("cut in the headers, FIN", U, _bytes_act(b"HTTP/1.1 200 OK\r\nContent-Ty", "fin")),
    VerdictRow("cut in the headers, RST", U, _bytes_act(b"HTTP/1.1 200 OK\r\nContent-Ty", "rst")),
    VerdictRow("cut in the headers of a refusal", U, _bytes_act(b"HTTP/1.1 400 Bad Request\r\nContent-Ty", "fin")),
    VerdictRow(
        "stall in the headers", U, _bytes_act(b"HTTP/1.1 200 OK\r\nContent-Ty", "stall"), timeout=SHORT_READ_TIMEOUT
    ),
    VerdictRow("cut in the body, id held", A, _bytes_act(_torn, "fin")),
    VerdictRow("cut in the body before the id", U, _bytes_act(_torn_before_id, "fin")),
    VerdictRow("cut in the body within the id", U, _bytes_act(_torn_within_id, "fin")),
    VerdictRow(
        "cut in a chunk, id held",
        A,
        _bytes_act(lambda provider: _chunked(_receipt_bytes(provider)) + b"40\r\n{", "fin"),
    ),
    VerdictRow("body stalls, id held", A, _bytes_act(_torn, "stall"), timeout=SHORT_READ_TIMEOUT),
    VerdictRow("body stalls in all, id held", A, _bytes_act(_torn, "stall"), timeout=SHORT_TOTAL_TIMEOUT),
    VerdictRow("body stalls before the id", U, _bytes_act(_torn_before_id, "stall"), timeout=SHORT_READ_TIMEOUT),
    VerdictRow("body stalls within the id", U, _bytes_act(_torn_within_id, "stall"), timeout=SHORT_TOTAL_TIMEOUT),
    VerdictRow("gzip cut, id held", A, _bytes_act(_gzip_cut, "fin")),
]

ACCEPTED = [
    VerdictRow("200", A, _reply_act(200, receipt)),
    VerdictRow("201", A, _reply_act(201, receipt)),
    VerdictRow("202", A, _reply_act(202, receipt)),
    VerdictRow("299", A, _reply_act(299, receipt)),
    VerdictRow("text/plain", A, _reply_act(200, receipt, {"Content-Type": "text/plain"})),
    VerdictRow("text/html", A, _reply_act(200, receipt, HTML_HEADERS)),
    VerdictRow("octet-stream", A, _reply_act(200, receipt, {"Content-Type": "application/octet-stream"})),
    VerdictRow("another charset", A, _reply_act(200, receipt, {"Content-Type": "application/json; charset=gbk"})),
    VerdictRow("a broken content type", A, _reply_act(200, receipt, {"Content-Type": ";;=/"})),
    VerdictRow("no content type", A, _reply_act(200, receipt, {"Content-Type": ""})),
    VerdictRow("BOM", A, _reply_act(200, lambda provider: b"\xef\xbb\xbf" + _receipt_bytes(provider))),
    VerdictRow(
        "white space around", A, _reply_act(200, lambda provider: b"\r\n \t" + _receipt_bytes(provider) + b"\n\n")
    ),
    VerdictRow("garbage behind", A, _reply_act(200, lambda provider: _receipt_bytes(provider) + b"<!-- 3 ms -->")),
    VerdictRow("no UTF-8", A, _reply_act(200, lambda provider: _receipt_bytes(provider)[:-1] + b',"tip":"\xd6\xd0"}')),
    VerdictRow(
        "half a character", A, _reply_act(200, lambda provider: _receipt_bytes(provider)[:-1] + b',"tip":"\\ud83d"}')
    ),
    VerdictRow("chunks", A, _bytes_act(_whole_chunks)),
    VerdictRow("HTTP/1.0 without a length", A, _bytes_act(_until_the_end, "fin")),
    VerdictRow("an interim answer first", A, _bytes_act(_after_interim)),
    VerdictRow(
        "gzip",
        A,
        _reply_act(200, lambda provider: gzip.compress(_receipt_bytes(provider)), {"Content-Encoding": "gzip"}),
    ),
    VerdictRow("plain, called gzip", A, _reply_act(200, receipt, {"Content-Encoding": "gzip"})),
    VerdictRow("plain, called br", A, _reply_act(200, receipt, {"Content-Encoding": "br"})),
]


def _numbered(verdict: SubmitVerdict, *codes: int | str) -> list[VerdictRow]:
    """Return a row for each code in the body of a success."""
    return [VerdictRow(f"2xx with the code {code!r}", verdict, _reply_act(200, failure_body(code))) for code in codes]


IN_BODY = [
    VerdictRow("2xx with a failure code", R, _reply_act(200, failure_body("400", "prompt is not allowed"))),
    VerdictRow("2xx with a failure word", R, _reply_act(200, failure_body("invalid_request"))),
    VerdictRow("2xx with a failure code as HTML", R, _reply_act(200, failure_body("400"), HTML_HEADERS)),
    VerdictRow(
        "2xx with BOM and a failure code",
        R,
        _reply_act(200, lambda name: b"\xef\xbb\xbf" + failure_body("400")(name).encode()),
    ),
    *_numbered(R, 400, 404, 405, 409, 413, 415, "422"),
    *_numbered(S, 401, "402", 403, 407, "insufficient_user_quota", "insufficient_quota", "quota_not_enough"),
    *_numbered(S, "invalid_api_key", "token is invalid"),
    *_numbered(W, 429, "503", "rate_limit_exceeded"),
    *_numbered(
        U, -1, "-1", 408, 418, 500, "502", 504, 520, 522, "524", 599, 1, 301, 1001, "error", "do_request_failed"
    ),
    VerdictRow("2xx with balance words", S, _reply_act(200, failure_body("x", "账户余额不足"))),
    VerdictRow("2xx with a 5xx code and balance words", U, _reply_act(200, failure_body(500, "账户余额不足"))),
    VerdictRow("2xx with a failure and an id", U, _reply_act(200, lambda name: _both(failure_body(400)(name), name))),
    VerdictRow("2xx with a code of success", A, _reply_act(200, lambda name: _both('{"code": "success"}', name))),
]
UNUSABLE_ANSWERS = [
    VerdictRow("2xx page", U, _reply_act(200, HTML, HTML_HEADERS)),
    VerdictRow("2xx page, called JSON", U, _reply_act(200, HTML)),
    VerdictRow(
        "2xx page with an id in its script", U, _reply_act(200, '<html><script>{"id": "app", "task_id": "x"}</script>')
    ),
    VerdictRow(
        "2xx markup with an id, cut",
        U,
        _bytes_act(answer(200, '<!-- {"id": "x", "task_id": "x"}', {"Content-Length": "99"}), "fin"),
    ),
    VerdictRow("2xx empty", U, _reply_act(200)),
    VerdictRow("204", U, _bytes_act(b"HTTP/1.1 204 No Content\r\n\r\n")),
    VerdictRow("2xx white space", U, _reply_act(200, b" \r\n")),
    VerdictRow("2xx unknown JSON", U, _reply_act(200, '{"hello": "world"}')),
    VerdictRow("2xx list", U, _reply_act(200, "[]")),
    VerdictRow("2xx null", U, _reply_act(200, "null")),
    VerdictRow("2xx text", U, _reply_act(200, '"ok"')),
    VerdictRow("2xx null id", U, _reply_act(200, '{"code": 200, "data": {"task_id": null}, "id": null}')),
    VerdictRow("2xx empty id", U, _reply_act(200, '{"code": 200, "data": {"task_id": ""}, "id": ""}')),
    VerdictRow("2xx id of another type", U, _reply_act(200, '{"code": 200, "data": {"task_id": []}, "id": true}')),
    VerdictRow("2xx success without data", U, _reply_act(200, '{"code": 200, "msg": "success"}')),
    VerdictRow("2xx binary", U, _reply_act(200, bytes(range(256)))),
    VerdictRow("2xx of a coding unknown", U, _reply_act(200, b"\x0b\x02\x80\x03", {"Content-Encoding": "br"})),
]
REJECTED = [
    *(
        VerdictRow(str(status), R, _reply_act(status, failure_body("bad")))
        for status in (400, 404, 405, 409, 413, 415, 422)
    ),
    VerdictRow("400 page", R, _reply_act(400, HTML, HTML_HEADERS)),
    VerdictRow("400 empty", R, _reply_act(400)),
    VerdictRow("400 cut", R, _bytes_act(answer(400, b"", {"Content-Length": "999"}) + b'{"error":', "fin")),
    VerdictRow("400 with an id", R, _reply_act(400, receipt)),
    VerdictRow(
        "500 invalid_request", R, _reply_act(500, '{"error": {"message": "", "type": "x", "code": "invalid_request"}}')
    ),
]
WRONG_URL = [
    VerdictRow("404 page", X, _reply_act(404, HTML, HTML_HEADERS)),
    VerdictRow("404 page in capitals", X, _reply_act(404, "<H1>No</H1>", {"Content-Type": "Text/HTML"})),
    VerdictRow("404 page, called JSON", X, _reply_act(404, HTML)),
    VerdictRow("404 no such path", X, _reply_act(404, failure_body("", "Invalid URL (POST /v1/pika/generate)"))),
]
STOPPED = [
    *(VerdictRow(str(status), S, _reply_act(status, failure_body("no"))) for status in (401, 402, 403, 407)),
    *(VerdictRow(f"{status} page", S, _reply_act(status, HTML, HTML_HEADERS)) for status in (401, 403)),
    *(
        VerdictRow(f"{status} without quota", S, _reply_act(status, failure_body("insufficient_user_quota")))
        for status in (400, 403, 429, 500, 503)
    ),
    *(
        VerdictRow(f"{status} with the code {code}", S, _reply_act(status, failure_body(code)))
        for status, code in ((400, "quota_not_enough"), (403, "insufficient_quota"), (400, "invalid_api_key"))
    ),
    *(
        VerdictRow(f"{status} with the words {words}", S, _reply_act(status, failure_body("x", words)))
        for status, words in ((400, "user quota is not enough"), (400, "无效的令牌"), (403, "余额不足"))
    ),
    VerdictRow(
        "429 without quota, Retry-After",
        S,
        _reply_act(429, failure_body("insufficient_user_quota"), {"Retry-After": "1"}),
    ),
]
WAITED = [
    *(
        VerdictRow(str(status), W, _reply_act(status, failure_body("later")))
        for status in (421, 425, 429, 521, 523, 525, 526, 530)
    ),
    VerdictRow("521 page", W, _reply_act(521, HTML, HTML_HEADERS)),
    VerdictRow("429 empty", W, _reply_act(429)),
    VerdictRow("429 at once", W, _reply_act(429, "{}", {"Retry-After": "0"}), 0.0),
    VerdictRow("429 in 7 s", W, _reply_act(429, "{}", {"Retry-After": "7"}), 7.0),
    VerdictRow("429 in a day", W, _reply_act(429, "{}", {"Retry-After": "86400"}), 300.0),
    VerdictRow("429 at a date", W, _reply_act(429, "{}", {"Date": DATE, "Retry-After": NINE_SECONDS_LATER}), 9.0),
    VerdictRow("429 at a date that is now", W, _reply_act(429, "{}", {"Date": DATE, "Retry-After": DATE}), 0.0),
    VerdictRow(
        "429 at a date gone by", W, _reply_act(429, "{}", {"Date": NINE_SECONDS_LATER, "Retry-After": DATE}), 0.0
    ),
    VerdictRow("429 with garbage", W, _reply_act(429, "{}", {"Retry-After": "soon; maybe"})),
    VerdictRow("503 with Retry-After", W, _reply_act(503, "{}", {"Retry-After": "0"}), 0.0),
    VerdictRow("503 with Retry-After, a page", W, _reply_act(503, HTML, {**HTML_HEADERS, "Retry-After": "0"}), 0.0),
    VerdictRow(
        "503 without a channel",
        W,
        _reply_act(503, failure_body("x", "No available channel for model pika (request id: 1)")),
    ),
    VerdictRow("503 without a channel, in Chinese", W, _reply_act(503, failure_body("x", "当前分组下无可用渠道"))),
]
DOUBTED = [
    *(
        VerdictRow(str(status), U, _reply_act(status, failure_body("oops")))
        for status in (408, 500, 501, 502, 503, 504, 505, 520, 522, 524, 599)
    ),
    *(VerdictRow(f"{status} page", U, _reply_act(status, HTML, HTML_HEADERS)) for status in (500, 502, 503, 504, 524)),
    VerdictRow(
        "500 with a substring", U, _reply_act(500, failure_body("x", "no available channel, invalid_request, quota"))
    ),
    *(
        VerdictRow(f"{status} with the code {code}", U, _reply_act(status, failure_body(code, "余额不足")))
        for status in (500, 502, 503)
        for code in ("invalid_api_key", "insufficient_quota")
    ),
    VerdictRow("504 invalid_request", U, _reply_act(504, failure_body("invalid_request"))),
    VerdictRow("a status that no row names", U, _reply_act(418, failure_body("teapot"))),
]
ANSWERED = [
    *ACCEPTED, *IN_BODY, *UNUSABLE_ANSWERS, *REJECTED, *WRONG_URL, *STOPPED, *WAITED, *DOUBTED,
]  # fmt: skip
ALL_ROWS = [*LOST_ANSWERS, *ANSWERED]
