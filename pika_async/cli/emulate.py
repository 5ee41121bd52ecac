"""`emulate`: serve the emulator until Ctrl-C. Prints its addresses, a first command and, at the end, the charges."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any, Final

from pika_async.cli.exits import ExitCode, Interrupted, UsageError
from pika_async.cli.optional_deps import require_emulator
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal
from pika_async.emulator import EMULATED_PROVIDERS, Emulator, Scenario
from pika_async.providers import find_provider

__all__ = ["emulate", "make_emulator"]

#: The emulator calls only loopback addresses; `batch` listens on this one without `--listen`.
CALLBACK_URL: Final = "http://127.0.0.1:8080"


def make_emulator(*, scenario: Path | None, **options: Any) -> Emulator:
    """Create the emulator from the options of the command line.

    :param scenario: JSON file of faults; None injects none.
    :raises UsageError: names the option that cannot work.
    """
    require_emulator()
    try:
        return Emulator(scenario=None if scenario is None else _load_scenario(scenario), **options)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _load_scenario(path: Path) -> Scenario:
    try:
        return Scenario.load(path)
    except OSError as error:
        raise UsageError(f"--scenario: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--scenario: {error}") from None


async def emulate(emulator: Emulator, terminal: Terminal) -> ExitCode:
    """Serve until Ctrl-C or SIGTERM.

    :raises UsageError: if the port cannot be opened.
    """
    try:
        async with emulator:
            terminal.show(_greeting(emulator))
            try:
                await interruptible(asyncio.Event().wait(), lambda: None)
            except Interrupted:
                terminal.note("stopping")
    except OSError as error:
        raise UsageError(f"--port: cannot be served: {error.strerror}") from None
    terminal.show(_totals(emulator))
    return ExitCode.OK


def _greeting(emulator: Emulator) -> str:
    urls = [f"  {name:<9} {emulator.base_url(name)}" for name in EMULATED_PROVIDERS]
    first = EMULATED_PROVIDERS[0]
    command = (
        f"  {find_provider(first).api_key_env}={emulator.api_key} pika-async batch prompts.txt --provider {first} "
        f"--base-url {emulator.base_url(first)}"
    )
    exports = [
        f"  export {name}_BASE_URL={emulator.base_url(provider)} {name}_API_KEY={emulator.api_key}"
        for name, provider in (("PIKA", "native"), ("COMETAPI", "cometapi"))
    ]
    return "\n".join(
        [
            "emulator addresses:", *urls, f"key: {emulator.api_key}", "try:", command,
            f"for callbacks add: --callbacks {CALLBACK_URL}", "for the examples:", *exports, "press Ctrl-C to stop",
        ]
    )  # fmt: skip


def _totals(emulator: Emulator) -> str:
    charges = Counter(charge.provider for charge in emulator.ledger)
    by_provider = ", ".join(f"{name} {charges[name]}" for name in EMULATED_PROVIDERS)
    return (
        f"charges: {len(emulator.ledger)} ({by_provider}); polls: {emulator.polls.total}; "
        f"refused: {len(emulator.refusals)}; credentials seen at the CDN: {len(emulator.cdn_credentials)}"
    )
