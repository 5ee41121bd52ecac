"""kill -9 at random times: 300 jobs in four concurrent parts, one for each provider."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pika_async.emulator import EMULATED_GATEWAYS, Emulator, Scenario
from pika_async.jobs import JobStatus
from tests.cli.command_line import KEY
from tests.crash.conftest import RULES
from tests.crash.crash_batch import CrashBatch
from tests.crash.fork_server import ForkServer

#: Number of kills in all; `nox -s crash` asks for 200.
ROUNDS = int(os.environ.get("PIKA_CRASH_ROUNDS", "12"))
SEED = int(os.environ.get("PIKA_CRASH_SEED", "1"))
PART = 75
#: Fraction of the kills that come as soon as a submission is being sent. The rest come at random times, which on a busy
#: machine may all miss the submissions.
SENDING_SHARE = 0.2


def kill_at_random(batch: CrashBatch, random: Random, *, sending: bool) -> bool:
    """Kill one run at a random time, or during a submission if *sending*; return whether it was still running."""
    with batch.started() as running:
        if sending:
            running.wait_for_event("sending", random.randint(1, 16))
        elif random.random() < 0.9:  # else perhaps before the process is ready
            running.wait_for_event("ready")
            time.sleep(random.expovariate(1 / 0.5))
        else:
            time.sleep(random.uniform(0, 0.4))
        running.process.kill()
        return batch.check_run(running.end()).was_killed


def kill_batches(
    emulator: Emulator, fork_server: ForkServer, folder: Path, provider: str, rounds: int
) -> list[CrashBatch]:
    """Run batches of one provider until *rounds* runs were killed, then finish and verify each batch.

    A run that finishes before its kill counts as no round.
    """
    random = Random(f"{SEED} {provider}")
    batches: list[CrashBatch] = []
    while rounds > 0:
        name = f"{provider} {len(batches)}"
        prompts = [f"random {name} {number} [slow]" for number in range(PART)]
        batch = CrashBatch(
            emulator, folder / name, prompts, provider, options=("--max-in-flight", "16"), fork_server=fork_server
        )
        batches.append(batch)
        while rounds > 0:
            if not kill_at_random(batch, random, sending=random.random() < SENDING_SHARE or rounds == 1):
                break  # the batch had finished
            rounds -= 1
        batch.finish_and_verify()
    return batches


@pytest.mark.slow
def test_kills_at_random_times(fork_server: ForkServer, tmp_path: Path) -> None:
    """Nothing is charged twice, no saved task id is lost, and each job in doubt was being submitted at a kill."""
    print(f"PIKA_CRASH_SEED={SEED} PIKA_CRASH_ROUNDS={ROUNDS}")
    settings: dict[str, Any] = {"api_key": KEY, "render": False, "durations": "lognormal:0.4,0.5", "video_seconds": 1.0}
    with (
        Emulator(**settings, seed=SEED, scenario=Scenario.of(RULES)).in_thread() as emulator,
        ThreadPoolExecutor(len(EMULATED_GATEWAYS)) as pool,
    ):
        parts = [ROUNDS // 4 + (number < ROUNDS % 4) for number in range(4)]
        results = pool.map(kill_batches, [emulator] * 4, [fork_server] * 4, [tmp_path] * 4, EMULATED_GATEWAYS, parts)
        batches = [batch for part in results for batch in part]
    kills = sum(run.was_killed for batch in batches for run in batch.runs)
    in_doubt = sum(batch.statuses[JobStatus.UNKNOWN] for batch in batches)
    hits = sum(batch.interrupted_count for batch in batches)
    print(f"{kills} kills, {hits} submissions hit, {in_doubt} in doubt, {len(emulator.ledger)} charged")
    assert kills == ROUNDS
    assert hits, "no kill hit a submission, so that the test proves nothing"
