"""`status --polling`: the polling schedule learned from a folder, as a table and as JSON; nothing is sent."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pika_async import AdaptivePolling, DurationSample, PollContext
from pika_async._journal.sqlite import SqliteJournal
from tests.cli.command_line import ENV, CommandLine, serving

PLAIN, EFFECT = "native/-/text/plain", "native/-/text/effect"


def rows(cli: CommandLine, plain: int, effect: int = 0) -> str:
    """Write an input with `plain` rows without an effect and `effect` rows with one; return its name."""
    made: list[dict[str, Any]] = [{"prompt": f"p{n}"} for n in range(plain)]
    made += [{"prompt": f"e{n}", "effect": "Inflate"} for n in range(effect)]
    return cli.write("b.jsonl", "".join(json.dumps(row) + "\n" for row in made))


def polling_records(cli: CommandLine) -> dict[str, dict[str, Any]]:
    """Return the records of `status --polling --json` by stratum."""
    ran = cli("status", "pika-out", "--polling", "--json")
    assert (ran.code, ran.err, ran.out.isascii()) == (0, "", True)
    return {record["stratum"]: record for record in ran.records}


def test_durations_are_learned_from_a_batch(cli: CommandLine) -> None:
    """Every settled job of each stratum counts, failed ones too; the median is near the emulator's duration."""
    fails = {"on": "create", "prompt": "p3", "do": "fails"}
    with serving(fails, durations="lognormal:0.6,0.1") as emulator:
        started = time.monotonic()
        assert cli.batch(emulator, rows(cli, 20, 6), "--no-download").code == 1
        batch_seconds = time.monotonic() - started
        records = polling_records(cli)
        assert {name: (record["settled"], record["used"]) for name, record in records.items()} == {
            EFFECT: (6, 6), PLAIN: (20, 20)
        }  # fmt: skip
        for record in records.values():
            low, high = record["spread"]
            assert low < record["median"] < high
            assert record["polls"] == sorted(record["polls"])
            assert (record["in_flight"], record["oldest"], record["next_polls_in"]) == (0, None, None)
        assert 0.3 < records[PLAIN]["median"] < batch_seconds, "the median is outside of what the batch can have seen"
        shown = cli("status", "pika-out", "--polling").out
        assert re.search(rf"^ {PLAIN} +20 +20 +\d\.\d+ s +\d\.\d+ s to \d\.\d+ s *$", shown, re.MULTILINE), shown
        assert re.search(
            r"^  why +learned from 20 settled; (progress used from .*; )?1 s of delay costs as much as \d+ polls",
            shown,
            re.MULTILINE,
        )
        assert "in flight" not in shown


def test_shown_schedule_is_the_one_the_next_command_uses(cli: CommandLine) -> None:
    """A policy loaded from the same journal schedules its first poll where the command says."""
    with serving(durations="lognormal:0.4,0.3") as emulator:
        cli.batch(emulator, rows(cli, 12), "--no-download")
    policy = AdaptivePolling(expected_seconds=0.2)
    for sample in SqliteJournal(cli.folder / "pika-out" / "journal.db").samples():
        policy.observe(sample)
    assert polling_records(cli)[PLAIN]["polls"][0] == pytest.approx(policy.next_delay(PollContext(PLAIN, 0.0, 0), 0.5))


def test_status_polling_only_reads(cli: CommandLine) -> None:
    """It needs no key, sends nothing, changes no file, and gives the same output again."""
    with serving() as emulator:
        cli.batch(emulator, rows(cli, 3), "--no-download")
        for variable in ENV.values():
            cli.monkeypatch.delenv(variable)
        files = {path: path.read_bytes() for path in cli.folder.rglob("*") if path.is_file()}
        calls = len(emulator.requests)
        first = cli("status", "pika-out", "--polling")
        assert (first.code, first) == (0, cli("status", "pika-out", "--polling"))
        assert len(emulator.requests) == calls
        assert {path: path.read_bytes() for path in cli.folder.rglob("*") if path.is_file()} == files


