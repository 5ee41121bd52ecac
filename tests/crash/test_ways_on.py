"""kill -9 in the middle of `retry` and of `fetch`, then the same command again: nothing is paid twice, nothing is lost."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import pytest

from pika_async.emulator import Emulator, Scenario
from pika_async.jobs import JobStatus
from tests.cli.command_line import KEY
from tests.crash.crash_batch import CrashBatch
from tests.crash.fork_server import ForkServer

#: Real processes that are killed: with the slowest cases, on one Python.
pytestmark = pytest.mark.slow

COUNT: Final = 8
#: Number of kills at random times of each command; `nox -s crash` asks for 200 kills in all.
ROUNDS: Final = max(4, int(os.environ.get("PIKA_CRASH_ROUNDS", "12")) // 8)
SEED: Final = int(os.environ.get("PIKA_CRASH_SEED", "1"))
#: Submissions of the first runs fail at the provider, or are refused; later ones succeed.
FAILS: Final[dict[str, Any]] = {"fault": "fails", "reason": "moderated"}


@pytest.fixture
def failed_batch(fork_server: ForkServer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[CrashBatch]:
    """A batch whose every job has failed and was charged once; those paid for again succeed."""
    prompts = [f"failed {number:03}." for number in range(getattr(request, "param", COUNT))]
    rules = [{"on": "create", "prompt": prompt, "first": 1, "do": FAILS} for prompt in prompts]
    settings: dict[str, Any] = {"api_key": KEY, "render": False, "durations": "constant:0.1", "video_seconds": 1.0}
    with Emulator(**settings, scenario=Scenario.of(rules)).in_thread() as emulator:
        batch = CrashBatch(emulator, tmp_path / "batch", prompts, fork_server=fork_server)
        assert batch.run().code == 1
        assert batch.statuses == {JobStatus.FAILED: len(prompts)}
        yield batch


def retry(batch: CrashBatch, *more: str) -> tuple[str, ...]:
    return ("retry", batch.out_option, "--failed", *more)


def check_retried(batch: CrashBatch) -> None:
    """Check that each prompt was paid for at most once more, and that every job has succeeded or is in doubt by a kill."""
    times = Counter(charge.prompt for charge in batch.charges)
    assert set(times) == set(batch.prompts)
    assert set(times.values()) <= {1, 2}, times
    current = {key: job for key, job in batch.jobs.items() if "~" not in key}
    earlier = {key.partition("~")[0] for key in batch.jobs if "~" in key}
    assert len(current) == len(batch.prompts)
    assert earlier == set(current)
    assert all(job.status is JobStatus.FAILED for key, job in batch.jobs.items() if "~" in key)
    for key, job in current.items():
        if job.status is JobStatus.UNKNOWN:
            assert key in batch.possible_doubts
        else:
            assert (job.status, times[job.request.prompt]) == (JobStatus.SUCCEEDED, 2)
            assert job.file is not None
            assert job.file.is_file()
        assert batch.jobs[f"{key}~1"].task_id in {charge.task_id for charge in batch.charges}


#: The points of a retry before a submission was answered, and the number of jobs that a kill there leaves in doubt.
POINTS: Final = {
    "archive-before:1": 0, "archive-before:4": 0, "archive-after:1": 0, "archive-after:4": 0, "plan-before:1": 0,
    "plan-after:1": 0, "intent-before:3": 0, "intent-after:3": 1, "send-before:3": 1, "send-after:3": 1,
    "id-before:3": 1,
}  # fmt: skip
#: Later points: another submission may be under way, and is then in doubt.
LATER: Final = (
    "id-after:3", "settle-before:3", "settle-after:3", "hash-after:3", "link-after:3", "named-before:3", "line-half:12",
)  # fmt: skip


@pytest.mark.parametrize("point", [*POINTS, *LATER])
def test_a_retry_that_is_killed_is_completed_by_the_same_command(failed_batch: CrashBatch, point: str) -> None:
    """Each prompt is charged at most once more, whatever the point; only a kill around a submission leaves a doubt."""
    batch, command = failed_batch, retry(failed_batch, *([] if point.endswith("4") else ["--new-seed"]))
    assert batch.run(*command, at=point, one_by_one=True).was_killed
    run = batch.run(*command)
    details = f"{batch.statuses}\n{run.out}\n{run.err}"
    check_retried(batch)
    in_doubt = batch.statuses[JobStatus.UNKNOWN]
    assert in_doubt in ({POINTS[point]} if point in POINTS else {0, 1}), details
    assert run.code == (1 if in_doubt else 0), details
    seeds = {job.request.seed for key, job in batch.jobs.items() if "~" not in key}
    assert (None in seeds) == point.endswith("4")
    charges = len(batch.charges)
    assert batch.run(*command).code == run.code
    assert len(batch.charges) == charges


@pytest.mark.parametrize("failed_batch", [24], indirect=True)
@pytest.mark.parametrize("new_seed", [(), ("--new-seed",)], ids=["same", "new"])
def test_a_retry_that_is_killed_at_random_times(failed_batch: CrashBatch, new_seed: tuple[str, ...]) -> None:
    """However often it is killed, in whatever state, the ledger shows at most the announced charges."""
    batch, command, random = failed_batch, retry(failed_batch, *new_seed), Random(f"{SEED} {new_seed}")
    kills = 0
    for number in range(ROUNDS):
        with batch.started(*command, one_by_one=True) as running:
            running.wait_for_event("sending", random.randint(1, 4))
            time.sleep(random.uniform(0, 0.1))
            running.process.kill()
            kills += batch.check_run(running.end()).was_killed
        assert number or kills, "the first kill came too late, so that the test proves nothing"
    run = batch.run(*command)
    print(f"{kills} kills, {batch.statuses}")
    check_retried(batch)
    assert run.code == (1 if batch.statuses[JobStatus.UNKNOWN] else 0), run.err


# --- fetch --------------------------------------------------------------------------------------------------------------


@attrs.define
class Fetched:
    """Tasks that were submitted elsewhere, and the command that fetches them into a folder."""

    batch: CrashBatch
    ids: list[str]

    @property
    def command(self) -> tuple[str, ...]:
        base_url = self.batch.emulator.base_url(self.batch.provider)
        account = ("--provider", self.batch.provider, "--base-url", base_url)
        return ("fetch", *self.ids, *account, "--out", self.batch.out_option, "--expected-seconds", "0.1")

    def check(self, charges: int) -> None:
        """Check that every task has one job with its video, and that nothing was charged."""
        assert sorted(self.batch.jobs) == sorted(self.ids)
        for key, job in self.batch.jobs.items():
            assert (job.task_id, job.status, job.is_adopted) == (key, JobStatus.SUCCEEDED, True)
        self.batch.check_files(self.batch.lines(), "")
        assert len(self.batch.emulator.ledger) == charges


@pytest.fixture
def tasks(emulator: Emulator, fork_server: ForkServer, tmp_path: Path, request: pytest.FixtureRequest) -> Fetched:
    """Tasks of another folder, which settle while they are fetched."""
    prompts = [f"{request.node.name} {number} [later]" for number in range(COUNT)]
    other = CrashBatch(
        emulator, tmp_path / "other", prompts, options=("--no-download", "--deadline", "0.05"), fork_server=fork_server
    )
    other.run()
    ids = sorted(charge.task_id for charge in other.charges)
    assert len(ids) == COUNT
    return Fetched(CrashBatch(emulator, tmp_path / "batch", [], fork_server=fork_server), ids)


@pytest.mark.parametrize(
    "point",
    [
        "create-after", "migrate-inside", "settle-before:1", "settle-after:1", "settle-before:4", "settle-after:4",
        "download-half:2", "hash-before:2", "hash-after:2", "link-before:2", "link-after:2", "named-before:2",
        "named-after:2", "line-half:2", "close-before", "close-after",
    ],
)  # fmt: skip
def test_a_fetch_that_is_killed_is_completed_by_the_same_command(tasks: Fetched, point: str) -> None:
    """Nothing is charged, each task has one job, and each video is on disk."""
    charges = len(tasks.batch.emulator.ledger)
    assert tasks.batch.run(*tasks.command, at=point, one_by_one=True).was_killed
    run = tasks.batch.run(*tasks.command)
    assert run.code == 0, run.err
    tasks.check(charges)


def test_a_fetch_that_is_killed_at_random_times(tasks: Fetched) -> None:
    """At whatever moment, the same command again loses nothing and pays nothing."""
    random, charges, kills = Random(f"{SEED} fetch"), len(tasks.batch.emulator.ledger), 0
    for _ in range(ROUNDS):
        with tasks.batch.started(*tasks.command, one_by_one=True) as running:
            running.wait_for_event("ready")
            time.sleep(random.uniform(0, 0.4))
            running.process.kill()
            kills += tasks.batch.check_run(running.end()).was_killed
    run = tasks.batch.run(*tasks.command)
    print(f"{kills} kills")
    assert (run.code, kills > 0) == (0, True), run.err
    tasks.check(charges)
