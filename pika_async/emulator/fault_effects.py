"""Effects of faults on answers: bodies, raw bytes, connection endings. Pure; the scenario chooses the answers."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import attrs

from pika_async.emulator import fal_replies, pika_replies
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import Answer, FaultEffect
from pika_async.emulator.replies import error_answer, json_answer

__all__ = ["apply_fault", "dead_answer", "unaccepted_answer"]

_HTML = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>One more step</body></html>"


@attrs.frozen
class _FaultyDelivery:
    """An answer and the fault that it is delivered with."""

    answer: Answer
    fault: Fault
    provider: str
    time_scale: float
    task_id: str

    def with_effect(self, **options: Any) -> Answer:
        return attrs.evolve(self.answer, effect=FaultEffect(name=self.fault.name, **options))

    def seconds(self) -> float | None:
        seconds: float | None = self.fault["seconds"]
        return None if seconds is None else seconds * self.time_scale

    def truncated_body(self) -> bytes:
        return self.answer.body[: int(len(self.answer.body) * self.fault["fraction"])]


def apply_fault(answer: Answer, fault: Fault, *, provider: str, time_scale: float, task_id: str = "") -> Answer:
    """Return *answer* with the effect of *fault*.

    A fault that changes neither the body nor the connection is recorded by its name only. ``{task_id}`` in a scripted
    body is replaced by *task_id*.
    """
    effect = _EFFECTS.get(fault.name)
    if effect is None:
        return attrs.evolve(answer, effect=FaultEffect(name=fault.name))
    return effect(_FaultyDelivery(answer, fault, provider, time_scale, task_id))


def _raw_answer(answer: Answer, *, length: bool = True, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return *answer* as HTTP/1.1 bytes, with ``Connection: close``."""
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


def _answer(delivery: _FaultyDelivery) -> Answer:
    body = delivery.fault["body"]
    text = body if isinstance(body, str) else json.dumps(body)
    content = text.replace("{task_id}", delivery.task_id).encode("utf-8", "surrogatepass")
    headers = dict(delivery.fault["headers"])
    lowered = {name.lower(): value for name, value in headers.items()}
    if "content-type" not in lowered:
        html = text.lstrip().startswith("<")
        headers["Content-Type"] = "text/html; charset=utf-8" if html else "application/json"
    if lowered.get("content-encoding") == "gzip":
        content = gzip.compress(content)
    return Answer(delivery.fault["status"], headers, content, FaultEffect(name="answer"))


def _refuse(delivery: _FaultyDelivery) -> Answer:
    retry_after = delivery.fault["retry_after"]
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    reason = delivery.fault["as"]
    if delivery.provider in _REFUSERS:
        refusal = _REFUSERS[delivery.provider](reason, headers)
        return attrs.evolve(refusal, effect=FaultEffect(name="refuse"))
    if reason == "envelope":
        body = {"code": 400, "msg": "the prompt is not allowed", "data": None}
        return attrs.evolve(json_answer(200, body, headers), effect=FaultEffect(name="refuse"))
    status, code, message = _REFUSALS[reason]
    refusal = error_answer(delivery.provider, status, code, message, headers=headers)
    return attrs.evolve(refusal, effect=FaultEffect(name="refuse"))


_REFUSALS = {
    "rate": (429, "rate_limit_exceeded", "the current group is saturated, please try again later"),
    "quota": (403, "insufficient_user_quota", "user quota is not enough"),
    "key": (401, "invalid_api_key", "invalid token"),
    "forbidden": (403, "forbidden", "this token is not active"),
    "invalid": (500, "invalid_request", "the request is malformed"),
    "no-channel": (503, "no_available_channel", "no available channel for model pika under the current group"),
    "task": (400, "task_not_exist", "task_not_exist"),
}


#: The refusals of the providers with an error form of their own.
_REFUSERS: dict[str, Callable[[str, dict[str, str]], Answer]] = {
    "pika": pika_replies.refusal,
    "fal": fal_replies.refusal,
}


def dead_answer(provider: str, status: int | None) -> Answer:
    """Return the answer of a provider that is down: *status*, or for ``None`` a connection that is cut off."""
    effect = FaultEffect(name="die") if status is not None else FaultEffect(name="die", raw=b"", ending="rst")
    return attrs.evolve(unaccepted_answer(provider, status or 503), effect=effect)


def unaccepted_answer(provider: str, status: int = 502) -> Answer:
    """Return the answer to a create that is not accepted. It contains no task id."""
    message = "the upstream did not accept the task"
    if provider == "pika":
        return pika_replies.coded_error(status, "internal", message)
    if provider == "fal":
        return fal_replies.host_error(status, "internal_error", message)
    return error_answer(provider, status, "upstream_error", message)


