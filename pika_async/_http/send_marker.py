"""Marker of a request: whether its headers were written. Decides nothing.

Of a submission it is the proof of "not sent": aiohttp's tracing sets it before the first byte goes to the connection.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aiohttp
import attrs

from pika_async._http.answer_timeout import AnswerTimeout

__all__ = ["SendMarker", "marking_trace_config"]


@attrs.define
class SendMarker:
    """Facts of one request: whether its headers were written to its connection, and whether that was a kept one."""

    timeout: AnswerTimeout
    sent: bool = False
    reused: bool = False

    def on_connected(self, reused: bool) -> None:
        """Note the connection of a free request, whose headers are written at once."""
        self.sent, self.reused = True, reused
        self.timeout.touch()


def marking_trace_config() -> aiohttp.TraceConfig:
    """Return a frozen trace configuration that sets the `SendMarker` which a request has as its trace context."""
    config = aiohttp.TraceConfig()
    config.on_request_headers_sent.append(_on_headers_sent)
    config.on_request_chunk_sent.append(_on_chunk_sent)
    config.on_connection_reuseconn.append(_on_connection_reused)
    config.on_connection_create_end.append(_on_connection_created)
    config.freeze()
    return config


async def _on_headers_sent(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    marker = context.trace_request_ctx
    if isinstance(marker, SendMarker):
        marker.sent = True
        marker.timeout.touch()


async def _on_chunk_sent(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    if isinstance(context.trace_request_ctx, SendMarker):
        context.trace_request_ctx.timeout.touch()


async def _on_connection_reused(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    if isinstance(context.trace_request_ctx, SendMarker):
        context.trace_request_ctx.reused = True


async def _on_connection_created(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    if isinstance(context.trace_request_ctx, SendMarker):
        context.trace_request_ctx.reused = False
