"""Batches over gateways whose moods change at random, killed on the way and run again until they are done."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, Final

import attrs
import pytest

from pika_async.emulator import EMULATED_GATEWAYS, Emulator
from pika_async.emulator.scenario import FaultTarget, ScenarioRun
from pika_async.jobs import Job, JobStatus
from tests.cli.command_line import KEY
from tests.crash.crash_batch import CrashBatch, ProcessRun
from tests.crash.fork_server import ForkServer
from tests.crash.moods import BAD_ROW, MoodScenario

#: Jobs in all, seconds of moods and kills in all; `nox -s crash` asks for 2,000, 600 and 10.
JOBS: Final = int(os.environ.get("PIKA_MOOD_JOBS", "120"))
SECONDS: Final = float(os.environ.get("PIKA_MOOD_SECONDS", "25"))
KILLS: Final = int(os.environ.get("PIKA_MOOD_KILLS", "4"))
SEED: Final = os.environ.get("PIKA_MOOD_SEED", "1")
#: Seconds that one run may take, and that one job may.
LIFETIME_S: Final = int(SECONDS * 4 + 300)
#: Generations at once of each account.
IN_FLIGHT: Final = 8
#: One row in so many is refused for a reason of its own.
BAD_ROW_EVERY: Final = 25
#: The same command is given at most so often: a stopped account or a tripped fuse ends a run.
MAX_RUNS: Final = 400
#: Exit codes of a run that went to its end: all succeeded, some did not, stopped.
ENDS: Final = {0, 1, 3}


@attrs.define
class MoodyBatch:
    """Batch of one provider, and the gateway's moods behind it."""

    batch: CrashBatch
    moods: MoodScenario
    kills: int
    random: Random
    #: When the next run is killed, on the monotonic clock; all before the generations alone could have ended.
    kill_times: list[float] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        now = time.monotonic()
        self.kill_times = sorted(now + self.random.uniform(0.02, 0.5) * SECONDS for _ in range(self.kills))

    def run_to_the_end(self) -> None:
        """Give the same command until no job is left to be done; kill some of its runs."""
        for _ in range(MAX_RUNS):
            run = self._run_once()
            if run.was_killed:
                continue
            assert run.code in ENDS, f"{run.code}\n{run.out}\n{run.err}"
            if not any(job.status in OPEN or is_undownloaded(job) for job in self.batch.jobs.values()):
                return
            time.sleep(0.5)  # a person would wait before giving a command again
        raise AssertionError(f"not done after {MAX_RUNS} runs: {self.batch.statuses}\n{run.out}\n{run.err}")

    def _run_once(self) -> ProcessRun:
        with self.batch.started() as running:
            if self.kill_times:
                running.wait_for_event("ready")
                kill_at = max(self.kill_times[0], time.monotonic() + self.random.uniform(0, 0.5))
                running.wait_until(lambda: time.monotonic() > kill_at, timeout_s=SECONDS * 10)
                if running.process.poll() is None:
                    del self.kill_times[0]
                    running.process.kill()
            return self.batch.check_run(running.end(timeout_s=LIFETIME_S))

    def verify(self) -> None:
        """Check the whole result against the ledger and the faults that were caused."""
        batch, jobs = self.batch, list(self.batch.jobs.values())
        details = f"{batch.statuses}\n{batch.runs[-1].out}\n{batch.runs[-1].err}"
        assert sorted(job.request.prompt for job in jobs) == sorted(batch.prompts), details
        charged = Counter(charge.prompt for charge in batch.charges)
        assert [prompt for prompt, count in charged.items() if count > 1] == [], details
        by_status: dict[JobStatus, set[str]] = {}
        for job in jobs:
            by_status.setdefault(job.status, set()).add(job.request.prompt)
        assert by_status.keys() <= {JobStatus.SUCCEEDED, JobStatus.UNKNOWN, JobStatus.REJECTED}, details
        doubts = by_status.get(JobStatus.UNKNOWN, set())
        killed = {job.request.prompt for job in jobs if job.key in batch.possible_doubts}
        assert doubts - self.moods.ambiguous_prompts - killed == set(), f"in doubt without a cause\n{details}"
        rejected = by_status.get(JobStatus.REJECTED, set())
        assert {prompt for prompt in batch.prompts if BAD_ROW in prompt} == rejected, details
        assert charged.keys() - by_status.get(JobStatus.SUCCEEDED, set()) <= doubts, details
        batch.check_files(batch.lines(), details)


