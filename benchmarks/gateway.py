"""The emulator in a process of its own, so that a benchmark measures the client alone; its ledger, when it is asked."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import attrs

from pika_async.emulator import Emulator, Scenario


@attrs.frozen
class Charged:
    """One charge of the ledger; times are of `time.monotonic`, which all processes of a machine share."""

    prompt: str
    task_id: str
    charged_at: float
    settles_at: float


@attrs.frozen
class Server:
    """A running emulator."""

    url: str
    key: str
    _ask: IO[str] = attrs.field(repr=False)
    _told: IO[str] = attrs.field(repr=False)

    def ledger(self) -> list[Charged]:
        """Every charge so far."""
        print("ledger", file=self._ask, flush=True)
        return [Charged(*row) for row in json.loads(self._told.readline())]


@contextmanager
def watched(**options: Any) -> Iterator[Server]:
    """A running emulator with `options`, that can be asked for its ledger.

    `provider` is whose wire is spoken, native unless said; `scenario` is a list of rules.
    """
    with subprocess.Popen(
        [sys.executable, __file__, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield Server(**json.loads(server.stdout.readline()), ask=server.stdin, told=server.stdout)
        finally:
            server.stdin.close()
            server.wait(20)


@contextmanager
def serving(**options: Any) -> Iterator[dict[str, str]]:
    """The address and the key of a running emulator with `options`."""
    with watched(**options) as server:
        yield {"url": server.url, "key": server.key}


async def _serve(options: dict[str, Any]) -> None:
    provider, scenario = options.pop("provider", "native"), Scenario.of(options.pop("scenario", []))
    async with Emulator(render=False, scenario=scenario, **options) as emulator:
        print(json.dumps({"url": emulator.base_url(provider), "key": emulator.api_key}), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            began = emulator._started  # of the same clock
            rows = [
                (each.prompt, each.task_id, began + each.charged_at, began + each.settles_at)
                for each in emulator.ledger
            ]
            print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
