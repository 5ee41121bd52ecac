"""The keys of requests that have none: what was paid for is found again, however the list has changed since."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pika_async import GenerationRequest
from pika_async._planning.keys import KeyAssigner, single_key
from pika_async.models.fields import check_key


@attrs.frozen
class Row:
    """Stands for a request: its content is its fingerprint."""

    content: str
    key: str | None = None

    def fingerprint(self) -> str:
        return self.content


#: The first two begin alike, as two of many thousand contents may.
CONTENTS = ["aaaaaaaa0", "aaaaaaaa1", "bbbbbbbb0"]
rows = st.lists(st.sampled_from(CONTENTS).map(Row), max_size=12)
Known = dict[str, str]


def keys_of(batch: Sequence[Row], known: Known) -> list[str]:
    """The keys of `batch`, whose jobs are then known too."""
    keys = KeyAssigner(list(known), known.get)
    given = [keys.of(cast("GenerationRequest", row), index) for index, row in enumerate(batch)]
    for key, row in zip(given, batch, strict=True):
        known.setdefault(key, row.content)
    return given


def known_after(batches: Iterable[Sequence[Row]]) -> Known:
    known: Known = {}
    for batch in batches:
        keys_of(batch, known)
    return known


histories = st.lists(rows, max_size=4)


@given(histories, rows)
def test_what_is_known_is_found_as_often_as_it_is_known(history: list[list[Row]], batch: list[Row]) -> None:
    """Of rows with one content as many are old jobs as there are, the rest are new, and no two rows are one job."""
    known = known_after(history)
    before = Counter(known.values())
    old = set(known)
    keys = keys_of(batch, known)
    assert len(set(keys)) == len(batch)
    assert [known[key] for key in keys] == [row.content for row in batch]
    found = Counter(known[key] for key in keys if key in old)
    assert found == before & Counter(row.content for row in batch)


@given(histories, rows, st.randoms(use_true_random=False))
def test_a_list_that_is_known_adds_nothing_in_any_order(
    history: list[list[Row]], batch: list[Row], chance: Any
) -> None:
    """The same rows again, shuffled or some of them left out, are all known."""
    known = known_after([*history, batch])
    size = len(known)
    shuffled = chance.sample(batch, chance.randint(0, len(batch)))
    keys_of(shuffled, known)
    assert len(known) == size


@given(histories, rows)
@example([[Row("aaaaaaaa1"), Row("aaaaaaaa0"), Row("aaaaaaaa0")]], [Row("aaaaaaaa0")] * 4)
def test_the_same_list_twice_has_the_same_keys(history: list[list[Row]], batch: list[Row]) -> None:
    """Whatever was run before: a list that is run again is the same jobs, row by row."""
    known = known_after(history)
    first = keys_of(batch, known)
    assert keys_of(batch, known) == first


@given(rows)
def test_a_new_list_is_named_after_its_positions(batch: list[Row]) -> None:
    """Position from 1 and the beginning of the content; each may name a job and its file."""
    keys = keys_of(batch, {})
    assert keys == [f"{index:05d}-{row.content[:8]}" for index, row in enumerate(batch, 1)]
    for key in keys:
        check_key(key)


@given(rows, st.integers(0, 12), st.sampled_from(CONTENTS))
def test_a_row_that_is_put_in_or_taken_out_leaves_the_others_what_they_were(
    batch: list[Row], at: int, content: str
) -> None:
    """One more row is at most one more job; one row less is none more."""
    known = known_after([batch])
    keys_of([*batch[:at], Row(content), *batch[at:]], known)
    assert len(known) == len(batch) + 1
    keys_of(batch[1:], known)
    assert len(known) == len(batch) + 1


def test_a_key_of_ones_own_is_kept() -> None:
    """A request with a key has that key, whatever is known; alone, one without has a random one."""
    assert keys_of([Row("aaaaaaaa0", key="order-17")] * 2, {"order-17": "bbbbbbbb0"}) == ["order-17"] * 2
    asked = GenerationRequest("a cat")
    assert single_key(attrs.evolve(asked, key="order-17")) == "order-17"
    assert single_key(asked) != single_key(asked)


@pytest.mark.parametrize("content", ["aaaaaaaa0", "aaaaaaaa1"], ids=["the same content", "another content"])
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_a_row_without_a_key_gets_none_that_an_earlier_row_has(content: str, known: bool) -> None:
    """Who gives one row the very key that another would get, has two rows all the same."""
    named = Row(content, key="00002-aaaaaaaa")
    keys = keys_of([named, Row("aaaaaaaa0")], {"00002-aaaaaaaa": content} if known else {})
    assert len(set(keys)) == 2


def calls_for(count: int, known: Known) -> int:
    """How many calls it takes to name `count` equal rows."""
    calls = 0

    def see(_frame: object, event: str, _of: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(see)
    try:
        keys_of([Row("aaaaaaaa0")] * count, known)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("begin", [None, 0, 250, 500, 1000], ids=str)
def test_equal_rows_take_no_longer_each_the_more_they_are(begin: int | None) -> None:
    """Twice as many equal rows are twice the work, wherever those that are known stood."""

    def work(scale: int) -> int:
        names = () if begin is None else range(scale * begin + 1, scale * begin + scale * 500 + 1)
        return calls_for(1000 * scale, {f"{number:05d}-aaaaaaaa": "aaaaaaaa0" for number in names})

    assert work(2) < 3 * work(1)
