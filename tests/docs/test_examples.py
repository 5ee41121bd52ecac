"""The example files run as they are written, against the emulator: scripts to their end, services as processes."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.held_emulator import Held
from tests.fakes.raw_server import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ["bot.py", "many_prompts.py", "notebook.py", "one_video.py"]
GRACE = ["--timeout-graceful-shutdown", "20"]
PROCESSES = {
    "aiohttp_service.py": [str(EXAMPLES / "aiohttp_service.py")],
    "fastapi_service.py": ["-m", "uvicorn", "fastapi_service:app", "--app-dir", str(EXAMPLES), *GRACE, "--port"],
}
LONG: dict[str, Any] = {"durations": "constant:60"}
#: Time for a signal between the charge and its receipt.
DELAYED = [{"on": "create", "nth": 2, "do": {"fault": "delay", "seconds": 0.7}}]


def test_every_example_is_run_and_short() -> None:
    """None is left out below, and none is longer than a reader's patience."""
    assert sorted([*SCRIPTS, *PROCESSES]) == sorted(file.name for file in EXAMPLES.glob("*.py"))
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in EXAMPLES.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 60} == {}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_to_its_end(
    name: str, everywhere: Held, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says something of each task, and every charge is a job of its own."""
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    prompts = [(charge.prompt, charge.task_id) for charge in everywhere.ledger]
    assert capsys.readouterr().out.count("\n") >= len(prompts) == len(set(prompts)) > 0


def test_the_notebook_pays_for_nothing_twice(everywhere: Held, capsys: pytest.CaptureFixture[str]) -> None:
    """Its cells, and all of them again in another process of the same folder: the four videos of the first time."""
    for _ in range(2):
        runpy.run_path(str(EXAMPLES / "notebook.py"), run_name="__main__")
        shown = capsys.readouterr().out
        assert (shown.count("succeeded"), "4 videos" in shown) == (5, True)
    assert len(everywhere.ledger) == 4


# --- the bot --------------------------------------------------------------------------------------------------------


class Talk:
    """A chat whose commands a test gives, and which stays connected until the bot is ended, unless it is `over`."""

    def __init__(self, *commands: str, over: bool = False) -> None:
        self.waiting: asyncio.Queue[str | None] = asyncio.Queue()
        for command in [*commands, *([None] if over else [])]:
            self.waiting.put_nowait(command)
        self.said: list[tuple[str, str]] = []

    async def commands(self) -> AsyncIterator[tuple[str, str, str]]:
        while (command := await self.waiting.get()) is not None:
            yield command, f"channel of {command}", f"a film of {command}"

    async def say(self, channel: str, text: str) -> None:
        self.said.append((channel, text.split(": http", maxsplit=1)[0]))


@pytest.mark.parametrize("everywhere", [LONG], indirect=True)
def test_the_bot_answers_everybody_once(everywhere: Held) -> None:
    """Ended while two wait for their answers, it gives them when it is started again, and nobody gets a second one."""
    bot = runpy.run_path(str(EXAMPLES / "bot.py"))

    async def first() -> None:
        talk = Talk("a", "no/key")
        running = asyncio.create_task(bot["main"](talk, 0))
        await until(lambda: len(everywhere.ledger) == 1 and len(talk.said) == 1)
        everywhere.skip(60)
        await until(lambda: len(talk.said) == 2)
        assert talk.said[0][1].startswith("no/key: key: 'no/key'")
        assert talk.said[1] == ("channel of a", "a")
        talk.waiting.put_nowait("b")
        talk.waiting.put_nowait("c")
        await until(lambda: len(everywhere.ledger) == 3)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert len(talk.said) == 2

    def again(talk: Talk) -> list[tuple[str, str]]:
        asyncio.run(bot["main"](talk, int(bot["SEEN"].read_text())))
        return sorted(talk.said)

    asyncio.run(first())
    everywhere.skip(60)
    assert again(Talk("a", over=True)) == [("channel of b", "b"), ("channel of c", "c")]
    assert again(Talk("a", "b", "c", over=True)) == []
    assert len(everywhere.ledger) == 3


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


# --- the services ---------------------------------------------------------------------------------------------------


class Service:
    """An example that serves, as a process in an empty folder, which may be ended and started again."""

    def __init__(self, name: str, emulator: Held) -> None:
        self.port = free_port()
        self._command = [sys.executable, *PROCESSES[name], *([str(self.port)] if name.startswith("fastapi") else [])]
        self._env = os.environ | {
            "COMETAPI_API_KEY": emulator.api_key, "COMETAPI_BASE_URL": emulator.base_url("cometapi"),
            "PUBLIC_URL": f"http://127.0.0.1:{self.port}", "PORT": str(self.port), "DRAIN": "0.1",
            "PYTHONPATH": str(EXAMPLES.parent), "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = process = subprocess.Popen(
            self._command, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        said: list[str] = []
        while not said or "unning on http" not in said[-1]:
            assert process.poll() is None, "".join(said)
            said.append(process.stdout.readline())

    def end(self) -> str:
        """SIGTERM, and what it said since it began to serve."""
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
        assert process.returncode in {0, -signal.SIGTERM}, said  # uvicorn passes the signal on when it has ended
        return said

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def settled(self, key: str) -> Any:
        """How a job stands once it is settled."""
        until = time.monotonic() + 20
        while (job := self.ask("GET", f"/videos/{key}?wait=20")[1])["status"] in {"planned", "queued", "running"}:
            assert time.monotonic() < until, job
            time.sleep(0.02)
        return job


@pytest.fixture(params=sorted(PROCESSES))
def service(request: pytest.FixtureRequest, everywhere: Held) -> Iterator[Service]:
    serving = Service(request.param, everywhere)
    serving.start()
    try:
        yield serving
    finally:
        if serving.process is not None:
            serving.process.kill()
            serving.process.communicate()


@pytest.mark.parametrize("everywhere", [LONG], indirect=True)
def test_a_service_takes_orders_and_tells_of_them(service: Service, everywhere: Held) -> None:
    """Accepted with a task id, paid once whoever asks again, settled by its callback; a bad order says what is wrong."""
    status, job = service.ask("POST", "/videos", {"key": "order-1", "prompt": "a cat"})
    assert (status, job["key"], job["status"]) == (202, "order-1", "queued")
    assert job["task_id"] == everywhere.ledger[0].task_id
    assert service.ask("POST", "/videos", {"key": "order-1", "prompt": "a cat"}) == (202, job)
    assert service.ask("GET", "/videos/order-1") == (200, job)
    assert service.ask("GET", "/videos/order-2")[0] == 404
    for bad in ({"key": "order-1", "prompt": "a dog"}, {"key": "a/b", "prompt": "a dog"}, {"key": "k", "prompt": ""}):
        status, told = service.ask("POST", "/videos", bad)
        assert (status, told["error"]) == (400, "InvalidRequest")
    for malformed in ({"key": "order-2"}, ["a dog"], {"key": "order-2", "prompt": 7}):
        assert service.ask("POST", "/videos", malformed)[0] in {400, 422}
    health = service.ask("GET", "/health")[1]
    assert (health["open"], health["in_flight"], health["charges"], health["stopped"]) == (True, 1, 1, None)
    everywhere.skip(60)
    job = service.settled("order-1")
    assert (job["status"], job["url"].startswith("http")) == ("succeeded", True)
    assert [result.status for result in everywhere.callbacks] == [202]
    assert len(everywhere.ledger) == 1
    said = service.end()
    assert "Traceback" not in said


@pytest.mark.parametrize("everywhere", [LONG | {"scenario": DELAYED}], indirect=True)
def test_a_service_that_is_ended_goes_on_where_it_was(service: Service, everywhere: Held) -> None:
    """SIGTERM while one order is generated and another is on its way: it is answered, both settle after a restart."""
    service.ask("POST", "/videos", {"key": "order-1", "prompt": "a cat"})
    answers: list[tuple[int, Any]] = []

    def order() -> None:
        answers.append(service.ask("POST", "/videos", {"key": "order-2", "prompt": "a dog"}))

    ordering = threading.Thread(target=order)
    ordering.start()
    while len(everywhere.ledger) < 2:
        assert ordering.is_alive()
        time.sleep(0.01)
    said = service.end()
    ordering.join()
    assert [(status, job["status"]) for status, job in answers] == [(202, "queued")]
    assert "Traceback" not in said
    everywhere.skip(60)  # its callbacks find nobody
    service.start()
    for key in ("order-1", "order-2"):
        assert service.settled(key)["status"] == "succeeded"
    assert sorted(charge.prompt for charge in everywhere.ledger) == ["a cat", "a dog"]
    service.end()
