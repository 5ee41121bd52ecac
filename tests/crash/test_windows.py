"""The main job in processes with the limits of Windows, see `fakes/windows_process.py`, against the emulator."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import pika_async
from tests.fakes import windows_process
from tests.fakes.raw_server import free_port
from tests.fakes.stepped_emulator import SteppedEmulator

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = Path(pika_async.__file__).parent
WINDOWS: Final = [sys.executable, "-X", "warn_default_encoding", "-m", "tests.fakes.windows_process"]
LONG_TASKS: Final[dict[str, Any]] = {"durations": "constant:60"}
#: Loses the receipt of the first submission of this prompt, after the charge.
LOST: Final[dict[str, Any]] = {"scenario": [{"on": "create", "prompt": "a lost cat", "do": "drop"}]}
PROMPTS: Final = 6

pytestmark = pytest.mark.slow


class Commands:
    """Processes of the command line in the current folder, each ended with the test."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        # The encoding of a pipe on Windows in western Europe.
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "cp1252", "COLUMNS": "100"}
        process = subprocess.Popen(
            [*WINDOWS, *arguments],
            env=env,
            text=True,
            encoding="cp1252",
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._running.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        process = self.start(*arguments)
        output, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, errors
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def end_all(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def commands() -> Iterator[Commands]:
    commands = Commands()
    try:
        yield commands
    finally:
        commands.end_all()


def batch_arguments(emulator: SteppedEmulator, *prompts: str) -> list[str]:
    """Write the input and return the arguments of its batch."""
    rows = [{"key": f"k{number}", "prompt": prompt} for number, prompt in enumerate(prompts)]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    url = emulator.base_url("cometapi")
    return [
        *("batch", "prompts.jsonl", "--provider", "cometapi", "--base-url", url, "--out", "clips"),
        *("--expected-seconds", "0.2"),
    ]


def some_prompts() -> list[str]:
    return [f"cat {number}" for number in range(PROMPTS)]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def videos() -> list[str]:
    return sorted(file.stem for file in Path("clips/videos").glob("*.mp4"))


def test_every_module_is_imported_without_the_calls_of_posix() -> None:
    """Each file of the package, and the client's names, in a process that lacks what Windows lacks."""
    names = sorted(
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        for file in PACKAGE.rglob("*.py")
        if file.name not in {"__main__.py", "pytest_plugin.py"}
    )
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint(sys.modules['fcntl'])"
    done = subprocess.run([*WINDOWS, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "None\n", "")


def test_calls_of_posix_stand_in_one_module() -> None:
    """A name of `os`, `signal` or a module that Windows lacks is used in `_journal.system_calls`, or where a `hasattr` asks for it."""
    missing = {*windows_process.MISSING_NAMES, *windows_process.MISSING_SIGNALS}
    found = {
        (str(file.relative_to(PACKAGE)), node.attr)
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in missing
    }
    files = {name for name, _ in found}
    assert files <= {"_journal/system_calls.py", "_journal/lock.py"}
    assert {attribute for name, attribute in found if name == "_journal/lock.py"} == {"register_at_fork"}


def test_a_batch_leaves_its_videos_and_pays_once(everywhere: SteppedEmulator, commands: Commands) -> None:
    """Six prompts, six videos, a page and results; the same command again pays for nothing."""
    arguments = batch_arguments(everywhere, *some_prompts())
    for _ in range(2):
        done = commands.run(*arguments)
        assert done.returncode == 0, done.stderr
        assert "6 succeeded" in done.stdout
        assert videos() == [f"k{number}" for number in range(PROMPTS)]
        rows = [json.loads(line) for line in Path("clips/results.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [row["status"] for row in rows] == ["succeeded"] * PROMPTS
        assert Path("clips/index.html").exists()
        assert len(everywhere.ledger) == PROMPTS
    assert list(Path("clips").rglob("*.part")) == []


def test_a_killed_batch_goes_on_and_pays_once(everywhere: SteppedEmulator, commands: Commands) -> None:
    """The lock dies with its owner: the same command ends every job, and those in doubt are not sent again."""
    prompts = [f"cat {number}" for number in range(40)]
    arguments = [*batch_arguments(everywhere, *prompts), "--max-in-flight", "4"]
    first = commands.start(*arguments)
    wait_until(lambda: len(everywhere.ledger) >= 6, first)
    first.kill()
    assert first.wait(timeout=10) == -signal.SIGKILL
    commands.run(*arguments)
    rows = [json.loads(line) for line in Path("clips/results.jsonl").read_text(encoding="utf-8").splitlines()]
    statuses = {row["key"]: row["status"] for row in rows}
    assert set(statuses) == {f"k{number}" for number in range(40)}
    assert set(statuses.values()) <= {"succeeded", "unknown"}
    assert videos() == sorted(key for key, status in statuses.items() if status == "succeeded")
    charged = [charge.prompt for charge in everywhere.ledger]
    assert len(charged) == len(set(charged)) >= len(videos()) > 20


@pytest.mark.parametrize("everywhere", [LONG_TASKS], indirect=True)
def test_a_second_owner_of_a_journal_is_refused(everywhere: SteppedEmulator, commands: Commands) -> None:
    """It names the process that has the journal and exits with 2; nothing is charged for it."""
    arguments = batch_arguments(everywhere, *some_prompts())
    first = commands.start(*arguments)
    wait_until(lambda: len(everywhere.ledger) == PROMPTS, first)
    second = commands.run(*arguments)
    assert (second.returncode, len(everywhere.ledger)) == (2, PROMPTS)
    assert f"is in use by process {first.pid}; " in second.stderr
    assert first.poll() is None


@pytest.mark.parametrize("everywhere", [LONG_TASKS], indirect=True)
def test_ctrl_c_keeps_the_task_ids_and_says_what_to_run(everywhere: SteppedEmulator, commands: Commands) -> None:
    """Exit code 130 and the command that goes on, which pays for nothing."""
    first = commands.start(*batch_arguments(everywhere, *some_prompts()))
    wait_until(lambda: len(everywhere.ledger) == PROMPTS, first)
    first.send_signal(signal.SIGINT)
    output, errors = first.communicate(timeout=60)
    assert (first.returncode, "Traceback" in errors) == (130, False), errors
    assert "pika-async resume clips" in output + errors
    everywhere.advance(60)
    done = commands.run("resume", "clips")
    assert (done.returncode, len(everywhere.ledger), len(videos())) == (0, PROMPTS, PROMPTS)


def test_a_name_that_the_folder_cannot_hold_is_refused_before_it_costs(
    everywhere: SteppedEmulator, commands: Commands
) -> None:
    """A path that is too long, and keys that differ in case alone: exit code 2, a sentence, no charge and no file."""
    arguments = batch_arguments(everywhere, "a cat", "a dog")

    def run(*keys: str) -> str:
        rows = [{"key": key, "prompt": f"prompt {number}"} for number, key in enumerate(keys)]
        Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        done = commands.run(*arguments)
        assert (done.returncode, len(everywhere.ledger)) == (2, 0)
        assert [path for path in Path("clips").rglob("*") if path.name != "journal.db.lock"] == []
        return done.stderr

    assert "clips/videos cannot distinguish the files of Cat and cat; change one key" in run("Cat", "dog", "cat")
    long = "x" * (245 - len(str(Path.cwd())))
    assert "characters) cannot be made: " in run("cat", long)
    assert "; give a shorter key or --out; nothing was sent" in run("cat", long)


def test_callbacks_are_received(everywhere: SteppedEmulator, commands: Commands) -> None:
    """The receiver listens and stops in a loop without readers; every task is notified."""
    url = f"http://127.0.0.1:{free_port()}"
    done = commands.run(*batch_arguments(everywhere, *some_prompts()), "--callbacks", url)
    assert done.returncode == 0, done.stderr
    assert [result.status for result in everywhere.callbacks] == [202] * PROMPTS


@pytest.mark.parametrize("everywhere", [LOST], indirect=True)
def test_a_doubt_is_shown_in_any_script(everywhere: SteppedEmulator, commands: Commands) -> None:
    """A key that the encoding of the pipe lacks is shown with other characters, and the doubt is resolved by it."""
    arguments = batch_arguments(everywhere)
    row = {"key": "猫", "prompt": "a lost cat"}
    Path("prompts.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = commands.run(*arguments)
    assert (done.returncode, len(everywhere.ledger)) == (1, 1)
    assert "in doubt" in done.stdout + done.stderr
    assert "in doubt" in commands.run("status", "clips").stdout
    resolved = commands.run("resolve", "clips", "猫", "--task-id", everywhere.ledger[0].task_id)
    assert resolved.returncode == 0, resolved.stderr
    commands.run("resume", "clips")
    assert (videos(), len(everywhere.ledger)) == (["猫"], 1)
