"""Inputs, charges and statuses of batches that are continued."""

from __future__ import annotations

import json
from collections import Counter
from typing import Final

from pika_async.emulator import Emulator
from pika_async.emulator.records import RequestLogEntry
from tests.cli.command_line import CommandLine, CommandResult, Rule


def jsonl(*rows: str | tuple[str, str]) -> str:
    """Return prompts, or keys and prompts, as JSON lines."""
    made = [{"prompt": row} if isinstance(row, str) else {"key": row[0], "prompt": row[1]} for row in rows]
    return "".join(json.dumps(row) + "\n" for row in made)


def charged(emulator: Emulator) -> Counter[str]:
    """Count the charges of each prompt."""
    return Counter(charge.prompt for charge in emulator.ledger)


def submissions(emulator: Emulator) -> list[RequestLogEntry]:
    """Return the submissions among the requests."""
    return [request for request in emulator.requests if request.method == "POST" and "/feed" not in request.path]


def statuses(cli: CommandLine, out: str = "pika-out") -> dict[str, str]:
    """Return the status of each job by its key, asserting that each job has one line in `results.jsonl`."""
    records = cli.results(out)
    assert len({record["key"] for record in records}) == len(records)
    return {record["key"]: record["status"] for record in records}


def stop_while_in_flight(cli: CommandLine, emulator: Emulator, source: str, *more: str) -> CommandResult:
    """Run a batch whose first poll is refused with a 401, so that its jobs stay accepted; see `REFUSED_POLL`."""
    ran = cli.batch(emulator, source, *more)
    assert ran.code == 3
    return ran


REFUSED_POLL: Final[Rule] = {"on": "feed", "first": 1, "do": {"fault": "refuse", "as": "key"}}
