"""Keys and task ids as people type and paste them: in quotes, by their beginnings, inside a line that was printed."""

from __future__ import annotations

import pytest

from pika_async.cli.exits import UsageError
from pika_async.cli.keys import find_keys, parse_task_ids

KEYS = ["00001-cat-ab12", "00002-cat-cd34", "00010-dog-ef56", "k1", "k10", "k11"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["k1"], ["k1"]),
        (["k10", "k1"], ["k10", "k1"]),
        (["00001"], ["00001-cat-ab12"]),
        (["00001-cat-ab12", "00001"], ["00001-cat-ab12"]),
        (["'k10'", '"k11",', " k1\n", "“00010”"], ["k10", "k11", "k1", "00010-dog-ef56"]),
        ([], []),
    ],
)
def test_a_key_is_found_whole_or_by_a_beginning_of_its_own(given: list[str], found: list[str]) -> None:
    """A whole key wins over longer ones that begin with it; quotes and commas around it do not count."""
    assert find_keys(given, KEYS, command="retry") == found


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("0000", "retry: 0000 fits 2 keys (00001-cat-ab12, 00002-cat-cd34); give more of the key; nothing was sent"),
        ("k", "fits 3 keys (k1, k10, k11)"),
        ("x", "x is not the key of a job in this folder, nor the beginning of one"),
        ("", "'' is not the key"),
        ("''", "is not the key"),
        ("K1", "is not the key"),
    ],
)
def test_a_text_that_fits_no_key_or_several_is_an_error(given: str, text: str) -> None:
    """An empty text fits no key, and not all of them."""
    with pytest.raises(UsageError) as caught:
        find_keys(["k1", given], KEYS, command="retry")
    assert text in str(caught.value)


def test_a_key_that_the_command_can_use_wins_over_those_that_it_cannot() -> None:
    """A beginning is sought among the usable keys first."""
    assert find_keys(["a"], ["a1"], command="resolve", others=["a2", "a3"]) == ["a1"]
    assert find_keys(["a2"], ["a1"], command="resolve", others=["a2", "a3"]) == ["a2"]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (["a1-b2"], ["a1-b2"]),
        (["a", "b", "a"], ["a", "b"]),
        (["'a'", '"b",'], ["a", "b"]),
        ([" a\nb\n"], ["a", "b"]),
        (["accepted by cometapi: task a1-b2"], ["a1-b2"]),
        (["accepted", "by", "cometapi:", "task", "a1-b2"], ["a1-b2"]),
        (["interrupted: task a1-b2 is queued and continues at cometapi"], ["a1-b2"]),
        (["error: job k at gptge (task a1-b2): not settled within 1800 s"], ["a1-b2"]),
        (["task", "a1-b2"], ["a1-b2"]),
        (["task-7"], ["task-7"]),
        (["task a1 is queued; to fetch it: task a1"], ["a1"]),
    ],
)
def test_task_ids_are_read_from_what_people_paste(arguments: list[str], ids: list[str]) -> None:
    """Ids alone, in quotes, or inside one printed line."""
    assert parse_task_ids(arguments) == ids


@pytest.mark.parametrize("arguments", [[], [""], ["  "], ["''"], ["task a is queued; task b is running"]])
def test_no_id_or_an_ambiguous_line_is_an_error(arguments: list[str]) -> None:
    """Where a line names two tasks, their ids must stand alone."""
    with pytest.raises(UsageError, match=r"needs the id of a task|must name one task"):
        parse_task_ids(arguments)
