"""Fixtures of the crash tests: an emulator that outlives every killed process, and batches submitted to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pika_async.emulator import Emulator, Scenario
from tests.cli.command_line import KEY
from tests.crash.crash_batch import CrashBatch
from tests.crash.fork_server import ForkServer

#: Emulator rules: the mark in a prompt selects how its submission and its generation behave.
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
def fork_server() -> Iterator[ForkServer]:
    with ForkServer() as server:
        yield server


@pytest.fixture
def make_batch(
    emulator: Emulator, fork_server: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., CrashBatch]:
    """Return a factory of batches; no two batches of the session share a prompt."""

    def make(count: int = 8, *, marks: str = "", name: str = "", **more: Any) -> CrashBatch:
        prompts = [f"{request.node.name} {name} {number} {marks}".strip() for number in range(count)]
        return CrashBatch(emulator, tmp_path / (name or "batch"), prompts, **{"fork_server": fork_server} | more)

    return make
