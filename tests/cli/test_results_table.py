"""`results.csv`: the results of a folder as a table that a spreadsheet opens as it is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.cli.results import COLUMNS, result_row
from pika_async.cli.results_table import write_results_table
from pika_async.jobs import Job
from pika_async.models import GenerationRequest
from tests.cli.command_line import CommandLine, serving

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", " =1+1", "＝1+1", "\n=1"]


def read(file: Path) -> list[dict[str, str]]:
    """Return the table as a spreadsheet reads it."""
    text = file.read_bytes().decode("utf-8")
    assert text.startswith("\ufeff")
    return list(csv.DictReader(text[1:].splitlines(keepends=True), strict=True))


def row_of(prompt: str, index: int = 0, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    request = GenerationRequest(prompt, metadata=metadata)
    return result_row(Job(key=f"k{index}", index=index, request=request, provider="p", base_url="http://h"), Path())


def test_a_batch_leaves_a_table_with_the_columns_of_its_input(cli: CommandLine) -> None:
    """Columns and rows are in the order of the input, after failures, a second run and a retry as well."""
    source = cli.write("b.csv", "Campaign;Prompt;key;Größe\n;fails;a;9\nMai;ein Käfer;b;\nJuni;=1+1;c;-3,5\n")
    with serving({"on": "create", "prompt": "fails", "nth": 1, "do": "fails"}) as emulator:
        for code, argv in ((1, ()), (1, ()), (0, ("--again", "a"))):
            assert cli.batch(emulator, source, *argv).code == code
            table = read(cli.folder / "pika-out" / "results.csv")
            keys = [row["key"] for row in table]
            assert (keys, list(table[0])[-2:]) == (["a", *(["a~1"] if argv else []), "b", "c"], ["Campaign", "Größe"])
    assert [row["status"] for row in table] == ["succeeded", "failed", "succeeded", "succeeded"]
    assert [(row["Campaign"], row["Größe"]) for row in table] == [("", "9"), ("", "9"), ("Mai", ""), ("Juni", "-3,5")]
    assert (table[1]["error_type"], table[3]["prompt"], table[2]["file"]) == (
        "GenerationFailed",
        "'=1+1",
        "videos/b.mp4",
    )
    assert [record["metadata"] for record in cli.results()][-1:] == [{"Campaign": "", "Größe": "9"}]
    assert cli("resume", "pika-out").code == 0
    assert read(cli.folder / "pika-out" / "results.csv") == table


def test_the_table_has_every_field_of_a_line(tmp_path: Path) -> None:
    """The error is three columns; every other field is one, with the same name."""
    write_results_table([row_of("a")], tmp_path / "results.csv")
    errors = ["error_type", "error_kind", "error_message"]
    at = COLUMNS.index("error")
    assert list(read(tmp_path / "results.csv")[0]) == [*COLUMNS[:at], *errors, *COLUMNS[at + 1 :]][:-1]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_is_never_a_formula(tmp_path: Path, text: str) -> None:
    """Prompts, values and names of columns begin with an apostrophe where a spreadsheet would compute them."""
    write_results_table([row_of(text, metadata={text: text})], tmp_path / "results.csv")
    [row] = read(tmp_path / "results.csv")
    inert = "'" + text.replace("\t", " ")
    assert (row["prompt"], row[inert]) == (inert, inert)


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5), st.text() | st.integers() | st.none() | st.lists(st.booleans()), max_size=4
        ),
        max_size=4,
    )
)
def test_any_metadata_is_a_table(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    """Each row has as many cells as the header, and no control character."""
    file = tmp_path_factory.mktemp("table") / "results.csv"
    encodable = [json.loads(json.dumps(row).replace("\\ud", "\\u0")) for row in rows]
    write_results_table([row_of("a", index, row) for index, row in enumerate(encodable)], file)
    with file.open(encoding="utf-8-sig", newline="") as text:
        table = list(csv.reader(text, strict=True))
    assert {len(row) for row in table} == {len(table[0])}
    assert len(table) == len(rows) + 1
    assert all(c.isprintable() or c == "\n" for row in table for cell in row for c in cell)


def test_columns_of_later_rows_stand_where_those_rows_have_them(tmp_path: Path) -> None:
    """A name of a field is kept apart from that field."""
    rows = [row_of("a", 0, {"b": 1, "d": 1}), row_of("a", 1, {"a": 1, "b": 2, "c": True, "d": [1], "status": "mine"})]
    write_results_table(rows, tmp_path / "results.csv")
    table = read(tmp_path / "results.csv")
    assert list(table[0])[-5:] == ["a", "b", "c", "d", "metadata.status"]
    assert list(table[1].values())[-5:] == ["1", "2", "true", "[1]", "mine"]


def test_a_table_that_cannot_be_written_leaves_the_earlier_one(cli: CommandLine) -> None:
    """An error is printed, and the batch ends as it would."""
    with serving() as emulator:
        source = cli.write("b.csv", "key,prompt\na,a\n")
        assert cli.batch(emulator, source).code == 0
        table = (cli.folder / "pika-out" / "results.csv").read_bytes()
        (cli.folder / "pika-out" / ".results.csv.part").mkdir()
        ran = cli.batch(emulator, source)
    assert "results.csv cannot be written" in ran.err
    assert (ran.code, (cli.folder / "pika-out" / "results.csv").read_bytes()) == (0, table)
