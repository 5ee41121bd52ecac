"""`retry` of jobs whose account is missing, and of jobs in doubt whose gateway can be asked again, free."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pika_async.emulator import Emulator
from tests.cli.account_files import QUICK, write_accounts
from tests.cli.batches import charged, jsonl, statuses
from tests.cli.command_line import KEY, CommandLine, CommandResult, Rule, serving

FAILS: Rule = {"on": "create", "first": 1, "do": {"fault": "fails", "reason": "a node was lost"}}


@pytest.fixture
def no_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a submission in doubt as soon as its answer is lost; it can be repeated by a later command."""
    monkeypatch.setattr("pika_async._planning.repeats.MAX_REPEATS", 0)
    monkeypatch.setenv("PIKA_DEV_API_KEY", KEY)


def at_pika(cli: CommandLine, emulator: Emulator) -> CommandResult:
    """Run one prompt at Pika's own API."""
    return cli.batch(emulator, cli.write("b.jsonl", jsonl(("k", "a cat"))), "--no-download", provider="pika")


@pytest.mark.usefixtures("no_repeats")
def test_a_doubt_that_its_gateway_can_end_is_not_paid_for_again(cli: CommandLine) -> None:
    """`retry` and `status` name `resume`, which asks again, and gets the task that was charged."""
    with serving({"on": "create", "first": 1, "do": "drop"}) as emulator:
        assert (at_pika(cli, emulator).code, statuses(cli)) == (1, {"k": "unknown"})
        ran = cli("retry", "pika-out", "k")
        assert ran.code == 2
        reason = "is in doubt and may be charged already; to ask its gateway again, free: pika-async resume pika-out"
        assert f"retry: k {reason}; nothing was sent" in ran.err
        assert "  ask again, free:     pika-async resume pika-out\n" in cli("status", "pika-out").out
        assert (cli("resume", "pika-out").code, statuses(cli)) == (0, {"k": "succeeded"})
        assert charged(emulator) == Counter({"a cat": 1})


@pytest.mark.usefixtures("no_repeats")
def test_a_repetition_in_doubt_is_left_out_by_name(cli: CommandLine) -> None:
    """The earlier job failed and was charged, the repetition may be: a third one is not sent."""
    with serving(FAILS, {"on": "create", "first": 1, "do": "drop"}) as emulator:
        assert (at_pika(cli, emulator).code, statuses(cli)) == (1, {"k": "failed"})
        assert cli("retry", "pika-out", "--failed").code == 1
        assert statuses(cli)["k"] == "unknown"
        ran = cli("retry", "pika-out", "--failed")
        assert (
            "job k is left out: it was sent again already, and is in doubt; to ask its gateway again, free: " in ran.err
        )
        assert "0 new charges" in ran.err
        assert charged(emulator) == Counter({"a cat": 2})
        assert (cli("resume", "pika-out").code, statuses(cli)["k"]) == (0, "succeeded")
        assert charged(emulator) == Counter({"a cat": 2})


def test_a_doubt_that_only_a_person_can_end_is_not_paid_for_again(cli: CommandLine) -> None:
    """At a gateway without idempotency keys `retry` names `resolve`."""
    with serving({"on": "create", "first": 1, "do": "drop"}) as emulator:
        cli.batch(emulator, cli.write("b.jsonl", jsonl(("k", "a cat"))), "--no-download")
        ran = cli("retry", "pika-out", "k")
        assert (ran.code, "to resolve it: pika-async resolve pika-out k; nothing was sent" in ran.err) == (2, True)
        assert "ask again" not in cli("status", "pika-out").out


def test_a_job_of_a_missing_account_is_named_before_another_is_paid(cli: CommandLine) -> None:
    """With the account that had it and its keys, also in a dry run."""
    with serving({**FAILS, "first": 2}) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        assert cli("batch", source, "--accounts", write_accounts(cli, emulator, names=("main",)), *QUICK).code == 1
        write_accounts(cli, emulator, names=("gptge",))
        place = f"the account main (native at {emulator.base_url('native')}), which is missing"
        for more in (("--dry-run",), ()):
            ran = cli("retry", "pika-out", "--failed", *more)
            assert f"2 jobs were sent to {place}; another one is paid: a, b\n" in ran.err
        assert (ran.code, charged(emulator)) == (0, Counter({"a": 2, "b": 2}))


def test_a_repetition_at_a_missing_account_is_left_out_by_name(cli: CommandLine) -> None:
    """It was accepted there, so that no other account is paid for it."""
    slow: Rule = {"on": "create", "do": {"fault": "takes", "seconds": 2}}
    with serving(FAILS, slow) as emulator:
        source, both = cli.write("b.jsonl", jsonl(("k", "a cat"))), write_accounts(cli, emulator, names=("main",))
        assert cli("batch", source, "--accounts", both, "--deadline", "0.4", *QUICK).code == 1
        assert cli("retry", "pika-out", "--failed").code == 1
        assert statuses(cli)["k"] == "timed_out"
        kept = Path(both).read_text()
        write_accounts(cli, emulator, names=("gptge",))
        ran = cli("retry", "pika-out", "--failed")
        assert "job k is left out: it was sent again already, and waits for the account main (native at " in ran.err
        assert charged(emulator) == Counter({"a cat": 2})
        cli.write(both, kept)
        assert cli("resume", "pika-out", "--deadline", "60").code == 0
        assert charged(emulator) == Counter({"a cat": 2})
