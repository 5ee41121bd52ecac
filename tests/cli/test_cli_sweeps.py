"""Options that make several requests of a row, and small habits of people at a command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pika_async import sweep
from tests.cli.batches import charged, statuses
from tests.cli.command_line import CommandLine, serving

ANIMALS = "Color;Animal;Client\r\nred;fox;Ann\r\nblue;heron;Ben\r\n"


@pytest.fixture
def public() -> Iterator[Path]:
    """Give a folder that every user may enter: `tmp_path` lies in one of its owner alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_template_and_its_products_are_paid_once(cli: CommandLine) -> None:
    """Each combination is a job of its own; the same command again pays nothing, and one with more only for the rest."""
    source = cli.write("a.csv", ANIMALS)
    options = ["--no-download", "--template", "a {color} {animal} at dusk", "--effects", "melt,Inflate"]
    with serving() as emulator:
        for seeds, count in (("1..2", 8), ("1..2", 8), ("1,2,4", 12)):
            ran = cli.batch(emulator, source, *options, "--seeds", seeds)
            assert (ran.code, len(emulator.ledger), len(statuses(cli))) == (0, count, count)
        assert charged(emulator) == Counter({"a red fox at dusk": 6, "a blue heron at dusk": 6})
    assert "a.csv: not fields of a request, kept as metadata: 'Color', 'Animal', 'Client'" in ran.err


def test_python_and_the_command_line_make_the_same_requests(cli: CommandLine) -> None:
    """A run of one finds the jobs of the other."""
    rows = [{"key": "r", "color": "red"}, {"key": "b", "color": "blue"}]
    source = cli.write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    made = list(sweep(rows, template="a {color} fox", repeat=2, seeds=[5], effects=["Melt"]))
    with serving() as emulator:
        options = ["--template", "a {color} fox", "--repeat", "2", "--seeds", "5", "--effects", "Melt"]
        assert cli.batch(emulator, source, "--no-download", *options).code == 0
        sent = {charge.body["options"]["parameters"]["seed"] for charge in emulator.ledger}
    assert sorted(statuses(cli)) == ["b-melt-s5", "b-melt-s5-r2", "r-melt-s5", "r-melt-s5-r2"]
    assert {request.key for request in made} == set(statuses(cli))
    assert {request.seed for request in made} == sent


