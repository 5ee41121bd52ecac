"""Telemetry: spans of jobs and requests, counters and durations, through OpenTelemetry.

`null` is the interface and the default. `otel`, the only module that imports OpenTelemetry, records. It uses the API
package only: the application configures where spans and metrics are exported.
"""

from __future__ import annotations

import logging

from pika_async._runtime.telemetry.null import NullTelemetry, RequestKind
from pika_async.errors import strip_control
from pika_async.providers._provider import Provider

__all__ = ["NullTelemetry", "RequestKind", "create_telemetry"]

_log = logging.getLogger("pika_async.telemetry")


def create_telemetry(provider: Provider, base_url: str) -> NullTelemetry:
    """Return telemetry that uses OpenTelemetry's global providers, or none if the extra `otel` is not installed.

    If OpenTelemetry is installed but unusable, log a warning and return no telemetry: jobs do not depend on it.
    """
    try:
        from pika_async._runtime.telemetry.otel import OtelTelemetry  # noqa: PLC0415 - an extra

        return OtelTelemetry(provider, base_url)
    except Exception as error:
        if not isinstance(error, ModuleNotFoundError) or not (error.name or "").startswith("opentelemetry"):
            _log.warning("OpenTelemetry cannot be used; no telemetry is recorded: %s", strip_control(repr(error)))
        return NullTelemetry()
