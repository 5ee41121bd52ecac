"""Pytest plugin with the fixture ``pika_emulator``: a local gateway for tests of applications that use pika_async.

::

    @pytest.mark.pika_emulator(in_flight=3, scenario=[{"on": "create", "first": 1, "do": "refuse"}])
    async def test_my_app(pika_emulator):
        async with PikaClient(
            "cometapi",
            api_key=pika_emulator.api_key,
            base_url=pika_emulator.base_url("cometapi"),
            polling=FixedInterval(0.05),  # the default policy expects tasks of about a minute
        ) as pika:
            await my_app.make_clip(pika, "a cat")
        assert len(pika_emulator.ledger) == 1

Pytest loads the plugin automatically once pika_async is installed. The emulator runs in a separate thread, so it works
with synchronous tests and with every async test framework. Downloading videos needs the extra ``emulator``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pika_async.emulator import Emulator

__all__ = ["pika_emulator"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker ``pika_emulator``."""
    config.addinivalue_line(
        "markers", "pika_emulator(**options): options of the `pika_emulator` fixture, as `Emulator` takes them"
    )


@pytest.fixture
def pika_emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """Run an emulator for one test.

    By default tasks take 0.2 s and share one playable clip. The marker ``pika_emulator`` passes other options.
    """
    from pika_async.emulator import Emulator  # noqa: PLC0415 - only tests that use the fixture pay for the import

    marker = request.node.get_closest_marker("pika_emulator")
    options: dict[str, Any] = {"durations": "constant:0.2", "render": False}
    options |= marker.kwargs if marker else {}
    with Emulator(**options).in_thread() as emulator:
        yield emulator
