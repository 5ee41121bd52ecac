"""Paths that commands print, as links of terminals that have them (OSC 8), and as plain text elsewhere."""

from __future__ import annotations

import io
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from rich.console import Console

from pika_async.cli.terminal import Terminal, linked
from tests.cli.command_line import CommandLine, on_a_terminal, serving, without_codes

#: Names that a terminal, a shell or an address could take for more than a name.
HOSTILE = (
    "plain", "two words", "100%", "a;b", "a;id=x", "Bär 🦆", "a\x1b]8;;http://evil.example\x1b\\b", "\x07bell\x9c",
    "a\nb", "[link=x]", "#?&", "~", "\u202egnp",
)  # fmt: skip
LINK = re.compile(r"\x1b\]8;([^;]*);([^\x1b\x07]*)\x1b\\(.*?)\x1b\]8;;\x1b\\", re.DOTALL)


def links(text: str) -> list[tuple[str, str]]:
    """Return the address and the text of each link."""
    return [(address, without_codes(shown)) for _, address, shown in LINK.findall(text)]


def printed(path: Path, **console: object) -> str:
    terminal, written = Terminal(), io.StringIO()
    terminal.out = Console(file=written, width=80, highlight=False, **console)  # type: ignore[arg-type]
    terminal.show(linked(path, "results: "))
    return written.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_inert_link(name: str) -> None:
    """The address is of this file and holds no character that ends it; the text has no control character."""
    path = Path("/clips") / name
    text = printed(path, force_terminal=True, color_system="standard")
    [(address, shown)] = links(text)
    assert unquote(address) == f"file://{path}"
    assert re.fullmatch(r"file:///[A-Za-z0-9_.~/%-]+", address), address
    assert urlsplit(address).netloc == ""
    assert shown.isprintable()
    rest = LINK.sub("", text)
    assert rest == "results: \n"


def test_a_link_changes_neither_width_nor_wrapping() -> None:
    """A terminal with links shows the same cells as one without, also where a path is wider than a line."""
    for path in (Path("/clips/results.jsonl"), Path("/" + "/".join(["a folder with words"] * 8))):
        with_links = printed(path, force_terminal=True, color_system="standard")
        assert without_codes(with_links) == printed(path, force_terminal=True, color_system=None)
        assert "\x1b" in with_links


def test_a_relative_path_is_shown_as_typed_and_links_to_the_whole() -> None:
    text = printed(Path("clips/a.mp4"), force_terminal=True, color_system="standard")
    assert links(text) == [((Path.cwd() / "clips/a.mp4").as_uri(), "clips/a.mp4")]


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        ({}, False), ({"force_terminal": True, "color_system": None}, False),
        ({"force_terminal": True, "color_system": "standard", "no_color": True}, True),
        ({"force_terminal": True, "color_system": "truecolor"}, True),
    ],
)  # fmt: skip
def test_only_terminals_with_codes_have_links(console: dict[str, object], *, expected: bool) -> None:
    assert ("\x1b]8;" in printed(Path("/a"), **console)) is expected


def test_commands_link_what_they_made(cli: CommandLine) -> None:
    """Summary, `generate` and `export`; on a pipe and on a dumb terminal there are the bare paths."""
    with serving() as emulator:
        source = cli.write("b.csv", "key,prompt\none,a\n")
        target = ("--provider", "native", "--base-url", emulator.base_url("native"), "--expected-seconds", "0.2")
        plain = cli.batch(emulator, source).out
        assert "results: pika-out/results.jsonl\ngallery: pika-out/index.html\n" in plain
        on_a_terminal(cli.monkeypatch, TERM="dumb")
        assert "\x1b]8;" not in (ran := cli.batch(emulator, source)).out + ran.err
        on_a_terminal(cli.monkeypatch, TERM="xterm-256color")
        assert links(cli.batch(emulator, source).out) == [
            ((cli.folder / name).as_uri(), name) for name in ("pika-out/results.jsonl", "pika-out/index.html")
        ]
        made = cli("generate", "a cat", *target, "--out", "a b.mp4", "--yes").out
        assert links(made) == [((cli.folder / "a b.mp4").as_uri(), "a b.mp4")]
        assert links(cli("export", "pika-out", "copy.db").out) == [((cli.folder / "copy.db").as_uri(), "copy.db")]
