"""Files of accounts at an emulator, for tests of the command line."""

from __future__ import annotations

from pika_async.emulator import Emulator
from tests.cli.batches import jsonl
from tests.cli.command_line import CommandLine

#: Names of the accounts of `write_accounts`, and their prices.
PRICES = {"main": 0.5, "cometapi": 0.25, "yescale": 0.75, "gptge": 1.0}
QUICK = ("--expected-seconds", "0.2")


def write_accounts(
    cli: CommandLine, emulator: Emulator, *, names: tuple[str, ...] = tuple(PRICES), more: str = ""
) -> str:
    """Write a file of one account for each gateway; that of native Pika has another name than its provider."""
    text = ""
    for name in names:
        provider = "native" if name == "main" else name
        text += f'[accounts.{name}]\nprovider = "{provider}"\nbase_url = "{emulator.base_url(provider)}/"\n'
        text += f"price = {PRICES.get(name, 0.1)}\n{more}"
    return cli.write("accounts.toml", text)


def prompts(count: int) -> str:
    return jsonl(*[(f"k{number}", f"prompt {number}") for number in range(count)])


def accounts_of(cli: CommandLine) -> dict[str, str]:
    """Return the account of each job by its key."""
    return {record["key"]: record["account"] for record in cli.results()}
