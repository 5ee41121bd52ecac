"""kill -9 at random times over one batch of 300 in four parts, one for each provider, side by side."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pika_async.emulator import EMULATED_PROVIDERS, Emulator, Scenario
from pika_async.jobs import JobStatus
from tests.cli.command_line import KEY
from tests.crash.batch_story import Story
from tests.crash.conftest import RULES
from tests.crash.fork_server import Nursery

#: Deaths in all; `nox -s crash` asks for 200.
ROUNDS = int(os.environ.get("PIKA_CRASH_ROUNDS", "12"))
SEED = int(os.environ.get("PIKA_CRASH_SEED", "1"))
PART = 75


def die_at_random(story: Story, random: Random) -> bool:
    """One life, killed at a random time; whether it was still alive."""
    with story.started() as running:
        if random.random() < 0.9:  # else perhaps before it has begun
            running.until_told("ready")
            time.sleep(random.expovariate(1 / 0.5))
        else:
            time.sleep(random.uniform(0, 0.4))
        running.process.kill()
        return story.note(running.end()).was_killed


def live(emulator: Emulator, nursery: Nursery, folder: Path, provider: str, rounds: int) -> list[Story]:
    """Batches of one provider until so many lives have ended; each is brought to its end and judged."""
    random = Random(f"{SEED} {provider}")
    stories: list[Story] = []
    while rounds > 0:
        name = f"{provider} {len(stories)}"
        prompts = [f"random {name} {number} [slow]" for number in range(PART)]
        story = Story(emulator, folder / name, prompts, provider, options=("--max-in-flight", "16"), nursery=nursery)
        stories.append(story)
        while rounds > 0:
            rounds -= 1
            if not die_at_random(story, random):
                break  # it was through
        story.judge()
    return stories


@pytest.mark.slow
def test_deaths_at_random(nursery: Nursery, tmp_path: Path) -> None:
    """Whenever it dies: nothing is paid twice, no id that was kept is lost, each doubt is a submission that a death hit."""
    print(f"PIKA_CRASH_SEED={SEED} PIKA_CRASH_ROUNDS={ROUNDS}")
    settings: dict[str, Any] = {"api_key": KEY, "render": False, "durations": "lognormal:0.4,0.5", "video_seconds": 1.0}
    with (
        Emulator(**settings, seed=SEED, scenario=Scenario.of(RULES)).in_thread() as emulator,
        ThreadPoolExecutor(len(EMULATED_PROVIDERS)) as pool,
    ):
        parts = [ROUNDS // 4 + (number < ROUNDS % 4) for number in range(4)]
        told = pool.map(live, [emulator] * 4, [nursery] * 4, [tmp_path] * 4, EMULATED_PROVIDERS, parts)
        stories = [story for part in told for story in part]
    deaths = sum(life.was_killed for story in stories for life in story.lives)
    doubts = sum(story.statuses[JobStatus.UNKNOWN] for story in stories)
    hits = sum(story.hits for story in stories)
    print(f"{deaths} deaths, {hits} submissions hit, {doubts} in doubt, {len(emulator.ledger)} charged")
    assert deaths >= ROUNDS // 2
    assert hits, "no death hit a submission: it says nothing"
