"""Suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

__all__ = ["did_you_mean", "letters_of"]

#: How much of a name is compared, in characters.
COMPARED_LENGTH: Final = 120
#: How alike a mistyped name must be to a suggested one, 0 to 1, by `difflib`.
SIMILARITY: Final = 0.6
#: From how many letters on a name is also suggested that holds the mistyped one, or lies in it.
MIN_PART_LENGTH: Final = 4


def did_you_mean(value: object, names: Iterable[str]) -> str:
    """Return "; did you mean NAME?" for the name that `value` resembles most, or "" if it resembles none.

    Letter case and underscores, hyphens, dots and blanks do not count, so that `aspectRatio` resembles `aspect_ratio`.
    """
    if not isinstance(value, str):
        return ""
    letters = letters_of(value[:COMPARED_LENGTH])
    by_letters = {letters_of(name): name for name in names}
    closest = get_close_matches(letters, by_letters, n=1, cutoff=SIMILARITY)
    if not closest and len(letters) >= MIN_PART_LENGTH:
        closest = [name for name in by_letters if letters in name or (len(name) >= MIN_PART_LENGTH and name in letters)]
    return f"; did you mean {by_letters[closest[0]]}?" if closest else ""


def letters_of(name: str) -> str:
    """Return the letters and digits of `name` in lower case."""
    return "".join(character for character in name.lower() if character.isalnum())
