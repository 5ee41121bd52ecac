"""`--uploader MODULE:FUNCTION`: local files at a gateway that takes addresses only, from the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pika_async.emulator import Emulator
from tests.cli.command_line import CommandLine, serving
from tests.http.media_files import made

HOST = """
calls = []

async def upload(data, name, content_type):
    calls.append((name, content_type))
    return f"https://host.example/{len(data)}"

not_a_function = 7
"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with serving() as serving_emulator:
        yield serving_emulator


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    command_line = CommandLine(tmp_path, capsys, monkeypatch)
    command_line.write("cat.png", made("png"))
    command_line.write("b.csv", "prompt,image\none cat,cat.png\nanother cat,cat.png\n")
    return command_line


def test_a_batch_uploads_its_pictures(cli: CommandLine, emulator: Emulator) -> None:
    """Two rows with one picture need one upload; the next command in the folder needs none."""
    cli.write("batch_host.py", HOST)
    options = ("--uploader", "batch_host:upload", "--no-download")
    before = len(emulator.ledger)
    assert cli.batch(emulator, "b.csv", *options, provider="cometapi").code == 0
    cli.write("c.csv", "prompt,image\nthird cat,cat.png\n")
    assert cli.batch(emulator, "c.csv", *options, provider="cometapi").code == 0
    url = f"https://host.example/{len(made('png'))}"
    assert [charge.body["image"] for charge in list(emulator.ledger)[before:]] == [url] * 3
    assert sys.modules["batch_host"].calls == [("cat.png", "image/png")]
    again = cli.batch(
        emulator,
        cli.write("d.csv", "prompt,image\n4,cat.png\n"),
        *options,
        "--upload-lifetime",
        "1e-9",
        provider="cometapi",
    )
    assert again.code == 0
    assert sys.modules["batch_host"].calls == [("cat.png", "image/png")] * 2


def test_one_video_uploads_its_picture(cli: CommandLine, emulator: Emulator) -> None:
    """`generate --image FILE --uploader ...` sends the URL."""
    cli.write("generate_host.py", HOST)
    target = ("--provider", "cometapi", "--base-url", emulator.base_url("cometapi"), "--expected-seconds", "0.1")
    ran = cli("generate", "one alone", "--image", "cat.png", "--uploader", "generate_host:upload", *target)
    assert ran.code == 0
    assert list(emulator.ledger)[-1].body["image"].startswith("https://host.example/")


def test_without_an_uploader_the_rows_are_refused_with_the_ways_out(cli: CommandLine, emulator: Emulator) -> None:
    """Exit code 2; the size and `--uploader` are in the text, and nothing is charged."""
    before = len(emulator.ledger)
    ran = cli.batch(emulator, "b.csv", provider="cometapi")
    assert ran.code == 2
    assert "image must be a URL at CometAPI" in ran.err
    assert f"b.csv:2 ('cat.png ({len(made('png')):,} bytes)')" in ran.err
    assert "--uploader" in ran.err
    assert len(emulator.ledger) == before


@pytest.mark.parametrize(
    "text, expected",
    [
        ("host", "--uploader: host must be MODULE:FUNCTION, such as myhost:upload"),
        ("host.py:upload", "must be MODULE:FUNCTION"),
        (":upload", "must be MODULE:FUNCTION"),
        ("no_such_module:upload", "--uploader: no_such_module:upload cannot be imported: ModuleNotFoundError"),
        ("broken_host:upload", "--uploader: broken_host:upload cannot be imported: ZeroDivisionError"),
        ("bad_host:not_a_function", "must name an async function of bad_host"),
        ("bad_host:missing", "must name an async function of bad_host"),
    ],
)
def test_an_uploader_that_cannot_be_loaded_sends_nothing(
    cli: CommandLine, emulator: Emulator, text: str, expected: str
) -> None:
    """Exit code 2 and a sentence, before anything costs."""
    cli.write("bad_host.py", HOST)
    cli.write("broken_host.py", "1 / 0")
    before = len(emulator.ledger)
    ran = cli.batch(emulator, "b.csv", "--uploader", text, provider="cometapi")
    assert (ran.code, ran.out) == (2, "")
    assert expected in ran.err
    assert len(emulator.ledger) == before


@pytest.mark.parametrize(
    "name, content",
    [
        ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        ("page.png", b"<html>403</html>"),
        ("torn.jpg", made("jpeg")[:-5]),
    ],
)
def test_a_row_with_another_kind_of_file_is_refused_by_name(
    cli: CommandLine, emulator: Emulator, name: str, content: bytes
) -> None:
    """The row, the file and its kind are in the text; nothing is charged."""
    cli.write(name, content)
    before = len(emulator.ledger)
    ran = cli.batch(emulator, cli.write("e.csv", f"prompt,image\na cat,{name}\n"))
    kind = {"photo.heic": "is a HEIC picture; convert it", "page.png": "is an HTML page", "torn.jpg": "it was cut"}[
        name
    ]
    assert ran.code == 2
    assert f"e.csv:2: image: '{name}' must be " in ran.err
    assert kind in ran.err
    assert len(emulator.ledger) == before


def test_resume_needs_the_uploader_again(cli: CommandLine) -> None:
    """It is not saved with the batch: without it the planned rows are named, with it they are sent."""
    cli.write("resume_host.py", HOST)
    with serving({"on": "create", "first": 2, "do": {"fault": "refuse", "as": "quota"}}) as emulator:
        options = ("--uploader", "resume_host:upload", "--no-download")
        assert cli.batch(emulator, "b.csv", *options, provider="cometapi").code == 3
        refused = cli("resume", "pika-out")
        assert refused.code == 2
        assert "must be a URL at CometAPI" in refused.err
        assert not emulator.ledger
        assert cli("resume", "pika-out", "--uploader", "resume_host:upload").code == 0
        assert len(emulator.ledger) == 2
    assert len(sys.modules["resume_host"].calls) == 1
