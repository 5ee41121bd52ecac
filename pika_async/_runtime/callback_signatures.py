"""Check of the signatures of callbacks, with the keys that a gateway publishes: fetched when they are needed, and kept.

Reads no job. Without a signature of its gateway every callback is taken: its token was checked before.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import anyio

from pika_async._http.document import DocumentUnavailable, get_document
from pika_async.errors import strip_control
from pika_async.providers._provider import Provider
from pika_async.providers._signatures import CallbackSignature, SignatureVerdict
from pika_async.providers._wire import DecodeError, parse_json

__all__ = ["CallbackSignatures"]

_log = logging.getLogger("pika_async.callback_signatures")

#: The shortest time between two requests for the keys, in seconds: forged callbacks must not cause more.
MIN_FETCH_INTERVAL_S: Final = 60.0
#: How long keys are used without asking whether they still hold, in seconds.
MAX_KEY_AGE_S: Final = 86_400.0


class CallbackSignatures:
    """Checks the signatures of the callbacks of one gateway.

    :param provider: the gateway.
    :param base_url: where it is.
    :param proxy: see `get_document`.
    :param fetch: returns the document at a URL (default: `get_document`).
    :param now: returns unix seconds.
    :param clock: returns monotonic seconds.
    """

    def __init__(
        self,
        provider: Provider,
        base_url: str,
        *,
        proxy: str | None = None,
        fetch: Callable[[str], Awaitable[bytes]] | None = None,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._signature: CallbackSignature | None = provider.callback_signature
        self._address = "" if self._signature is None else self._signature.keys_address(base_url, provider.base_url)
        self._fetch = fetch or partial(get_document, proxy=proxy)
        self._now = now
        self._clock = clock
        self._keys: tuple[bytes, ...] = ()
        self._asked_at = -math.inf
        self._fetched_at = -math.inf
        self._asking = anyio.Lock()

    @property
    def are_signed(self) -> bool:
        """Whether the gateway signs its callbacks."""
        return self._signature is not None

    @property
    def are_checked(self) -> bool:
        """Whether the gateway signs its callbacks."""
        return self._signature is not None

    async def is_authentic(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether the gateway itself sent a callback; True where it signs none.

        One whose keys cannot be fetched is not authentic now: its sender repeats it.

        :param headers: by lower-case name.
        """
        signature = self._signature
        if signature is None:
            return True
        if self._clock() - self._fetched_at > MAX_KEY_AGE_S:
            await self._refresh(signature, self._asked_at)
        asked_at = self._asked_at
        verdict = signature.check(headers, body, self._now(), self._keys)
        if verdict is SignatureVerdict.UNKNOWN_KEY and await self._refresh(signature, asked_at):
            verdict = signature.check(headers, body, self._now(), self._keys)
        return verdict is SignatureVerdict.VALID

    async def _refresh(self, signature: CallbackSignature, asked_at: float) -> bool:
        """Fetch the keys, at most once in `MIN_FETCH_INTERVAL_S`; return whether they may differ from before.

        :param asked_at: when the keys had last been asked for, as far as the caller has used them.
        """
        async with self._asking:
            if self._asked_at != asked_at:  # another callback has asked meanwhile
                return True
            if self._clock() - self._asked_at < MIN_FETCH_INTERVAL_S:
                return False
            self._asked_at = self._clock()
            try:
                keys = signature.read_keys(parse_json(await self._fetch(self._address)))
            except (DocumentUnavailable, DecodeError) as error:
                shown = strip_control(str(error))
                _log.warning("the keys of callbacks cannot be read, so callbacks are refused: %s", shown)
                return False
            self._keys, self._fetched_at = keys, self._clock()
            return True