def _die(delivery: _FaultyDelivery) -> Answer:
    return dead_answer(delivery.provider, delivery.fault["status"])


def _redirect(delivery: _FaultyDelivery) -> Answer:
    return Answer(delivery.fault["status"], {"Location": delivery.fault["location"]}, b"", FaultEffect(name="redirect"))


def _drop(delivery: _FaultyDelivery) -> Answer:
    return delivery.with_effect(raw=b"", ending=delivery.fault["how"])


def _delay(delivery: _FaultyDelivery) -> Answer:
    return delivery.with_effect(delay=delivery.seconds() or 0.0)


def _stall(delivery: _FaultyDelivery) -> Answer:
    return delivery.with_effect(raw=b"", ending="stall", stall_seconds=delivery.seconds())


def _cut(delivery: _FaultyDelivery) -> Answer:
    head = _head(delivery.answer, length=delivery.fault["length"])
    if delivery.fault["at"] == "headers":
        # Without the blank line that ends the head, so that a fraction of 1 is also a cut.
        return delivery.with_effect(
            raw=head[: int((len(head) - 4) * delivery.fault["fraction"])], ending=delivery.fault["how"]
        )
    return delivery.with_effect(raw=head + delivery.truncated_body(), ending=delivery.fault["how"])


def _body_stall(delivery: _FaultyDelivery) -> Answer:
    raw = _head(delivery.answer) + delivery.truncated_body()
    return delivery.with_effect(raw=raw, ending="stall", stall_seconds=delivery.seconds())


def _garbage_status(delivery: _FaultyDelivery) -> Answer:
    raw = (
        delivery.fault["line"].encode("utf-8", "replace") + b"\r\n" + _raw_answer(delivery.answer).split(b"\r\n", 1)[1]
    )
    return delivery.with_effect(raw=raw, ending="fin")


def _oversized_header(delivery: _FaultyDelivery) -> Answer:
    return delivery.with_effect(
        raw=_raw_answer(delivery.answer, extra=(("X-Padding", "x" * delivery.fault["size"]),)), ending="fin"
    )


def _bad_chunk(delivery: _FaultyDelivery) -> Answer:
    head = _head(delivery.answer, length=False, extra=(("Transfer-Encoding", "chunked"),))
    return delivery.with_effect(raw=head + b"not-a-size\r\n" + delivery.answer.body + b"\r\n0\r\n\r\n", ending="fin")


def _endless(delivery: _FaultyDelivery) -> Answer:
    return delivery.with_effect(ending="endless")


def _body(delivery: _FaultyDelivery) -> Answer:
    kind, size = delivery.fault["kind"], delivery.fault["size"]
    headers = dict(delivery.answer.headers)
    if kind == "html":
        headers["Content-Type"] = "text/html; charset=utf-8"
    if kind == "wrong-type":
        headers["Content-Type"] = "text/plain"
    if kind == "gzip-bomb":
        headers["Content-Encoding"] = "gzip"
    body = _BODIES[kind](_Reply(delivery.answer.body, size))
    return attrs.evolve(delivery.answer, headers=headers, body=body, effect=FaultEffect(name="body"))


@attrs.frozen
class _Reply:
    """The regular body, and the size that the scenario asks for."""

    body: bytes
    size: int | None

    def with_field(self, name: str, value: bytes) -> bytes:
        """Return the reply with one more field in front; *value* is raw JSON."""
        return b'{"%s": %s, ' % (name.encode(), value) + self.body.lstrip()[1:]


@functools.lru_cache(maxsize=4)
def _bomb(size: int) -> bytes:
    return gzip.compress(b" " * size, compresslevel=9)


def _with_number(body: bytes, token: str) -> bytes:
    """Return the reply with *token* in place of its first number, or as an additional field if it has no number."""
    try:
        reply = json.loads(body)
    except ValueError:
        return b'{"value": %s}' % token.encode()
    placeholder = "\x00number\x00"
    if not _replace_number(reply, placeholder):
        reply = {"exec_time": placeholder, **reply}
    return json.dumps(reply).replace(json.dumps(placeholder), token).encode()


def _replace_number(value: Any, placeholder: str) -> bool:
    if isinstance(value, list):
        return any(_replace_number(item, placeholder) for item in value)
    if not isinstance(value, dict):
        return False
    for name in ("progress", "exec_time"):
        if name in value:
            value[name] = placeholder
            return True
    return any(_replace_number(item, placeholder) for item in value.values())


# The gzip bomb is about 64 kB that unpack to 64 MiB of JSON white space.
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

_EFFECTS: dict[str, Callable[[_FaultyDelivery], Answer]] = {
    "answer": _answer,
    "refuse": _refuse,
    "die": _die,
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
