"""Where a command listens for callbacks: its two options, and what a person is told of it. Never shows a token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import attrs
from cyclopts import Parameter
from yarl import URL

from pika_async._http.transport import is_loopback
from pika_async.callbacks import CallbackReceiver
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.exits import UsageError
from pika_async.errors import shorten
from pika_async.jobs import Job

__all__ = ["CallbackListener", "CallbackOptions"]

DEFAULT_HOST: Final = "127.0.0.1"
#: Where those who make an address public forward to in their own examples.
DEFAULT_PORT: Final = 8080
_HOST_PORT: Final = re.compile(r"(?:(\[[^\[\]]+\]|[^:\[\]]*):)?([0-9]{1,5})", re.ASCII)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class CallbackOptions:
    """Where a gateway that calls back reaches this machine."""

    callbacks: str | None = None
    """The public address that leads to --listen, such as https://example.com/pika. Each submission is given an address
    below it; a callback there has its job looked at at once, and a lost answer is found again."""
    listen: str | None = None
    """HOST:PORT or PORT, where what arrives at the public address is forwarded to (without TLS); 127.0.0.1:8080
    unless given, or that of --callbacks itself if it is http at a loopback address."""


@attrs.frozen
class CallbackListener:
    """A receiver, and where it listens, as it is written."""

    receiver: CallbackReceiver
    address: str

    @classmethod
    def from_options(cls, options: BatchOptions) -> CallbackListener | None:
        """What `terms` ask for; None if they ask for nothing.

        :raises ConfigurationError: if the public address cannot work.
        :raises UsageError: if the place cannot, or there is no public address for it.
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
        """The line for the beginning."""
        return f"callbacks: the gateway is told {self.receiver.public_url}/callbacks/...; listening on {self.address}"

    def summary(self, jobs: Sequence[Job], began: datetime) -> list[str]:
        """The lines for the end of a command that began then."""
        came, strange = self.receiver.received, self.receiver.refused
        here = sum(
            job.submitted_at is not None and began <= job.submitted_at and job.settled_at is not None for job in jobs
        )
        if came or not here:
            return [f"callbacks: {came or 'none'} came"]
        told = [
            f"callbacks: none came, though {here} of the jobs sent now have settled",
            f"  is {self.receiver.public_url} reachable from where the gateway is, and forwarded to {self.address}?",
        ]
        if strange:
            told.append(f"  requests for none of these jobs came: {strange}; is the path forwarded as it is?")
        return told


def _default_address(public: str) -> tuple[str, int]:
    """Where to listen unless it is said: TLS is for whoever stands in front."""
    try:
        url = URL(public)
        if url.scheme == "http" and is_loopback(url) and url.port:
            return (DEFAULT_HOST if url.host == "localhost" else str(url.host)), url.port
    except ValueError:
        pass  # the receiver says what is wrong with it
    return DEFAULT_HOST, DEFAULT_PORT


def _parse_address(listen: str) -> tuple[str, int]:
    found = _HOST_PORT.fullmatch(listen)
    if found is None:
        raise UsageError(
            f"--listen: {shorten(listen)} is no place to listen on; give HOST:PORT, such as 127.0.0.1:8080 or "
            "[::1]:8080, or a PORT of 127.0.0.1"
        )
    port = int(found[2])
    if not 1 <= port <= 65_535:
        raise UsageError(f"--listen: {port} is no port that can be forwarded to; give one from 1 to 65535")
    return (found[1] or DEFAULT_HOST).strip("[]"), port
