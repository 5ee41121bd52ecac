"""Numbers and ranges as a person would write them. Prints nothing."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["NEW_CHARGES", "counted", "range_words"]

#: The words of previews and summaries after the number of new charges, whatever it is: scripts search for them.
NEW_CHARGES: Final = "new charges"

#: Steps to which the ends of a range are rounded, by the greatest end below which each holds; all in seconds.
_STEPS_S: Final = ((30, 1), (120, 5), (600, 30), (1_800, 60), (7_200, 300), (36_000, 1_800), (math.inf, 3_600))
#: From this many seconds on, a duration is written in the unit, which has that many.
_UNITS: Final = ((7_200, 3_600, "h"), (120, 60, "min"), (0, 1, "s"))
#: Share of a step by which a figure may miss it.
_ROUNDING: Final = 1e-9


def counted(number: float, noun: str, many: str = "") -> str:
    """Return a number with its noun, such as "1 job" or "2 jobs".

    :param noun: the noun for one.
    :param many: the noun for any other number; default `noun` with an "s".
    """
    figure = str(number) if isinstance(number, int) else f"{number:,.2f}".rstrip("0").rstrip(".")
    return f"{figure} {noun if number == 1 else many or f'{noun}s'}"


def range_words(seconds: tuple[float, float]) -> str:
    """Return a range of seconds, low and high, in round figures around it, such as "2 to 6.5 min" or "up to 24 min".

    :param seconds: finite numbers >= 0.
    """
    high = max(seconds)
    step = next(step for below, step in _STEPS_S if high < below)
    low = step * math.floor(min(seconds) / step + _ROUNDING)
    high = step * math.ceil(high / step - _ROUNDING)
    length, unit = next((length, unit) for least, length, unit in _UNITS if high >= least)
    end = f"{high / length:g} {unit}"
    if low == high:
        return end
    if not low:
        return f"up to {end}"
    return f"{low / length:g} to {end}" if low >= length else f"{_whole(low)} to {end}"


def _whole(seconds: float) -> str:
    length, unit = next((length, unit) for _, length, unit in _UNITS if seconds >= length)
    return f"{seconds / length:g} {unit}"
