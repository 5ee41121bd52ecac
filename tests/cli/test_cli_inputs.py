"""Parsing of a batch's input: each format gives its rows, and any other bytes give rows or our own error."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.cli.cells import parse_camera
from pika_async.cli.columns import REQUEST_FIELDS
from pika_async.cli.exits import InputErrors, UsageError
from pika_async.cli.inputs import INPUT_SUFFIXES, parse_input
from pika_async.cli.requests import check_rows
from pika_async.cli.tables import Row, Table
from pika_async.models import Camera
from pika_async.providers import NATIVE


def rows_of(suffix: str, data: bytes) -> list[tuple[int, dict[str, object]]]:
    """Return the numbers and fields of the rows of an input without faults."""
    table = parse_input("f", suffix, data)
    assert not table.faults
    assert [row.faults for row in table.rows if row.faults] == []
    return [(row.number, dict(row.fields)) for row in table.rows]


def fields_of(suffix: str, data: bytes) -> list[dict[str, object]]:
    return [fields for _, fields in rows_of(suffix, data)]


PROMPTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1).filter(
    lambda text: text.strip() and not text.strip().startswith(("\\#", "\ufeff"))
)


def test_text_has_one_prompt_per_line() -> None:
    """Blank lines and comments are skipped, and line numbers are those of the file."""
    assert rows_of(".txt", b"\xef\xbb\xbfa cat\n\n  # no\r\n a dog \r") == [
        (1, {"prompt": "a cat"}),
        (4, {"prompt": "a dog"}),
    ]


def test_json_lines_are_objects_of_fields() -> None:
    """A null field counts as not given."""
    rows = rows_of(".jsonl", b'{"prompt": "a", "seed": 1, "image": null}\n\n{"prompt": "b", "camera": {"pan": "left"}}')
    assert rows == [(1, {"prompt": "a", "seed": 1}), (3, {"prompt": "b", "camera": {"pan": "left"}})]


def test_csv_cells_become_the_types_of_their_fields() -> None:
    """Integers, booleans, cameras, lists and JSON are parsed; an empty cell counts as not given."""
    data = (
        "prompt,seed,sfx,extend,camera,ingredients,metadata,effect\n"
        '"a, b",7,Yes,0,pan=left;zoom=in,http://a/x.png|http://b/y.png,"{""n"": 1}",\n'
    )
    assert rows_of(".csv", data.encode()) == [
        (2, {
            "prompt": "a, b", "seed": 7, "sfx": True, "extend": False, "camera": {"pan": "left", "zoom": "in"},
            "ingredients": ["http://a/x.png", "http://b/y.png"], "metadata": {"n": 1},
        })
    ]  # fmt: skip


def test_csv_rows_have_the_number_that_a_spreadsheet_shows() -> None:
    """A quoted cell may hold line ends; blank rows count."""
    rows = rows_of(".csv", b'prompt,camera.pan\n"one\ntwo",left\n\nthree,\n')
    assert rows == [(2, {"prompt": "one\ntwo", "camera": {"pan": "left"}}), (4, {"prompt": "three"})]


@pytest.mark.parametrize(
    ("data", "prompt"),
    [
        (b'\n {"prompt": "a"}', "a"),
        (b"\n[a cat]", "[a cat]"),
        (b'[{"prompt": "a"}]', "a"),
        (b'["a"]', "a"),
        (b"prompt;seed\na;1\n", "a"),
        (b'"Prompt Text"\na\n', "a"),
        (b"a prompt, perhaps", "a prompt, perhaps"),
    ],
)
def test_the_format_of_standard_input_is_recognized(data: bytes, prompt: str) -> None:
    """JSON, a header with a column of prompts, or else text."""
    assert fields_of("", data)[0]["prompt"] == prompt


@pytest.mark.parametrize("text", ["pan", "pan=left;pan=right", "roll=left", "", "pan=left;;zoom=in"])
def test_a_malformed_camera_is_refused(text: str) -> None:
    """The error shows how a camera is written."""
    with pytest.raises(ValueError, match="pan=left;zoom=in"):
        parse_camera(text)


def test_only_equal_rows_are_one_request() -> None:
    """Rows with equal key and content are one request; rows without a key are always separate."""
    rows = [Row(1, {"prompt": "a", "key": "k"}), Row(2, {"prompt": "a", "key": "k"}), Row(3, {"prompt": "a"})]
    planned = check_rows(Table("f", rows), NATIVE)
    assert [(one.request.key, one.index) for one in planned] == [("k", 0), (None, 2)]
    with pytest.raises(InputErrors, match=r"f:4: key: 'k' must be unique, but f:1 has it"):
        check_rows(Table("f", [*rows, Row(4, {"prompt": "b", "key": "k"})]), NATIVE)


def test_equal_faults_are_one_line() -> None:
    """The line has the number of rows, the first of them, and their values."""
    rows = [Row(number, {"prompt": "a", "seed": f"x{number}"}) for number in range(2, 282)]
    with pytest.raises(InputErrors) as caught:
        check_rows(Table("f", [*rows, Row(300, {"prompt": " "})]), NATIVE)
    assert str(caught.value).splitlines() == [
        (
            "280 rows: seed must be an integer from 0 to 9223372036854775807: f:2 ('x2'), f:3 ('x3'), f:4 ('x4'), "
            "f:5 ('x5'), f:6 ('x6'), f:7 ('x7'), f:8 ('x8'), f:9 ('x9') and 272 more"
        ),
        "f:300: prompt: ' ' must not be empty; give some text",
        "281 rows cannot be sent; nothing was sent",
    ]


def test_every_fault_of_a_row_is_named_once() -> None:
    """A wrong field does not hide another, nor what the provider refuses."""
    row = Row(2, {"prompt": "", "seed": "x", "frame_rate": 99, "effect": "Meld", "camera": {"pan": "up"}, "sfx": True})
    with pytest.raises(InputErrors) as caught:
        check_rows(Table("f", [row]), NATIVE)
    assert [fault.field for fault in caught.value.faults] == [
        "camera.pan", "prompt", "effect", "frame_rate", "seed", "sfx"
    ]  # fmt: skip
    assert str(caught.value).endswith("\n1 row cannot be sent; nothing was sent")


def test_a_refused_input_hides_what_depends_on_it() -> None:
    """An error that follows from another is not named."""
    row = Row(2, {"prompt": "a", "ingredients": 5, "ingredients_mode": "precise", "model": "1.5", "motion": 9})
    with pytest.raises(InputErrors) as caught:
        check_rows(Table("f", [row]), NATIVE)
    assert [fault.field for fault in caught.value.faults] == ["ingredients", "motion"]


@given(st.lists(PROMPTS, min_size=1))
def test_every_format_preserves_every_prompt(prompts: list[str]) -> None:
    """Well-formed text, JSON lines and CSV change no prompt; text loses only leading and trailing blanks."""
    lines = "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts)
    table = io.StringIO()
    csv.writer(table).writerows([["prompt"], *([prompt] for prompt in prompts)])
    assert [fields["prompt"] for fields in fields_of(".jsonl", lines.encode())] == prompts
    assert [fields["prompt"] for fields in fields_of(".csv", table.getvalue().encode())] == prompts
    escaped = "\n".join(
        prompt.strip().replace("#", "\\#", 1) if prompt.strip()[0] == "#" else prompt for prompt in prompts
    )
    assert [fields["prompt"] for fields in fields_of(".txt", escaped.encode())] == [
        prompt.strip() for prompt in prompts
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CAMERAS = st.dictionaries(st.sampled_from(["pan", "tilt", "x"]), JSON, max_size=2)


@given(
    st.dictionaries(st.sampled_from(REQUEST_FIELDS), JSON | CAMERAS | st.just(10**400)).map(
        lambda d: {"prompt": "a", **d}
    )
)
def test_any_json_is_a_request_or_our_error(record: dict[str, object]) -> None:
    """A row becomes a request or an error that names its line."""
    try:
        planned = check_rows(parse_input("f", ".jsonl", json.dumps(record).encode()), NATIVE)
    except InputErrors as error:
        assert str(error).startswith("f:1: ")  # noqa: PT017
    else:
        assert len(planned) == 1
    try:
        check_rows(Table("f", [Row(1, record)]), NATIVE)
    except InputErrors as error:
        assert str(error).startswith("f:1: ")  # noqa: PT017


@given(st.binary() | st.text().map(str.encode) | st.text('{}[]",:\\ud8prompt\n\r0\0').map(str.encode))
def test_any_bytes_are_rows_or_our_error(data: bytes) -> None:
    """No parser raises any other error."""
    for suffix in (*INPUT_SUFFIXES, ""):
        for prefix in (b"", b"prompt,seed\n", b'{"prompt": "', b"PK\x03\x04"):
            try:
                check_rows(parse_input("f", suffix, prefix + data), NATIVE)
            except UsageError as error:
                assert str(error)  # noqa: PT017


def test_a_camera_reaches_the_request() -> None:
    """It may come from CSV or from JSON."""
    tables = [
        parse_input("f", ".csv", b"prompt,camera.zoom\na,out\n"),
        parse_input("f", ".jsonl", b'{"prompt":"b","camera":{"zoom":"out"}}'),
    ]
    assert [check_rows(table, NATIVE)[0].request.camera for table in tables] == [Camera(zoom="out")] * 2
