"""Signatures of fal's webhooks: ED25519 keys, the headers of a webhook, the document of the public keys.

``cryptography`` is imported at the first signature.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["RETRY_SECONDS", "WebhookSigner"]

USER_ID = "emulated-user"
#: Waits before each repetition of a webhook that was not answered, in seconds: 2 hours in all.
RETRY_SECONDS = (10, 30, 60, 120, 300, 600, 1200, 1800, 3000)


@attrs.frozen
class WebhookSigner:
    """Signer of one emulator's webhooks; its key depends on the emulator's seed."""

    seed: int

    def headers(self, request_id: str, timestamp: int, body: bytes, *, is_forged: bool = False) -> dict[str, str]:
        """Return the headers of a webhook.

        :param timestamp: unix time in seconds.
        :param is_forged: whether to sign with a key that the document of public keys does not hold.
        :raises ModuleNotFoundError: if ``cryptography`` is not installed.
        """
        digest = hashlib.sha256(body).hexdigest()
        message = f"{request_id}\n{USER_ID}\n{timestamp}\n{digest}".encode()
        return {
            "X-Fal-Webhook-Request-Id": request_id,
            "X-Fal-Webhook-User-Id": USER_ID,
            "X-Fal-Webhook-Timestamp": str(timestamp),
            "X-Fal-Webhook-Signature": self._key("forged" if is_forged else "webhook").sign(message).hex(),
        }

    def public_keys(self) -> dict[str, Any]:
        """Return the JSON Web Key Set of the public keys: an older one that signs nothing, and the one in use."""
        return {"keys": [self._public_key("older"), self._public_key("webhook")]}

    def _public_key(self, purpose: str) -> dict[str, str]:
        raw = self._key(purpose).public_key().public_bytes_raw()
        x = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": f"emulator-{purpose}", "x": x}

    def _key(self, purpose: str) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - only webhooks need it
            Ed25519PrivateKey,
        )

        return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{self.seed}:{purpose}".encode()).digest())
