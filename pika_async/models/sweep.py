"""Sweeps: one request for each combination of rows, effects, seeds and repetitions. Pure, and lazy."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any, Final, cast

import attrs

from pika_async.models.fields import SEED_RANGE, check_integer, check_text, invalid
from pika_async.models.request import GenerationRequest, evolve_unchecked
from pika_async.models.spelling import did_you_mean, letters_of

__all__ = ["PromptTemplate", "sweep", "variations"]

#: Seeds that are made are below this: every gateway takes 31 bits.
SEED_LIMIT: Final = 2**31
_FIELDS: Final = tuple(field.name for field in attrs.fields(GenerationRequest))


@attrs.frozen
class PromptTemplate:
    """A prompt with names of columns in braces, as in "a {color} cat"; `{{` and `}}` are braces.

    Letter case, blanks and underscores in a name do not count.

    :raises InvalidRequest: if the text is not such a template, or names no column.
    """

    text: str
    _parts: Sequence[tuple[str, str | None]] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        check_text("template", self.text)
        way_out = 'name columns in braces, as in "a {color} cat", and write {{ and }} for braces'
        try:
            parts = list(Formatter().parse(self.text))
        except ValueError as error:
            raise invalid("template", self.text, f"must be a template ({error}); {way_out}") from None
        for _, name, spec, conversion in parts:
            if name is not None and (spec or conversion or not letters_of(name) or re.search(r"[\[\]{}]", name)):
                raise invalid("template", self.text, f"must hold names of columns alone in its braces; {way_out}")
        if all(name is None for _, name, _, _ in parts):
            raise invalid("template", self.text, f"must name a column; {way_out}")
        object.__setattr__(self, "_parts", [(literal, name) for literal, name, _, _ in parts])

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it names, each once, as they are written."""
        return tuple({letters_of(name): name for _, name in self._parts if name is not None}.values())

    def fill(self, columns: Mapping[str, Any]) -> str:
        """Return the prompt with the values of `columns`.

        :raises InvalidRequest: if a column is missing or empty, or holds what cannot be written into a prompt.
        """
        values = {letters_of(name): value for name, value in columns.items()}
        return "".join(
            literal + ("" if name is None else self._value(name, values, columns)) for literal, name in self._parts
        )

    def _value(self, name: str, values: Mapping[str, Any], columns: Mapping[str, Any]) -> str:
        value = values.get(letters_of(name))
        if letters_of(name) not in values:
            hint = did_you_mean(name, columns)
            raise invalid(name, None, f"must be given; the template needs it{hint}")
        if value is None or (isinstance(value, str) and not value.strip()):
            raise invalid(name, value, "must not be empty; the template needs it")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise invalid(name, value, "must be text or a number; the template needs it")
        return value.strip() if isinstance(value, str) else f"{value:.15g}" if isinstance(value, float) else str(value)


def sweep(
    requests: GenerationRequest | str | Mapping[str, Any] | Iterable[GenerationRequest | str | Mapping[str, Any]],
    *,
    template: str | None = None,
    repeat: int = 1,
    seeds: Iterable[int] | None = None,
    effects: Iterable[str] | None = None,
) -> Iterator[GenerationRequest]:
    """Make a request for each combination of rows, effects, seeds and repetitions, one at a time.

    A request with a key gives each of its variations a key of its own, such as `cat-melt-s5-r2`. The same arguments
    make the same requests.

    :param requests: one row or several: requests, prompts, or mappings of columns to values. A column that is not a
        field of `GenerationRequest` is kept in the metadata.
    :param template: a prompt with names of columns in braces, such as `"a {color} cat"`; default None, each row has its
        own prompt.
    :param repeat: how often each request is made, 1 or more; the first is as it stands, the others have other seeds,
        which follow from the request (default 1).
    :param seeds: seeds for each row, which must have none itself (default None: the row's own).
    :param effects: effects for each row, which must have none itself (default None: the row's own).
    :raises InvalidRequest: names the argument, or the field of the first row that is wrong.
    """
    is_one = isinstance(requests, GenerationRequest | str | Mapping)
    rows = cast("Iterable[GenerationRequest | str | Mapping[str, Any]]", [requests] if is_one else requests)
    parsed = None if template is None else PromptTemplate(template)
    chosen_seeds = None if seeds is None else seeds if isinstance(seeds, range) else tuple(seeds)
    chosen_effects = None if effects is None else tuple([effects] if isinstance(effects, str) else effects)
    if isinstance(repeat, bool) or not isinstance(repeat, int) or repeat < 1:
        raise invalid("repeat", repeat, "must be an integer >= 1")
    return (
        variation
        for row in rows
        for variation in variations(_request_of(row, parsed), repeat, chosen_seeds, chosen_effects)
    )


def _request_of(row: GenerationRequest | str | Mapping[str, Any], template: PromptTemplate | None) -> GenerationRequest:
    if isinstance(row, str):
        row = {"prompt": row}
    if isinstance(row, GenerationRequest):
        if template is None:
            return row
        columns = {**(row.metadata or {}), **{name: getattr(row, name) for name in _FIELDS}}
        return attrs.evolve(row, prompt=template.fill(columns))
    if not isinstance(row, Mapping):
        raise invalid("requests", row, "must hold requests, prompts (text) or mappings of columns to values")
    given = {name: value for name, value in row.items() if value is not None}
    fields = {name: value for name, value in given.items() if name in _FIELDS}
    if template is not None:
        fields["prompt"] = template.fill({**(given.get("metadata") or {}), **row})
    elif "prompt" not in fields:
        raise invalid("prompt", None, "must be given; every request needs one, or a template")
    more = {name: value for name, value in given.items() if name not in _FIELDS}
    if more:
        fields["metadata"] = {**(fields.get("metadata") or {}), **more}
    return GenerationRequest(**fields)


def variations(
    request: GenerationRequest, repeat: int, seeds: Sequence[int] | None, effects: Sequence[str] | None
) -> Iterator[GenerationRequest]:
    """Yield `request` with each effect, each seed and each repetition, in this order; see `sweep`.

    :raises InvalidRequest: if the request has an effect or a seed itself where others are given.
    """
    for field, values in (("effect", effects), ("seed", seeds)):
        own = getattr(request, field)
        if values is not None and own is not None:
            raise invalid(field, own, f"must be left out where {field}s are given for all rows; give one of the two")
    for effect in effects if effects is not None else (None,):
        with_effect = request if effect is None else attrs.evolve(request, effect=effect, key=_key(request, effect))
        for seed in seeds if seeds is not None else (None,):
            if seed is None:
                with_seed = with_effect
            else:
                check_integer("seed", seed, SEED_RANGE)
                with_seed = attrs.evolve(with_effect, seed=seed, key=_key(with_effect, f"s{seed}"))
            for number in range(1, repeat + 1):
                yield with_seed if number == 1 else _repetition(with_seed, number)


def _key(request: GenerationRequest, part: str) -> str | None:
    return None if request.key is None else f"{request.key}-{re.sub(r'[^a-z0-9]+', '-', part.lower()).strip('-')}"


def _repetition(request: GenerationRequest, number: int) -> GenerationRequest:
    """Return the repetition `number` of `request`, whose seed follows from the content and the number."""
    digest = hashlib.sha256(f"{request.fingerprint()} {number}".encode()).digest()
    seed = int.from_bytes(digest[:8], "big") % SEED_LIMIT
    return evolve_unchecked(request, seed=seed, key=_key(request, f"r{number}"))
