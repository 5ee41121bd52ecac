"""Numbers with their nouns and ranges of time, as a person would write them, in every text of the command line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pika_async.cli
from pika_async.cli.words import counted, range_words

#: Nouns that are counted somewhere; a number in front of one in the plural is only right for two or more.
PLURALS: Final = re.compile(
    r"^ (?:[a-z]+ )?(callbacks|cells|charges|days|durations|faults|files|generations|groups|jobs|keys|lines|points|"
    r"polls|prompts|reasons|replies|requests|rows|seconds|tasks|videos)\b"
)
#: Texts of numbers that are two or more where they are printed.
MANY: Final = {
    "faults.py": {" rows: "}, "fetching.py": {" tasks; nothing was fetched", " tasks was found"},
    "keys.py": {" keys ("}, "runner.py": {" jobs are paid for again; the earlier ones are kept as KEY~1"},
    "sweeps.py": {" requests, but must make at most "}, "preview.py": {" points"},
    "workbooks.py": {" cells; split it"},
}  # fmt: skip
UNITS: Final = {"s": 1, "min": 60, "h": 3600}


@pytest.mark.parametrize(
    ("number", "nouns", "text"),
    [
        (0, ("job",), "0 jobs"), (1, ("job",), "1 job"), (2, ("job",), "2 jobs"), (1, ("reply", "replies"), "1 reply"),
        (0, ("reply", "replies"), "0 replies"), (1.0, ("point",), "1 point"), (1.5, ("point",), "1.5 points"),
        (1_200_000.0, ("point",), "1,200,000 points"),
    ],
)  # fmt: skip
def test_a_number_has_its_noun(number: float, nouns: tuple[str, ...], text: str) -> None:
    assert counted(number, *nouns) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ((0.0, 1436.0), "up to 24 min"), ((0.1, 0.4), "up to 1 s"), ((30.0, 120.0), "30 s to 2 min"),
        ((40.0, 100.0), "40 to 100 s"), ((140.0, 380.0), "2 to 6.5 min"), ((61.0, 61.0), "60 to 65 s"),
        ((60.0, 60.0), "60 s"), ((90.0, 200.0), "1.5 to 3.5 min"), ((3.0, 12.0), "3 to 12 s"), ((700.0, 1750.0), "11 to 30 min"),
        ((2000.0, 9000.0), "30 min to 2.5 h"), ((7300.0, 90_000.0), "2 to 25 h"), ((0.0, 0.0), "0 s"),
    ],
)  # fmt: skip
def test_a_range_is_written_as_a_person_would(seconds: tuple[float, float], text: str) -> None:
    assert range_words(seconds) == text


@given(st.floats(0, 500_000), st.floats(0, 500_000))
def test_round_figures_hold_the_range(one: float, other: float) -> None:
    """The words promise no shorter range than was computed, nor one that is wider by more than a step at each end."""
    low, high = sorted((one, other))
    first, second = _seconds(range_words((low, high)))
    assert first <= low + 1e-3
    assert second >= high - 1e-3
    assert second - high <= max(1.0, high / 2)
    assert low - first <= max(1.0, high / 2)


def _seconds(words: str) -> tuple[float, float]:
    """Return the seconds that the words of a range stand for."""
    figures = re.findall(r"([0-9.e+]+)(?: (s|min|h))?", words)
    unit = figures[-1][1]
    found = [float(figure) * UNITS[own or unit] for figure, own in figures]
    return (0.0, found[0]) if words.startswith("up to") else (found[0], found[-1])


def _counts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the text behind each number of an f-string that stands before a bare plural."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            for value, behind in zip(node.values, node.values[1:], strict=False):
                text = str(behind.value) if isinstance(behind, ast.Constant) else ""
                if isinstance(value, ast.FormattedValue) and PLURALS.search(text):
                    yield node.lineno, text


def test_no_number_stands_before_a_bare_plural() -> None:
    """Every text of the command line reads right for one: `counted` has the noun, or the number is two or more."""
    folder = Path(pika_async.cli.__file__).parent
    found = [
        f"{path.name}:{line}: {text!r}"
        for path in sorted(folder.glob("*.py"))
        if not path.name.startswith("board")
        for line, text in _counts(path)
        if text not in MANY.get(path.name, ())
    ]
    assert found == []
