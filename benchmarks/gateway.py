"""Emulator in a process of its own, so that a benchmark measures the client alone."""

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
class LedgerCharge:
    """Charge of the ledger. Times are those of `time.monotonic`, which all processes of a machine share."""

    prompt: str
    task_id: str
    charged_at: float
    settles_at: float


@attrs.frozen
class Server:
    """Running emulator: its base URL, its API key and access to its ledger."""

    url: str
    key: str
    _requests: IO[str] = attrs.field(repr=False)
    _replies: IO[str] = attrs.field(repr=False)

    def ledger(self) -> list[LedgerCharge]:
        """Return every charge so far."""
        print("ledger", file=self._requests, flush=True)
        return [LedgerCharge(*row) for row in json.loads(self._replies.readline())]


@contextmanager
def run_server(**options: Any) -> Iterator[Server]:
    """Run an emulator with *options* while the context is open.

    :param options: Arguments of `Emulator`; `provider` selects the dialect (default: native), `scenario` is a list
        of rules.
    """
    with subprocess.Popen(
        [sys.executable, __file__, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield Server(**json.loads(server.stdout.readline()), requests=server.stdin, replies=server.stdout)
        finally:
            server.stdin.close()
            server.wait(20)


@contextmanager
def serve(**options: Any) -> Iterator[dict[str, str]]:
    """Run an emulator as `run_server` does; return its base URL and API key as a dict."""
    with run_server(**options) as server:
        yield {"url": server.url, "key": server.key}


async def _serve(options: dict[str, Any]) -> None:
    provider, scenario = options.pop("provider", "native"), Scenario.of(options.pop("scenario", []))
    async with Emulator(render=False, scenario=scenario, **options) as emulator:
        print(json.dumps({"url": emulator.base_url(provider), "key": emulator.api_key}), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            began = emulator._started  # on the same clock
            rows = [
                (charge.prompt, charge.task_id, began + charge.charged_at, began + charge.settles_at)
                for charge in emulator.ledger
            ]
            print(json.dumps(rows), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
