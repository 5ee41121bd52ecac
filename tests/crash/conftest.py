"""An emulator that outlives every victim, and batches at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pika_async.emulator import Emulator, Scenario
from tests.cli.command_line import KEY
from tests.crash.batch_story import Story
from tests.crash.fork_server import Nursery

#: What a prompt holds says how its submission and its generation go.
RULES: list[dict[str, Any]] = [
    {"on": "create", "prompt": "[held]", "do": {"fault": "delay", "seconds": 0.5}},
    {"on": "create", "prompt": "[tardy]", "do": {"fault": "delay", "seconds": 1.5}},
    {"on": "create", "prompt": "[stuck]", "do": {"fault": "delay", "seconds": 30}},
    {"on": "create", "prompt": "[later]", "do": {"fault": "takes", "seconds": 0.4}},
    {"on": "create", "prompt": "[long]", "do": {"fault": "takes", "seconds": 1.5}},
    {"on": "create", "prompt": "[slow]", "share": 0.5, "do": {"fault": "delay", "seconds": 0.1}},
    {"on": "create", "prompt": "[slow]", "do": {"fault": "delay", "seconds": 0.02}},
]


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    with Emulator(
        api_key=KEY, render=False, durations="constant:0.1", video_seconds=1.0, scenario=Scenario.of(RULES)
    ).in_thread() as serving:
        yield serving


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery() as open_nursery:
        yield open_nursery


@pytest.fixture
def story(emulator: Emulator, nursery: Nursery, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Story]:
    """Makes a batch of so many prompts, which no other batch has."""

    def make(count: int = 8, *, marks: str = "", name: str = "", **more: Any) -> Story:
        prompts = [f"{request.node.name} {name} {number} {marks}".strip() for number in range(count)]
        return Story(emulator, tmp_path / (name or "story"), prompts, **{"nursery": nursery} | more)

    return make
