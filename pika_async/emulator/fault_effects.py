"""What a fault does to an answer: other bodies, other bytes, other endings; pure, and decides nothing about when."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import attrs

from pika_async.emulator.faults import Fault
from pika_async.emulator.records import Answer, Disruption
from pika_async.emulator.replies import error_answer, json_answer

__all__ = ["damaged", "raw_answer"]

_HTML = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>One more step</body></html>"


@attrs.frozen
class _Blow:
    """An answer and the fault that strikes it."""

    answer: Answer
    deed: Fault
    provider: str
    scale: float
    task_id: str

    def broken(self, **how: Any) -> Answer:
        return attrs.evolve(self.answer, fault=Disruption(name=self.deed.fault, **how))

    def seconds(self) -> float | None:
        seconds: float | None = self.deed["seconds"]
        return None if seconds is None else seconds * self.scale

    def kept(self) -> bytes:
        return self.answer.body[: int(len(self.answer.body) * self.deed["fraction"])]


def damaged(answer: Answer, deed: Fault, *, provider: str, time_scale: float, task_id: str = "") -> Answer:
    """The answer as a fault leaves it; a fault that is none of the connection's or body's only gets its name there.

    ``{task_id}`` in a scripted body stands for ``task_id``.
    """
    strike = _STRIKES.get(deed.fault)
    if strike is None:
        return attrs.evolve(answer, fault=Disruption(name=deed.fault))
    return strike(_Blow(answer, deed, provider, time_scale, task_id))


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


def _answer(blow: _Blow) -> Answer:
    body = blow.deed["body"]
    text = body if isinstance(body, str) else json.dumps(body)
    content = text.replace("{task_id}", blow.task_id).encode("utf-8", "surrogatepass")
    headers = dict(blow.deed["headers"])
    named = {name.lower(): value for name, value in headers.items()}
    if "content-type" not in named:
        html = text.lstrip().startswith("<")
        headers["Content-Type"] = "text/html; charset=utf-8" if html else "application/json"
    if named.get("content-encoding") == "gzip":
        content = gzip.compress(content)
    return Answer(blow.deed["status"], headers, content, Disruption(name="answer"))


def _refuse(blow: _Blow) -> Answer:
    wait = blow.deed["retry_after"]
    headers = {} if wait is None else {"Retry-After": str(wait)}
    how = blow.deed["as"]
    if how == "envelope":
        body = {"code": 400, "msg": "the prompt is not allowed", "data": None}
        return attrs.evolve(json_answer(200, body, headers), fault=Disruption(name="refuse"))
    status, code, message = _REFUSALS[how]
    refusal = error_answer(blow.provider, status, code, message, headers=headers)
    return attrs.evolve(refusal, fault=Disruption(name="refuse"))


_REFUSALS = {
    "rate": (429, "rate_limit_exceeded", "the current group is saturated, please try again later"),
    "quota": (403, "insufficient_user_quota", "user quota is not enough"),
    "key": (401, "invalid_api_key", "invalid token"),
    "invalid": (500, "invalid_request", "the request is malformed"),
    "no-channel": (503, "no_available_channel", "no available channel for model pika under the current group"),
    "task": (400, "task_not_exist", "task_not_exist"),
}


def _redirect(blow: _Blow) -> Answer:
    return Answer(blow.deed["status"], {"Location": blow.deed["location"]}, b"", Disruption(name="redirect"))


def _drop(blow: _Blow) -> Answer:
    return blow.broken(raw=b"", ending=blow.deed["how"])


def _delay(blow: _Blow) -> Answer:
    return blow.broken(delay=blow.seconds() or 0.0)


def _stall(blow: _Blow) -> Answer:
    return blow.broken(raw=b"", ending="stall", stall_seconds=blow.seconds())


def _cut(blow: _Blow) -> Answer:
    head = _head(blow.answer, length=blow.deed["length"])
    if blow.deed["at"] == "headers":
        # Short of the blank line that would end the head, so that a fraction of 1 is a cut as well.
        return blow.broken(raw=head[: int((len(head) - 4) * blow.deed["fraction"])], ending=blow.deed["how"])
    kept = blow.kept()
    return blow.broken(raw=head + kept, ending=blow.deed["how"])


def _body_stall(blow: _Blow) -> Answer:
    raw = _head(blow.answer) + blow.kept()
    return blow.broken(raw=raw, ending="stall", stall_seconds=blow.seconds())


def _garbage_status(blow: _Blow) -> Answer:
    raw = blow.deed["line"].encode("utf-8", "replace") + b"\r\n" + raw_answer(blow.answer).split(b"\r\n", 1)[1]
    return blow.broken(raw=raw, ending="fin")


def _oversized_header(blow: _Blow) -> Answer:
    return blow.broken(raw=raw_answer(blow.answer, extra=(("X-Padding", "x" * blow.deed["size"]),)), ending="fin")


def _bad_chunk(blow: _Blow) -> Answer:
    head = _head(blow.answer, length=False, extra=(("Transfer-Encoding", "chunked"),))
    return blow.broken(raw=head + b"not-a-size\r\n" + blow.answer.body + b"\r\n0\r\n\r\n", ending="fin")


def _endless(blow: _Blow) -> Answer:
    return blow.broken(ending="endless")


def _body(blow: _Blow) -> Answer:
    kind, size = blow.deed["kind"], blow.deed["size"]
    headers = dict(blow.answer.headers)
    if kind == "html":
        headers["Content-Type"] = "text/html; charset=utf-8"
    if kind == "wrong-type":
        headers["Content-Type"] = "text/plain"
    if kind == "gzip-bomb":
        headers["Content-Encoding"] = "gzip"
    body = _BODIES[kind](_Reply(blow.answer.body, size))
    return attrs.evolve(blow.answer, headers=headers, body=body, fault=Disruption(name="body"))


@attrs.frozen
class _Reply:
    """The body that was due, and the size that the script asks for."""

    body: bytes
    size: int | None

    def with_field(self, name: str, value: bytes) -> bytes:
        """The reply with one more field in front, given as raw JSON."""
        return b'{"%s": %s, ' % (name.encode(), value) + self.body.lstrip()[1:]


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


# A bomb is JSON white space of 64 MiB behind some 64 kB of gzip.
_BODIES: dict[str, Callable[[_Reply], bytes]] = {
    "html": lambda _: _HTML,
    "empty": lambda _: b"",
    "bom": lambda reply: b"\xef\xbb\xbf" + reply.body,
    "nan": lambda reply: _with_number(reply.body, "NaN"),
    "infinity": lambda reply: _with_number(reply.body, "1e999"),
    "huge-int": lambda reply: _with_number(reply.body, "9" * (reply.size or 5_000)),
    "deep": lambda reply: reply.with_field("deep", b"[" * (reply.size or 100_000) + b"]" * (reply.size or 100_000)),
    "lone-surrogate": lambda reply: reply.with_field("note", b'"\\ud800"'),
    "gzip-bomb": lambda reply: _bomb(reply.size or 64 * 2**20),
    "not-json": lambda _: b"upstream error: EOF",
    "not-utf8": lambda reply: reply.with_field("note", b'"\xff\xfe"'),
    "list": lambda reply: b"[" + reply.body + b"]",
    "wrong-type": lambda reply: reply.body,
}

_STRIKES: dict[str, Callable[[_Blow], Answer]] = {
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
