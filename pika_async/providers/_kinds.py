"""Kinds of failures in people's terms, from the codes and words that a document lists. Judges and sends nothing."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from pika_async.errors.base import ErrorKind

__all__ = ["CODES", "PHRASES", "STATUSES", "kind_of_failure", "kind_of_transport_failure"]

#: Codes of failures by kind, each with its source. They count in the field for a code, and those of two words or more
#: also where a message spells them, with spaces or with underscores.
CODES: Final[dict[ErrorKind, dict[str, str]]] = {
    "moderation": {
        "content_moderation": "Pika's API",
        "content_policy_violation": "fal",
        "sensitive_words_detected": "new-api",
        "prompt_blocked": "new-api",
        "violation_fee.grok.csam": "new-api",
    },
    "balance": {
        "insufficient_user_quota": "new-api",
        "pre_consume_token_quota_failed": "new-api",
        "insufficient_quota": "the gateways",
        "insufficient_balance": "Pika's API",
        "quota_not_enough": "the gateways",
        "user_quota_is_not_enough": "the gateways",
        "membership_required": "Pika's API",
        "cycle_limit_exceeded": "Pika's API",
        "usage_limit_exceeded": "Pika's API",
    },
    "invalid": {
        "invalid_input": "Pika's API",
        "invalid_request": "CometAPI",
        "bad_request_body": "new-api",
        "invalid_api_key": "the gateways",
        "token_is_invalid": "the gateways",
        "token_expired": "the gateways",
    },
    "timeout": {
        "request_timeout": "fal",
        "startup_timeout": "fal",
        "runner_connection_timeout": "fal",
        "provider_timeout": "Pika's API",
        "timed_out": "Pika's API",
        "channel:response_time_exceeded": "new-api",
    },
    "provider": {
        "provider_error": "Pika's API",
        "provider_unavailable": "Pika's API",
        "rate_limited": "Pika's API",
        "internal": "Pika's API",
        "runner_scheduling_failure": "fal",
        "runner_disconnected": "fal",
        "runner_connection_refused": "fal",
        "runner_connection_error": "fal",
        "runner_incomplete_response": "fal",
        "runner_server_error": "fal",
        "internal_error": "fal",
        "do_request_failed": "new-api",
        "get_channel_failed": "new-api",
        "bad_response": "new-api",
        "bad_response_body": "new-api",
        "bad_response_status_code": "new-api",
        "empty_response": "new-api",
        "channel:no_available_key": "new-api",
    },
}
#: Words of messages by kind, in lower case, each with its source.
PHRASES: Final[dict[ErrorKind, dict[str, str]]] = {
    "balance": {
        "quota is not enough": "the gateways",
        "balance is not enough": "the gateways",
        "exhausted balance": "fal",
        "余额不足": "the gateways",
        "额度不足": "the gateways",
    },
    "invalid": {"token is invalid": "the gateways", "无效的令牌": "the gateways", "token expired": "the gateways"},
    "provider": {"no available channel": "CometAPI"},
}
#: HTTP statuses by kind, where neither a code nor a word decides; the others are "other".
STATUSES: Final[dict[int, ErrorKind]] = {
    400: "invalid", 401: "invalid", 402: "balance", 407: "network", 408: "timeout", 413: "invalid", 415: "invalid",
    422: "invalid", 429: "provider", 500: "provider", 502: "provider", 503: "provider", 504: "timeout", 524: "timeout",
}  # fmt: skip
#: Kinds of `TransportFailure` that are those of a network; the others are named below.
_NETWORK: Final = frozenset({
    "certificate", "connect", "cut", "disconnected", "dns", "malformed", "other", "proxy", "tls",
})  # fmt: skip


def _normal(text: str) -> str:
    """Return the words of a code or a message, joined by underscores."""
    return re.sub(r"[\s_.:-]+", "_", text.strip().lower())


_KIND_BY_CODE: Final[dict[str, ErrorKind]] = {_normal(code): kind for kind, codes in CODES.items() for code in codes}


@cache
def _patterns() -> list[tuple[re.Pattern[str], ErrorKind]]:
    """Return the codes within a message, then the phrases. Compiled at the first failure: most processes see none."""
    codes: list[tuple[re.Pattern[str], ErrorKind]] = [
        (re.compile(rf"(?<![^\W_]){re.escape(code)}(?![^\W_])"), kind)
        for code, kind in _KIND_BY_CODE.items()
        if "_" in code
    ]
    phrases: list[tuple[re.Pattern[str], ErrorKind]] = [
        (re.compile(re.escape(_normal(phrase))), kind) for kind, texts in PHRASES.items() for phrase in texts
    ]
    return codes + phrases


def kind_of_failure(code: str | None, message: str, status: int | None = None) -> ErrorKind:
    """Return the kind of a refusal or of a failed generation: by its code, else by its words, else by its status.

    :param code: the failure's own code, a word; None if it has none.
    :param status: the HTTP status, or the number in the body that stands for one.
    """
    kind = _KIND_BY_CODE.get(_normal(code or ""))
    if kind is not None:
        return kind
    words = _normal(f"{code or ''} {message}")
    for pattern, found in _patterns():
        if pattern.search(words):
            return found
    return STATUSES.get(status or 0, "other")


def kind_of_transport_failure(kind: str) -> ErrorKind:
    """Return the kind of a call without an answer, from the kind of its `TransportFailure`."""
    if kind == "timeout":
        return "timeout"
    if kind == "url":
        return "invalid"
    return "network" if kind in _NETWORK else "other"
