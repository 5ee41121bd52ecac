"""The key of each request: its own, or one by which the same content is found again. Keeps nothing."""

from __future__ import annotations

import itertools
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

from pika_async.models import GenerationRequest

__all__ = ["BatchKeys", "lone_key"]

#: A position, counted from 1, and the first 8 digits of the content's fingerprint.
_MADE: Final = re.compile(r"[0-9]{5,}-([0-9a-f]{8})")


def lone_key(request: GenerationRequest) -> str:
    """The key of a request that came alone: its own, else a random one."""
    return request.key or f"job-{uuid.uuid4().hex[:16]}"


class BatchKeys:
    """The keys of one batch. A request without a key is known by its content, and among equal ones by its position.

    So rows may be added, removed and reordered between two runs, and what was paid for is found again: the third of
    three equal rows is a new job where two are known.
    """

    def __init__(self, known: Iterable[str], fingerprint_of: Callable[[str], str | None]) -> None:
        """`known`: every key there is; `fingerprint_of` gives the whole fingerprint of the job of one of them."""
        self._fingerprint_of = fingerprint_of
        self._known = set[str]()
        #: Those that no request of this batch has taken yet, by the beginning of the fingerprint, in order.
        self._free: dict[str, dict[str, None]] = defaultdict(dict)
        for key in known:
            if made := _MADE.fullmatch(key):
                self._known.add(key)
                self._free[made[1]][key] = None

    def of(self, request: GenerationRequest, index: int) -> str:
        """The key of `request`, which stands at `index`, counted from 0."""
        if request.key is not None:
            return request.key
        content = request.fingerprint()
        names = (f"{number:05d}-{content[:8]}" for number in itertools.count(index + 1))
        own = next(names)
        free = self._free[content[:8]]
        found = (key for key in (own, *free) if key in free and self._fingerprint_of(key) == content)
        key = next(found, None) or next(name for name in itertools.chain([own], names) if name not in self._known)
        self._known.add(key)
        free.pop(key, None)
        return key
