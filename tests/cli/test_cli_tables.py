"""Tables as people have them: whatever program wrote a table, its requests are the same."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.cli.exits import InputErrors, UsageError
from pika_async.cli.inputs import parse_input
from pika_async.cli.requests import check_rows, input_notes
from pika_async.cli.tables import Table
from pika_async.providers import NATIVE
from tests.cli.workbooks import by_hand, by_openpyxl, by_xlsxwriter, inline

#: A table as a German spreadsheet exports it.
GERMAN: Final = "Prompt;Effect;Campaign\r\nein Café am Meer;Melt;Frühling\r\n;;\r\nein Käfer;;\r\n"


def requests_of(table: Table) -> list[dict[str, Any]]:
    """Return what counts of the requests of an input."""
    fields = ("prompt", "key", "effect", "aspect_ratio", "seed", "motion", "camera", "negative_prompt", "metadata")
    return [{name: getattr(one.request, name) for name in fields} for one in check_rows(table, NATIVE)]


def faults_of(suffix: str, data: bytes) -> str:
    with pytest.raises(UsageError) as caught:
        check_rows(parse_input("f", suffix, data), NATIVE)
    return str(caught.value)


# --- the same table in every form -------------------------------------------------------------------------------------

#: Texts without what a form cannot hold: controls, and what XML or a spreadsheet's own escapes would change.
TEXTS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co", "Zl", "Zp")), min_size=1
).filter(lambda text: text.strip() == text and "_x" not in text.lower() and "\ufffe" not in text)
ROWS = st.fixed_dictionaries(
    {"prompt": TEXTS, "Owner": TEXTS | st.just("")},
    optional={
        "effect": st.sampled_from(["Melt", "inflate", "Cake-ify"]),
        "aspect_ratio": st.sampled_from(["16:9", "9:16", "1:1", "1.78"]),
        "seed": st.integers(0, 2**40),
        "motion": st.integers(0, 4),
        "negative_prompt": TEXTS,
        "camera.pan": st.sampled_from(["left", "right"]),
    },
)
SPELLINGS: Final = {
    "prompt": ["prompt", "Prompt", " PROMPT ", "promptText", "Prompt Text", "prompt_text"],
    "effect": ["effect", "Effect", "pikaffect", "style"],
    "aspect_ratio": ["aspect_ratio", "aspectRatio", "Aspect Ratio", "ratio", "options.aspectRatio"],
    "seed": ["seed", "Seed ", "options.parameters.seed"],
    "motion": ["motion", "MOTION"],
    "negative_prompt": ["negative_prompt", "negativePrompt", "Negative prompt"],
    "camera.pan": ["camera.pan", "Camera Pan", "camera_pan"],
    "Owner": ["Owner"],
}
ENCODINGS: Final = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]


def grid_of(rows: list[dict[str, Any]], spelling: Callable[[list[str]], str]) -> list[list[Any]]:
    """Return a header in some spelling and the cells below it, with blank rows and columns as spreadsheets leave them."""
    names = list(SPELLINGS)
    cells = [[row.get(name, "") for name in names] for row in rows]
    return [[*(spelling(SPELLINGS[name]) for name in names), "", ""], [""] * 4, *cells, [], [""]]


def as_csv(grid: list[list[Any]], delimiter: str, line_end: str, quoting: Any) -> str:
    table = io.StringIO(newline="")
    csv.writer(table, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(grid)
    return table.getvalue()


@given(st.lists(ROWS, min_size=1, max_size=4), st.data())
def test_a_table_gives_the_same_requests_in_every_form(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """Formats, encodings, delimiters, line ends, quotes and the spelling of columns change no request."""
    objects = [{name: value for name, value in row.items() if value != "" or name == "Owner"} for row in rows]
    expected = requests_of(parse_input("f", ".jsonl", "\n".join(map(json.dumps, objects)).encode()))
    grid = grid_of(rows, lambda names: data.draw(st.sampled_from(names)))
    text = as_csv(
        grid, data.draw(st.sampled_from(",;\t")), data.draw(st.sampled_from(["\n", "\r\n", "\r"])),
        data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )  # fmt: skip
    encoding = data.draw(st.sampled_from(ENCODINGS[:3] if not text.isascii() else ENCODINGS))
    suffix = data.draw(st.sampled_from([".csv", ".tsv", ""]))
    for kind, content in (
        (suffix, text.encode(encoding)),
        (".json", json.dumps(objects).encode(encoding)),
        (".xlsx", by_xlsxwriter(grid)),
    ):
        table = parse_input("f", kind, content)
        assert requests_of(table) == expected, (kind, content)
        assert [column for column in table.columns if column == "Owner"] == ["Owner"]


def test_a_german_export_is_read_at_once() -> None:
    """Windows-1252, semicolons, a blank row and a column of one's own: two requests, and notes of what was guessed."""
    table = parse_input("p.csv", ".csv", GERMAN.encode("cp1252"))
    assert requests_of(table) == requests_of(parse_input("p.csv", ".csv", GERMAN.encode()))
    assert [request["metadata"] for request in requests_of(table)] == [{"Campaign": "Frühling"}, {"Campaign": ""}]
    assert list(input_notes(table)) == [
        "p.csv: not UTF-8; read as Windows-1252, which was guessed (such as 'Café')",
        "p.csv: not fields of a request, kept as metadata: 'Campaign'",
    ]


