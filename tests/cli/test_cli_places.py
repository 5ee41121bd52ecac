"""Wrong values of every option from a file and from a variable: the error names the entry or the variable."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Final

import attrs
import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.cli.commands import app
from pika_async.cli.configuration import PREFIX, Configuration, name_places
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from tests.cli.command_line import ENV, CommandLine

OPTIONS: Final = Configuration.of(app).options
#: A value of each option that no command accepts.
WRONG: Final = {
    "again": "nothing", "allow-host": "http://x", "ambiguous": "perhaps", "api-key-file": "no.key", "aspect-ratio": "99",
    "base-url": "ftp://x",
    "budget": "-1", "duration": "-1", "resolution": "wide", "last-image": "none.png", "callbacks": "ftp://x", "camera": "pan=up", "deadline": "-1", "durations": "sometimes",
    "effect": "Nope", "effects": "Melt,Nope", "expected-seconds": "-1", "frame-rate": "1", "grace": "-1",
    "guidance-scale": "0", "host": "example.com", "image": "none.png", "in-flight": "-1", "ingredient": "none.png",
    "ingredients-mode": "some", "key": "../a", "listen": "nowhere", "log-level": "loud", "max-charges": "0",
    "max-in-flight": "0", "model": "none", "motion": "99", "port": "70000", "price": "-1", "prompts": "0",
    "provider": "nothing", "proxy": "socks5://x", "repeat": "2000000", "scenario": "none.json", "seed": "-1",
    "seeds": "some", "task-id": "''", "template": "{nothing}", "time-scale": "-1", "upload-lifetime": "-1",
    "uploader": "nothing", "database": "nowhere", "lease-ttl": "1", "max-jobs": "0", "video": "none.mp4",
    "videos": "ftp://x", "older-than": "-1", "download-to": "b.txt/x", "allow-results": "ftp",
}  # fmt: skip
#: Options whose value is the path of a file or a folder that cannot be used.
PATHS: Final = {"journal", "out", "save"}
#: Options that take any text or number.
ANY: Final = {("generate", "negative-prompt"), ("demo", "seed"), ("emulate", "seed")}
#: Options that a command takes with others of its group, but has no use for.
UNUSED: Final = {("doctor", "uploader"), ("doctor", "upload-lifetime")}
#: A database that cannot be reached: no value is found wrong only after connecting.
DATABASE: Final = "sqlite:////nonexistent/folder/jobs.db"
#: Each command so that every option matters; the key of the job in the folder is `k`.
COMMANDS: Final = {
    "generate": ("generate", "a cat", "--dry-run"),
    "batch": ("batch", "b.txt", "--dry-run"),
    "resume": ("resume", "clips"),
    "retry": ("retry", "clips", "k", "--dry-run"),
    "fetch": ("fetch", "a1-b2"),
    "status": ("status", "clips"),
    "board": ("board", "clips"),
    "resolve": ("resolve", "clips", "doubt"),
    "export": ("export", "clips", "copy.db"),
    "worker": ("worker", f"--database={DATABASE}"),
    "workers": ("workers", f"--database={DATABASE}"),
    "prune": ("prune", f"--database={DATABASE}", "--older-than=30"),
    "providers": ("providers",),
    "effects": ("effects",),
    "demo": ("demo",),
    "emulate": ("emulate",),
    "doctor": ("doctor",),
}
#: What else an option needs to matter.
NEEDED: Final = {
    "api-key-file": ("--provider", "cometapi"),
    "listen": ("--callbacks", "http://hooks.example.org"),
    "budget": ("--price", "1"),
    "ingredient": ("--provider", "native", "--base-url", "http://127.0.0.1:9", "--api-key-file", "b.key"),
}
#: Commands that have these options.
SENDING: Final = frozenset({"generate", "batch", "fetch"})
CASES: Final = [
    (command, option)
    for command, options in OPTIONS.items()
    for option in options
    if command != "estimate" and (command, option) not in ANY | UNUSED  # which has the options of `batch`
]


def make_folder(root: Path) -> None:
    """Write a folder with a rejected, a planned and a doubtful job at an address where nothing listens."""
    made = Job(key="k", request=GenerationRequest("a cat"), provider="cometapi", base_url="http://127.0.0.1:9")

    async def write() -> None:
        journal = SqliteJournal(root / "journal.db")
        await journal.open()
        statuses = {"k": JobStatus.REJECTED, "planned": JobStatus.PLANNED, "doubt": JobStatus.UNKNOWN}
        await journal.save(*(attrs.evolve(made, key=key, status=status) for key, status in statuses.items()))
        await journal.close()

    root.mkdir()
    asyncio.run(write())


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    cli = CommandLine(tmp_path, capsys, monkeypatch)
    for name in set(ENV.values()) - {"COMETAPI_API_KEY"}:
        monkeypatch.delenv(name)
    cli.write("b.txt", "a cat")
    cli.write("b.key", "a-key")
    return cli


@pytest.mark.parametrize(("command", "option"), CASES)
def test_a_wrong_value_is_named_by_its_place(cli: CommandLine, command: str, option: str) -> None:
    """The file and the entry, or the variable, whichever part of the program refuses the value; nothing is sent."""
    value = "b.txt" if option in PATHS else WRONG.get(option, "perhaps")  # the last for a switch
    argv = [word for word in COMMANDS[command] if word.partition("=")[0] != f"--{option}"]
    argv += NEEDED.get(option, ()) if command in SENDING else ()
    if "clips" in argv:
        make_folder(cli.folder / "clips")
    cli.write(
        "pika-async.toml", f"[{command}]\n{option} = {json.dumps([value] if OPTIONS[command][option] else value)}"
    )
    ran = cli(*argv)
    assert (ran.code, ran.out, f"pika-async.toml: [{command}] {option}" in ran.err) == (2, "", True), ran
    variable = f"{PREFIX}{command}-{option}".upper().replace("-", "_")
    cli.monkeypatch.setenv(variable, value)
    ran = cli(*argv)
    assert (ran.code, ran.out, variable in ran.err) == (2, "", True), ran


def test_every_wrong_value_is_that_of_an_option() -> None:
    """No entry of the tables is left over, and every command runs in one of the tests."""
    options = {option for names in OPTIONS.values() for option in names}
    assert set(WRONG) | PATHS | {option for _, option in ANY | UNUSED} <= options
    assert set(COMMANDS) == set(OPTIONS) - {"estimate"}
    assert OPTIONS["estimate"] == OPTIONS["batch"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("--out: x exists; choose another --out", "FILE: out: x exists; choose another --out"),
        ("--out x: y", "FILE: out x: y"),
        ("seed: -1 must be", "VARIABLE: -1 must be"),
        ("camera.pan: 'up' must be", "CAMERA.pan: 'up' must be"),
        ("ingredients[0]: 'a' must be", "INGREDIENT[0]: 'a' must be"),
        ("--budget: needs --out", "--budget: needs --out; --out is given by FILE: out"),
        ("seeds.txt:3: --out-of: bad", "seeds.txt:3: --out-of: bad"),
        ("outside: --outer", "outside: --outer"),
        ("3 rows: seed must be", "3 rows: seed must be"),
    ],
)
def test_a_place_stands_for_its_option_alone(text: str, named: str) -> None:
    """An option at the beginning is replaced, one within the text is explained, and other words stay as they are."""
    places = {"out": "FILE: out", "seed": "VARIABLE", "camera": "CAMERA", "ingredient": "INGREDIENT"}
    assert name_places(text, places) == named


def test_an_option_that_was_typed_is_named_as_it_was_typed(cli: CommandLine) -> None:
    """The command line counts more than a file, and its error does not name the file."""
    cli.write("pika-async.toml", "deadline = 5\n")
    ran = cli("generate", "a cat", "--dry-run", "--deadline", "-1")
    assert (ran.code, ran.err) == (2, "error: --deadline: -1.0 must be a number of seconds above 0\n")


def test_an_option_with_the_name_of_a_command_is_taken(cli: CommandLine) -> None:
    """`effects` is both: a file and a variable give it to `batch`."""
    cli.write("pika-async.toml", 'effects = "Melt,Inflate"\n')
    assert "2 new charges" in cli("batch", "b.txt", "--dry-run").out
    cli.monkeypatch.setenv("PIKA_ASYNC_BATCH_EFFECTS", "Melt,Inflate,Crush")
    assert "3 new charges" in cli("batch", "b.txt", "--dry-run").out
