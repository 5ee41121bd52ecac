"""Options of the gateway: their types and the checks of their values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import attrs

from pika_async.emulator import replies
from pika_async.emulator.durations import Durations
from pika_async.emulator.scenario import Scenario

__all__ = [
    "GatewayOptions",
    "check_envelope",
    "check_funds",
    "check_not_negative",
    "check_positive",
    "check_share",
    "to_durations",
    "to_scenario",
]


class GatewayOptions(TypedDict, total=False):
    """The keyword arguments of :class:`Gateway`."""

    durations: str
    time_scale: float
    in_flight: int | Mapping[str, int] | None
    seed: int
    scenario: Scenario | Iterable[Mapping[str, Any]] | None
    api_key: str
    envelope: replies.Envelope
    failure_rate: float
    failure_reason: str
    retry_after: float | None
    url_lifetime: float | None
    idempotency_window: float
    funds: int
    max_body: int
    video_seconds: float
    cdn_url: str
    url: str
    epoch: float


def check_share(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, not {value!r}")


def check_positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{attribute.name} must be a finite number above 0, not {value!r}")


def check_not_negative(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{attribute.name} must be a number >= 0, not {value!r}")


def check_funds(_: object, _attribute: attrs.Attribute[int], value: int) -> None:
    if value < 0:
        raise ValueError(f"funds must be >= 0 millionths of a dollar, not {value!r}")


def check_envelope(_: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if value not in replies.ENVELOPES:
        raise ValueError(f"envelope must be one of {', '.join(replies.ENVELOPES)}, not {value!r}")


def to_durations(durations: str | Durations) -> Durations:
    return durations if isinstance(durations, Durations) else Durations.parse(durations)


def to_scenario(rules: Scenario | Iterable[Mapping[str, Any]] | None) -> Scenario:
    return rules if isinstance(rules, Scenario) else Scenario.of(rules or ())
