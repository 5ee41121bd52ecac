"""Scenarios: rules that select requests for faults. Parses and counts; does not change answers.

A scenario is a list of rules. A rule names where it applies, which requests match, which of the matching requests it
selects, and the fault for them::

    {"on": "create" | "feed" | "result" | "cancel" | "upload" | "account" | "cdn" | "callback",
     "provider": "yescale", "prompt": "a cat", "between": [10, 20],        # match only such requests
     "nth": 3 | [3, 7], "first": 5, "after": 40, "every": 4, "share": 0.5, # at most one; default: every match
     "per": "task",                                                        # count the matches of each task separately
     "do": {"fault": "drop", ...}}                                         # or "do": "drop", with default options

``prompt`` matches any part of the prompt. ``between`` is in seconds since the gateway's first request, multiplied by
``time_scale`` like every time of the emulator. ``after`` selects every match but the first so many. The choices of a
``share`` depend on the seed, the rule's number and the number of the match alone. The first rule that selects a request
applies; later rules do not count that request. Rules apply only to valid requests. The faults are listed in
:mod:`pika_async.emulator.faults`.

``create`` is a submission, ``feed`` a poll, ``cdn`` a download. Pika's own API and fal have more: ``result`` (a request
for the file of a settled job), ``cancel``, ``upload`` (both of its requests) and ``account`` (quote, balance).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any, Protocol

import attrs

from pika_async.emulator.faults import FAULTS, Fault, find_bad_option, is_number
from pika_async.emulator.records import EMULATED_PROVIDERS

__all__ = ["Rule", "Scenario", "ScenarioError", "ScenarioRun"]

_PLACES = ("create", "feed", "result", "cancel", "upload", "account", "cdn", "callback")
_SELECTORS = ("nth", "first", "after", "every", "share")
_RULE_KEYS = frozenset({"on", "provider", "prompt", "between", "per", "do", "comment", *_SELECTORS})


class ScenarioError(ValueError):
    """Invalid scenario. The message names the rule by its number, from 1."""


@attrs.frozen(kw_only=True)
class Rule:
    """One rule of a scenario."""

    on: str
    do: Fault
    provider: str | None = None
    prompt: str | None = None
    between: tuple[float, float] | None = None
    nth: frozenset[int] | None = None
    first: int | None = None
    after: int | None = None
    every: int | None = None
    share: float | None = None
    per_task: bool = False

    def matches(self, provider: str, prompt: str, elapsed: float) -> bool:
        """Return whether a request matches this rule."""
        if self.provider is not None and self.provider != provider:
            return False
        if self.prompt is not None and self.prompt not in prompt:
            return False
        return self.between is None or self.between[0] <= elapsed < self.between[1]

    def selects(self, count: int, seed: str) -> bool:
        """Return whether this rule selects its *count*-th matching request, counted from 1.

        :param seed: what the choice of a share depends on; different for each match.
        """
        if self.nth is not None:
            return count in self.nth
        if self.first is not None:
            return count <= self.first
        if self.after is not None:
            return count > self.after
        if self.every is not None:
            return count % self.every == 0
        return self.share is None or Random(seed).random() < self.share


@attrs.frozen
class Scenario:
    """List of rules. Immutable, so that several gateways may share it."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, rules: Iterable[Mapping[str, Any]]) -> Scenario:
        """Parse rules.

        :raises ScenarioError: for the first invalid rule.
        """
        return cls(tuple(_parse_rule(number, rule) for number, rule in enumerate(rules, 1)))

    def deaths(self) -> frozenset[str]:
        """Return the providers whose connections a rule may refuse."""
        rules = [rule for rule in self.rules if rule.do.name == "die" and rule.do["status"] is None]
        return frozenset(name for rule in rules for name in ([rule.provider] if rule.provider else EMULATED_PROVIDERS))

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """Read a JSON file that contains a list of rules, or an object with such a list as ``"rules"``.

        :raises ScenarioError: if the file contains anything else.
        :raises OSError: if the file cannot be read.
        """
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ScenarioError(f"{path}: must be JSON: {error}") from None
        rules = value.get("rules") if isinstance(value, dict) else value
        if not isinstance(rules, list):
            raise ScenarioError(f"{path}: must contain a list of rules")
        return cls.of(rules)


class FaultTarget(Protocol):
    """Interface of what a rule is matched against: a task, or a create that is not accepted yet."""

    @property
    def id(self) -> str: ...
    @property
    def provider(self) -> str: ...
    @property
    def prompt(self) -> str: ...


@attrs.frozen
class Death:
    """Outage of one provider: the status of every answer (``None``: connections are refused), and when it ends."""

    status: int | None
    until: float


