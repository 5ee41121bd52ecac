"""Options for callbacks, the listener that they describe, and its messages. Never shows a callback token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import attrs
from cyclopts import Parameter
from yarl import URL

from pika_async._http.addresses import is_loopback
from pika_async._http.callbacks import CallbackReceiver
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.exits import UsageError
from pika_async.cli.words import counted
from pika_async.errors import shorten
from pika_async.jobs import Job

__all__ = ["CallbackListener", "CallbackOptions"]

DEFAULT_HOST: Final = "127.0.0.1"
#: The port in the examples of ngrok and Caddy.
DEFAULT_PORT: Final = 8080
_HOST_PORT: Final = re.compile(r"(?:(\[[^\[\]]+\]|[^:\[\]]*):)?([0-9]{1,5})", re.ASCII)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class CallbackOptions:
    """How a gateway that calls back reaches this machine."""

    callbacks: str | None = None
    """Public URL for callbacks, forwarded to --listen, such as https://example.com/pika. A callback makes its job
    polled at once, and recovers a submission whose response was lost."""
    listen: str | None = None
    """HOST:PORT or PORT to listen on for callbacks, without TLS. [default: 127.0.0.1:8080, or the address in
    --callbacks if that is plain http on a loopback address]"""


@attrs.frozen
class CallbackListener:
    """A callback receiver and its local address, as HOST:PORT."""

    receiver: CallbackReceiver
    address: str

    @classmethod
    def from_options(cls, options: BatchOptions) -> CallbackListener | None:
        """Return the listener that `options` describe, or None without a public URL.

        :raises ConfigurationError: if the public URL cannot work.
        :raises UsageError: if the local address cannot work, or is given without a public URL.
        """
        if options.callbacks is None:
            if options.listen is not None:
                raise UsageError(
                    f"--listen: {shorten(options.listen)} must be given with --callbacks URL, the public address that "
                    "leads there"
                )
            return None
        host, port = _default_address(options.callbacks) if options.listen is None else _parse_address(options.listen)
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return cls(CallbackReceiver(options.callbacks, host=host, port=port), shown)

    @property
    def announcement(self) -> str:
        """Message for the start of a command."""
        return f"callbacks: public URL {self.receiver.public_url}/callbacks/...; listening on {self.address}"

    def summary(self, jobs: Sequence[Job], started_at: datetime) -> list[str]:
        """Return the summary lines for the end of a command that began at `started_at`."""
        received, refused = self.receiver.received, self.receiver.refused
        settled = sum(
            job.submitted_at is not None and started_at <= job.submitted_at and job.settled_at is not None
            for job in jobs
        )
        if received or not settled:
            return [f"callbacks: {received or 'none'} received"]
        settled_text = counted(settled, "submitted job has", "submitted jobs have")
        lines = [
            f"callbacks: none received, although {settled_text} settled",
            f"  is {self.receiver.public_url} reachable from where the gateway is, and forwarded to {self.address}?",
        ]
        if refused:
            lines.append(f"  requests that match none of these jobs: {refused}; is the path forwarded unchanged?")
        return lines


def _default_address(public: str) -> tuple[str, int]:
    """Return the default address to listen on: the public one if that is http on loopback, else `DEFAULT_PORT`."""
    try:
        url = URL(public)
        if url.scheme == "http" and is_loopback(url) and url.port:
            return (DEFAULT_HOST if url.host == "localhost" else str(url.host)), url.port
    except ValueError:
        pass  # the receiver raises the error that says what is wrong
    return DEFAULT_HOST, DEFAULT_PORT


def _parse_address(listen: str) -> tuple[str, int]:
    match = _HOST_PORT.fullmatch(listen)
    if match is None:
        raise UsageError(
            f"--listen: {shorten(listen)} must be HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080, or a PORT of "
            "127.0.0.1"
        )
    port = int(match[2])
    if not 1 <= port <= 65_535:
        raise UsageError(f"--listen: {port} must be a port from 1 to 65535")
    return (match[1] or DEFAULT_HOST).strip("[]"), port