@pytest.mark.parametrize(
    ("table", "argv", "named"),
    [
        (ANIMALS, ("--template", "a {colour} fox"), "'colour' must be a column of a.csv, which has 'Color', 'Animal', 'Client'; did you mean Color?"),
        (ANIMALS, ("--template", "a fox"), "--template: 'a fox' must name a column"),
        ("color;prompt\nred;a cat\n", ("--template", "a {color} fox"), "would replace the prompts of a.csv; name {prompt}"),
        ("color;animal\nred;\nblue;\n;fox\n", ("--template", "a {color} {animal}"), "2 rows: animal must not be empty"),
        ("color;animal\nred;\nblue;\n;fox\n", ("--template", "a {color} {animal}"), "a.csv:4: color: '' must not be empty"),
        ("prompt;seed\na;3\nb;4\n", ("--seeds", "1..2"), "2 rows: seed must be left out where seeds are given for all rows"),
        ("prompt;effect\na;Melt\n", ("--effects", "Melt"), "effect: 'Melt' must be left out"),
        ("prompt\na\nb\n", ("--effects", "Melt,Nope"), "2 rows: effect must be one of Inflate"),
        ("prompt\na\n", ("--effects", "Peel", "--provider", "gptge"), "a.csv:2: effect: 'Peel' must be an effect that gpt.ge documents"),
        ("prompt\na\n", ("--effects", "Melt,melt"), "--effects: 'Melt,melt' must name each effect once"),
        ("prompt\na\n", ("--seeds", "5..1"), "--seeds: '5..1' must be seeds from 0 to 2**63 - 1, such as 1..5 or 1,4,9"),
        ("prompt\na\n", ("--seeds", "1,1"), "--seeds: '1,1' must name each seed once"),
        ("prompt\na\n", ("--seeds", "0..99999999999"), "--seeds: "),
        ("prompt\na\n", ("--repeat", "0"), "--repeat"),
        ("prompt\na\n", ("--repeat", "2000000"), "the input makes 2,000,000 requests, but must make at most 1,000,000"),
        ("key;prompt\na;a\na-r2;b\n", ("--repeat", "2"), "key: 'a-r2' must be unique"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_is_refused(cli: CommandLine, table: str, argv: tuple[str, ...], named: str) -> None:
    """Exit code 2 with the option, the column or the row, and nothing is sent."""
    with serving() as emulator:
        provider = "gptge" if "gptge" in argv else "native"
        more = tuple(word for word in argv if word not in {"--provider", "gptge"})
        ran = cli.batch(emulator, cli.write("a.csv", table), *more, provider=provider)
        assert (ran.code, len(emulator.requests)) == (2, 0)
    assert named in ran.err


# --- small habits -----------------------------------------------------------------------------------------------------


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell passes it on as it is; an input and a key file may begin with it too."""
    monkeypatch.setenv("HOME", str(cli.folder / "home"))
    (cli.folder / "home").mkdir()
    cli.write("home/b.txt", "a cat")
    with serving() as emulator:
        assert cli.batch(emulator, "~/b.txt", "--no-download", "--out=~/clips").code == 0
    assert (cli.folder / "home" / "clips" / "results.csv").exists()
    assert cli("status", "~/clips").code == 0
    assert not (cli.folder / "~").exists()
    ran = cli("batch", "~/b.txt", "--provider", "native", "--base-url", "http://h", "--api-key-file=~/none")
    assert f"{cli.folder}/home/none cannot be read" in ran.err


def test_a_key_may_be_pasted_with_its_quotes(cli: CommandLine) -> None:
    """Errors show keys in quotes."""
    with serving() as emulator:
        source = cli.write("b.csv", "key,prompt\ncat,a cat\n")
        cli.batch(emulator, source, "--no-download")
        assert cli.batch(emulator, source, "--no-download", "--again", "'cat'").code == 0
        assert charged(emulator) == Counter({"a cat": 2})


def test_a_folder_as_input_is_named(cli: CommandLine) -> None:
    """The error says how a folder is continued."""
    (cli.folder / "clips").mkdir()
    ran = cli("batch", "clips", "--provider", "native", "--base-url", "http://h")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "clips: must be a file, but is a folder" in ran.err


def test_an_input_that_is_too_large_is_refused_without_reading_it(cli: CommandLine) -> None:
    """At most one byte more than the limit is read, of a file as of standard input."""
    with (cli.folder / "b.csv").open("wb") as file:
        file.truncate(10**12)  # sparse: it takes no room, and cannot be read into memory
    ran = cli("batch", "b.csv", "--provider", "native", "--base-url", "http://h")
    assert (ran.code, "b.csv: must be at most 64 MB; split it" in ran.err) == (2, True)


def test_the_status_of_a_folder_that_may_only_be_read(public: Path, cli: CommandLine) -> None:
    """Another user without rights to write sees the same."""
    with serving() as emulator:
        assert cli.batch(emulator, cli.write("b.txt", "a cat"), "--out", str(public / "clips")).code == 0
    before = {path: path.stat().st_mtime_ns for path in (public / "clips").iterdir()}
    for path in (public / "clips").iterdir():
        path.chmod(0o555 if path.is_dir() else 0o444)
    (public / "clips").chmod(0o555)
    script = f"""
import encodings.idna, os, sys
import pika_async.cli.commands
from pika_async.__main__ import main
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
sys.exit(max(main(["status", {str(public / "clips")!r}, *more]) for more in ([], ["--json"], ["--polling"])))
"""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, env=env
    )
    (public / "clips").chmod(0o755)
    (public / "clips" / "videos").chmod(0o755)
    assert (done.returncode, done.stderr) == (0, "")
    assert "succeeded     1        1" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (public / "clips").iterdir()} == before
