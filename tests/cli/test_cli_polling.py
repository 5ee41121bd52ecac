"""`status --polling`: what a folder teaches of when to look, for people and as JSON; nothing is sent, nobody waited for."""

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
from pika_async._journal import SqliteJournal
from tests.cli.command_line import ENV, CommandLine, serving

PLAIN, EFFECT = "native/-/text/plain", "native/-/text/effect"


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


def rows(cli: CommandLine, plain: int, effect: int = 0) -> str:
    """An input of so many rows without an effect and with one."""
    made: list[dict[str, Any]] = [{"prompt": f"p{n}"} for n in range(plain)]
    made += [{"prompt": f"e{n}", "effect": "Inflate"} for n in range(effect)]
    return cli.write("b.jsonl", "".join(json.dumps(row) + "\n" for row in made))


def learned(cli: CommandLine) -> dict[str, dict[str, Any]]:
    """`status --polling --json`, by stratum."""
    ran = cli("status", "pika-out", "--polling", "--json")
    assert (ran.code, ran.err, ran.out.isascii()) == (0, "", True)
    return {record["stratum"]: record for record in ran.records}


def test_a_batch_teaches_how_long_its_jobs_take(cli: CommandLine) -> None:
    """Every settled job of each stratum, the failed with them; the median is what the emulator's tasks take."""
    fails = {"on": "create", "prompt": "p3", "do": "fails"}
    with serving(fails, durations="lognormal:0.6,0.1") as emulator:
        assert cli.batch(emulator, rows(cli, 20, 6), "--no-download").code == 1
        records = learned(cli)
        assert {name: (record["settled"], record["used"]) for name, record in records.items()} == {
            EFFECT: (6, 6), PLAIN: (20, 20)
        }  # fmt: skip
        for record in records.values():
            low, high = record["spread"]
            assert low < record["median"] < high
            assert record["looks"] == sorted(record["looks"])
            assert (record["in_flight"], record["oldest"], record["next_looks_in"]) == (0, None, None)
        assert 0.3 < records[PLAIN]["median"] < 2.0  # what a busy machine adds is seen as well
        told = cli("status", "pika-out", "--polling").out
        assert re.search(rf"^ {PLAIN} +20 +20 +\d\.\d+ s +\d\.\d+ s to \d\.\d+ s *$", told, re.MULTILINE), told
        assert re.search(
            r"^  why +learned from 20 settled; (progress believed from .*; )?1 s of delay counts as much as \d+ looks",
            told,
            re.MULTILINE,
        )
        assert "in flight" not in told


def test_what_is_shown_is_what_the_next_command_decides_by(cli: CommandLine) -> None:
    """A client that is taught of the same journal puts its first look where the command says."""
    with serving(durations="lognormal:0.4,0.3") as emulator:
        cli.batch(emulator, rows(cli, 12), "--no-download")
    policy = AdaptivePolling(expected_seconds=0.2)
    for seen in SqliteJournal(cli.folder / "pika-out" / "journal.db").samples():
        policy.observe(seen)
    assert learned(cli)[PLAIN]["looks"][0] == pytest.approx(policy.next_delay(PollContext(PLAIN, 0.0, 0), 0.5))


def test_it_reads_only(cli: CommandLine) -> None:
    """No key, no call, no change of any file; the same again."""
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


def test_it_may_be_asked_while_the_batch_runs(cli: CommandLine) -> None:
    """How many are in flight, for how long, and when they are looked at; nothing is learned yet."""
    with serving(durations="constant:60") as emulator:
        argv = ["batch", rows(cli, 2, 1), "--provider", "native", "--base-url", emulator.base_url("native")]
        with subprocess.Popen(
            [sys.executable, "-m", "pika_async", *argv, "--expected-seconds", "50"], cwd=cli.folder,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:  # fmt: skip
            try:
                deadline = time.monotonic() + 20
                flying = 0
                while flying < 3:
                    assert (process.poll(), time.monotonic() < deadline) == (None, True)
                    time.sleep(0.05)
                    journal = cli.folder / "pika-out" / "journal.db"
                    flying = sum(record["in_flight"] for record in learned(cli).values()) if journal.exists() else 0
                told = cli("status", "pika-out", "--polling")
                assert process.poll() is None
            finally:
                process.kill()
        assert told.code == 0
        assert re.search(rf"^ {EFFECT} +0 +0 +50 s ", told.out, re.MULTILINE), told.out
        assert re.search(r"^  why +50 s was expected; ", told.out, re.MULTILINE)
        assert re.search(r"^  in flight +2, the oldest for \d+ s; next looks in [\d.]+ s", told.out, re.MULTILINE)
        for record in learned(cli).values():
            soonest, latest = record["next_looks_in"]
            assert 0 < soonest <= latest <= record["looks"][0]
        assert learned(cli)[PLAIN]["oldest"] < 30


def test_an_input_that_was_refused_teaches_nothing(cli: CommandLine) -> None:
    """A journal without a job that was accepted: one sentence, exit code 0; as JSON no line."""
    with serving({"on": "create", "do": {"fault": "refuse", "as": "invalid"}}) as emulator:
        cli.batch(emulator, rows(cli, 2), "--no-download")
    ran = cli("status", "pika-out", "--polling")
    assert (ran.code, ran.out) == (0, "pika-out: nothing is learned yet of how long jobs take, and none waits\n")
    assert learned(cli) == {}


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_folder_of_someone_else(cli: CommandLine, more: tuple[str, ...]) -> None:
    """No batch ran there, or its journal is none: exit code 2 and a sentence, as without --polling."""
    (cli.folder / "empty").mkdir()
    (cli.folder / "foreign").mkdir()
    cli.write("foreign/journal.db", "what somebody needs\n" * 50)
    for name, said in (("nowhere", "--out folder"), ("empty", "--out folder"), ("foreign", "is no journal")):
        ran = cli("status", name, "--polling", *more)
        assert (ran.code, ran.out, said in ran.err) == (2, "", True)
        assert ran.err == cli("status", name, *more).err


def teach(cli: CommandLine, stratum: str, seconds: float) -> None:
    """A journal that was told of 300 durations, a tenth apart at most."""

    async def observe() -> None:
        journal = SqliteJournal(cli.folder / "pika-out" / "journal.db")
        await journal.open()
        for n in range(300):
            journal.add_sample(DurationSample(stratum, seconds * (1 + n % 10 / 100), seconds * (1.01 + n % 10 / 100)))
        await journal.close()

    (cli.folder / "pika-out").mkdir()
    asyncio.run(observe())


def test_durations_without_a_job_are_shown_as_well(cli: CommandLine) -> None:
    """They are decided by: the latest 256 of a stratum, which is what a journal keeps."""
    teach(cli, "native/2.0/video/plain", 100.0)
    record = learned(cli)["native/2.0/video/plain"]
    assert (record["settled"], record["used"], 95 < record["median"] < 115) == (0, 256, True)


def test_it_fits_a_terminal_of_80_columns(cli: CommandLine) -> None:
    """No line is longer, and no figure is broken over two, with a name and durations longer than any gateway's."""
    name = "cometapi/1.5/ingredients/effect"
    teach(cli, name, 1200.0)
    cli.monkeypatch.setenv("COLUMNS", "80")
    told = cli("status", "pika-out", "--polling").out
    assert max(map(len, told.splitlines())) <= 80
    assert re.search(rf"^ {name} +0 +256 +1\d\d\d s +1\d\d\d s to 1\d\d\d s *$", told, re.MULTILINE), told
