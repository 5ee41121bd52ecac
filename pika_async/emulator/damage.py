"""What a fault does to an answer: other bodies, other bytes, other endings; pure, and decides nothing about when."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import attrs

from pika_async.emulator.faults import Deed
from pika_async.emulator.records import Answer, Disruption
from pika_async.emulator.wires import error_answer, json_answer

__all__ = ["damaged", "raw_answer"]

_HTML = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>One more step</body></html>"


def damaged(answer: Answer, deed: Deed, *, provider: str, time_scale: float) -> Answer:
    """The answer as a fault leaves it; a fault that is none of the connection's or body's leaves it as it is."""
    strike = _STRIKES.get(deed.fault)
    if strike is None:
        return answer
    return strike(answer, deed, provider, time_scale)


def raw_answer(answer: Answer, *, length: bool = True, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    """The answer as bytes of HTTP/1.1, on a connection that is closed after it."""
    return _head(answer, length=length, extra=extra) + answer.body


def _head(answer: Answer, *, length: bool = True, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    try:
        phrase = HTTPStatus(answer.status).phrase
    except ValueError:
        phrase = "Status"
    headers = [*answer.headers.items(), *extra, ("Connection", "close")]
    if length:
        headers.append(("Content-Length", str(len(answer.body))))
    lines = [f"HTTP/1.1 {answer.status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "replace")


def _broken(answer: Answer, deed: Deed, **how: Any) -> Answer:
    return attrs.evolve(answer, fault=Disruption(name=deed.fault, **how))


def _answer(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    body = deed["body"]
    if isinstance(body, str):
        content = body.encode("utf-8", "surrogatepass")
        kind = "text/html; charset=utf-8" if body.lstrip().startswith("<") else "application/json"
    else:
        content, kind = json.dumps(body).encode(), "application/json"
    headers = dict(deed["headers"])
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = kind
    if any(name.lower() == "content-encoding" and value == "gzip" for name, value in headers.items()):
        content = gzip.compress(content)
    return Answer(deed["status"], headers, content, Disruption(name="answer"))


def _refuse(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    wait = deed["retry_after"]
    headers = {} if wait is None else {"Retry-After": str(wait)}
    how = deed["as"]
    if how == "envelope":
        body = {"code": 400, "msg": "the prompt is not allowed", "data": None}
        return attrs.evolve(json_answer(200, body, headers), fault=Disruption(name="refuse"))
    status, code, message = _REFUSALS[how]
    refusal = error_answer(provider, status, code, message, headers=headers)
    return attrs.evolve(refusal, fault=Disruption(name="refuse"))


_REFUSALS = {
    "rate": (429, "rate_limit_exceeded", "the current group is saturated, please try again later"),
    "quota": (403, "insufficient_user_quota", "user quota is not enough"),
    "key": (401, "invalid_api_key", "invalid token"),
    "invalid": (500, "invalid_request", "the request is malformed"),
    "no-channel": (503, "no_available_channel", "no available channel for model pika under the current group"),
    "task": (400, "task_not_exist", "task_not_exist"),
}


def _redirect(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    return Answer(deed["status"], {"Location": deed["location"]}, b"", Disruption(name="redirect"))


def _drop(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    return _broken(answer, deed, raw=b"", ending=deed["how"])


def _delay(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    return _broken(answer, deed, delay=deed["seconds"] * scale)


def _scaled(seconds: float | None, scale: float) -> float | None:
    return None if seconds is None else seconds * scale


def _stall(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    return _broken(answer, deed, raw=b"", ending="stall", stall_seconds=_scaled(deed["seconds"], scale))


def _cut(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    head = _head(answer, length=deed["length"])
    if deed["at"] == "headers":
        # Short of the blank line that would end the head, so that a fraction of 1 is a cut as well.
        return _broken(answer, deed, raw=head[: int((len(head) - 4) * deed["fraction"])], ending=deed["how"])
    kept = answer.body[: int(len(answer.body) * deed["fraction"])]
    return _broken(answer, deed, raw=head + kept, ending=deed["how"])


def _body_stall(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    raw = _head(answer) + answer.body[: int(len(answer.body) * deed["fraction"])]
    return _broken(answer, deed, raw=raw, ending="stall", stall_seconds=_scaled(deed["seconds"], scale))


def _garbage_status(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    raw = deed["line"].encode("utf-8", "replace") + b"\r\n" + raw_answer(answer).split(b"\r\n", 1)[1]
    return _broken(answer, deed, raw=raw, ending="fin")


def _oversized_header(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    return _broken(answer, deed, raw=raw_answer(answer, extra=(("X-Padding", "x" * deed["size"]),)), ending="fin")


def _bad_chunk(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    head = _head(answer, length=False, extra=(("Transfer-Encoding", "chunked"),))
    return _broken(answer, deed, raw=head + b"not-a-size\r\n" + answer.body + b"\r\n0\r\n\r\n", ending="fin")


def _endless(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    return _broken(answer, deed, ending="endless")


def _body(answer: Answer, deed: Deed, provider: str, scale: float) -> Answer:
    kind, size = deed["kind"], deed["size"]
    headers = dict(answer.headers)
    if kind == "html":
        headers["Content-Type"] = "text/html; charset=utf-8"
    if kind == "wrong-type":
        headers["Content-Type"] = "text/plain"
    if kind == "gzip-bomb":
        headers["Content-Encoding"] = "gzip"
    return attrs.evolve(answer, headers=headers, body=_BODIES[kind](answer.body, size), fault=Disruption(name="body"))


@functools.lru_cache(maxsize=4)
def _bomb(size: int) -> bytes:
    return gzip.compress(b" " * size, compresslevel=9)


def _with_number(body: bytes, token: str) -> bytes:
    """The reply with a raw token for its first number, or as a field of its own where it has no number."""
    try:
        reply = json.loads(body)
    except ValueError:
        return b'{"value": %s}' % token.encode()
    mark = "\x00number\x00"
    if not _replace_number(reply, mark):
        reply = {"exec_time": mark, **reply}
    return json.dumps(reply).replace(json.dumps(mark), token).encode()


def _replace_number(value: Any, mark: str) -> bool:
    if isinstance(value, list):
        return any(_replace_number(item, mark) for item in value)
    if not isinstance(value, dict):
        return False
    for name in ("progress", "exec_time"):
        if name in value:
            value[name] = mark
            return True
    return any(_replace_number(item, mark) for item in value.values())


def _deep(body: bytes, size: int | None) -> bytes:
    depth = size or 100_000
    return b'{"id": "x", "data": ' + b"[" * depth + b"]" * depth + b"}"


def _lone_surrogate(body: bytes, size: int | None) -> bytes:
    return b'{"note": "\\ud800", ' + body.lstrip()[1:]


# A bomb is JSON white space of 64 MiB behind some 64 kB of gzip.
_BODIES: dict[str, Callable[[bytes, int | None], bytes]] = {
    "html": lambda body, size: _HTML,
    "empty": lambda body, size: b"",
    "bom": lambda body, size: b"\xef\xbb\xbf" + body,
    "nan": lambda body, size: _with_number(body, "NaN"),
    "infinity": lambda body, size: _with_number(body, "1e999"),
    "huge-int": lambda body, size: _with_number(body, "9" * (size or 5_000)),
    "deep": _deep,
    "lone-surrogate": _lone_surrogate,
    "gzip-bomb": lambda body, size: _bomb(size or 64 * 2**20),
    "not-json": lambda body, size: b"upstream error: EOF",
    "not-utf8": lambda body, size: b'{"note": "\xff\xfe", ' + body.lstrip()[1:],
    "list": lambda body, size: b"[" + body + b"]",
    "wrong-type": lambda body, size: body,
}

_STRIKES: dict[str, Callable[[Answer, Deed, str, float], Answer]] = {
    "answer": _answer,
    "refuse": _refuse,
    "body": _body,
    "redirect": _redirect,
    "drop": _drop,
    "delay": _delay,
    "stall": _stall,
    "cut": _cut,
    "body-stall": _body_stall,
    "garbage-status": _garbage_status,
    "oversized-header": _oversized_header,
    "bad-chunk": _bad_chunk,
    "endless": _endless,
}


