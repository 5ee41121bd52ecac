"""The example scripts, run unchanged against the emulator; `test_service_examples.py` runs the services."""

from __future__ import annotations

import asyncio
import runpy
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.docs.services import COMMANDS, EXAMPLES
from tests.fakes.process_state import restored_process
from tests.fakes.stepped_emulator import SteppedEmulator

SCRIPTS = ["bot.py", "many_prompts.py", "notebook.py", "one_video.py"]
LONG_TASKS: dict[str, Any] = {"durations": "constant:60"}


@pytest.fixture(autouse=True)
def as_processes() -> Iterator[None]:
    """Undo the logging and the signal handlers that an example sets for its process."""
    with restored_process():
        yield


def test_every_example_is_run_and_short() -> None:
    """Every example is run; a script has at most 80 lines, a service 90."""
    assert sorted([*SCRIPTS, *COMMANDS]) == sorted(file.name for file in EXAMPLES.glob("*.py"))
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in EXAMPLES.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > (80 if name in SCRIPTS else 90)} == {}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_to_its_end(
    name: str, everywhere: SteppedEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script prints at least one line for each charge, and every charge is for a different task."""
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    prompts = [(charge.prompt, charge.task_id) for charge in everywhere.ledger]
    assert capsys.readouterr().out.count("\n") >= len(prompts) == len(set(prompts)) > 0


def test_the_notebook_is_charged_once(everywhere: SteppedEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Running all cells twice in the same folder charges for four videos."""
    for _ in range(2):
        runpy.run_path(str(EXAMPLES / "notebook.py"), run_name="__main__")
        output = capsys.readouterr().out
        assert (output.count("succeeded"), "4 videos" in output) == (5, True)
    assert len(everywhere.ledger) == 4


# --- the bot --------------------------------------------------------------------------------------------------------


class FakeChat:
    """A chat that delivers the commands of a test. `disconnects` ends its stream after the initial commands."""

    def __init__(self, *commands: str, disconnects: bool = False) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()
        for command in [*commands, *([None] if disconnects else [])]:
            self.queue.put_nowait(command)
        self.sent: list[tuple[str, str]] = []

    async def commands(self) -> AsyncIterator[tuple[str, str, str]]:
        while (command := await self.queue.get()) is not None:
            yield command, f"channel of {command}", f"a film of {command}"

    async def send(self, channel: str, text: str) -> None:
        self.sent.append((channel, text.split(": http", maxsplit=1)[0]))


@pytest.mark.parametrize("everywhere", [LONG_TASKS], indirect=True)
def test_the_bot_answers_each_command_once(everywhere: SteppedEmulator) -> None:
    """A bot that stops before two answers sends them after its restart, and sends no answer twice."""
    bot = runpy.run_path(str(EXAMPLES / "bot.py"))

    async def first_run() -> None:
        chat = FakeChat("a", "no/key")
        running = asyncio.create_task(bot["main"](chat, 0))
        await until(lambda: len(everywhere.ledger) == 1 and len(chat.sent) == 1)
        everywhere.advance(60)
        await until(lambda: len(chat.sent) == 2)
        assert chat.sent[0][1].startswith("no/key: key: 'no/key'")
        assert chat.sent[1] == ("channel of a", "a")
        chat.queue.put_nowait("b")
        chat.queue.put_nowait("c")
        await until(lambda: len(everywhere.ledger) == 3)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert len(chat.sent) == 2

    def restart(chat: FakeChat) -> list[tuple[str, str]]:
        asyncio.run(bot["main"](chat, int(bot["LAST_EVENT"].read_text())))
        return sorted(chat.sent)

    asyncio.run(first_run())
    everywhere.advance(60)
    assert restart(FakeChat("a", disconnects=True)) == [("channel of b", "b"), ("channel of c", "c")]
    assert restart(FakeChat("a", "b", "c", disconnects=True)) == []
    assert len(everywhere.ledger) == 3


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


# --- a missing variable ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_without_its_variables_ends_with_a_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line that names each missing variable; a script opens no client."""
    monkeypatch.delenv("PIKA_API_KEY", raising=False)
    monkeypatch.delenv("PIKA_BASE_URL", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    output = capsys.readouterr()
    assert (ended.value.code, output.out) == (2, "")
    assert output.err == "set PIKA_API_KEY and PIKA_BASE_URL, such as those that `pika-async emulate` prints\n"
