"""Sweeps: the same arguments make the same requests, each with content and a key of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import GenerationRequest, InvalidRequest, sweep
from pika_async.models.sweep import PromptTemplate

ANIMALS = [{"color": "red", "animal": "fox", "key": "r"}, {"color": "blue", "animal": "heron", "key": "b"}]


def test_a_template_writes_prompts_from_columns() -> None:
    """Braces are escaped by doubling, names in any spelling; columns stay in the metadata."""
    made = list(sweep(ANIMALS, template="a {Color} { animal } {{at dusk}}"))
    assert [request.prompt for request in made] == ["a red fox {at dusk}", "a blue heron {at dusk}"]
    assert [request.metadata for request in made] == [
        {"color": "red", "animal": "fox"}, {"color": "blue", "animal": "heron"}
    ]  # fmt: skip


def test_a_template_takes_requests_and_their_prompts() -> None:
    """A field is a column as well."""
    requests = [GenerationRequest("a cat", effect="Melt", metadata={"mood": "calm"})]
    assert [one.prompt for one in sweep(requests, template="{prompt}, {mood}, {effect}")] == ["a cat, calm, Melt"]
    assert [one.prompt for one in sweep("a cat", template="{prompt} sleeps")] == ["a cat sleeps"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("a cat", "must name a column"), ("a {color", "must be a template"), ("a color}", "must be a template"),
        ("a {} cat", "names of columns alone"), ("a {color!r}", "names of columns alone"),
        ("a {color:>10}", "names of columns alone"), ("a {color[0]}", "names of columns alone"), (" ", "must not be empty"),
        ("a {size}", "size: None must be given; the template needs it"), ("a {empty}", "empty: '  ' must not be empty"),
        ("a {flag}", "flag: True must be text or a number"), ("a {colr}", "did you mean color"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_filled_is_refused(template: str, reason: str) -> None:
    """The error names the template or the column."""
    with pytest.raises(InvalidRequest, match=reason.replace("[", r"\[")):
        list(sweep({"color": "red", "empty": "  ", "flag": True}, template=template))


@given(st.text())
def test_any_text_is_a_template_or_our_error(text: str) -> None:
    """No other error is raised."""
    try:
        columns = PromptTemplate(text).columns
    except InvalidRequest:
        return
    assert PromptTemplate(text).fill(dict.fromkeys(columns, "x")) is not None


@given(
    st.integers(1, 4), st.none() | st.lists(st.integers(0, 50), unique=True, max_size=3),
    st.none() | st.lists(st.sampled_from(["Melt", "Ta-da", "inflate"]), unique=True, max_size=3),
)  # fmt: skip
def test_a_product_has_requests_and_keys_of_its_own(
    repeat: int, seeds: list[int] | None, effects: list[str] | None
) -> None:
    """Every combination is there once, with content and key of its own, and the same again."""
    rows = [GenerationRequest("a", key="k"), GenerationRequest("a", key="k-melt"), GenerationRequest("b")]

    def made() -> list[GenerationRequest]:
        return list(sweep(rows, repeat=repeat, seeds=seeds, effects=effects))

    count = repeat * (1 if seeds is None else len(seeds)) * (1 if effects is None else len(effects))
    requests = made()
    keys = [request.key for request in requests if request.key is not None]
    assert (len(requests), len(set(keys))) == (3 * count, 2 * count)
    assert len({request.fingerprint() for request in requests}) == 2 * count
    assert made() == requests


def test_more_repetitions_keep_the_first_ones() -> None:
    """A run with more repetitions pays only for the new ones, and one without any for the request as it stands."""
    once, thrice = (list(sweep("a cat", repeat=number)) for number in (1, 3))
    assert (once, len({request.seed for request in thrice})) == (thrice[:1], 3)
    assert once == [GenerationRequest("a cat")]
    assert list(sweep("a cat", repeat=5))[:3] == thrice


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"repeat": 0}, "repeat"), ({"repeat": True}, "repeat"), ({"seeds": [-1]}, "seed"), ({"seeds": [1]}, "seed"),
        ({"effects": ["Nope"]}, "effect"), ({"effects": ["Melt"]}, "effect"),
    ],
)  # fmt: skip
def test_a_wrong_argument_of_a_sweep_is_named(arguments: dict[str, Any], field: str) -> None:
    """A seed or an effect of a row is not replaced by one for all."""
    with pytest.raises(InvalidRequest, match=field):
        list(sweep(GenerationRequest("a", seed=4, effect="Melt"), **arguments))
    with pytest.raises(InvalidRequest, match="prompt"):
        list(sweep({"color": "red"}))
    with pytest.raises(InvalidRequest, match="requests"):
        list(sweep([5]))  # type: ignore[list-item]


def test_a_sweep_makes_requests_as_they_are_needed() -> None:
    """The source may be endless, and the seeds a billion."""

    def prompts() -> Iterator[str]:
        return (f"a cat {number}" for number in itertools.count())

    made = sweep(prompts(), seeds=range(10**9))
    assert [request.seed for request in itertools.islice(made, 3)] == [0, 1, 2]