def test_all_faults_of_a_german_export_are_named_at_once() -> None:
    """Columns and rows are judged in one go, with the rows that the spreadsheet shows."""
    text = "Prompt;Efekt;Seed;Motion\r\nein Café;Melt;1,5;9\r\n;;\r\n ;;42,0;3\r\n"
    lines = faults_of(".csv", text.encode("cp1252")).splitlines()
    assert [line.split(" must")[0] for line in lines] == [
        'f:1: "Efekt": unknown column; did you mean effect? It', "f:2: motion: 9", "f:2: seed: '1,5'",
        "f:4: prompt:", "3 rows cannot be sent; nothing was sent",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("cells", "field", "value"),
    [
        ("seed\n42.0", "seed", 42), ("seed;x\n42,00;", "seed", 42), ("motion\n 3 ", "motion", 3),
        ("aspect ratio\n16:09", "aspect_ratio", "16:9"), ("ratio\n09:16:00", "aspect_ratio", "9:16"),
        ("ratio;x\n1,78;", "aspect_ratio", "1.78"), ("model\n2", "model", "2.0"), ("model;x\n1,5;", "model", "1.5"),
        ("duration_s\n5", "duration", 5), ("Duration;x\n7,5;", "duration", 7.5), ("duration\n10 S", "duration", 10),
        ("duration\n1.000", "duration", "1.000"), ("Resolution\n1080P", "resolution", "1080P"),
        ("image_tail\nz.png", "last_image", "z.png"), ("Last image\nz.png", "last_image", "z.png"),
        ("imageTail\nhttps://x/z", "last_image", "https://x/z"),
        ("extend\nWAHR", "extend", True), ("strict\nFAUX", "strict", False),
    ],
)  # fmt: skip
def test_numbers_are_read_as_spreadsheets_write_them(cells: str, field: str, value: object) -> None:
    """Decimals of whole numbers, decimal commas, ratios that became times, and booleans of the user's language."""
    header, row = cells.split("\n")
    delimiter = ";" if ";" in header else ","
    table = parse_input("f", ".csv", f"prompt{delimiter}{header}\na{delimiter}{row}\n".encode())
    assert table.rows[0].fields[field] == value


def test_a_line_that_names_the_delimiter_is_not_a_row() -> None:
    """Spreadsheets write and hide it."""
    table = parse_input("f", ".csv", b"sep=;\r\nprompt;seed\r\na, b;x\r\n")
    with pytest.raises(InputErrors, match="f:2: seed: 'x'"):
        check_rows(table, NATIVE)


