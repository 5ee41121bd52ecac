"""Keys of requests: given by the caller, random, or made from the content so that it is found again. Saves nothing."""

from __future__ import annotations

import itertools
import re
import unicodedata
import uuid
from collections.abc import Callable
from typing import Final

from pika_async.models import GenerationRequest

__all__ = ["KeyAssigner", "key_suffix", "single_key", "slug"]

#: Most characters of the words of a prompt in a key.
MAX_SLUG_LENGTH: Final = 40
#: Hex digits of the content's fingerprint at the end of every key that is made.
BUCKET_DIGITS: Final = 4
#: A position, counted from 1, then words of the prompt and 4 digits of the content's fingerprint, or 8 digits alone.
_MADE_KEY: Final = re.compile(r"[0-9]{5,}-(?:[a-z0-9-]+-([0-9a-f]{4})|([0-9a-f]{4})[0-9a-f]{4})")
#: Latin letters that do not decompose to an ASCII letter and a mark.
_ASCII_LETTERS: Final = str.maketrans({
    "æ": "ae", "ð": "d", "ø": "o", "þ": "th", "đ": "d", "ħ": "h", "\u0131": "i", "ł": "l", "œ": "oe",
})  # fmt: skip


def single_key(request: GenerationRequest) -> str:
    """Return the key of a request that is not part of a batch: its own, else a random one."""
    return request.key or f"job-{uuid.uuid4().hex[:16]}"


def slug(text: str) -> str:
    """Return the words of `text` in ASCII letters and digits with hyphens between, at most `MAX_SLUG_LENGTH` long.

    Marks are removed from Latin letters; every other character outside ASCII separates words. The text may thus be
    empty.
    """
    folded = unicodedata.normalize("NFKD", text.casefold().translate(_ASCII_LETTERS))
    letters = "".join(character for character in folded if not unicodedata.combining(character))
    found = ""
    for word in re.findall(r"[a-z0-9]+", letters):
        longer = f"{found}-{word}" if found else word[:MAX_SLUG_LENGTH]
        if len(longer) > MAX_SLUG_LENGTH:
            break
        found = longer
    return found


def key_suffix(prompt: str, fingerprint: str) -> str:
    """Return the part of a made key behind its position.

    It has words of the prompt and 4 digits of the fingerprint, or 8 digits where the prompt has no word in ASCII.
    """
    words = slug(prompt)
    return f"{words}-{fingerprint[:BUCKET_DIGITS]}" if words else fingerprint[:8]


def _bucket_of(key: str) -> str | None:
    """Return the 4 digits of the fingerprint in a made key; None for any other key."""
    match = _MADE_KEY.fullmatch(key)
    return None if match is None else match[1] or match[2]


class KeyAssigner:
    """Assignment of keys to the requests of one batch.

    A request without a key is identified by its content, and among requests with equal content by its position. So
    rows may be added, removed and reordered between two runs, and each paid job is found again. If two jobs with one
    content exist, the third row with this content is a new job.

    Every key that a job has must be passed to `add_existing` before the first request without a key.

    :param answers: called with an existing key and a whole fingerprint; returns whether the job of that key is the one
        of such a request.
    """

    def __init__(self, answers: Callable[[str, str], bool]) -> None:
        self._answers = answers
        self._used = set[str]()
        #: Existing keys that are not yet assigned in this batch, in order, by the beginning of their fingerprint.
        self._free: dict[str, dict[str, None]] = {}
        #: The next number to try for a new key, by what is behind the number.
        self._next_number: dict[str, int] = {}

    def add_existing(self, key: str) -> None:
        """Record the key of an existing job, so that a request with its content may get it."""
        bucket = _bucket_of(key)
        if bucket is not None and key not in self._used:  # else an earlier request of this batch gave it
            self._used.add(key)
            self._free.setdefault(bucket, {})[key] = None

    def key_for(self, request: GenerationRequest, index: int) -> str:
        """Return the key of a request, and assign it to no other.

        :param index: position of the request in the batch, counted from 0.
        """
        if request.key is not None:
            self.reserve(request.key)
            return request.key
        content = request.fingerprint()
        suffix, free = key_suffix(request.prompt, content), self._free.get(content[:BUCKET_DIGITS], {})
        own = [f"{index + 1:05d}-{suffix}", f"{index + 1:05d}-{content[:8]}"]  # the latter is a key without words
        candidates = itertools.chain((key for key in own if key in free), free)
        existing = next((key for key in candidates if self._answers(key, content)), None)
        if existing is not None:
            free.pop(existing)
            return existing
        return own[0] if own[0] not in self._used else self._new_key(suffix, index)  # no later row has this position

    def _new_key(self, suffix: str, index: int) -> str:
        """Return an unused key with a number after that of `index`; a number that was in use is tried only once."""
        for number in itertools.count(max(index + 2, self._next_number.get(suffix, 0))):
            key = f"{number:05d}-{suffix}"
            if key not in self._used:
                self._next_number[suffix] = number + 1
                self._used.add(key)
                return key
        raise AssertionError  # the numbers are infinite

    def reserve(self, key: str) -> None:
        """Assign `key` to no request of this batch without a key of its own."""
        bucket = _bucket_of(key)
        if bucket is not None:
            self._used.add(key)
            self._free.get(bucket, {}).pop(key, None)