@attrs.define
class ScenarioRun:
    """State of a scenario on one gateway: the counters of its rules and the time of the first request."""

    scenario: Scenario
    seed: int
    time_scale: float
    started: float | None = None
    _counts: dict[tuple[int, str], int] = attrs.field(init=False, factory=dict)
    _deaths: dict[str, Death] = attrs.field(init=False, factory=dict)

    def fault_for(self, on: str, task: FaultTarget, now: float) -> Fault | None:
        """Count a request and return the fault of the first rule that selects it, or ``None``."""
        elapsed = (now - (self.started or 0.0)) / self.time_scale
        for index, rule in enumerate(self.scenario.rules):
            if rule.on != on or not rule.matches(task.provider, task.prompt, elapsed):
                continue
            key = (index, task.id if rule.per_task else "")
            self._counts[key] = count = self._counts.get(key, 0) + 1
            if rule.selects(count, f"{self.seed}:script:{index}:{key[1]}:{count}"):
                if rule.do.name == "die":
                    seconds = rule.do["seconds"]
                    until = math.inf if seconds is None else now + seconds * self.time_scale
                    self._deaths[task.provider] = Death(rule.do["status"], until)
                return rule.do
        return None

    def death_of(self, provider: str, now: float) -> Death | None:
        """Return the death that holds for *provider* at *now*, or ``None``."""
        death = self._deaths.get(provider)
        return None if death is None or now >= death.until else death


def _parse_rule(number: int, rule: object) -> Rule:
    if not isinstance(rule, Mapping):
        raise ScenarioError(f"rule {number}: must be an object, not {type(rule).__name__}")
    unknown = sorted(set(rule) - _RULE_KEYS)
    if unknown:
        raise ScenarioError(f"rule {number}: unknown key {unknown[0]!r}; known: {', '.join(sorted(_RULE_KEYS))}")
    on = rule.get("on")
    if on not in _PLACES:
        raise ScenarioError(f'rule {number}: "on" must be one of {", ".join(_PLACES)}, not {on!r}')
    provider = rule.get("provider")
    if provider is not None and provider not in EMULATED_PROVIDERS:
        raise ScenarioError(
            f'rule {number}: "provider" must be one of {", ".join(EMULATED_PROVIDERS)}, not {provider!r}'
        )
    if rule.get("per", "task") != "task":
        raise ScenarioError(f'rule {number}: "per" must be "task", not {rule["per"]!r}')
    if not isinstance(rule.get("prompt", ""), str):
        raise ScenarioError(f'rule {number}: "prompt" must be a string')
    return Rule(
        on=on,
        provider=provider,
        prompt=rule.get("prompt"),
        between=_parse_between(number, rule.get("between")),
        per_task="per" in rule,
        do=_parse_fault(number, on, rule.get("do")),
        **_parse_selector(number, rule),
    )


def _parse_between(number: int, value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    match value:
        case [start, end] if is_number(start) and is_number(end):
            return float(start), float(end)
        case _:
            raise ScenarioError(f'rule {number}: "between" must be two numbers of seconds, not {value!r}')


def _parse_selector(number: int, rule: Mapping[str, Any]) -> dict[str, Any]:
    given = [name for name in _SELECTORS if name in rule]
    if len(given) > 1:
        raise ScenarioError(f"rule {number}: at most one of {', '.join(_SELECTORS)}, not {' and '.join(given)}")
    if not given:
        return {}
    name, value = given[0], rule[given[0]]
    if name == "share":
        if not is_number(value) or not 0 <= value <= 1:
            raise ScenarioError(f'rule {number}: "share" must be between 0 and 1, not {value!r}')
        return {"share": float(value)}
    numbers = value if name == "nth" and isinstance(value, (list, tuple)) else [value]
    if not numbers or not all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in numbers):
        raise ScenarioError(f'rule {number}: "{name}" must be an integer >= 1, not {value!r}')
    return {"nth": frozenset(numbers)} if name == "nth" else {name: value}


def _parse_fault(number: int, on: str, do: object) -> Fault:
    options = {"fault": do} if isinstance(do, str) else do
    if not isinstance(options, Mapping) or not isinstance(options.get("fault"), str):
        raise ScenarioError(f'rule {number}: "do" must be a fault\'s name, or an object with "fault"')
    name = options["fault"]
    if name not in FAULTS:
        raise ScenarioError(f"rule {number}: unknown fault {name!r}; known: {', '.join(FAULTS)}")
    places, defaults = FAULTS[name]
    if on not in places:
        raise ScenarioError(f"rule {number}: fault {name!r} applies to {', '.join(sorted(places))}, not {on}")
    allowed = {option for option in defaults if option != "charge" or on == "create"}
    for option, value in options.items():
        if option != "fault" and option not in allowed:
            names = ", ".join(sorted(allowed)) or "none"
            raise ScenarioError(f"rule {number}: fault {name!r} has no option {option!r} on {on}; options: {names}")
        problem = None if option == "fault" else find_bad_option(name, option, value)
        if problem:
            raise ScenarioError(f"rule {number}: {name!r} option {option!r} {problem}")
    return Fault(name, {**defaults, **{key: value for key, value in options.items() if key != "fault"}})
