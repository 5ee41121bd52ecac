"""What every test may use: one async backend, and an emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from pika_async import providers
from tests.fakes.held_emulator import Held


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def everywhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Held]:
    """Every provider's address leads to an emulator, its key is in the environment, the folder is empty.

    A parameter is more options of the emulator.
    """
    options = {"durations": "constant:0.2", "video_seconds": 1} | getattr(request, "param", {})
    with Held(**options).in_thread() as running:
        for name, provider in providers.PROVIDERS.items():
            local = attrs.evolve(provider, base_url=running.base_url(name))
            monkeypatch.setitem(providers.PROVIDERS, name, local)
            monkeypatch.setenv(provider.api_key_env, running.api_key)
        # Nothing is known of these tasks at first, and a real one is thought to take a minute.
        monkeypatch.setattr("pika_async.polling.adaptive.EXPECTED", 0.2)
        monkeypatch.setenv("PIKA_BASE_URL", running.base_url("native"))
        monkeypatch.chdir(tmp_path)
        yield running
