"""Scenarios of a gateway whose mood changes at random: calm, then a few seconds of one kind of trouble, then calm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, Final

import attrs

from pika_async.emulator import Scenario
from pika_async.emulator.faults import Fault
from pika_async.emulator.scenario import Rule

__all__ = ["BAD_ROW", "MOODS", "Mood", "MoodScenario"]

#: The mark of a prompt that every gateway refuses: such a row is at fault itself.
BAD_ROW: Final = "[bad]"
#: Seconds that a mood lasts, and seconds of calm before the next one.
MOOD_SECONDS: Final = (1.5, 5.0)
CALM_SECONDS: Final = (0.5, 3.0)


@attrs.frozen
class Mood:
    """Trouble of one kind.

    :param rules: scenario rules without the time for which they hold.
    :param ambiguous: whether an answer of these rules to a create leaves open if the task was accepted.
    """

    rules: tuple[Mapping[str, Any], ...]
    ambiguous: bool = False


def _create(do: Any, **more: Any) -> Mapping[str, Any]:
    return {"on": "create", "do": do, **more}


def _feed(do: Any, **more: Any) -> Mapping[str, Any]:
    return {"on": "feed", "do": do, **more}


def _cdn(do: Any, **more: Any) -> Mapping[str, Any]:
    return {"on": "cdn", "do": do, **more}


def _answer(status: int, body: Any = "", **more: bool) -> dict[str, Any]:
    return {"fault": "answer", "status": status, "body": body, **more}


def _everywhere(do: Any, share: float) -> tuple[Mapping[str, Any], ...]:
    return tuple({"on": on, "do": do, "share": share} for on in ("create", "feed", "cdn"))


#: The kinds of trouble. A create of an ambiguous mood may be charged or not: both happen.
MOODS: dict[str, Mood] = {
    # Submissions: what an answer means.
    "bad gateway": Mood(
        (_create(_answer(502), share=0.5), _create(_answer(504, charge=True)), _feed(_answer(502))), True
    ),
    "timeout of the upstream": Mood((_create(_answer(524, charge=True), share=0.4),), True),
    "body codes of the upstream": Mood(
        (
            _create(_answer(200, {"code": 500, "msg": "upstream error", "data": None}, charge=True), share=0.2),
            _create(_answer(200, {"code": -1, "msg": "timeout", "data": None}), share=0.2),
        ),
        True,
    ),
    "key refused inside a 5xx": Mood(
        (
            _create(
                _answer(500, {"error": {"code": "insufficient_quota", "message": "try later"}}, charge=True), share=0.3
            ),
        ),
        True,
    ),
    "pages in place of receipts": Mood((_create({"fault": "body", "kind": "html"}, share=0.3),), True),
    "empty receipts": Mood((_create({"fault": "body", "kind": "empty"}, share=0.3),), True),
    "receipts of other shapes": Mood(
        (
            _create(_answer(200, {"data": {"job": {"id": "{task_id}"}}}, charge=True), share=0.25),
            _create(_answer(200, {"id": "{task_id}", "object": "video", "status": "queued"}, charge=True), share=0.25),
            _create(_answer(200, {"data": [{"task_id": "{task_id}"}]}, charge=True), share=0.25),
            _create(_answer(200, {"data": "{task_id}"}, charge=True), share=0.25),
            _create(_answer(200, {"video_id": "{task_id}"}, charge=True), share=0.25),
        )
    ),
    "rate limit": Mood((_create({"fault": "refuse", "as": "rate", "retry_after": 1}, share=0.6),)),
    "no channel": Mood((_create({"fault": "refuse", "as": "no-channel"}, share=0.7),)),
    "empty balance": Mood(
        (_create({"fault": "refuse", "as": "quota"}), _feed({"fault": "refuse", "as": "quota"}, share=0.3))
    ),
    "empty balance as a 400": Mood(
        (_create(_answer(400, {"error": {"code": "insufficient_user_quota", "message": "user quota is not enough"}})),)
    ),
    "empty balance inside a 200": Mood((_create(_answer(200, {"code": 403, "msg": "用户额度不足", "data": None})),)),
    "key refused": Mood((_create({"fault": "refuse", "as": "key"}),)),
    "wrong path": Mood(
        (_create(_answer(404, {"error": {"code": "not_found", "message": "Invalid URL (POST /v1/v1)"}})),)
    ),
    "redirects": Mood((_create({"fault": "redirect", "status": 308}), _feed({"fault": "redirect"}, share=0.3))),
    # Connections.
    "connections dropped": Mood(_everywhere({"fault": "drop"}, 0.25), True),
    "connections reset": Mood(_everywhere({"fault": "drop", "how": "rst"}, 0.25), True),
    "requests unread": Mood((_create({"fault": "drop", "when": "before-read"}, share=0.25),), True),
    "answers cut": Mood(_everywhere({"fault": "cut", "fraction": 0.4}, 0.3), True),
    "answers cut without a length": Mood(_everywhere({"fault": "cut", "length": False, "fraction": 0.8}, 0.3), True),
    "heads cut": Mood(_everywhere({"fault": "cut", "at": "headers"}, 0.2), True),
    "bodies that stall": Mood(_everywhere({"fault": "body-stall", "seconds": 1.0}, 0.15), True),
    "no answers": Mood(_everywhere({"fault": "stall", "seconds": 1.0}, 0.15), True),
    "slow answers": Mood(_everywhere({"fault": "delay", "seconds": 1.5}, 0.5)),
    "no HTTP": Mood(_everywhere({"fault": "garbage-status"}, 0.2), True),
    "long headers": Mood(_everywhere({"fault": "oversized-header", "size": 20_000}, 0.5)),
    "headers too long": Mood(_everywhere({"fault": "oversized-header", "size": 100_000}, 0.2), True),
    "chunks without sizes": Mood(_everywhere({"fault": "bad-chunk"}, 0.2), True),
    # Polls.
    "odd JSON": Mood(
        tuple(
            _feed({"fault": "body", "kind": kind}, share=0.2)
            for kind in (
                "nan",
                "infinity",
                "huge-int",
                "deep",
                "lone-surrogate",
                "gzip-bomb",
                "not-json",
                "list",
                "bom",
            )
        )
    ),
    "pages in place of feeds": Mood((_feed({"fault": "body", "kind": "html"}, share=0.7),)),
    "unknown words": Mood(
        (_feed({"fault": "word", "word": "paused"}, share=0.4), _feed({"fault": "word", "word": None}, share=0.3))
    ),
    "successes without URLs": Mood((_feed("no-url", share=0.6),)),
    "answers of other tasks": Mood((_feed("other-task", share=0.5),)),
    "settled tasks pending again": Mood((_feed("unfinish", share=0.5),)),
    "tasks that vanish": Mood((_feed("vanish", share=0.6),)),
    "polls refused": Mood(
        (_feed({"fault": "refuse", "as": "key"}, share=0.3), _feed({"fault": "refuse", "as": "rate"}, share=0.3))
    ),
    "a word for an expired task": Mood((_feed({"fault": "word", "word": "expired"}, share=0.3),)),
    # Downloads.
    "results not there yet": Mood(
        (
            _cdn({"fault": "expired", "status": 404}, share=0.4),
            _cdn({"fault": "expired", "status": 403}, share=0.3),
            _cdn({"fault": "body", "kind": "html"}, share=0.3),
            _cdn({"fault": "body", "kind": "empty"}, share=0.3),
        )
    ),
    "ranges that lie": Mood(
        (
            _cdn({"fault": "cut", "fraction": 0.5}, share=0.4),
            _cdn({"fault": "wrong-range"}, share=0.3),
            _cdn("no-range", share=0.5),
        )
    ),
    "tags that change": Mood((_cdn({"fault": "cut", "fraction": 0.5}, share=0.4), _cdn("etag"))),
    "a CDN in trouble": Mood((_cdn(_answer(503), share=0.5), _cdn("endless", share=0.1))),
}


@attrs.define
class MoodScenario:
    """Scenario of one seed, and the record of the faults that it caused.

    :param seed: chooses the moods, their order and how long each lasts.
    :param seconds: time after which the gateway stays calm.
    """

    seed: str
    seconds: float
    scenario: Scenario = attrs.field(init=False)
    #: The names of the moods, in their order, with the seconds for which each holds.
    moods: list[tuple[str, tuple[float, float]]] = attrs.field(init=False, factory=list)
    #: The prompts of creates that got an ambiguous answer.
    ambiguous_prompts: set[str] = attrs.field(init=False, factory=set)
    #: How often each mood chose a request.
    counts: dict[str, int] = attrs.field(init=False, factory=dict)
    _mood_of: dict[int, str] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        rules: list[Rule] = []
        for name, between in self._windows():
            self.moods.append((name, between))
            added = Scenario.of({**rule, "between": list(between)} for rule in MOODS[name].rules).rules
            self._mood_of.update({id(rule.do): name for rule in added})
            rules += added
        bad_row = Scenario.of([_create({"fault": "refuse", "as": "envelope"}, prompt=BAD_ROW)])
        self.scenario = Scenario((*bad_row.rules, *rules))

    def _windows(self) -> Iterator[tuple[str, tuple[float, float]]]:
        """Yield each mood once in random order, then all again in another order, until the time is over."""
        random, now = Random(self.seed), 0.0
        names: list[str] = []
        while True:
            names = names or random.sample(sorted(MOODS), len(MOODS))
            begin = now + random.uniform(*CALM_SECONDS)
            now = begin + random.uniform(*MOOD_SECONDS)
            if now > self.seconds:
                return
            yield names.pop(), (begin, now)

    def record(self, on: str, prompt: str, fault: Fault) -> None:
        """Record that *fault* was chosen for a request."""
        name = self._mood_of.get(id(fault))
        if name is not None:
            self.counts[name] = self.counts.get(name, 0) + 1
            if on == "create" and MOODS[name].ambiguous:
                self.ambiguous_prompts.add(prompt)
