"""Pytest plugin: loaded without configuration, usable in synchronous and asynchronous tests."""

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


@pytest.mark.slow
def test_the_plugin_needs_no_configuration(tmp_path: Path) -> None:
    """In an empty project the fixture and its marker are available without configuration."""
    (tmp_path / "test_app.py").write_text(APP_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--strict-markers", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.splitlines()[-1].split(" in ")[0]) == (0, "2 passed")


@pytest.mark.slow
def test_the_plugin_may_also_be_listed_in_a_conftest(tmp_path: Path) -> None:
    """Listing the plugin in `pytest_plugins` as well raises no error about a plugin that is loaded twice."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["pika_async.emulator.pytest_plugin"]\n')
    (tmp_path / "test_app.py").write_text(APP_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0


@pytest.mark.slow
@pytest.mark.pika_emulator(in_flight=1, durations="constant:0.1")
def test_the_marker_passes_options_to_the_emulator(pika_emulator: Emulator) -> None:
    """The marker's options reach the emulator: with `in_flight=1` two jobs run one after the other."""

    async def run_two_jobs() -> None:
        url = pika_emulator.base_url("native")
        async with PikaClient(
            "native", api_key=pika_emulator.api_key, base_url=url, polling=FixedInterval(0.02)
        ) as pika:
            assert (await pika.run(["one", "two"])).ok

    asyncio.run(run_two_jobs())
    first, second = pika_emulator.ledger
    assert second.charged_at >= first.settles_at