def test_status_polling_works_while_the_batch_runs(cli: CommandLine) -> None:
    """It shows how many jobs are in flight, for how long and when they are polled; nothing is learned yet."""
    with serving(durations="constant:60") as emulator:
        started = time.monotonic()
        argv = ["batch", rows(cli, 2, 1), "--provider", "native", "--base-url", emulator.base_url("native")]
        with subprocess.Popen(
            [sys.executable, "-m", "pika_async", *argv, "--expected-seconds", "50"], cwd=cli.folder,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:  # fmt: skip
            try:
                deadline = time.monotonic() + 60
                in_flight = 0
                while in_flight < 3:
                    assert (process.poll(), time.monotonic() < deadline) == (None, True)
                    time.sleep(0.05)
                    journal = cli.folder / "pika-out" / "journal.db"
                    in_flight = (
                        sum(record["in_flight"] for record in polling_records(cli).values()) if journal.exists() else 0
                    )
                shown = cli("status", "pika-out", "--polling")
                assert process.poll() is None
            finally:
                process.kill()
        assert shown.code == 0
        assert re.search(rf"^ {EFFECT} +0 +0 +50 s ", shown.out, re.MULTILINE), shown.out
        assert re.search(r"^  why +50 s was expected; ", shown.out, re.MULTILINE)
        assert re.search(r"^  in flight +2, oldest [\d.]+ s; next polls in [\d.]+ s", shown.out, re.MULTILINE)
        for record in polling_records(cli).values():
            soonest, latest = record["next_polls_in"]
            assert 0 < soonest <= latest <= record["polls"][0]
        assert polling_records(cli)[PLAIN]["oldest"] < time.monotonic() - started, "older than the batch"


def test_a_rejected_input_teaches_nothing(cli: CommandLine) -> None:
    """Without an accepted job: one sentence and exit code 0; as JSON no line."""
    with serving({"on": "create", "do": {"fault": "refuse", "as": "invalid"}}) as emulator:
        cli.batch(emulator, rows(cli, 1), "--no-download")
    ran = cli("status", "pika-out", "--polling")
    assert (ran.code, ran.out) == (0, "pika-out: no durations recorded yet, and no job is in flight\n")
    assert polling_records(cli) == {}


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_folder_without_a_batch_is_refused(cli: CommandLine, more: tuple[str, ...]) -> None:
    """No batch ran there, or journal.db is another file: exit code 2 and a sentence, as without --polling."""
    (cli.folder / "empty").mkdir()
    (cli.folder / "foreign").mkdir()
    cli.write("foreign/journal.db", "another file\n" * 50)
    for name, text in (("nowhere", "--out folder"), ("empty", "--out folder"), ("foreign", "is not a journal")):
        ran = cli("status", name, "--polling", *more)
        assert (ran.code, ran.out, text in ran.err) == (2, "", True)
        assert ran.err == cli("status", name, *more).err


def write_durations(cli: CommandLine, stratum: str, seconds: float) -> None:
    """Write a journal with 300 durations between `seconds` and 1.1 times `seconds`."""

    async def observe() -> None:
        journal = SqliteJournal(cli.folder / "pika-out" / "journal.db")
        await journal.open()
        for n in range(300):
            journal.add_sample(DurationSample(stratum, seconds * (1 + n % 10 / 100), seconds * (1.01 + n % 10 / 100)))
        await journal.close()

    (cli.folder / "pika-out").mkdir()
    asyncio.run(observe())


def test_durations_without_a_job_are_shown(cli: CommandLine) -> None:
    """The policy uses the latest 256 of a stratum, which is what a journal keeps."""
    write_durations(cli, "native/2.0/video/plain", 100.0)
    record = polling_records(cli)["native/2.0/video/plain"]
    assert (record["settled"], record["used"], 95 < record["median"] < 115) == (0, 256, True)


def test_it_fits_a_terminal_of_80_columns(cli: CommandLine) -> None:
    """No line is longer and no figure is wrapped, with a name and durations longer than any gateway's."""
    name = "cometapi/1.5/ingredients/effect"
    write_durations(cli, name, 1200.0)
    cli.monkeypatch.setenv("COLUMNS", "80")
    shown = cli("status", "pika-out", "--polling").out
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(rf"^ {name} +0 +256 +1\d\d\d s +1\d\d\d s to 1\d\d\d s *$", shown, re.MULTILINE), shown
