"""The example files, run unchanged against the emulator: scripts in this process, services as processes."""

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

from tests.fakes.raw_server import free_port
from tests.fakes.stepped_emulator import SteppedEmulator

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ["bot.py", "many_prompts.py", "notebook.py", "one_video.py"]
GRACE = ["--timeout-graceful-shutdown", "20"]
PROCESSES = {
    "aiohttp_service.py": [str(EXAMPLES / "aiohttp_service.py")],
    "fastapi_service.py": ["-m", "uvicorn", "fastapi_service:app", "--app-dir", str(EXAMPLES), *GRACE, "--port"],
}
LONG_TASKS: dict[str, Any] = {"durations": "constant:60"}
#: Delays the second answer, so that a signal can arrive between its charge and its task id.
DELAYED = [{"on": "create", "nth": 2, "do": {"fault": "delay", "seconds": 0.7}}]


def test_every_example_is_run_and_short() -> None:
    """Every example is run by a test of this file and has at most 60 lines."""
    assert sorted([*SCRIPTS, *PROCESSES]) == sorted(file.name for file in EXAMPLES.glob("*.py"))
    lengths = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in EXAMPLES.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 60} == {}


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


# --- the services ---------------------------------------------------------------------------------------------------


class Service:
    """Process of an example service in an empty folder. It may be stopped and started again."""

    def __init__(self, name: str, emulator: SteppedEmulator) -> None:
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
        output: list[str] = []
        while not output or "unning on http" not in output[-1]:
            assert process.poll() is None, "".join(output)
            output.append(process.stdout.readline())

    def stop(self) -> str:
        """Send SIGTERM and return the output since the service started to serve."""
        process, self.process = self.process, None
        assert process is not None
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
        assert process.returncode in {0, -signal.SIGTERM}, output  # uvicorn re-raises the signal after its shutdown
        return output

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def wait_for(self, key: str) -> Any:
        """Poll until a job is settled, and return it."""
        deadline = time.monotonic() + 20
        while (job := self.request("GET", f"/videos/{key}?wait=20")[1])["status"] in {"planned", "queued", "running"}:
            assert time.monotonic() < deadline, job
            time.sleep(0.02)
        return job


@pytest.fixture(params=sorted(PROCESSES))
def service(request: pytest.FixtureRequest, everywhere: SteppedEmulator) -> Iterator[Service]:
    service = Service(request.param, everywhere)
    service.start()
    try:
        yield service
    finally:
        if service.process is not None:
            service.process.kill()
            service.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [LONG_TASKS], indirect=True)
def test_a_service_submits_jobs_and_reports_them(service: Service, everywhere: SteppedEmulator) -> None:
    """An order returns its task id, is charged once and settles by callback; an invalid order is answered with 400."""
    status, job = service.request("POST", "/videos", {"key": "order-1", "prompt": "a cat"})
    assert (status, job["key"], job["status"]) == (202, "order-1", "queued")
    assert job["task_id"] == everywhere.ledger[0].task_id
    assert service.request("POST", "/videos", {"key": "order-1", "prompt": "a cat"}) == (202, job)
    assert service.request("GET", "/videos/order-1") == (200, job)
    assert service.request("GET", "/videos/order-2")[0] == 404
    for bad in ({"key": "order-1", "prompt": "a dog"}, {"key": "a/b", "prompt": "a dog"}, {"key": "k", "prompt": ""}):
        status, error = service.request("POST", "/videos", bad)
        assert (status, error["error"]) == (400, "InvalidRequest")
    for malformed in ({"key": "order-2"}, ["a dog"], {"key": "order-2", "prompt": 7}):
        assert service.request("POST", "/videos", malformed)[0] in {400, 422}
    health = service.request("GET", "/health")[1]
    assert (health["open"], health["in_flight"], health["charges"], health["stopped"]) == (True, 1, 1, None)
    everywhere.advance(60)
    job = service.wait_for("order-1")
    assert (job["status"], job["url"].startswith("http")) == ("succeeded", True)
    assert [result.status for result in everywhere.callbacks] == [202]
    assert len(everywhere.ledger) == 1
    output = service.stop()
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [LONG_TASKS | {"scenario": DELAYED}], indirect=True)
def test_a_restarted_service_resumes_its_jobs(service: Service, everywhere: SteppedEmulator) -> None:
    """After SIGTERM an order that is being submitted is still answered; a restart settles it and the running one."""
    service.request("POST", "/videos", {"key": "order-1", "prompt": "a cat"})
    answers: list[tuple[int, Any]] = []

    def order() -> None:
        answers.append(service.request("POST", "/videos", {"key": "order-2", "prompt": "a dog"}))

    thread = threading.Thread(target=order)
    thread.start()
    while len(everywhere.ledger) < 2:
        assert thread.is_alive()
        time.sleep(0.01)
    output = service.stop()
    thread.join()
    assert [(status, job["status"]) for status, job in answers] == [(202, "queued")]
    assert "Traceback" not in output
    everywhere.advance(60)  # the callbacks of these tasks cannot be delivered
    service.start()
    for key in ("order-1", "order-2"):
        assert service.wait_for(key)["status"] == "succeeded"
    assert sorted(charge.prompt for charge in everywhere.ledger) == ["a cat", "a dog"]
    service.stop()
