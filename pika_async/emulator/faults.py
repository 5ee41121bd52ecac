"""Faults that a scenario may name: where each applies and which options it has. Does not apply them.

On a create, most faults take ``"charge": true | false``: whether the task is accepted and charged despite the fault.
Seconds are multiplied by the emulator's ``time_scale``.

===================  ================================================================================================
any answer           create, feed, result, cancel, upload, account, cdn
===================  ================================================================================================
``answer``           ``status``, ``headers``, ``body`` (text or JSON; ``{task_id}`` is replaced); not charged
``body``             the regular answer with an unexpected ``kind`` of body (see below), of ``size``; charged
``redirect``         ``status`` 301 302 303 307 308 to ``location``; not charged
``drop``             no answer: ``how`` fin or rst, ``when`` before-reply (charged) or before-read (not charged)
``delay``            the regular answer after ``seconds``; charged
``stall``            no answer for ``seconds`` (null: until the client disconnects), then closed; charged
``cut``              the regular answer cut ``at`` headers or body, after a ``fraction``, ``how`` fin or rst, with
                     or without its ``length``; charged
``body-stall``       the headers and a ``fraction`` of the body, then as ``stall``; charged
``garbage-status``   ``line`` in place of the status line; charged
``oversized-header`` the regular answer with an additional header of ``size`` bytes; charged
``bad-chunk``        a chunked body whose first chunk has no size; charged
===================  ================================================================================================

Kinds of ``body``: html empty bom nan infinity huge-int deep lone-surrogate gzip-bomb not-json not-utf8 list wrong-type.
===================  ================================================================================================
any answer of the API (not the CDN)
===================  ================================================================================================
``refuse``           ``as`` rate (429), quota (403), key (401), forbidden (403), envelope (200 with code 400), invalid
                     (500), no-channel (503), task (400), with ``retry_after`` as the value of the header; not charged.
                     Pika's own API and fal answer in their own forms, quota with 402 and 403
``die``              the provider is down from now on, for ``seconds`` (null: for good): this and every later request is
                     answered with ``status``; with null this one is cut off and later connections are refused; not
                     charged
===================  ================================================================================================

===================  ================================================================================================
create               always charged
===================  ================================================================================================
``duplicate-id``     the answer carries the id of the provider's first task
``fails``            the task will fail with a ``reason`` and, where the wire has codes, a ``code``; ``at_once``: it has
                     failed when the create is answered
``takes``            the task will take ``seconds``
===================  ================================================================================================

===================  ================================================================================================
feed
===================  ================================================================================================
``word``             ``word`` as the status (null: no status)
``no-url``           a success without URLs (also ``result``)
``other-task``       the answer for another task
``unfinish``         a settled task is pending again
``vanish``           the task does not exist
``progress``         ``mode`` stuck at ``value``, late (0 until nine tenths), faked (100 % at an age of ``seconds``), or
                     value (always ``value``)
``hostile-name``     ``name`` as the video's file name (also ``result``)
``link``             ``url`` as the video's URL (also ``result``)
``output``           the output of Pika's own API in ``shape`` video, videos, images or content (a request of its own)
``envelope``         CometAPI's answer in ``shape`` a, b, b-old, c or c-result
``wrap``             the answer within ``times`` objects more, each under ``data``
``other-id``         the task under another id, the same on every answer
``echo``             ``size`` bytes of an image, as of the request, beside the answer's fields
===================  ================================================================================================

===================  ================================================================================================
cdn
===================  ================================================================================================
``etag``             a different ETag each time
``expired``          ``status`` as for an expired URL
``no-range``         ranges are ignored
``wrong-range``      a range starts ``shift`` bytes off
``endless``          the body is repeated without a length
===================  ================================================================================================

===================  ================================================================================================
cancel
===================  ================================================================================================
``too-late``         the request is accepted, and the task goes on to its end
===================  ================================================================================================

===================  ================================================================================================
callback
===================  ================================================================================================
``lost``             never sent
``repeat``           sent ``times`` times
``late``             sent ``seconds`` after settling
``early``            sent at once, before the create is answered if that is delayed
``forged``           ``body`` instead, by default the success of a task that does not exist (fal: one that fal's key
                     did not sign)
===================  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import attrs

__all__ = ["FAULTS", "Fault", "find_bad_option", "is_number"]

_API = frozenset({"create", "feed", "result", "cancel", "upload", "account"})
_ANYWHERE = _API | {"cdn"}
_CREATE = frozenset({"create"})
_FEED = frozenset({"feed"})
_RESULT = frozenset({"feed", "result"})
_CANCEL = frozenset({"cancel"})
_CDN = frozenset({"cdn"})
_CALLBACK = frozenset({"callback"})

#: Every fault: where it may apply, and its options with their defaults.
FAULTS: dict[str, tuple[frozenset[str], dict[str, Any]]] = {
    "answer": (_ANYWHERE, {"status": 200, "headers": {}, "body": "", "charge": False}),
    "refuse": (_API, {"as": "rate", "retry_after": None, "charge": False}),
    "body": (_ANYWHERE, {"kind": "html", "size": None, "charge": True}),
    "redirect": (_ANYWHERE, {"status": 307, "location": "http://127.0.0.1:9/elsewhere", "charge": False}),
    "drop": (_ANYWHERE, {"when": "before-reply", "how": "fin", "charge": None}),
    "delay": (_ANYWHERE, {"seconds": 30.0, "charge": True}),
    "stall": (_ANYWHERE, {"seconds": None, "charge": True}),
    "cut": (_ANYWHERE, {"at": "body", "fraction": 0.5, "length": True, "how": "fin", "charge": True}),
    "body-stall": (_ANYWHERE, {"fraction": 0.5, "seconds": None, "charge": True}),
    "garbage-status": (_ANYWHERE, {"line": "HTTQ/9 what", "charge": True}),
    "oversized-header": (_ANYWHERE, {"size": 70_000, "charge": True}),
    "bad-chunk": (_ANYWHERE, {"charge": True}),
    "die": (_API, {"status": None, "seconds": None, "charge": False}),
    "duplicate-id": (_CREATE, {}),
    "fails": (
        _CREATE,
        {"reason": "the content was refused by moderation", "code": "content_moderation", "at_once": False},
    ),
    "takes": (_CREATE, {"seconds": 600.0}),
    "word": (_FEED, {"word": "paused"}),
    "no-url": (_RESULT, {}),
    "other-task": (_FEED, {}),
    "unfinish": (_FEED, {}),
    "vanish": (_FEED, {}),
    "progress": (_FEED, {"mode": "stuck", "value": 0, "seconds": 30.0}),
    "hostile-name": (_RESULT, {"name": "../../../../etc/cron.d/pika\u202egpj.mp4"}),
    "link": (_RESULT, {"url": "http://169.254.169.254/latest/meta-data"}),
    "envelope": (_FEED, {"shape": "b"}),
    "output": (_FEED, {"shape": "videos"}),
    "wrap": (_FEED, {"times": 1}),
    "other-id": (_FEED, {}),
    "echo": (_FEED, {"size": 2 * 2**20}),
    "too-late": (_CANCEL, {}),
    "etag": (_CDN, {}),
    "expired": (_CDN, {"status": 403}),
    "no-range": (_CDN, {}),
    "wrong-range": (_CDN, {"shift": 1}),
    "endless": (_CDN, {}),
    "lost": (_CALLBACK, {}),
    "repeat": (_CALLBACK, {"times": 2}),
    "late": (_CALLBACK, {"seconds": 30.0}),
    "early": (_CALLBACK, {}),
    "forged": (_CALLBACK, {"body": None}),
}

_CHOICES: dict[tuple[str, str], tuple[Any, ...]] = {
    ("drop", "when"): ("before-read", "before-reply"),
    ("drop", "how"): ("fin", "rst"),
    ("cut", "how"): ("fin", "rst"),
    ("cut", "at"): ("headers", "body"),
    ("progress", "mode"): ("stuck", "late", "faked", "value"),
    ("redirect", "status"): (301, 302, 303, 307, 308),
    ("refuse", "as"): ("rate", "quota", "key", "forbidden", "envelope", "invalid", "no-channel", "task"),
    ("output", "shape"): ("video", "videos", "images", "content"),
    ("envelope", "shape"): ("a", "b", "b-old", "c", "c-result"),
    ("body", "kind"): (
        *("html", "empty", "bom", "nan", "infinity", "huge-int", "deep", "lone-surrogate"),
        *("gzip-bomb", "not-json", "not-utf8", "list", "wrong-type"),
    ),
}


@attrs.frozen
class Fault:
    """Fault with a value for each of its options."""

    name: str
    options: Mapping[str, Any]

    def __getitem__(self, option: str) -> Any:
        return self.options[option]

    @property
    def charges(self) -> bool:
        """Whether a create with this fault is charged."""
        charge = self.options.get("charge", True)
        if charge is None:  # a drop is charged unless the request was not read
            return bool(self.options.get("when") != "before-read")
        return bool(charge)


def find_bad_option(fault: str, option: str, value: object) -> str | None:
    """Return what is wrong with the value of a fault's option, or ``None``."""
    default = FAULTS[fault][1][option]
    choices = _CHOICES.get((fault, option))
    if choices is not None:
        return None if value in choices else f"must be one of {', '.join(map(str, choices))}, not {value!r}"
    if value is None and (default is None or option == "word"):
        return None
    kind, is_valid = _OPTIONS.get(option, ("", None))
    return None if is_valid is None or is_valid(value) else f"must be {kind}, not {value!r}"


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a JSON value is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_headers(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    parts = [part for header in value.items() for part in header]
    return all(isinstance(part, str) and "\r" not in part and "\n" not in part for part in parts)


_OPTIONS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "charge": ("true or false", lambda value: isinstance(value, bool)),
    "at_once": ("true or false", lambda value: isinstance(value, bool)),
    "length": ("true or false", lambda value: isinstance(value, bool)),
    "status": ("an HTTP status", lambda value: _is_integer(value) and value in range(200, 600)),
    "size": ("an integer >= 1", lambda value: _is_integer(value) and value > 0),
    "times": ("an integer >= 0", lambda value: _is_integer(value) and value >= 0),
    "shift": ("an integer", _is_integer),
    "seconds": ("a number of seconds >= 0", lambda value: is_number(value) and value >= 0),
    "fraction": ("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1),
    "headers": ("an object of strings", _is_headers),
    **dict.fromkeys(("word", "name", "url", "location", "line", "reason", "code"), ("a string", _is_string)),
}
