"""Requests and responses as plain bytes, and the JSON in them. Opens no connection; holds nothing of a provider."""

from __future__ import annotations

import enum
import json
import math
import re
import zlib
from collections.abc import Mapping
from hashlib import sha256
from types import UnionType
from typing import Any, Final

import attrs

from pika_async.errors.base import strip_control

__all__ = [
    "NO_CALLBACK_URL",
    "Credential",
    "DecodeError",
    "HttpRequest",
    "HttpResponse",
    "SendPhase",
    "TransportFailure",
    "expect_type",
    "parse_json",
]

#: The longest number in an answer, in digits. Python's own limit is 4,300, and parsing takes quadratic time.
MAX_DIGITS: Final = 100
#: The `callback_url` of submissions without a receiver: CometAPI lists the field as required. The domain is reserved
#: (RFC 2606) and never resolves, unlike the example on CometAPI's page, which is the address of a third party.
NO_CALLBACK_URL: Final = "https://callback.invalid/"
#: Headers that no request may set itself, in lower case: the transport sets the credential after it has checked the
#: origin.
_CREDENTIAL_HEADERS: Final = frozenset({"authorization", "cookie", "host", "proxy-authorization", "x-api-key"})
_BOM: Final = b"\xef\xbb\xbf"
#: An escape that may be a lone surrogate (half of a character); only then is the whole value checked.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
#: The most bytes of one API answer that are kept; the documented ones are under 2 KiB.
MAX_BODY: Final = 1 << 20
#: The same for the answer to a poll, in bytes: some gateways repeat the image of the request in each, and a request may
#: have almost a megabyte of one.
MAX_FEED_BODY: Final = 4 << 20
#: The shortest key that is replaced in answers, in bytes.
MIN_REDACTED_KEY: Final = 8


class Credential:
    """API key that no `repr`, `str`, log line, traceback or pickle shows."""

    __slots__ = ("_bytes", "_escaped", "_key")

    def __init__(self, key: str) -> None:
        self._key = key
        self._bytes = key.encode()
        self._escaped: re.Pattern[bytes] | None = None

    def reveal(self) -> str:
        """Return the key itself. Only the transport calls this, once a request, after it has checked the origin."""
        return self._key

    def account(self) -> str:
        """Return 4 hex digits of the key's SHA-256, to distinguish keys; too few to guess even a short key from."""
        return sha256(self._bytes).hexdigest()[:4]

    def redact(self, data: bytes) -> bytes:
        """Return `data` with the key replaced: gateways repeat it in their errors.

        A key of less than `MIN_REDACTED_KEY` bytes is left, because it would match ordinary text.
        """
        key = self._bytes
        if len(key) < MIN_REDACTED_KEY:
            return data
        data = data.replace(key, b"[key]")
        if b"\\" in data:  # JSON may spell each character as an escape, which parsing would turn back into the key
            self._escaped = self._escaped or re.compile(b"".join(map(_spellings, key)))
            data = self._escaped.sub(b"[key]", data)
        return data

    def redact_or_drop(self, data: bytes) -> bytes:
        """Return `data` with the key replaced. Raises nothing: if that fails, data that may hold the key is dropped."""
        try:
            return self.redact(data)
        except Exception:
            return b"" if self._bytes in data or b"\\" in data else data

    def __repr__(self) -> str:
        return "Credential(***)"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a credential must not be pickled: give the key again where it is needed")


def _spellings(byte: int) -> bytes:
    """Return a pattern of the spellings of a byte in JSON. Each begins with a literal, so that searching is quick."""
    literal = re.escape(bytes((byte,)))
    return rb"(?:%s|\\(?:%s|u00(?i:%02x)))" % (literal, literal, byte)


class SendPhase(enum.Enum):
    """How far a request had come when it failed. Only this proves "not sent"; the exception's class does not."""

    #: The headers had not been handed to the connection: nothing left this machine.
    UNSENT = "unsent"
    #: The headers were handed over: assume that the request arrived.
    SENT = "sent"


def _check_headers(_request: object, _attribute: object, headers: Mapping[str, str]) -> None:
    refused = next((name for name in headers if name.lower() in _CREDENTIAL_HEADERS), None)
    if refused is not None:
        raise ValueError(f"{refused} must not be a header of a request; the transport sets the credential")


