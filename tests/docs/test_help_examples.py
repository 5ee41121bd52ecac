"""The examples in the help texts, typed as they stand, one after the other, against the emulator."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import pytest

import pika_async.cli.demo
from pika_async.__main__ import main
from pika_async.cli.commands import app
from tests.fakes.stepped_emulator import SteppedEmulator

#: The order in which a person comes to the commands.
ORDER: Final = (
    "demo", "providers", "effects", "doctor", "generate", "estimate", "batch", "status", "resolve", "resume", "retry",
    "fetch", "export", "board", "emulate",
)  # fmt: skip
#: Those that need a database server; the tests of the command line run them on a file.
SHARED: Final = ("worker", "workers", "prune")
#: Loses the receipt of a row, and fails another.
FAULTS: Final = {
    "scenario": [
        {"on": "create", "prompt": "a lost cat", "nth": 1, "do": "drop"},
        {"on": "create", "prompt": "a failed cat", "nth": 1, "do": {"fault": "fails", "reason": "moderation"}},
    ]
}
ROWS: Final = "key,prompt\n00017-a,a lost cat\nfails,a failed cat\nfine,a cat\n"
#: The exit codes of examples that end with a failed row, which `retry` mends.
CODES: Final = {"batch": 1, "resume": 1}


def examples_of(command: str) -> list[str]:
    """Return the examples in the help of a command."""
    return re.findall(r"Example: `(.*?)`", app[command].help, re.DOTALL)


def test_every_command_is_typed() -> None:
    """Each has one example, which begins with its name."""
    typed = (*ORDER, *SHARED)
    assert sorted(typed) == sorted(name for name in app if not name.startswith("-"))
    assert {name: len(examples_of(name)) for name in typed} == dict.fromkeys(typed, 1)
    assert all(shlex.split(example)[:2] == ["pika-async", name] for name in typed for example in examples_of(name))


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [FAULTS], indirect=True)
def test_the_examples_do_what_they_say(
    everywhere: SteppedEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one folder each ends with its exit code; in the end every row has a video, and is charged as was announced."""
    monkeypatch.setattr(pika_async.cli.demo, "_TIME_SCALE", 0.005)
    (tmp_path / "prompts.csv").write_text(ROWS, encoding="utf-8")
    for name in ORDER:
        [example] = examples_of(name)
        words = shlex.split(example)[1:]
        if name in {"board", "emulate"}:  # serve until Ctrl-C
            app.parse_args(words, exit_on_error=False, print_error=False)
            continue
        if name == "fetch":  # a task of the reader's own, into a file that is not there yet
            (tmp_path / "cat.mp4").unlink()
            words[1] = everywhere.ledger[0].task_id
        assert main(words) == CODES.get(name, 0), (example, capsys.readouterr())
        assert "Traceback" not in "".join(capsys.readouterr())
    assert main(["status", "clips"]) == 0
    assert re.search(r"succeeded +3 ", capsys.readouterr().out)
    assert len(everywhere.ledger) == 1 + 3 + 1 + 1  # generate, the batch, the failed row again, the doubt again
    assert all((tmp_path / name).stat().st_size for name in ("cat.mp4", "clips.db", "clips/videos/00017-a.mp4"))