def test_rows_without_their_last_cells_are_whole() -> None:
    """Spreadsheets leave out blank cells at the end of some rows."""
    assert len(requests_of(parse_input("f", ".csv", b"prompt,seed,Owner\na\nb,2\nc,,Ann\n"))) == 3


# --- workbooks --------------------------------------------------------------------------------------------------------


def test_cells_of_a_workbook_are_what_a_person_sees() -> None:
    """Whole numbers, dates, times that were meant as ratios, booleans and numbers as texts."""
    day, moment = dt.date(2026, 11, 28), dt.datetime(2026, 11, 28, 9, 30)  # noqa: DTZ001 - a spreadsheet knows no zone
    table = parse_input("f", ".xlsx", by_openpyxl([
        ["Prompt", "seed", "ratio", "extend", "model", "key", "Day", "At", "Score"],
        ["a", 42.0, dt.time(16, 9), False, 2.0, 17.0, day, moment, 0.1 + 0.2],
        [None, None],
        ["b", "7", 1.78, True, 1.5, "k", None, None, None],
    ]))  # fmt: skip
    assert [dict(row.fields) for row in table.rows] == [
        {
            "prompt": "a", "seed": 42, "aspect_ratio": "16:09", "extend": False, "model": "2.0", "key": "17",
            "metadata": {"Day": "2026-11-28", "At": "2026-11-28T09:30:00", "Score": "0.3"},
        } | {"aspect_ratio": "16:9"},
        {
            "prompt": "b", "seed": 7, "aspect_ratio": "1.78", "extend": True, "model": "1.5", "key": "k",
            "metadata": {"Day": "", "At": "", "Score": ""},
        },
    ]  # fmt: skip
    assert [row.number for row in table.rows] == [2, 4]


def test_the_first_sheet_with_cells_is_read_and_named() -> None:
    """The note says that there are others."""
    table = parse_input("f.xlsx", ".xlsx", by_openpyxl([], Clips=[["prompt"], ["a"]], Notes=[["prompt"], ["b"]]))
    assert [request["prompt"] for request in requests_of(table)] == ["a"]
    assert list(input_notes(table)) == ["f.xlsx: sheet 'Clips' is read, and no other"]


def test_inline_texts_and_computed_formulas_are_read() -> None:
    """As LibreOffice and other writers leave them: texts in runs, values beside formulas, escapes, blank rows between."""
    data = by_hand(
        f"<row r='3'>{inline('B3', 'Pro', 'mpt ')}{inline('C3', 'Owner')}</row>"
        '<row r="7"><c r="B7" t="str"><f>"a "&amp;"cat"</f><v>a_x000A_cat</v></c><c r="C7" t="str"><f>""</f><v></v></c></row>'
    )
    table = parse_input("f", ".xlsx", data)
    assert [(row.number, dict(row.fields)) for row in table.rows] == [
        (7, {"prompt": "a\ncat", "metadata": {"Owner": ""}})
    ]


def test_formulas_without_values_and_errors_are_faults() -> None:
    """A cell that holds nothing to send is never taken for a blank one."""
    data = by_hand(
        f"<row r='1'>{inline('A1', 'prompt')}{inline('B1', 'seed')}</row>"
        f"<row r='2'>{inline('A2', 'a')}<c r='B2'><f>1+1</f></c></row>"
        f"<row r='3'>{inline('A3', 'b')}<c r='B3' t='e'><f>1/0</f><v>#DIV/0!</v></c></row>"
    )
    text = faults_of(".xlsx", data)
    assert "f:2: cell B2: holds a formula that was never computed; open the file" in text
    assert "f:3: cell B3: holds the error #DIV/0!" in text


