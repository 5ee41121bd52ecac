"""Mistyped columns: which field each is taken for, and that no misspelling of one field is taken for another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pika_async.cli.columns import REQUEST_FIELDS, field_of, nearest_column
from pika_async.models.spelling import abbreviates, did_you_mean


def misspellings(field: str) -> Iterator[str]:
    """Yield what people type for a field: a letter too few or too many, two swapped, words shortened or turned."""
    yield from (f"{field}s", f" {field.upper()}", field[:-1])
    for at in range(len(field)):
        yield from (field[:at] + field[at + 1 :], field[: at + 1] + field[at:])
        yield field[:at] + field[at + 1 : at + 2] + field[at : at + 1] + field[at + 2 :]
    if "_" in field:
        first, last = field.split("_")
        yield from (f"{first[:length]} {last}" for length in range(2, len(first)))
        yield from (f"{first[:3]}{last}", f"{first[:3].title()}{last.title()}", f"{first[:4]}. {last[:3]}")
        yield from (f"{last} {first}", f"{last.title()} ({first})", f"My {first}-{last}!")


@pytest.mark.parametrize("field", REQUEST_FIELDS)
def test_a_misspelt_field_is_taken_for_no_other(field: str) -> None:
    """Whatever is left out, doubled, swapped or shortened, the suggestion is the field that was meant."""
    meant = {column: field_of(column) or nearest_column(column) for column in misspellings(field)}
    assert {column: other for column, other in meant.items() if other != field} == {}


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("neg prompt", "negative_prompt"), ("neg_prompt", "negative_prompt"), ("Neg. prompt text", "negative_prompt"),
        ("NegPrompt", "negative_prompt"), ("negprompt", "negative_prompt"), ("n_prompt", "negative_prompt"),
        ("Negative", "negative_prompt"), ("Prompt (negative)", "negative_prompt"), ("neg", "negative_prompt"),
        ("prompts", "prompt"), ("Prompt 2", "prompt"), ("img", "image"), ("Picture", "image"), ("vid", "video"),
        ("FPS", "frame_rate"), ("CFG scale", "guidance_scale"), ("guidance", "guidance_scale"), ("aspect", "aspect_ratio"),
        ("cam", "camera"), ("Pan", "camera.pan"), ("Random seed", "seed"), ("Sound effects", "sfx"),
        ("ingr mode", "ingredients_mode"), ("motion strength", "motion"), ("model name", "model"),
        ("Seconds", "duration"), ("tail", "last_image"), ("Video resolution", "resolution"),
        ("My image (last)", "last_image"),
    ],
)  # fmt: skip
def test_words_of_people_suggest_the_field_that_they_mean(column: str, field: str) -> None:
    """They are not taken as the field, and not kept as metadata without a word."""
    assert (field_of(column), nearest_column(column)) == (None, field)


@pytest.mark.parametrize(
    "column", ["Campaign", "client", "name", "price", "notes", "date", "group", "from", "AR", "negation"]
)
def test_other_columns_are_metadata(column: str) -> None:
    """A name that resembles no field suggests none."""
    assert (field_of(column), nearest_column(column)) == (None, None)


def test_only_beginnings_of_every_word_abbreviate_a_name() -> None:
    """A whole name is not its own abbreviation, and one word alone has none."""
    assert abbreviates("negprompt", "negative_prompt")
    assert abbreviates("maxch", "max-charges")
    assert not any(abbreviates(text, "negative_prompt") for text in ("negativeprompt", "prompt", "negative", "np", ""))
    assert not abbreviates("pro", "prompt")
    assert did_you_mean("neg_prompt", REQUEST_FIELDS) == "; did you mean negative_prompt?"
