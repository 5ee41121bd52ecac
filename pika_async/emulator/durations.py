"""Distributions of generation times, by name. The caller passes the source of randomness."""

from __future__ import annotations

import math
from random import Random

import attrs

__all__ = ["Durations"]

_FORMS = {
    "constant": "constant:SECONDS",
    "lognormal": "lognormal:MEDIAN,SIGMA",
    "weibull": "weibull:SCALE,SHAPE",
    "exponential": "exponential:MEAN",
    "bimodal": "bimodal:SECONDS,SHARE,OTHER_SECONDS",
}


@attrs.frozen
class Durations:
    """Distribution of durations in seconds, written as ``NAME:NUMBER,...``.

    - ``constant:60``
    - ``lognormal:60,0.5``: median and sigma
    - ``weibull:60,2``: scale and shape
    - ``exponential:60``: mean
    - ``bimodal:40,0.8,240``: 40 s with a probability of 0.8, otherwise 240 s
    """

    text: str
    kind: str
    numbers: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Durations:
        """Parse a distribution.

        :raises ValueError: if *text* is not a distribution; the message quotes *text*.
        """
        kind, _, rest = text.strip().partition(":")
        form = _FORMS.get(kind)
        if form is None:
            raise ValueError(f"durations {text!r}: unknown distribution {kind!r}; one of {', '.join(_FORMS.values())}")
        try:
            numbers = tuple(float(part) for part in rest.split(","))
        except ValueError:
            raise ValueError(f"durations {text!r}: expected {form}") from None
        if len(numbers) != form.count(",") + 1:
            raise ValueError(f"durations {text!r}: expected {form}")
        if not all(math.isfinite(number) and number >= 0 for number in numbers):
            raise ValueError(f"durations {text!r}: numbers must be finite and >= 0")
        if kind == "bimodal" and numbers[1] > 1:
            raise ValueError(f"durations {text!r}: the share must be between 0 and 1")
        if kind == "weibull" and numbers[1] == 0:
            raise ValueError(f"durations {text!r}: the shape must be above 0")
        if kind == "lognormal" and numbers[0] == 0:
            raise ValueError(f"durations {text!r}: the median must be above 0")
        return cls(text, kind, numbers)

    def draw(self, random: Random) -> float:
        """Draw one duration in seconds."""
        match self.kind, self.numbers:
            case "lognormal", (median, sigma):
                return median * math.exp(sigma * random.gauss(0.0, 1.0))
            case "weibull", (scale, shape):
                return random.weibullvariate(scale, shape)
            case "exponential", (mean,):
                return random.expovariate(1.0) * mean
            case "bimodal", (first, share, other):
                return first if random.random() < share else other
            case _:
                return self.numbers[0]