#: Statuses of jobs for which the same command has something left to do.
OPEN: Final = frozenset(JobStatus) - {
    JobStatus.SUCCEEDED,
    JobStatus.FAILED,
    JobStatus.REJECTED,
    JobStatus.CANCELED,
    JobStatus.UNKNOWN,
}


def is_undownloaded(job: Job) -> bool:
    """Return whether a job has a video that is not on disk: every attempt of a run may meet a CDN in trouble."""
    return job.status is JobStatus.SUCCEEDED and job.file is None


@pytest.mark.slow
@pytest.mark.timeout(max(180, SECONDS * 10))
def test_moods_and_kills_cost_nothing_twice(
    fork_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job is charged once at most, each finished video is on disk, and doubts and refusals have their causes."""
    print(f"PIKA_MOOD_SEED={SEED} PIKA_MOOD_SECONDS={SECONDS:g} PIKA_MOOD_JOBS={JOBS} PIKA_MOOD_KILLS={KILLS}")
    moods = {name: MoodScenario(f"{SEED} {name}", SECONDS) for name in EMULATED_GATEWAYS}
    fault_for = ScenarioRun.fault_for

    def recorded(self: ScenarioRun, on: str, task: FaultTarget, now: float) -> Any:
        fault = fault_for(self, on, task, now)
        if fault is not None:
            moods[task.provider].record(on, task.prompt, fault)
        return fault

    monkeypatch.setattr(ScenarioRun, "fault_for", recorded)
    with ThreadPoolExecutor(len(EMULATED_GATEWAYS)) as pool:
        parts = [
            pool.submit(_run, name, moods[name], fork_server, tmp_path / name, KILLS // 4 + (number < KILLS % 4))
            for number, name in enumerate(EMULATED_GATEWAYS)
        ]
        batches = [part.result() for part in parts]
    statuses = sum((each.statuses for each in batches), Counter[JobStatus]())
    kills = sum(run.was_killed for each in batches for run in each.runs)
    faults = sum((Counter(each.counts) for each in moods.values()), Counter[str]())
    print(
        f"{kills} kills, {sum(len(each.runs) for each in batches)} runs, {dict(statuses)}, {faults.total()} faults: {faults}"
    )
    assert faults.total() > JOBS // 4
    assert kills == KILLS
    assert statuses[JobStatus.SUCCEEDED] > JOBS // 2


def _run(name: str, moods: MoodScenario, fork_server: ForkServer, folder: Path, kills: int) -> CrashBatch:
    # As many generations one after the other as make the batch last for most of the moods.
    durations = f"lognormal:{0.6 * SECONDS * IN_FLIGHT / (JOBS / 4):.3f},0.5"
    emulator = Emulator(
        api_key=KEY, render=False, durations=durations, video_seconds=1.0, in_flight=IN_FLIGHT, retry_after=1,
        seed=int(SEED), scenario=moods.scenario,
    )  # fmt: skip
    prompts = [f"mood {name} {number}" + BAD_ROW * (number % BAD_ROW_EVERY == 7) for number in range(JOBS // 4)]
    options = ("--max-in-flight", str(IN_FLIGHT), "--deadline", str(LIFETIME_S))
    with emulator.in_thread():
        batch = CrashBatch(
            emulator, folder, prompts, name, options=options, fork_server=fork_server, lifetime=LIFETIME_S
        )
        moody = MoodyBatch(batch, moods, kills, Random(f"{SEED} {name} kills"))
        moody.run_to_the_end()
        moody.verify()
    return batch
