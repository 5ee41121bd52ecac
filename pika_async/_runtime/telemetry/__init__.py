"""What an open client tells OpenTelemetry: spans of jobs and calls, counters, times. Without its package, nothing.

A line for each call that the rest of the house makes is in `silent`; what they say where somebody may listen is in
`recording`, the only file that knows OpenTelemetry. Only its API package is used: where spans and metrics go is for the
application to say.
"""

from __future__ import annotations

import logging

from pika_async._runtime.telemetry.null import NullTelemetry, RequestKind
from pika_async.errors import strip_control
from pika_async.providers._provider import Provider

__all__ = ["NullTelemetry", "RequestKind", "create_telemetry"]

_log = logging.getLogger("pika_async.telemetry")


def create_telemetry(provider: Provider, base_url: str) -> NullTelemetry:
    """The telemetry of one open client, from the global providers; silent where the extra `otel` is not installed.

    What is installed and cannot be used is silent too, and said once: no job depends on it.
    """
    try:
        from pika_async._runtime.telemetry.otel import OtelTelemetry  # noqa: PLC0415 - an extra

        return OtelTelemetry(provider, base_url)
    except Exception as error:
        if not isinstance(error, ModuleNotFoundError) or not (error.name or "").startswith("opentelemetry"):
            _log.warning("OpenTelemetry cannot be used; nothing is told to it: %s", strip_control(repr(error)))
        return NullTelemetry()
