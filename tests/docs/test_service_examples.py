"""The example services, run unchanged as processes against the emulator."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pika_async import PikaClient
from tests.docs.services import COMMANDS, EXAMPLES, Service, environment
from tests.fakes.child_process import ChildProcess
from tests.fakes.requirements import require_module
from tests.fakes.stepped_emulator import SteppedEmulator

LONG_TASKS: dict[str, Any] = {"durations": "constant:60"}
#: Delays the second answer, so that a signal can arrive between its charge and its task id.
DELAYED = [{"on": "create", "nth": 2, "do": {"fault": "delay", "seconds": 0.7}}]
#: Refuses the key of the first submission.
REFUSED = [{"on": "create", "nth": 1, "do": {"fault": "refuse", "as": "key"}}]


@pytest.fixture(params=sorted(COMMANDS))
def service(request: pytest.FixtureRequest, everywhere: SteppedEmulator) -> Iterator[Service]:
    service = Service(request.param, everywhere)
    service.start()
    try:
        yield service
    finally:
        service.kill()


def only(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("service", names, indirect=True)


def until(condition: Callable[[], bool], thread: threading.Thread) -> None:
    while not condition():
        assert thread.is_alive()
        time.sleep(0.01)


@pytest.mark.slow
@only("aiohttp_service.py", "fastapi_service.py")
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
    status, health = service.request("GET", "/health")
    assert (status, health["open"], health["in_flight"], health["charges"], health["stopped"]) == (
        200,
        True,
        1,
        1,
        None,
    )
    everywhere.advance(60)
    job = service.wait_for("order-1")
    assert (job["status"], job["url"].startswith("http")) == ("succeeded", True)
    assert [result.status for result in everywhere.callbacks] == [202]
    assert len(everywhere.ledger) == 1
    output = service.stop()
    assert "Traceback" not in output
    assert "GET /videos/order-1" in output
    assert "pika_async.job_table: job order-1 " in output
    assert "callbacks/" not in output


@pytest.mark.slow
@only("aiohttp_service.py", "fastapi_service.py")
@pytest.mark.parametrize("everywhere", [LONG_TASKS | {"scenario": REFUSED}], indirect=True)
def test_the_health_of_a_stopped_account_is_503(service: Service, everywhere: SteppedEmulator) -> None:
    """The reason is in the JSON of the order and of the health check, until a later order is accepted."""
    order = {"key": "order-1", "prompt": "a cat"}
    status, error = service.request("POST", "/videos", order)
    assert (status, error["error"]) == (503, "AccountStopped")
    status, health = service.request("GET", "/health")
    assert (status, health["open"]) == (503, True)
    assert "the account is stopped: HTTP 401" in health["stopped"]
    assert health["stopped"] == error["message"]
    assert service.request("POST", "/videos", order)[0] == 202
    status, health = service.request("GET", "/health")
    assert (status, health["stopped"], len(everywhere.ledger)) == (200, None, 1)


@pytest.mark.slow
@only("aiohttp_service.py", "fastapi_service.py")
@pytest.mark.parametrize("everywhere", [LONG_TASKS | {"scenario": DELAYED}], indirect=True)
def test_a_restarted_service_resumes_its_jobs(service: Service, everywhere: SteppedEmulator) -> None:
    """After SIGTERM an order that is being submitted is still answered; a restart settles it and the running one."""
    service.request("POST", "/videos", {"key": "order-1", "prompt": "a cat"})
    answers: list[tuple[int, Any]] = []

    def order() -> None:
        answers.append(service.request("POST", "/videos", {"key": "order-2", "prompt": "a dog"}))

    thread = threading.Thread(target=order)
    thread.start()
    until(lambda: len(everywhere.ledger) == 2, thread)
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


@pytest.mark.slow
@only("fastapi_service.py")
@pytest.mark.parametrize("everywhere", [LONG_TASKS], indirect=True)
def test_a_request_that_waits_for_a_video_does_not_hold_up_the_end(
    service: Service, everywhere: SteppedEmulator
) -> None:
    """After SIGTERM the service ends before Docker kills it, though a client waits 20 s for a video; no job is lost."""
    service.request("POST", "/videos", {"key": "order-1", "prompt": "a cat"})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)) as waiting:
        waiting.request("GET", "/videos/order-1?wait=20")
        service.request("GET", "/health")  # accepted after the request above
        service.stop()
    everywhere.advance(60)
    service.start()
    assert service.wait_for("order-1")["status"] == "succeeded"
    assert len(everywhere.ledger) == 1
    service.stop()


@pytest.mark.slow
@only("metrics_service.py")
@pytest.mark.parametrize("everywhere", [LONG_TASKS], indirect=True)
def test_prometheus_scrapes_the_metrics(service: Service, everywhere: SteppedEmulator) -> None:
    """The page can be parsed and counts charges, polls, finished jobs, and the states of jobs at that moment."""

    def scrape() -> dict[tuple[str, str | None], float]:
        status, page = service.fetch("GET", "/metrics")
        assert status == 200
        families = require_module("prometheus_client.parser").text_string_to_metric_families(page)
        return {
            (sample.name, sample.labels.get("state", sample.labels.get("pika_job_status"))): sample.value
            for family in families
            for sample in family.samples
        }

    before = scrape()
    assert (before["pika_stopped", None], before["pika_jobs", "in_flight"], before["pika_jobs", "unknown"]) == (0, 0, 0)
    service.request("POST", "/videos", {"key": "order-1", "prompt": "a cat"})
    during = scrape()
    assert (during["pika_charges_total", None], during["pika_jobs", "in_flight"]) == (1, 1)
    everywhere.advance(60)
    assert service.wait_for("order-1")["status"] == "succeeded"
    after = scrape()
    deadline = time.monotonic() + 20
    while ("pika_jobs_finished_total", "succeeded") not in after:  # counted after the journal has the job
        assert time.monotonic() < deadline, after
        after = scrape()
    assert (after["pika_jobs_finished_total", "succeeded"], after["pika_jobs", "in_flight"]) == (1, 0)
    assert after["pika_job_generation_time_seconds_count", None] == 1
    assert after["pika_polls_total", None] >= 1
    assert "Traceback" not in service.stop()


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["PUBLIC_URL", "COMETAPI_API_KEY"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_service_without_a_variable_ends_with_a_sentence(name: str, missing: str) -> None:
    """Exit code 2 and one line that names the variable; nothing is served and no traceback is printed."""
    variables = {"PUBLIC_URL": "http://127.0.0.1:9", "COMETAPI_API_KEY": "key"}
    del variables[missing]
    command = [sys.executable, *COMMANDS[name]]
    ended = subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=30, check=False
    )
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
    assert missing in ended.stderr


@pytest.mark.slow
def test_a_second_process_with_the_journal_ends_with_a_sentence(service: Service) -> None:
    """It names the process that has the journal, and exits with 2."""
    assert service.process is not None
    ended = service.run()
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].endswith("give each process a file and one client of its own")
    assert f"is in use by process {service.process.pid}; " in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize(("script", "journal"), [("bot.py", "bot.db"), ("many_prompts.py", "animals.db")])
async def test_a_script_whose_journal_is_in_use_ends_with_a_sentence(
    everywhere: SteppedEmulator, script: str, journal: str
) -> None:
    """Exit code 2, no traceback, and nothing is charged."""
    base_url = everywhere.base_url("native")
    variables = {"PIKA_API_KEY": everywhere.api_key, "PIKA_BASE_URL": base_url}
    async with PikaClient("native", base_url=base_url, journal=journal):
        ended = await asyncio.to_thread(
            subprocess.run, [sys.executable, str(EXAMPLES / script)], env=environment(**variables),
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert (ended.returncode, ended.stdout, len(everywhere.ledger)) == (2, "", 0)
    assert f"is in use by process {os.getpid()}; " in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [LONG_TASKS], indirect=True)
def test_the_bot_ends_at_sigterm_and_keeps_its_task_ids(everywhere: SteppedEmulator, tmp_path: Path) -> None:
    """It ends without a traceback; started again, it answers all commands and pays for none again."""
    variables = {"PIKA_API_KEY": everywhere.api_key, "PIKA_BASE_URL": everywhere.base_url("native")}
    command = [sys.executable, str(EXAMPLES / "bot.py")]

    def start() -> ChildProcess:
        return ChildProcess(
            command, env=environment(**variables), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    with start() as bot:
        deadline = time.monotonic() + 30
        while len(everywhere.ledger) < 3:
            assert bot.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        bot.send_signal(signal.SIGTERM)
        output, log = bot.communicate(timeout=10)
    assert (bot.returncode, output, "Traceback" in log) == (0, "", False), log
    everywhere.advance(60)
    with start() as bot:
        output, log = bot.communicate(timeout=30)
    assert sorted(line.split(":")[0] for line in output.splitlines()) == [f"#films message-{n}" for n in range(3)]
    assert len(everywhere.ledger) == 3
