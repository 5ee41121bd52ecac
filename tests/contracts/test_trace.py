"""One generation, traced from `generate` to its video: how much of the package a reader has to visit."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pika_async
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway

PACKAGE = Path(pika_async.__file__).parent
#: Top-level folders and modules that one `generate` may pass through.
MAX_PARTS = 10


def test_one_generation_passes_few_parts() -> None:
    """A request that succeeds passes at most ten of the package's top-level folders and modules."""
    parts: set[str] = set()

    def record(frame: FrameType, event: str, _argument: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(PACKAGE):
            parts.add(file.relative_to(PACKAGE).parts[0].removesuffix(".py"))

    async def story() -> None:
        async with client(gateway(durations="constant:10"), "cometapi") as pika:
            sys.setprofile(record)
            try:
                await pika.generate("a cat", effect="Inflate", aspect_ratio="16:9")
            finally:
                sys.setprofile(None)

    virtual_clock.run(story())
    parts.discard("emulator")  # it stands in for the gateway
    assert {"client", "_runtime", "_planning", "providers"} <= parts
    assert len(parts) <= MAX_PARTS, sorted(parts)
