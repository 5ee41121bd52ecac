"""Values for the tests of the journal: times, texts, JSON, and errors of every class."""

from __future__ import annotations

import inspect
from typing import Any, get_args

import attrs
from hypothesis import strategies as st

from pika_async import errors
from pika_async.errors import ErrorKind, PikaError
from pika_async.jobs import utc_from_timestamp

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PikaError)]

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
numbers = st.floats(allow_nan=False)
times = st.integers(0, 4_000_000_000_000).map(lambda milliseconds: utc_from_timestamp(milliseconds / 1000))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
FACTS: dict[str, st.SearchStrategy[Any]] = {
    "str": texts,
    "str | None": st.none() | texts,
    "int": st.integers(-(2**70), 2**70),
    "int | None": st.none() | st.integers(),
    "float": numbers,
    "bool": st.booleans(),
    "datetime | None": st.none() | times,
    "Any": json_values,
    "Mapping[str, str]": st.dictionaries(texts, texts, max_size=3),
    "bool | None": st.none() | st.booleans(),
    "ErrorKind": st.sampled_from(get_args(ErrorKind)),
}
FACTS[str(ErrorKind).replace("typing.", "")] = FACTS["ErrorKind"]


def named(type_: object) -> str:
    """The type of a field as it is written; attrs holds text or, once somebody has asked, the type."""
    return (
        (type_.__name__ if isinstance(type_, type) else str(type_))
        .replace("datetime.", "")
        .replace("typing.", "")
        .replace("collections.abc.", "")
    )


def of_kind(kind: type[PikaError]) -> st.SearchStrategy[PikaError]:
    return st.builds(kind, **{field.name: FACTS[named(field.type)] for field in attrs.fields(kind)})


def facts_of(error: PikaError | None) -> object:
    return error and (type(error), {field.name: getattr(error, field.name) for field in attrs.fields(type(error))})
