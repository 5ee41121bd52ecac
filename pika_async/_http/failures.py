"""Classification of the exceptions with which a request ends before its answer. Sends nothing."""

from __future__ import annotations

import ssl
from typing import Final

import aiohttp

from pika_async.providers._wire import SendPhase, TransportFailure

__all__ = ["classify_exception"]

#: Errors raised before anything was sent, unless the marker was set.
_UNSENT_ERRORS: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.ServerFingerprintMismatch,
)
#: Errors raised after something was sent, whether or not the marker was set.
_SENT_ERRORS: Final = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientResponseError,
    aiohttp.ClientPayloadError,
    aiohttp.SocketTimeoutError,
)
#: Kinds of failure by exception class; the first match counts, so subclasses come before their bases.
_FAILURE_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (aiohttp.ClientConnectorCertificateError, "certificate"),
    (aiohttp.ServerFingerprintMismatch, "certificate"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientProxyConnectionError, "proxy"),
    (aiohttp.ClientHttpProxyError, "proxy"),
    (aiohttp.ClientConnectorSSLError, "tls"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.InvalidURL, "url"),
    (aiohttp.NonHttpUrlClientError, "url"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ServerDisconnectedError, "disconnected"),
    (aiohttp.ClientPayloadError, "cut"),
    (aiohttp.ClientResponseError, "malformed"),
    (OSError, "disconnected"),
    (aiohttp.ClientError, "other"),
)


def classify_exception(error: BaseException, *, sent: bool) -> TransportFailure:
    """Return the failure for an exception that was raised before the status line.

    :param sent: whether the marker was set. If the exception class and the marker disagree, the request counts as sent,
        since sending a paid request again could be charged twice.
    """
    reached = isinstance(error, _SENT_ERRORS) and not isinstance(error, _UNSENT_ERRORS)
    kind = next((kind for cls, kind in _FAILURE_KINDS if isinstance(error, cls)), "other")
    return TransportFailure(
        phase=SendPhase.SENT if sent or reached else SendPhase.UNSENT, kind=kind, detail=_describe(error, kind)
    )


def _describe(error: BaseException, kind: str) -> str:
    """Describe the error without aiohttp's text, which may hold request headers."""
    words = {
        "timeout": "no answer in time", "disconnected": "the connection was closed before an answer",
        "malformed": "the answer was not valid HTTP", "cut": "the answer was cut", "url": "the address is not valid",
        "certificate": "the certificate of the host is not valid", "dns": "the host name was not found",
        "proxy": "the proxy could not be used", "tls": "the TLS handshake failed", "connect": "could not connect",
    }.get(kind, "the connection failed")  # fmt: skip
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{words}: {getattr(cause, 'verify_message', 'refused')}"  # only OpenSSL's own errors have a message
    if isinstance(cause, OSError) and cause.strerror and kind in {"connect", "dns", "proxy", "disconnected"}:
        return f"{words}: {cause.strerror}"
    return f"{words} ({type(error).__name__})"