def test_a_cell_far_away_costs_nothing() -> None:
    """The last cell of the largest sheet is one cell, not all cells before it."""
    data = by_hand(
        f"<row r='1'>{inline('A1', 'prompt')}</row><row r='2'>{inline('A2', 'a')}</row><row r='1048576'><c r='XFD1048576'><v>5</v></c></row>"
    )
    assert "f:1048576: must have 1 cell like the header, not 16384" in faults_of(".xlsx", data)


def test_a_workbook_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes in its directory are enough to know."""
    monkeypatch.setattr("pika_async.cli.workbooks.MAX_UNPACKED_BYTES", 1000)
    assert "must unpack to at most" in faults_of(".xlsx", by_openpyxl([["prompt"], ["a"]]))
    monkeypatch.undo()
    monkeypatch.setattr("pika_async.cli.workbooks.MAX_CELLS", 10)
    assert "must hold at most 10 cells" in faults_of(".xlsx", by_openpyxl([["prompt"] * 11]))


# --- text -------------------------------------------------------------------------------------------------------------


def test_a_comment_is_named_and_a_prompt_may_begin_with_a_number_sign() -> None:
    r"""No line of a text is left out silently; `\#` begins a prompt."""
    table = parse_input("p.txt", ".txt", b"# later\n\\#1 fan dances\n#a cat\n")
    assert [row.fields for row in table.rows] == [{"prompt": "#1 fan dances"}]
    assert list(input_notes(table)) == [
        "p.txt: lines that begin with # are comments, and are not sent: 2 (1, 3); write \\# to begin a prompt with #"
    ]


def test_a_unicode_text_of_a_spreadsheet_is_a_table() -> None:
    """Its header is not a prompt."""
    table = parse_input("p.txt", ".txt", "Prompt\tSeed\r\nein Käfer\t7\r\n".encode("utf-16"))
    assert (requests_of(table)[0]["seed"], list(input_notes(table))) == (
        7, ["p.txt: read as a table, for its first line names columns"]
    )  # fmt: skip


@pytest.mark.parametrize(
    "column", ["Campaign", "Owner", "Scene", "Title", "Notes", "SKU", "Client", "Language", "Shot"]
)
def test_a_column_of_ones_own_is_metadata(column: str) -> None:
    """A name that is not near a field is kept as it is written."""
    assert parse_input("f", ".csv", f"prompt,{column}\na,x\n".encode()).rows[0].fields["metadata"] == {column: "x"}


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("promt", "prompt"), ("Promtp", "prompt"), ("prompts", "prompt"), ("effekt", "effect"), ("modell", "model"),
        ("aspect", "aspect_ratio"), ("guidance", "guidance_scale"), ("image file", "image"), ("zoom", "camera.zoom"),
        ("negativ promt", "negative_prompt"), ("seeds", "seed"),
    ],
)  # fmt: skip
def test_a_column_near_a_field_is_an_error(column: str, field: str) -> None:
    """What may be a mistyped field is never kept as metadata: the video would be paid without it."""
    assert f"did you mean {field}?" in faults_of(".csv", f"prompt,{column}\na,x\n".encode())
    assert f"did you mean {field}?" in faults_of(".jsonl", json.dumps({"prompt": "a", column: "x"}).encode())


def test_an_object_of_a_wire_is_read_as_it_is() -> None:
    """Options and parameters within others are fields."""
    body = {
        "promptText": "a", "pikaffect": "Melt", "options": {
            "frameRate": 24, "aspectRatio": 1.5, "camera": {"pan": "left"}, "parameters": {"guidanceScale": 9, "seed": 3},
        },
    }  # fmt: skip
    assert parse_input("f", ".jsonl", json.dumps(body).encode()).rows[0].fields == {
        "prompt": "a", "effect": "Melt", "frame_rate": 24, "aspect_ratio": 1.5, "camera": {"pan": "left"},
        "guidance_scale": 9, "seed": 3,
    }  # fmt: skip
