"""Parsing of a batch's input: each format gives its rows, and any other bytes give rows or our own error."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.cli.exits import InputErrors, UsageError
from pika_async.cli.inputs import REQUEST_FIELDS, Row, parse_camera, parse_csv, parse_jsonl, parse_text, parse_unnamed
from pika_async.cli.requests import check_rows
from pika_async.models import Camera
from pika_async.providers import NATIVE

PROMPTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1).filter(
    lambda text: text.strip() and not text.strip().startswith("#")
)


def test_text_has_one_prompt_per_line() -> None:
    """Blank lines and comments are skipped, and line numbers are those of the file."""
    assert parse_text("f", b"\xef\xbb\xbfa cat\n\n  # no\r\n a dog \r") == [
        Row(1, {"prompt": "a cat"}),
        Row(4, {"prompt": "a dog"}),
    ]


def test_json_lines_are_objects_of_fields() -> None:
    """A null field counts as not given."""
    rows = parse_jsonl("f", b'{"prompt": "a", "seed": 1, "image": null}\n\n{"prompt": "b", "camera": {"pan": "left"}}')
    assert rows == [Row(1, {"prompt": "a", "seed": 1}), Row(3, {"prompt": "b", "camera": {"pan": "left"}})]


def test_csv_cells_become_the_types_of_their_fields() -> None:
    """Integers, booleans, cameras, lists and JSON are parsed; an empty cell counts as not given."""
    data = (
        "prompt,seed,sfx,extend,camera,ingredients,metadata,effect\n"
        '"a, b",7,Yes,0,pan=left;zoom=in,http://a/x.png|http://b/y.png,"{""n"": 1}",\n'
    )
    assert parse_csv("f", data.encode()) == [
        Row(2, {
            "prompt": "a, b", "seed": 7, "sfx": True, "extend": False, "camera": {"pan": "left", "zoom": "in"},
            "ingredients": ["http://a/x.png", "http://b/y.png"], "metadata": {"n": 1},
        })
    ]  # fmt: skip


def test_csv_rows_have_the_number_of_their_first_line() -> None:
    """A quoted cell may hold line ends."""
    rows = parse_csv("f", b'prompt,camera.pan\n"one\ntwo",left\n\nthree,\n')
    assert [(row.line, row.fields) for row in rows] == [
        (2, {"prompt": "one\ntwo", "camera": {"pan": "left"}}),
        (5, {"prompt": "three"}),
    ]


def test_standard_input_is_json_or_text() -> None:
    """The first line that is not blank decides."""
    assert parse_unnamed("stdin", b'\n {"prompt": "a"}')[0].fields == {"prompt": "a"}
    assert parse_unnamed("stdin", b"\n[a cat]")[0].fields == {"prompt": "[a cat]"}


@pytest.mark.parametrize("text", ["pan", "pan=left;pan=right", "roll=left", "", "pan=left;;zoom=in"])
def test_a_malformed_camera_is_refused(text: str) -> None:
    """The error shows how a camera is written."""
    with pytest.raises(ValueError, match="pan=left;zoom=in"):
        parse_camera(text)


def test_only_equal_rows_are_one_request() -> None:
    """Rows with equal key and content are one request; rows without a key are always separate."""
    rows = [Row(1, {"prompt": "a", "key": "k"}), Row(2, {"prompt": "a", "key": "k"}), Row(3, {"prompt": "a"})]
    planned = check_rows("f", rows, NATIVE)
    assert [(one.request.key, one.index) for one in planned] == [("k", 0), (None, 2)]
    with pytest.raises(InputErrors, match=r"f:4: key: 'k' must be unique, but f:1 has it"):
        check_rows("f", [*rows, Row(4, {"prompt": "b", "key": "k"})], NATIVE)


def test_at_most_twenty_rows_are_listed() -> None:
    """The others are counted."""
    with pytest.raises(InputErrors) as caught:
        check_rows("f", [Row(number, {"prompt": " "}) for number in range(1, 31)], NATIVE)
    lines = str(caught.value).splitlines()
    assert (lines[19][:5], lines[20:]) == ("f:20:", ["... and 10 more", "30 rows cannot be sent; nothing was sent"])


@given(st.lists(PROMPTS, min_size=1))
def test_every_format_preserves_every_prompt(prompts: list[str]) -> None:
    """Well-formed text, JSON lines and CSV change no prompt; text loses only leading and trailing blanks."""
    lines = "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts)
    table = io.StringIO()
    csv.writer(table).writerows([["prompt"], *([prompt] for prompt in prompts)])
    assert [row.fields["prompt"] for row in parse_jsonl("f", lines.encode())] == prompts
    assert [row.fields["prompt"] for row in parse_csv("f", table.getvalue().encode())] == prompts
    parsed = [row.fields["prompt"] for row in parse_text("f", "\n".join(prompts).encode())]
    assert parsed == [prompt.strip() for prompt in prompts]


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
        planned = check_rows("f", parse_jsonl("f", json.dumps(record).encode()), NATIVE)
    except InputErrors as error:
        assert str(error).startswith("f:1: ")  # noqa: PT017
    else:
        assert len(planned) == 1
    try:
        check_rows("f", [Row(1, record)], NATIVE)
    except InputErrors as error:
        assert str(error).startswith("f:1: ")  # noqa: PT017


@given(st.binary() | st.text().map(str.encode) | st.text('{}[]",:\\ud8prompt\n\r0\0').map(str.encode))
def test_any_bytes_are_rows_or_our_error(data: bytes) -> None:
    """No parser raises any other error."""
    for parse in (parse_text, parse_jsonl, parse_csv, parse_unnamed):
        for prefix in (b"", b"prompt,seed\n", b'{"prompt": "'):
            try:
                check_rows("f", parse("f", prefix + data), NATIVE)
            except UsageError as error:
                assert str(error)  # noqa: PT017


def test_a_camera_reaches_the_request() -> None:
    """It may come from CSV or from JSON."""
    rows = [
        *parse_csv("f", b"prompt,camera.zoom\na,out\n"),
        *parse_jsonl("f", b'{"prompt":"b","camera":{"zoom":"out"}}'),
    ]
    assert [one.request.camera for one in check_rows("f", rows, NATIVE)] == [Camera(zoom="out")] * 2
