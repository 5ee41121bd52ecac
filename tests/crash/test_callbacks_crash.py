"""kill -9 of a service with jobs in flight: the next process on its journal and port receives their callbacks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.emulator import Emulator, Scenario
from pika_async.jobs import JobStatus
from tests.cli.command_line import KEY
from tests.crash.crash_batch import ROOT
from tests.fakes.raw_server import free_port

JOBS = 200
#: Responses that the first service never receives: it is killed while these submissions are unanswered.
HELD = {"on": "create", "prompt": "job 19", "do": {"fault": "stall", "seconds": 30}}


@contextlib.contextmanager
def running_service(*argv: object) -> Iterator[subprocess.Popen[str]]:
    """Start the service; kill it on leaving the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.callback_service", *map(str, argv)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until *condition* is true, 30 s at most."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition is still false after 30 s"
        time.sleep(0.05)


def statuses(path: Path) -> Counter[JobStatus]:
    return Counter(job.status for job in SqliteJournal(path).all())


@pytest.mark.slow
@pytest.mark.parametrize("resumes", [False, True], ids=["not resumed", "resumed"])
def test_callbacks_for_a_killed_service_reach_its_successor(tmp_path: Path, resumes: bool) -> None:
    """Each of 200 jobs succeeds and is charged once, including those in doubt, without a poll outside a callback."""
    path, port = tmp_path / "jobs.db", free_port()
    with Emulator(
        api_key=KEY, render=False, durations="lognormal:8,0.05", scenario=Scenario.of([HELD])
    ).in_thread() as emulator:
        arguments = (path, emulator.base_url("cometapi"), KEY, port)
        with running_service(*arguments, JOBS) as first:
            wait_until(lambda: len(emulator.ledger) == JOBS)
            wait_until(lambda: statuses(path)[JobStatus.QUEUED] + statuses(path)[JobStatus.RUNNING] == JOBS - 11)
            first.kill()
            assert first.wait() == -signal.SIGKILL
        assert not [each for each in emulator.callbacks if each.status == 202]
        held = [job for job in SqliteJournal(path).all() if job.task_id is None]
        assert Counter(job.status for job in held) == {JobStatus.SUBMITTING: 11}  # job 19, job 190, ...
        with running_service(*arguments, 0, *(["resume"] if resumes else [])):
            wait_until(lambda: statuses(path) == {JobStatus.SUCCEEDED: JOBS} and len(emulator.callbacks) == JOBS)
        jobs = {job.key: job for job in SqliteJournal(path).all()}
        charges = {charge.prompt.replace(" ", "-"): charge.task_id for charge in emulator.ledger}
        assert len(emulator.ledger) == JOBS
        assert {key: job.task_id for key, job in jobs.items()} == charges
        assert {job.attempts for job in jobs.values()} == {1}
        assert [each.status for each in emulator.callbacks] == [202] * JOBS
