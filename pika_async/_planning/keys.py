"""The key of each request: its own, or one by which the same content is found again. Keeps nothing."""

from __future__ import annotations

import itertools
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Final

from pika_async.models import GenerationRequest

__all__ = ["KeyAssigner", "single_key"]

#: A position, counted from 1, and the first 8 digits of the content's fingerprint.
_MADE: Final = re.compile(r"[0-9]{5,}-([0-9a-f]{8})")


def single_key(request: GenerationRequest) -> str:
    """The key of a request that came alone: its own, else a random one."""
    return request.key or f"job-{uuid.uuid4().hex[:16]}"


class KeyAssigner:
    """The keys of one batch. A request without a key is known by its content, and among equal ones by its position.

    So rows may be added, removed and reordered between two runs, and what was paid for is found again: the third of
    three equal rows is a new job where two are known.
    """

    def __init__(self, known: Iterable[str], fingerprint_of: Callable[[str], str | None]) -> None:
        """`known`: every key there is; `fingerprint_of` gives the whole fingerprint of the job of one of them."""
        self._fingerprint_of = fingerprint_of
        self._known = set[str]()
        #: Those that no request of this batch has taken yet, by the beginning of the fingerprint, in order.
        self._free: dict[str, dict[str, None]] = {}
        self._next: dict[str, int] = {}
        for key in known:
            if made := _MADE.fullmatch(key):
                self._known.add(key)
                self._free.setdefault(made[1], {})[key] = None

    def of(self, request: GenerationRequest, index: int) -> str:
        """The key of `request`, which stands at `index`, counted from 0."""
        if request.key is not None:
            self.take(request.key)
            return request.key
        content = request.fingerprint()
        mark = content[:8]
        own, free = f"{index + 1:05d}-{mark}", self._free.get(mark, {})
        found = (key for key in itertools.chain([own], free) if key in free and self._fingerprint_of(key) == content)
        known = next(found, None)
        if known is not None:
            free.pop(known)
            return known
        return own if own not in self._known else self._new(mark, index)  # no later row has this position

    def _new(self, mark: str, index: int) -> str:
        """A key after that of `index` that no job has; those that were tried before are not tried again."""
        for number in itertools.count(max(index + 2, self._next.get(mark, 0))):
            key = f"{number:05d}-{mark}"
            if key not in self._known:
                self._next[mark] = number + 1
                self._known.add(key)
                return key
        raise AssertionError  # numbers do not end

    def take(self, key: str) -> None:
        """No other request of this batch is given `key`."""
        if made := _MADE.fullmatch(key):
            self._known.add(key)
            self._free.get(made[1], {}).pop(key, None)