@attrs.frozen(kw_only=True)
class HttpRequest:
    """One call of a gateway, without its credential."""

    method: str
    url: str
    #: JSON; None for no body.
    body: bytes | None = attrs.field(default=None, repr=lambda body: "None" if body is None else f"<{len(body)} bytes>")
    #: Whether the call is charged: it gets a connection of its own, and the transport never repeats it.
    paid: bool = False
    #: Headers beside those of every request; never a credential.
    headers: Mapping[str, str] = attrs.field(
        factory=dict, validator=_check_headers, repr=lambda headers: f"<{len(headers)} headers>"
    )

    @property
    def max_answer(self) -> int:
        """The most bytes of the answer that are kept."""
        return MAX_BODY if self.paid else MAX_FEED_BODY


@attrs.frozen(kw_only=True)
class HttpResponse:
    """Answer of a gateway. Its status line was read; its body may be incomplete."""

    status: int
    #: By lower-case name.
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=lambda headers: f"<{len(headers)} headers>")
    #: At most `HttpRequest.max_answer` bytes.
    body: bytes = attrs.field(default=b"", repr=lambda body: f"<{len(body)} bytes>")
    #: False if the connection ended or stalled inside the body, or the body was longer than that. The part that
    #: came may still hold a task id.
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
        """Whether the body is a page, whatever its content type: an id in the scripts of a page is not a receipt."""
        return self.body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")

    def excerpt(self, limit: int = 160) -> str:
        """Return the beginning of the body as one printable line of at most `limit` characters, for messages."""
        text = strip_control(self.body[: limit * 4].decode("utf-8", "replace"))
        text = re.sub(r"\s+", " ", text).strip()
        return text if len(text) <= limit else text[:limit] + "…"


@attrs.frozen(kw_only=True)
class TransportFailure:
    """Failed call of which no status line was read."""

    phase: SendPhase
    #: The family of the failure: `dns`, `timeout`, `certificate`, ...
    kind: str
    #: The failure in words, for messages.
    detail: str


class DecodeError(ValueError):
    """Body that is not the expected JSON; `str()` is what is wrong with it."""


def inflate(body: bytes, encoding: str, limit: int = MAX_BODY) -> tuple[bytes, bool]:
    """Return `body` without its content coding, and whether all of it fitted in `limit` bytes.

    Answers are requested uncompressed, but some front ends compress them. A compression bomb is cut at `limit`.

    :raises DecodeError: for a coding other than gzip or deflate, or broken data.
    """
    if encoding in {"", "identity"}:
        return body, True
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise DecodeError(f"content coding {encoding!r} must not be used: it was not requested")
    stream = zlib.decompressobj(wbits=47 if encoding != "deflate" else 15)
    try:
        plain = stream.decompress(body, limit)
    except zlib.error as error:
        raise DecodeError(f"broken {encoding} data: {error}") from None
    return plain, stream.eof and not stream.unconsumed_tail


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise DecodeError(f"a number must have at most {MAX_DIGITS} digits, not {len(digits)}")
    return int(digits)


def _fraction(text: str) -> float:
    value = float(text) if len(text) <= MAX_DIGITS else math.inf
    if math.isinf(value):
        raise DecodeError("a number must be within the range of a float")
    return value


def _constant(name: str) -> Any:
    raise DecodeError(f"{name} must not stand in JSON")


def parse_json(body: bytes) -> Any:
    """Return the JSON value of `body`, with or without a byte order mark.

    :raises DecodeError: for every other content: NaN, 1e999, numbers of more than 100 digits, nesting beyond the
        recursion limit, bytes that are not UTF-8, escapes that are a lone surrogate.
    """
    try:
        # Not the codec "utf-8-sig": it is imported on first use, which fails if no file descriptor is free.
        value = json.loads(
            body.removeprefix(_BOM).decode(), parse_int=_whole, parse_float=_fraction, parse_constant=_constant
        )
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError("nested too deeply") from None
    except ValueError as error:
        raise DecodeError(str(error) if body.strip() else "empty") from None


def expect_type(kind: type | UnionType, value: object) -> None:
    """Raise TypeError unless *value* is a *kind*. Guards against third-party providers and transports."""
    if not isinstance(value, kind):
        raise TypeError(f"expected {getattr(kind, '__name__', kind)}, got {value!r}")
