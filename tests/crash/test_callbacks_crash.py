"""kill -9 of a service whose jobs are in flight: the next one on its journal and its port is called back for them."""

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
from tests.crash.batch_story import ROOT
from tests.fakes.raw_server import free_port

JOBS = 200
#: Answers that the first service does not live to see: its submissions are then between intent and verdict.
HELD = {"on": "create", "prompt": "job 19", "do": {"fault": "stall", "seconds": 30}}


@contextlib.contextmanager
def service(*argv: object) -> Iterator[subprocess.Popen[str]]:
    """One life of the service, which is killed when the context is left."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.service", *map(str, argv)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so, 30 s at most."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def statuses(path: Path) -> Counter[JobStatus]:
    return Counter(job.status for job in SqliteJournal(path).all())


@pytest.mark.slow
@pytest.mark.parametrize("resumes", [False, True], ids=["not resumed", "resumed"])
def test_the_callbacks_of_a_killed_service_reach_the_next(tmp_path: Path, resumes: bool) -> None:
    """Each of 200 jobs succeeds, those in doubt as well, and is paid for once; nobody asked for them."""
    path, port = tmp_path / "jobs.db", free_port()
    with Emulator(
        api_key=KEY, render=False, durations="lognormal:8,0.05", scenario=Scenario.of([HELD])
    ).in_thread() as emulator:
        known = (path, emulator.base_url("cometapi"), KEY, port)
        with service(*known, JOBS) as first:
            until(lambda: len(emulator.ledger) == JOBS)
            until(lambda: statuses(path)[JobStatus.QUEUED] + statuses(path)[JobStatus.RUNNING] == JOBS - 11)
            first.kill()
            assert first.wait() == -signal.SIGKILL
        assert not [each for each in emulator.callbacks if each.status == 202]
        held = [job for job in SqliteJournal(path).all() if job.task_id is None]
        assert Counter(job.status for job in held) == {JobStatus.SUBMITTING: 11}  # job 19, job 190, ...
        with service(*known, 0, *(["resume"] if resumes else [])):
            until(lambda: statuses(path) == {JobStatus.SUCCEEDED: JOBS} and len(emulator.callbacks) == JOBS)
        jobs = {job.key: job for job in SqliteJournal(path).all()}
        charges = {charge.prompt.replace(" ", "-"): charge.task_id for charge in emulator.ledger}
        assert len(emulator.ledger) == JOBS
        assert {key: job.task_id for key, job in jobs.items()} == charges
        assert {job.attempts for job in jobs.values()} == {1}
        assert [each.status for each in emulator.callbacks] == [202] * JOBS
