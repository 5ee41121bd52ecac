"""Codes and phrases of refusals, as gateways of this family (new-api and its forks) write them. Judges nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "NO_QUOTA",
    "PLAIN_REFUSALS",
    "UNREACHED",
    "fingerprint",
    "has_no_channel",
    "is_account_code",
    "is_account_phrase",
    "is_busy_code",
    "is_request_code",
    "is_wrong_path",
    "model_in",
]

#: Numbers of failures after which nothing was done: for the request's or the account's sake, or for now...
PLAIN_REFUSALS: Final = frozenset({400, 401, 402, 403, 404, 405, 407, 409, 413, 415, 421, 422, 425, 429})
#: ... or because the gateway was not reached or has no room.
UNREACHED: Final = frozenset({503, 521, 523, 525, 526, 530})
#: A refusal before anything is done, under any status.
NO_QUOTA: Final = "insufficient_user_quota"
_BALANCE_CODES: Final = frozenset({
    NO_QUOTA, "insufficient_quota", "insufficient_balance", "insufficient_credits", "quota_not_enough",
    "balance_not_enough", "user_quota_is_not_enough", "token_quota_is_not_enough", "pre_consume_token_quota_failed",
})  # fmt: skip
_KEY_CODES: Final = frozenset({
    "invalid_api_key", "incorrect_api_key", "invalid_token", "token_is_invalid", "token_invalid", "token_expired",
    "expired_token", "无效的令牌", "令牌已过期",
})  # fmt: skip
#: In messages, in lower case. They count beside a code or a status that refuses, never in a 5xx.
_ACCOUNT_PHRASES: Final = (
    "quota is not enough", "balance is not enough", "quota not enough", "balance not enough", "insufficient quota",
    "insufficient balance", "insufficient credit", "insufficient user quota",
    "余额不足", "额度不足", "额度已用尽", "配额不足",
    "token is invalid", "token expired", "token is expired", "token has expired", "invalid api key",
    "incorrect api key", "无效的令牌", "令牌无效", "令牌已过期",
)  # fmt: skip
_NO_CHANNEL: Final = ("no available channel", "无可用渠道", "没有可用渠道", "没有可用的渠道")
_BUSY_CODES: Final = frozenset({
    "rate_limit", "rate_limited", "rate_limit_error", "rate_limit_exceeded", "rate_limit_reached", "too_many_requests",
})  # fmt: skip
#: Words of a code that say that the request is at fault.
_REQUEST_WORDS: Final = frozenset({
    "bad", "banned", "blocked", "content", "denied", "forbidden", "illegal", "image", "invalid", "large", "malformed",
    "missing", "moderation", "nsfw", "param", "parameter", "parameters", "params", "policy", "prompt", "refused",
    "rejected", "required", "risk", "safety", "sensitive", "unsafe", "unsupported", "validation", "violation",
})  # fmt: skip
#: Words of a code that speak of the gateway's upstream, and so of a request that may have been sent on.
_UPSTREAM_WORDS: Final = frozenset({"response", "upstream", "gateway", "server", "timeout"})
#: What stands between "model" and its name, or where no name follows.
_NO_NAMES: Final = frozenset({
    "a", "and", "are", "at", "but", "by", "can", "cannot", "currently", "does", "failed", "for", "has", "have", "id",
    "in", "is", "may", "name", "not", "of", "on", "or", "provider", "provided", "request", "requests", "service",
    "that", "the", "this", "to", "under", "was", "with", "you", "your",
})  # fmt: skip
_MODEL: Final = re.compile(r"(?:\bmodels?\b|模型)\s*[:：=]?\s*[\"'`“「]?([a-z0-9][\w./:@-]{0,99})", re.IGNORECASE)  # noqa: RUF001
#: Parts of a message that differ from answer to answer: ids, numbers, times.
_VARIABLE: Final = re.compile(r"[\w-]*\d[\w-]*")
#: How much of a message is compared, in characters.
_COMPARED: Final = 200


def _normal(code: str) -> str:
    return re.sub(r"[\s.:-]+", "_", code.strip().lower())


def is_account_code(code: str | None) -> bool:
    """Whether a code says that the key or the balance is at fault."""
    return code is not None and _normal(code) in _BALANCE_CODES | _KEY_CODES


def is_account_phrase(message: str) -> bool:
    """Whether a message says that the key or the balance is at fault."""
    text = message.lower()
    return any(phrase in text for phrase in _ACCOUNT_PHRASES)


def is_busy_code(code: str) -> bool:
    """Whether a code says that a limit on the rate of requests was exceeded."""
    return _normal(code) in _BUSY_CODES


def is_request_code(code: str) -> bool:
    """Whether a code says that the request itself is at fault."""
    words = set(_normal(code).split("_"))
    return bool(words & _REQUEST_WORDS) and not words & _UPSTREAM_WORDS


def has_no_channel(message: str) -> bool:
    """Whether a message says that no upstream takes the request now."""
    text = message.lower()
    return any(phrase in text for phrase in _NO_CHANNEL)


def is_wrong_path(message: str) -> bool:
    """Whether the message of a 404 says that the gateway has no such path: `RelayNotFound` of one-api and new-api."""
    return message.lower().startswith("invalid url (")


def model_in(message: str, body: Any) -> str | None:
    """Return the model that a refusal names, in its message or in a field `model`; None if it names none."""
    names: list[str] = [name.rstrip(".:") for name in _MODEL.findall(message)]
    named = next((name for name in names if name.lower() not in _NO_NAMES), None)
    if named is not None:
        return named
    for holder in (body.get("error"), body) if isinstance(body, Mapping) else ():
        name = holder.get("model") if isinstance(holder, Mapping) else None
        if isinstance(name, str) and 0 < len(name.strip()) <= 100:
            return name.strip()
    return None


def fingerprint(status: int, code: str | None, message: str) -> str:
    """Return the status, the code and the words of a refusal, without what differs from answer to answer."""
    words = _VARIABLE.sub("", message.lower()[: 4 * _COMPARED])
    return f"{status} {code or ''} {' '.join(words.split())[:_COMPARED]}".strip()
