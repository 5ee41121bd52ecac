"""The plugin for other people's tests: found by itself, in synchronous tests and asynchronous ones."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from pika_async import FixedInterval, PikaClient
from pika_async.emulator import Emulator

APP_TEST = """
import asyncio
import pytest
from pika_async import FixedInterval, JobStatus, PikaClient

async def make(pika_emulator):
    address = {"api_key": pika_emulator.api_key, "base_url": pika_emulator.base_url("gptge")}
    async with PikaClient("gptge", **address, polling=FixedInterval(0.05)) as pika:
        return await pika.run(["a cat", "a dog"])

@pytest.mark.pika_emulator(scenario=[{"on": "create", "prompt": "dog", "do": "drop"}])
def test_synchronous(pika_emulator):
    report = asyncio.run(make(pika_emulator))
    assert report.counts == {JobStatus.SUCCEEDED: 1, JobStatus.UNKNOWN: 1}
    assert len(pika_emulator.ledger) == 2

@pytest.mark.anyio
async def test_asynchronous(pika_emulator):
    assert (await make(pika_emulator)).ok

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_a_strangers_project_finds_the_fixture(tmp_path: Path) -> None:
    """In an empty project the fixture and its marker are known without a line of configuration."""
    (tmp_path / "test_app.py").write_text(APP_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.splitlines()[-1].split(" in ")[0]) == (0, "2 passed")


def test_naming_the_plugin_as_well_does_no_harm(tmp_path: Path) -> None:
    """A project that lists the plugin in its conftest is not refused for loading it twice."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["pika_async.emulator.pytest_plugin"]\n')
    (tmp_path / "test_app.py").write_text(APP_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0


@pytest.mark.pika_emulator(in_flight=1, durations="constant:0.1")
def test_the_marker_gives_the_emulators_options(pika_emulator: Emulator) -> None:
    """What the marker says is what the emulator does: one place, so that two jobs run one after the other."""

    async def story() -> None:
        url = pika_emulator.base_url("native")
        async with PikaClient(
            "native", api_key=pika_emulator.api_key, base_url=url, polling=FixedInterval(0.02)
        ) as pika:
            assert (await pika.run(["one", "two"])).ok

    asyncio.run(story())
    first, second = pika_emulator.ledger
    assert second.charged_at >= first.settles_at
