"""Signatures of fal's webhooks: ED25519 over the request, the user, the time and the hash of the body. Pure."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

from pika_async.providers._signatures import CallbackSignature, SignatureVerdict

__all__ = ["FAL_SIGNATURE", "MAX_CLOCK_DIFFERENCE_S"]

#: The largest difference between the time of a webhook and ours, in seconds, either way.
MAX_CLOCK_DIFFERENCE_S: Final = 300
_HEADERS: Final = ("x-fal-webhook-request-id", "x-fal-webhook-user-id", "x-fal-webhook-timestamp")
_SIGNATURE: Final = "x-fal-webhook-signature"
#: In bytes.
_KEY_LENGTH: Final = 32
#: In bytes.
_SIGNATURE_LENGTH: Final = 64
#: Keys of a document that are used. fal publishes a few.
_MAX_KEYS: Final = 20
#: Digits of a time in seconds.
_MAX_DIGITS: Final = 12


def check_signature(headers: Mapping[str, str], body: bytes, now: float, keys: Sequence[bytes]) -> SignatureVerdict:
    """Return the verdict on a webhook. One that is repeated within the time is valid: it only causes a poll.

    :param headers: by lower-case name.
    :param now: unix seconds.
    :param keys: public keys, 32 bytes each. No header names the one that was used.
    """
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra, for clients with callbacks alone
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - as above

    parts = [headers.get(name, "") for name in _HEADERS]
    try:
        signature = bytes.fromhex(headers.get(_SIGNATURE, ""))
    except ValueError:
        return SignatureVerdict.INVALID
    if not all(parts) or len(signature) != _SIGNATURE_LENGTH or not _is_recent(parts[2], now):
        return SignatureVerdict.INVALID
    text = "\n".join([*parts, sha256(body).hexdigest()]).encode("utf-8", "surrogateescape")
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
        except (InvalidSignature, ValueError):
            continue
        return SignatureVerdict.VALID
    return SignatureVerdict.UNKNOWN_KEY


def _is_recent(time: str, now: float) -> bool:
    is_number = time.isascii() and time.isdecimal() and len(time) <= _MAX_DIGITS
    return is_number and abs(int(time) - now) <= MAX_CLOCK_DIFFERENCE_S


def read_keys(document: object) -> tuple[bytes, ...]:
    """Return the public keys in a JWK set; those of another kind, and what cannot be read, are left out."""
    rows = document.get("keys") if isinstance(document, dict) else None
    found = [key for row in rows if (key := _key(row)) is not None] if isinstance(rows, list) else []
    return tuple(found[:_MAX_KEYS])


def _key(row: object) -> bytes | None:
    text = row.get("x") if isinstance(row, dict) and row.get("crv", "Ed25519") == "Ed25519" else None
    if not isinstance(text, str):
        return None
    try:
        key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return key if len(key) == _KEY_LENGTH else None


FAL_SIGNATURE: Final = CallbackSignature(
    keys_url="https://rest.fal.ai/.well-known/jwks.json",
    keys_path="/.well-known/jwks.json",
    package="cryptography",
    extra="fal",
    check=check_signature,
    read_keys=read_keys,
)
