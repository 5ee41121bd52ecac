"""The emulator in a process of its own, so that a benchmark measures the client alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pika_async.emulator import Emulator


@contextmanager
def serving(**options: Any) -> Iterator[dict[str, str]]:
    """The addresses and the key of a running emulator with `options`."""
    with subprocess.Popen(
        [sys.executable, __file__, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())
        finally:
            server.stdin.close()
            server.wait(20)


async def _serve(options: dict[str, Any]) -> None:
    async with Emulator(render=False, **options) as emulator:
        print(json.dumps({"url": emulator.base_url("native"), "key": emulator.api_key}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
