"""Options that make several requests of each row, and the plan that they give. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
from cyclopts import Parameter

from pika_async.cli.exits import UsageError
from pika_async.cli.options import PositiveInteger
from pika_async.cli.tables import Table
from pika_async.errors import InvalidRequest, shorten
from pika_async.models import GenerationRequest
from pika_async.models.fields import SEED_RANGE
from pika_async.models.spelling import did_you_mean, letters_of
from pika_async.models.sweep import PromptTemplate, variations

__all__ = ["SweepOptions", "SweepPlan"]

#: Most requests of one input.
MAX_REQUESTS: Final = 1_000_000


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SweepOptions:
    """Options that make the prompts of the rows, or several requests of each."""

    template: str | None = None
    'Prompt of every row, with names of columns in braces: "a {color} cat"; {{ and }} are braces.'
    repeat: PositiveInteger = 1
    "How often each request is made; the first as it stands, the others with other seeds, always the same ones."
    seeds: str | None = None
    "Seeds for every row: 1..5 or 1,4,9."
    effects: str | None = None
    "Effects for every row: Melt,Inflate."

    @property
    def plan(self) -> SweepPlan:
        """The plan of these options.

        :raises UsageError: names the option that cannot work.
        """
        try:
            template = None if self.template is None else PromptTemplate(self.template)
        except InvalidRequest as error:
            raise UsageError(f"--template: {shorten(error.value)} {error.reason}") from None
        return SweepPlan(
            template=template,
            repeat=self.repeat,
            seeds=None if self.seeds is None else _parse_seeds(self.seeds),
            effects=None if self.effects is None else _parse_effects(self.effects),
        )


@attrs.frozen(kw_only=True)
class SweepPlan:
    """What is made of each row.

    :param template: makes the prompt; default None, the row has its own.
    :param repeat: how often each request is made; default 1.
    :param seeds: seeds for each row; default None, the row's own.
    :param effects: effects for each row; default None, the row's own.
    """

    template: PromptTemplate | None = None
    repeat: int = 1
    seeds: Sequence[int] | None = None
    effects: Sequence[str] | None = None

    @property
    def template_columns(self) -> frozenset[str]:
        """Letters of the columns that the template names."""
        return frozenset() if self.template is None else frozenset(map(letters_of, self.template.columns))

    def check_columns(self, table: Table) -> bool:
        """Return whether rows need a prompt of their own.

        :raises UsageError: if the template names a column that the input does not have, or leaves its prompts out.
        """
        if self.template is None or not table.rows:
            return self.template is None
        names = {letters_of(column): column for column in table.columns}
        for column in self.template.columns:
            if letters_of(column) not in names:
                known = (
                    f"must be a column of {table.name}, which has {', '.join(map(str, map(shorten, table.columns)))}"
                )
                raise UsageError(f"--template: {shorten(column)} {known}{did_you_mean(column, table.columns)}")
        if "prompt" in table.columns and "prompt" not in self.template_columns:
            way_out = "name {prompt} in the template, or leave one of the two out"
            raise UsageError(f"--template: would replace the prompts of {table.name}; {way_out}; nothing was sent")
        return False

    def check_count(self, rows: int) -> None:
        """Refuse a plan that makes too many requests.

        :raises UsageError: with their number.
        """
        count = rows * self.repeat * (1 if self.seeds is None else len(self.seeds))
        count *= 1 if self.effects is None else len(self.effects)
        if count > MAX_REQUESTS:
            given = {"--repeat": self.repeat > 1, "--seeds": self.seeds, "--effects": self.effects}
            options = " and ".join(option for option, value in given.items() if value)
            way_out = f"give less to {options}" if options else "split it"
            raise UsageError(f"the input makes {count:,} requests, but must make at most {MAX_REQUESTS:,}; {way_out}")

    def named(self, error: InvalidRequest) -> InvalidRequest:
        """Return `error` with the option in its reason, if one gives its field to every row."""
        values = {"effect": self.effects, "seed": self.seeds}.get(error.field)
        return error if values is None else attrs.evolve(error, reason=f"{error.reason} (--{error.field}s)")

    def with_prompt(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a row with the prompt that the template makes, if there is one.

        :raises InvalidRequest: if a column of the template is empty.
        """
        if self.template is None:
            return dict(fields)
        metadata = fields.get("metadata")
        columns = {
            **dict.fromkeys(self.template.columns),
            **(metadata if isinstance(metadata, Mapping) else {}),
            **fields,
        }
        return {**fields, "prompt": self.template.fill(columns)}

    def variations(self, request: GenerationRequest) -> Iterator[GenerationRequest]:
        """Yield every request that is made of one.

        :raises InvalidRequest: if it has a seed or an effect where others are given for all, or one is wrong.
        """
        return variations(request, self.repeat, self.seeds, self.effects)


def _parse_seeds(text: str) -> Sequence[int]:
    seeds: list[int] = []
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        found = re.fullmatch(r"([0-9]{1,19})(?:\s*\.\.\s*([0-9]{1,19}))?", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= SEED_RANGE[1] or last - first >= MAX_REQUESTS:
            reason = f"must be seeds from 0 to 2**63 - 1, such as 1..5 or 1,4,9, at most {MAX_REQUESTS:,}"
            raise UsageError(f"--seeds: {shorten(text)} {reason}")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds: {shorten(text)} must name each seed once")
    return seeds


def _parse_effects(text: str) -> Sequence[str]:
    effects = [part.strip() for part in text.split(",")]
    if not all(effects) or len({effect.lower() for effect in effects}) < len(effects):
        raise UsageError(f"--effects: {shorten(text)} must name each effect once, such as Melt,Inflate")
    return effects
