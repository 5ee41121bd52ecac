"""What goes over the wire and comes back, as plain bytes; knows no provider and opens no connection."""

from __future__ import annotations

import enum
import json
import math
import re
import zlib
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import attrs

from pika_async.errors import strip_control

__all__ = ["Credential", "DecodeError", "HttpRequest", "HttpResponse", "SendPhase", "TransportFailure", "parse_json"]

#: The longest number that an answer may hold, in digits; Python's own limit is 4,300 and costs quadratic time.
MAX_DIGITS: Final = 100
#: An escape that may be half of a character; only then is the whole value checked.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
#: How many bytes of one API answer are kept; the documented ones are under 2 KiB.
MAX_BODY: Final = 1 << 20


class Credential:
    """A bearer key that no `repr`, `str`, log line, traceback or pickle shows."""

    __slots__ = ("_bytes", "_escaped", "_key")

    def __init__(self, key: str) -> None:
        self._key = key
        self._bytes = key.encode()
        self._escaped: re.Pattern[bytes] | None = None

    def reveal(self) -> str:
        """The key itself: only the transport asks, once for each request, after it has checked the origin."""
        return self._key

    def account(self) -> str:
        """Tells one key from another: 4 hex digits of its SHA-256, too few to tell even a short key by."""
        return sha256(self._bytes).hexdigest()[:4]

    def redact(self, data: bytes) -> bytes:
        """`data` without the key: gateways repeat it in their errors. Keys under 8 bytes are too short to tell."""
        key = self._bytes
        if len(key) < 8:
            return data
        data = data.replace(key, b"[key]")
        if b"\\" in data:  # JSON may spell each character as an escape, and parsing would make the key of it again
            self._escaped = self._escaped or re.compile(b"".join(map(_spellings, key)))
            data = self._escaped.sub(b"[key]", data)
        return data

    def __repr__(self) -> str:
        return "Credential(***)"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a credential is not pickled: give the key again where it is needed")


def _spellings(byte: int) -> bytes:
    escape = rb"\\u00(?i:%02x)" % byte
    return rb"(?:\\?%s|%s)" % (re.escape(bytes((byte,))), escape)


class SendPhase(enum.Enum):
    """How far a request had come when it failed: the only proof of "not sent" (not the exception's class)."""

    #: The headers had not been handed to the connection: nothing left this machine.
    UNSENT = "unsent"
    #: The headers were handed over: assume that the request arrived.
    SENT = "sent"


@attrs.frozen(kw_only=True)
class HttpRequest:
    """One call of a gateway, without its credential. `body` is sent as JSON when there is one."""

    method: str
    url: str
    body: bytes | None = attrs.field(default=None, repr=lambda body: "None" if body is None else f"<{len(body)} bytes>")
    #: True for a call that is paid for: it gets a connection of its own and is never repeated by the transport.
    paid: bool = False


@attrs.frozen(kw_only=True)
class HttpResponse:
    """A status line that was read, its headers (lower-case names) and at most `MAX_BODY` bytes of body.

    `complete` is False when the connection ended or stalled inside the body, or the body was over the cap: what is
    held may still name a task id.
    """

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=lambda headers: f"<{len(headers)} headers>")
    body: bytes = attrs.field(default=b"", repr=lambda body: f"<{len(body)} bytes>")
    complete: bool = True

    @property
    def is_html(self) -> bool:
        """Whether a web page came instead of an API answer."""
        head = self.body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        return (
            head.startswith((b"<!doctype html", b"<html"))
            or "text/html" in self.headers.get("content-type", "").lower()
        )

    @property
    def is_markup(self) -> bool:
        """Whether the body is no JSON but a page, whatever it is called: an id in its scripts is no receipt."""
        return self.body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")

    def excerpt(self, limit: int = 160) -> str:
        """The body's beginning as one printable line, for messages."""
        text = strip_control(self.body[: limit * 4].decode("utf-8", "replace"))
        text = re.sub(r"\s+", " ", text).strip()
        return text if len(text) <= limit else text[:limit] + "…"


@attrs.frozen(kw_only=True)
class TransportFailure:
    """No status line was read. `kind` is the family of the failure (`dns`, `timeout`, `certificate`, ...)."""

    phase: SendPhase
    kind: str
    detail: str


class DecodeError(ValueError):
    """A body that is not the JSON that was expected; `str()` says what is wrong with it."""


def inflate(body: bytes, encoding: str) -> tuple[bytes, bool]:
    """`body` without its content coding, and whether all of it fitted in `MAX_BODY`.

    Answers are asked for uncompressed; some front ends compress all the same. Memory stays bounded for a bomb.

    :raises Unreadable: for a coding other than gzip or deflate, or broken data.
    """
    if encoding in {"", "identity"}:
        return body, True
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise DecodeError(f"content coding {encoding!r} was not asked for")
    stream = zlib.decompressobj(wbits=47 if encoding != "deflate" else 15)
    try:
        plain = stream.decompress(body, MAX_BODY)
    except zlib.error as error:
        raise DecodeError(f"broken {encoding} data: {error}") from None
    return plain, stream.eof and not stream.unconsumed_tail


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise DecodeError(f"a number of {len(digits)} digits")
    return int(digits)


def _fraction(text: str) -> float:
    value = float(text) if len(text) <= MAX_DIGITS else math.inf
    if math.isinf(value):
        raise DecodeError("a number beyond every range")
    return value


def _constant(name: str) -> Any:
    raise DecodeError(f"{name} is no JSON")


def parse_json(body: bytes) -> Any:
    """The JSON value of `body`, with or without a byte order mark.

    :raises Unreadable: for anything else, whatever the bytes: NaN, 1e999, numbers over 100 digits, nesting deeper than
        the interpreter takes, bytes that are no UTF-8, escapes that are half a character.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_int=_whole, parse_float=_fraction, parse_constant=_constant)
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError("nested too deep") from None
    except ValueError as error:
        raise DecodeError(str(error) if body.strip() else "empty") from None
