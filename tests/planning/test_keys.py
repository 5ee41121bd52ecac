"""Assignment of keys to requests without one: each paid job is found again, however the list has changed since."""

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
from pika_async._planning.keys import MAX_SLUG_LENGTH, KeyAssigner, key_suffix, single_key, slug
from pika_async.models.fields import check_key


@attrs.frozen
class Row:
    """Stand-in for a request; its content is its fingerprint."""

    content: str
    key: str | None = None

    @property
    def prompt(self) -> str:
        return f"a café {self.content[0] * 2}"

    def fingerprint(self) -> str:
        return self.content


#: The first three share their first digits, as some of many thousand contents do.
CONTENTS = ["aaaaaaaa0", "aaaaaaaa1", "aaaabbbb0", "bbbbbbbb0"]
rows = st.lists(st.sampled_from(CONTENTS).map(Row), max_size=12)
#: Content by key.
Jobs = dict[str, str]


def keys_of(batch: Sequence[Row], jobs: Jobs) -> list[str]:
    """Return the keys of `batch`, and add its jobs to `jobs`."""
    assigner = KeyAssigner(lambda key, content: jobs.get(key) == content)
    for key in jobs:
        assigner.add_existing(key)
    keys = [assigner.key_for(cast("GenerationRequest", row), index) for index, row in enumerate(batch)]
    for key, row in zip(keys, batch, strict=True):
        jobs.setdefault(key, row.content)
    return keys


def jobs_after(batches: Iterable[Sequence[Row]]) -> Jobs:
    jobs: Jobs = {}
    for batch in batches:
        keys_of(batch, jobs)
    return jobs


@attrs.frozen
class WordlessRow(Row):
    """Stand-in for a request whose prompt has no word in ASCII; its keys are those without words."""

    @property
    def prompt(self) -> str:
        return "海边的猫"


histories = st.lists(rows | rows.map(lambda batch: [WordlessRow(row.content) for row in batch]), max_size=4)


@given(histories, rows)
def test_existing_jobs_are_found_as_often_as_they_exist(history: list[list[Row]], batch: list[Row]) -> None:
    """Rows with one content are matched to as many existing jobs as there are; the rest are new, and keys are unique."""
    jobs = jobs_after(history)
    before = Counter(jobs.values())
    old = set(jobs)
    keys = keys_of(batch, jobs)
    assert len(set(keys)) == len(batch)
    assert [jobs[key] for key in keys] == [row.content for row in batch]
    found = Counter(jobs[key] for key in keys if key in old)
    assert found == before & Counter(row.content for row in batch)


@given(histories, rows, st.randoms(use_true_random=False))
def test_a_repeated_list_adds_no_job_in_any_order(history: list[list[Row]], batch: list[Row], random: Any) -> None:
    """The same rows again, shuffled or with some left out, are all existing jobs."""
    jobs = jobs_after([*history, batch])
    size = len(jobs)
    shuffled = random.sample(batch, random.randint(0, len(batch)))
    keys_of(shuffled, jobs)
    assert len(jobs) == size


@given(histories, rows)
@example([[Row("aaaaaaaa1"), Row("aaaaaaaa0"), Row("aaaaaaaa0")]], [Row("aaaaaaaa0")] * 4)
def test_the_same_list_twice_has_the_same_keys(history: list[list[Row]], batch: list[Row]) -> None:
    """A list that is run again gets the same jobs row by row, after any earlier runs."""
    jobs = jobs_after(history)
    first = keys_of(batch, jobs)
    assert keys_of(batch, jobs) == first


@given(rows)
def test_a_new_list_gets_keys_from_its_positions(batch: list[Row]) -> None:
    """A key is the position from 1, the words and the beginning of the content, and a valid key of a job."""
    keys = keys_of(batch, {})
    letters = (row.content[0] * 2 for row in batch)
    ends = [f"a-cafe-{letter}-{row.content[:4]}" for letter, row in zip(letters, batch, strict=True)]
    assert keys == [f"{index:05d}-{end}" for index, end in enumerate(ends, 1)]
    for key in keys:
        check_key(key)


@given(rows, st.integers(0, 12), st.sampled_from(CONTENTS))
def test_an_inserted_or_removed_row_leaves_the_other_keys(batch: list[Row], at: int, content: str) -> None:
    """One more row adds exactly one job; one row less adds none."""
    jobs = jobs_after([batch])
    keys_of([*batch[:at], Row(content), *batch[at:]], jobs)
    assert len(jobs) == len(batch) + 1
    keys_of(batch[1:], jobs)
    assert len(jobs) == len(batch) + 1


