"""How long tasks take in the simulations, and what the provider says of their progress meanwhile; seeded."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

#: Index of the job, its random source -> seconds.
Durations = Callable[[int, Random], float]


def lognormal(median: float, sigma: float) -> Durations:
    return lambda _, random: median * math.exp(sigma * random.gauss(0, 1))


def weibull(shape: float, scale: float = 60.0) -> Durations:
    return lambda _, random: random.weibullvariate(scale, shape)


def bimodal(_: int, random: Random) -> float:
    return (40.0 if random.random() < 0.8 else 240.0) * math.exp(0.1 * random.gauss(0, 1))


def drift(first: float, then: float, sigma: float, at: int) -> Durations:
    return lambda i, random: (first if i < at else then) * math.exp(sigma * random.gauss(0, 1))


SHAPES: dict[str, Durations] = {
    "constant": lambda _i, _r: 60.0,
    "lognormal 0.25": lognormal(60, 0.25),
    "lognormal 0.5": lognormal(60, 0.5),
    "lognormal 1.0": lognormal(60, 1.0),
    "bimodal": bimodal,
    "weibull 2": weibull(2),
    "weibull 4": weibull(4),
    "exponential": weibull(1),
}

#: Seconds in a queue before a job begins, whatever it then takes.
QUEUES: dict[str, Durations] = {
    "exponential 60": lambda _, random: random.expovariate(1 / 60),
    "lognormal 60, 1": lognormal(60, 1.0),
    "lognormal 300, 1": lognormal(300, 1.0),
    "none for half": lambda _, random: random.expovariate(1 / 120) if random.random() < 0.5 else 0.0,
}


# --- progress: share of the duration that has passed, age, the job's own noise -> percent ---------------------------

Progress = Callable[[float, float, float], int | None]


def _percent(share: float) -> int:
    return max(0, min(99, int(100 * share)))


PROGRESS: dict[str, Progress] = {
    "honest": lambda x, _a, _n: _percent(x),
    "noisy": lambda x, _a, n: _percent(x * math.exp(0.1 * n)),
    "distorted": lambda x, _a, _n: _percent(x**2),
    "stepped": lambda x, _a, _n: 25 * int(4 * x),
    "late": lambda x, _a, _n: 0 if x < 0.8 else _percent(x),
    "stuck at 0": lambda _x, _a, _n: 0,
    "stuck at 99": lambda _x, _a, _n: 99,
    "stuck half": lambda x, _a, _n: min(50, _percent(x)),
    "faked": lambda _x, a, _n: _percent(a / 60),
    "random": lambda x, _a, n: _percent(abs(math.sin(1e4 * (x + n)))),
}
