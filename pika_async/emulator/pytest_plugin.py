"""The pytest plugin for people who test their own apps: a gateway of your own on this machine, one fixture away.

::

    @pytest.mark.pika_emulator(in_flight=3, scenario=[{"on": "create", "first": 1, "do": "refuse"}])
    async def test_my_app(pika_emulator):
        async with PikaClient(
            "cometapi",
            api_key=pika_emulator.api_key,
            base_url=pika_emulator.base_url("cometapi"),
            polling=FixedInterval(0.05),  # a real task takes a minute, and is not asked for before half of it
        ) as pika:
            await my_app.make_clip(pika, "a cat")
        assert len(pika_emulator.ledger) == 1

It is found by itself once pika_async is installed. The emulator runs in a thread of its own, so that it serves
synchronous tests and every async test framework alike. Serving videos needs the extra `emulator`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pika_async.emulator import Emulator

__all__ = ["pika_emulator"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "pika_emulator(**options): options of the `pika_emulator` fixture, as `Emulator` takes them"
    )


@pytest.fixture
def pika_emulator(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    """A running emulator: tasks take about a fifth of a second and share one real clip, unless the marker says else."""
    from pika_async.emulator import Emulator  # noqa: PLC0415 - only tests that ask for it pay for the import

    marker = request.node.get_closest_marker("pika_emulator")
    options: dict[str, Any] = {"durations": "constant:0.2", "render": False}
    options |= marker.kwargs if marker else {}
    with Emulator(**options).in_thread() as emulator:
        yield emulator