def test_a_given_key_is_kept() -> None:
    """A request with a key keeps it, whatever exists; a single request without one gets a random key."""
    assert keys_of([Row("aaaaaaaa0", key="order-17")] * 2, {"order-17": "bbbbbbbb0"}) == ["order-17"] * 2
    request = GenerationRequest("a cat")
    assert single_key(attrs.evolve(request, key="order-17")) == "order-17"
    assert single_key(request) != single_key(request)


@pytest.mark.parametrize("content", ["aaaaaaaa0", "aaaaaaaa1"], ids=["the same content", "another content"])
@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
def test_a_row_without_a_key_gets_none_that_an_earlier_row_has(content: str, exists: bool) -> None:
    """Two rows stay two rows when the first has the very key that the second would get."""
    for key in ("00002-aaaaaaaa", "00002-a-cafe-aa-aaaa"):
        named = Row(content, key=key)
        keys = keys_of([named, Row("aaaaaaaa0")], {key: content} if exists else {})
        assert len(set(keys)) == 2


@given(histories, rows)
def test_a_key_without_words_stays_that_of_its_content(history: list[list[Row]], batch: list[Row]) -> None:
    """Jobs whose keys hold no words are found again by rows with their content, at any position."""
    jobs = {f"{number:05d}-{content[:8]}": content for number, content in enumerate(CONTENTS * 2, 1)}
    for earlier in history:
        keys_of(earlier, jobs)
    size = len(jobs)
    found = keys_of([Row(content) for content in CONTENTS * 2], jobs)
    assert (len(jobs), Counter(jobs[key] for key in found)) == (size, Counter(CONTENTS * 2))


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("A café on the beach", "a-cafe-on-the-beach"),
        ("Straße: Łódź & Ærøskøbing!", "strasse-lodz-aeroskobing"),
        ("  a\n\tcat,  in the rain. ", "a-cat-in-the-rain"),
        ("海边的猫 cat", "cat"),
        ("../../etc/passwd", "etc-passwd"),
        ("ﬁne ２０２６", "fine-2026"),
        ("one two three four five six seven eight nine ten", "one-two-three-four-five-six-seven-eight"),
        ("x" * 90, "x" * MAX_SLUG_LENGTH),
    ],
)
def test_words_of_a_prompt_are_folded_to_ascii_and_cut(prompt: str, words: str) -> None:
    """A slug holds whole words, or the beginning of the first where that is long."""
    assert slug(prompt) == words
    assert key_suffix(prompt, "bb80" + "0" * 60) == f"{words}-bb80"


@pytest.mark.parametrize("prompt", ["海边的猫", "قطة على الشاطئ", "🐈🌧", "!?"])
def test_a_prompt_without_ascii_words_has_a_key_of_digits(prompt: str) -> None:
    """Such a key is the position and 8 digits of the content."""
    request = GenerationRequest(prompt)
    assert KeyAssigner(lambda *_: False).key_for(request, 11) == f"00012-{request.fingerprint()[:8]}"


@given(st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable()))
def test_every_prompt_gives_a_key_that_names_a_file(prompt: str) -> None:
    """A made key is a valid key in ASCII."""
    key = KeyAssigner(lambda *_: False).key_for(GenerationRequest(prompt), 99_999)
    check_key(key)
    assert key.isascii()


def calls_for(count: int, jobs: Jobs) -> int:
    """Return the number of function calls in the assignment of keys to `count` equal rows."""
    calls = 0

    def count_call(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count_call)
    try:
        keys_of([Row("aaaaaaaa0")] * count, jobs)
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("first", [None, 0, 250, 500, 1000], ids=str)
def test_the_work_grows_linearly_with_the_number_of_equal_rows(first: int | None) -> None:
    """Twice as many equal rows are at most about twice the work, at any position of the existing jobs."""

    def work(scale: int) -> int:
        numbers = () if first is None else range(scale * first + 1, scale * first + scale * 500 + 1)
        return calls_for(1000 * scale, {f"{number:05d}-aaaaaaaa": "aaaaaaaa0" for number in numbers})

    assert work(2) < 3 * work(1)
