"""Suggestions for mistyped names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

__all__ = ["abbreviates", "did_you_mean", "letters_of"]

#: How much of a name is compared, in characters.
COMPARED_LENGTH: Final = 120
#: How alike a mistyped name must be to a suggested one, 0 to 1, by `difflib`.
SIMILARITY: Final = 0.6
#: How alike it must be to go before a name of which it is a whole word, as "ratio" is of "aspect_ratio".
HIGH_SIMILARITY: Final = 0.8
#: From how many letters on a name is also suggested that holds the mistyped one, or lies in it.
MIN_PART_LENGTH: Final = 4
#: Between the words of a name.
_WORDS: Final = re.compile(r"[^a-z0-9]+")


def did_you_mean(value: object, names: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the name that `value` resembles most, or "" if it resembles none.

    Letter case and underscores, hyphens, dots and blanks do not count, so that `aspectRatio` resembles `aspect_ratio`.
    """
    if not isinstance(value, str):
        return ""
    letters = letters_of(value[:COMPARED_LENGTH])
    by_letters = {letters_of(name): name for name in names}
    closest = [key for key, name in by_letters.items() if abbreviates(letters, name)]
    closest = closest or get_close_matches(letters, by_letters, n=1, cutoff=HIGH_SIMILARITY)
    closest = closest or [key for key, name in by_letters.items() if letters in _WORDS.split(name.lower())]
    closest = closest or get_close_matches(letters, by_letters, n=1, cutoff=SIMILARITY)
    if not closest and len(letters) >= MIN_PART_LENGTH:
        closest = [name for name in by_letters if letters in name or (len(name) >= MIN_PART_LENGTH and name in letters)]
    return f"; did you mean {by_letters[closest[0]]}?" if closest else ""


def abbreviates(letters: str, name: str) -> bool:
    """Return whether `letters` shorten several words of `name` to their beginnings, as `negprompt` does.

    The last word may not be shortened to less than two letters.
    """
    words = [word for word in _WORDS.split(name.lower()) if word]
    return len(words) > 1 and letters != "".join(words) and _is_made_of(letters, words)


def _is_made_of(letters: str, words: list[str]) -> bool:
    """Return whether `letters` are a beginning of each of `words`, one after the other."""
    first, *rest = words
    if not rest:
        return len(letters) > 1 and first.startswith(letters)
    ends = (end for end in range(1, len(first) + 1) if letters.startswith(first[:end]))
    return any(_is_made_of(letters[end:], rest) for end in ends)


def letters_of(name: str) -> str:
    """Return the letters and digits of `name` in lower case."""
    return "".join(character for character in name.lower() if character.isalnum())
