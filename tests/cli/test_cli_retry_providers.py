"""Jobs of several providers in one folder that are paid for again: one journal, one limit, one announcement."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.cli.command_line import CommandLine, serving

FAILS = {"on": "create", "first": 6, "do": {"fault": "fails", "reason": "a node was lost"}}


@pytest.mark.parametrize("seeds", [(), ("--new-seed",)], ids=["same", "new"])
@pytest.mark.parametrize(
    ("limit", "charges"),
    [(("--max-charges", "20"), 6), (("--max-charges", "8"), 2), (("--price", "0.5", "--budget", "3.5"), 4)],
    ids=["free", "limit", "budget"],
)
def test_a_retry_over_two_providers_charges_what_its_previews_announce(
    cli: CommandLine, limit: tuple[str, ...], charges: int, seeds: tuple[str, ...]
) -> None:
    """Three failed jobs each: the previews share the limit, of which refunds use nothing, and a raised limit pays for the rest, each once."""
    rows = {"native": "key,prompt\na1,one\na2,two\na3,three\n", "cometapi": "key,prompt\nb1,four\nb2,five\nb3,six\n"}
    with serving(FAILS) as emulator:
        for provider, text in rows.items():
            source = cli.write(f"{provider}.csv", text)
            cli.batch(emulator, source, "--no-download", "--out", "o", provider=provider)
        assert len(emulator.ledger) == 6
        ran = cli("retry", "o", "--failed", *limit, *seeds)
        announced = [
            int(number) for number in re.findall(r"^(?!this run).*?(\d+) new charges?\b", ran.err, re.MULTILINE)
        ]
        assert (sum(announced), len(emulator.ledger) - 6) == (charges, charges)
        last = cli("retry", "o", "--failed", "--max-charges", "99", "--price", "0.01", "--budget", "9", *seeds)
        assert last.code == 0, last.err
        assert Counter(charge.prompt for charge in emulator.ledger) == dict.fromkeys(
            ["one", "two", "three", "four", "five", "six"], 2
        )
