"""Errors of calls to a client that is not open, or is open in another event loop. Such a call does nothing."""

from __future__ import annotations

import attrs

from pika_async.errors.base import PikaError


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ClientNotOpen(PikaError, RuntimeError):  # noqa: N818
    """A call to a client before it is opened or after it is closed."""

    def _text(self) -> str:
        return "the client is not open: use it inside `async with`, or call `open()` first"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class WrongEventLoop(PikaError, RuntimeError):  # noqa: N818
    """A call in another event loop than the client's, or in one that is not of asyncio; `reason` says which."""

    reason: str

    def _text(self) -> str:
        return self.reason
