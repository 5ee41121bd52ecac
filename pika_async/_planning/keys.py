"""Keys of requests: given by the caller, random, or made from the content so that it is found again. Saves nothing."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Callable
from typing import Final

from pika_async.models import GenerationRequest

__all__ = ["KeyAssigner", "single_key"]

#: A position, counted from 1, and the first 8 digits of the content's fingerprint.
_MADE_KEY: Final = re.compile(r"[0-9]{5,}-([0-9a-f]{8})")


def single_key(request: GenerationRequest) -> str:
    """Return the key of a request that is not part of a batch: its own, else a random one."""
    return request.key or f"job-{uuid.uuid4().hex[:16]}"


class KeyAssigner:
    """Assignment of keys to the requests of one batch.

    A request without a key is identified by its content, and among requests with equal content by its position. So
    rows may be added, removed and reordered between two runs, and each paid job is found again. If two jobs with one
    content exist, the third row with this content is a new job.

    Every key that a job has must be passed to `add_existing` before the first request without a key.

    :param fingerprint_of: called with an existing key; returns the whole fingerprint of its job, None without one.
    """

    def __init__(self, fingerprint_of: Callable[[str], str | None]) -> None:
        self._fingerprint_of = fingerprint_of
        self._used = set[str]()
        #: Existing keys that are not yet assigned in this batch, in order, by the beginning of their fingerprint.
        self._free: dict[str, dict[str, None]] = {}
        #: The next number to try for a new key, by the beginning of the fingerprint.
        self._next_number: dict[str, int] = {}

    def add_existing(self, key: str) -> None:
        """Record the key of an existing job, so that a request with its content may get it."""
        match = _MADE_KEY.fullmatch(key)
        if match and key not in self._used:  # else an earlier request of this batch gave it
            self._used.add(key)
            self._free.setdefault(match[1], {})[key] = None

    def key_for(self, request: GenerationRequest, index: int) -> str:
        """Return the key of a request, and assign it to no other.

        :param index: position of the request in the batch, counted from 0.
        """
        if request.key is not None:
            self.reserve(request.key)
            return request.key
        content = request.fingerprint()
        prefix = content[:8]
        own, free = f"{index + 1:05d}-{prefix}", self._free.get(prefix, {})
        found = (key for key in itertools.chain([own], free) if key in free and self._fingerprint_of(key) == content)
        existing = next(found, None)
        if existing is not None:
            free.pop(existing)
            return existing
        return own if own not in self._used else self._new_key(prefix, index)  # no later row has this position

    def _new_key(self, prefix: str, index: int) -> str:
        """Return an unused key with a number after that of `index`; a number that was in use is tried only once."""
        for number in itertools.count(max(index + 2, self._next_number.get(prefix, 0))):
            key = f"{number:05d}-{prefix}"
            if key not in self._used:
                self._next_number[prefix] = number + 1
                self._used.add(key)
                return key
        raise AssertionError  # the numbers are infinite

    def reserve(self, key: str) -> None:
        """Assign `key` to no request of this batch without a key of its own."""
        if match := _MADE_KEY.fullmatch(key):
            self._used.add(key)
            self._free.get(match[1], {}).pop(key, None)
