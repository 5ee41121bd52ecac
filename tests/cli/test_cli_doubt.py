"""Doubts: listed with all that is known and commands that can be copied; each way out; what counts as one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from pika_async.emulator import Emulator
from tests.cli.command_line import ENV, CommandLine, serving

LOST: Final = {"on": "create", "do": "drop"}


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


def rows(cli: CommandLine, *keys: str) -> str:
    """A file with a row for each key, whose prompt is the key."""
    return cli.write("b.jsonl", "".join(json.dumps({"key": key, "prompt": key}) + "\n" for key in keys))


def stands(cli: CommandLine, out: str = "pika-out") -> dict[str, str]:
    """The status of each job by its key, as `status --json` tells it."""
    return {record["key"]: record["status"] for record in cli("status", out, "--json").records}


def charged(emulator: Emulator) -> Counter[str]:
    return Counter(charge.prompt for charge in emulator.ledger)


def task_of(emulator: Emulator, prompt: str) -> str:
    """What the provider calls the first task of a prompt."""
    return next(charge.task_id for charge in emulator.ledger if charge.prompt == prompt)


def commands_in(text: str) -> list[list[str]]:
    """The arguments of every command that a text shows, as a shell would read them."""
    shown = [line[line.index("pika-async ") :] for line in text.splitlines() if "pika-async " in line]
    return [shlex.split(command)[1:] for command in shown]


# --- status -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["it's my $HOME; really", "-out", "ab/../ü (1)"])
def test_the_commands_that_settle_a_doubt_can_be_copied(cli: CommandLine, out: str) -> None:
    """As they are printed, whatever the folder is called; then `resume` does what each said."""
    with serving({**LOST, "first": 3}) as emulator:
        source = rows(cli, "accepted", "unsent", "given-up", "fine")
        ran = cli.batch(emulator, source, f"--out={out}", "--no-download", "--max-in-flight", "1")
        assert (ran.code, Counter(stands(cli, f"./{out}").values())) == (1, {"unknown": 3, "succeeded": 1})
        [status] = commands_in(next(line for line in ran.err.splitlines() if "in doubt, perhaps charged: 3" in line))
        told = cli(*status).out
        for key, option in (("accepted", "--task-id"), ("unsent", "--not-charged"), ("given-up", "--abandon")):
            [command] = [one for one in commands_in(told) if key in one and option in one]
            ran = cli(*[task_of(emulator, key) if part == "ID" else part for part in command])
            assert (ran.code, key in ran.out) == (0, True)
        assert stands(cli, f"./{out}") == {
            "accepted": "queued", "unsent": "planned", "given-up": "canceled", "fine": "succeeded"
        }  # fmt: skip
        [*_, resume] = commands_in(cli(*status).out)
        for _ in range(2):
            assert cli(*resume).code == 1
            assert stands(cli, f"./{out}") == {
                "accepted": "succeeded", "unsent": "succeeded", "given-up": "canceled", "fine": "succeeded"
            }  # fmt: skip
            assert charged(emulator) == {"accepted": 1, "unsent": 2, "given-up": 1, "fine": 1}
        assert "charges: 4 accepted or perhaps accepted" in cli(*status).out


def test_a_doubt_is_told_with_all_that_is_known(cli: CommandLine) -> None:
    """When it was sent, which attempt it was, what came back, and what the provider calls the request."""
    answer = {"status": 502, "headers": {"X-Oneapi-Request-Id": "req-2024-77"}, "body": "bad gateway", "charge": True}
    rules = (
        {"on": "create", "prompt": "slow", "nth": 1, "do": {"fault": "refuse", "as": "no-channel", "retry_after": 0}},
        {"on": "create", "prompt": "slow", "do": {"fault": "answer", **answer}},
        {"on": "create", "prompt": "lost", "do": "drop"},
    )
    with serving(*rules) as emulator:
        cli.batch(emulator, rows(cli, "slow", "lost", "fine"), "--no-download")
        told = cli("status", "pika-out").out
        assert re.search(r"in doubt: job slow at native: 'slow'\n  sent 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, attempt 2; "
                         r"came back: HTTP 502, request id req-2024-77; HTTP 502: bad gateway\n", told)  # fmt: skip
        assert re.search(r"in doubt: job lost at native: 'lost'\n  sent .*, attempt 1; came back: no answer; ", told)
        assert re.search(r"unknown +2 ", told)
        assert "charges: 3 accepted or perhaps accepted" in told


def test_points_and_refunds(cli: CommandLine) -> None:
    """What the provider says it charged and gave back, of each status; a line of JSON for each job."""
    with serving({"on": "create", "prompt": "fails", "do": "fails"}) as emulator:
        cli.batch(emulator, rows(cli, "a", "b", "fails"), provider="cometapi")
        told = cli("status", "pika-out").out
        assert re.search(r"^ succeeded +2 +2 +800 +-", told, re.MULTILINE), told
        failed = re.search(r"^ failed +1 +- +(\d+|-) +(\d+)", told, re.MULTILINE)
        assert failed is not None, told
        assert int(failed[2]) > 0
        ran = cli("status", "pika-out", "--json")
        assert sorted(ran.records, key=lambda record: int(record["index"])) == sorted(
            cli.results(), key=lambda record: int(record["index"])
        )
        assert (ran.code, ran.err, ran.out.isascii()) == (0, "", True)


def test_status_sends_nothing_and_needs_no_key(cli: CommandLine) -> None:
    """Nor does `resolve`; neither changes the lines of the last command."""
    with serving({**LOST, "first": 1}) as emulator:
        cli.batch(emulator, rows(cli, "a"), "--no-download")
        for variable in ENV.values():
            cli.monkeypatch.delenv(variable)
        before, calls = (cli.folder / "pika-out" / "results.jsonl").read_bytes(), len(emulator.requests)
        assert cli("status", "pika-out").code == 0
        assert cli("resolve", "pika-out", "a", "--not-charged").code == 0
        assert (cli.folder / "pika-out" / "results.jsonl").read_bytes() == before
        assert len(emulator.requests) == calls


def test_status_while_the_batch_runs(cli: CommandLine) -> None:
    """It waits for nobody and sees what is accepted; what would change something says who has the folder."""
    with serving(durations="constant:60") as emulator:
        argv = ["batch", rows(cli, "a", "b"), "--provider", "native", "--base-url", emulator.base_url("native")]
        with subprocess.Popen(
            [sys.executable, "-m", "pika_async", *argv], cwd=cli.folder, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:  # fmt: skip
            try:
                deadline = time.monotonic() + 20
                while not (cli.folder / "pika-out" / "journal.db").exists() or "queued" not in stands(cli).values():
                    assert (process.poll(), time.monotonic() < deadline) == (None, True)
                    time.sleep(0.05)
                assert cli("status", "pika-out").code == 0
                for command in (("resolve", "pika-out", "a", "--abandon"), ("resume", "pika-out")):
                    ran = cli(*command)
                    assert (ran.code, f"is in use by process {process.pid}" in ran.err) == (2, True)
            finally:
                process.kill()
        assert set(stands(cli).values()) <= {"queued", "running", "submitting"}
        assert len(emulator.ledger) == 2


# --- resolve ----------------------------------------------------------------------------------------------------------

WRONG: Final[dict[str, tuple[str, ...]]] = {
    "none": ("doubt",),
    "two": ("doubt", "--abandon", "--not-charged"),
    "three": ("doubt", "--abandon", "--not-charged", "--task-id", "x"),
    "unknown": ("nobody", "--abandon"),
    "unknown-earlier": ("doubt~1", "--abandon"),
    "no-key": ("--abandon",),
    "odd-key": ("\x1b[2Jdoubt", "--abandon"),
    "done": ("fine", "--not-charged"),
    "done-task": ("fine", "--task-id", "x"),
    "empty": ("doubt", "--task-id", ""),
    "blank": ("doubt", "--task-id", " \t"),
    "option": ("doubt", "--charged"),
}


def test_resolve_changes_nothing_unless_it_is_said_right(cli: CommandLine) -> None:
    """Exit code 2 and a sentence for everything else; another job's task id is no answer either."""
    with serving({**LOST, "prompt": "doubt"}) as emulator:
        cli.batch(emulator, rows(cli, "doubt", "fine"), "--no-download")
        before = cli("status", "pika-out", "--json").out
        wrong = {**WRONG, "another's": ("doubt", "--task-id", task_of(emulator, "fine"))}
        for name, said in wrong.items():
            ran = cli("resolve", "pika-out", *said)
            assert (name, ran.code, ran.out, ran.err.startswith("error: ")) == (name, 2, "", True)
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ran.err)
            assert cli("status", "pika-out", "--json").out == before
        assert "belongs to job fine; look up this one's at the provider" in ran.err
        assert len(emulator.ledger) == 2


def test_a_doubt_is_settled_once(cli: CommandLine) -> None:
    """What was said once is not taken back by a second command."""
    with serving({**LOST, "first": 3}) as emulator:
        cli.batch(emulator, rows(cli, "a", "b", "c"), "--no-download")
        said = {"a": ("--abandon",), "b": ("--not-charged",), "c": ("--task-id", task_of(emulator, "c"))}
        for key, way in said.items():
            assert cli("resolve", "pika-out", key, *way).code == 0
        before = cli("status", "pika-out", "--json").out
        for key in said:
            for way in said.values():
                ran = cli("resolve", "pika-out", key, *way)
                assert (ran.code, "must be in doubt to be resolved, but is" in ran.err) == (2, True)
        assert cli("status", "pika-out", "--json").out == before


@pytest.mark.parametrize("command", ["batch", "resume"])
def test_a_doubt_is_never_sent_again_by_itself(cli: CommandLine, command: str) -> None:
    """However often it is run, and after it was given up."""
    with serving({**LOST, "first": 1}) as emulator:
        source = rows(cli, "a")
        for way in ((), (), ("resolve", "pika-out", "a", "--abandon"), ()):
            if way:
                assert cli(*way).code == 0
            elif command == "resume" and emulator.ledger:
                assert cli("resume", "pika-out").code == 1
            else:
                assert cli.batch(emulator, source, "--no-download").code == 1
            assert charged(emulator) == {"a": 1}
        assert stands(cli) == {"a": "canceled"}


def test_a_task_id_that_was_found_is_followed_and_fetched(cli: CommandLine) -> None:
    """By the same command as well; white space around it is not part of it."""
    with serving({**LOST, "first": 1}) as emulator:
        source = rows(cli, "a")
        cli.batch(emulator, source)
        assert cli("resolve", "pika-out", "a", "--task-id", f" {task_of(emulator, 'a')}\n").code == 0
        assert cli.batch(emulator, source).code == 0
        [record] = cli.results()
        assert (record["task_id"], record["file"]) == (task_of(emulator, "a"), "videos/a.mp4")
        assert charged(emulator) == {"a": 1}


def test_a_doubt_stays_listed_when_another_is_paid_for_in_its_place(cli: CommandLine) -> None:
    """It counts, can be settled, is never sent again, and is followed once it has its task; the new one's is not its."""
    with serving({**LOST, "first": 1}) as emulator:
        source = rows(cli, "a")
        cli.batch(emulator, source, "--no-download")
        assert cli.batch(emulator, source, "--no-download", "--again", "a").code == 0
        told = cli("status", "pika-out").out
        assert "in doubt: job a~1" in told
        assert "charges: 2 accepted" in told
        new = emulator.ledger[1].task_id
        ran = cli("resolve", "pika-out", "a~1", "--task-id", new)
        assert (ran.code, "belongs to job a" in ran.err) == (2, True)
        ran = cli("resolve", "pika-out", "a~1", "--task-id", emulator.ledger[0].task_id)
        assert (ran.code, "to go on" in ran.out) == (0, True)
        assert cli("resume", "pika-out").code == 0
        assert (stands(cli), len(emulator.ledger)) == ({"a~1": "succeeded", "a": "succeeded"}, 2)


# --- what is a doubt --------------------------------------------------------------------------------------------------


def test_lenient_sends_again_after_a_bare_503(cli: CommandLine) -> None:
    """To success, with one charge."""
    with serving({"on": "create", "first": 2, "do": {"fault": "answer", "status": 503}}) as emulator:
        ran = cli.batch(emulator, rows(cli, "a"), "--no-download", "--ambiguous", "lenient")
        assert (ran.code, charged(emulator), stands(cli)) == (0, {"a": 1}, {"a": "succeeded"})


def test_strict_leaves_a_bare_503_in_doubt(cli: CommandLine) -> None:
    """And `lenient` later is not asked about what is in doubt already."""
    with serving({"on": "create", "first": 1, "do": {"fault": "answer", "status": 503}}) as emulator:
        source = rows(cli, "a")
        for more in ((), ("--ambiguous", "strict"), ("--ambiguous", "lenient")):
            assert cli.batch(emulator, source, "--no-download", *more).code == 1
            assert (stands(cli), len(emulator.requests)) == ({"a": "unknown"}, 1)
        assert cli.batch(emulator, source, "--ambiguous", "odd").code == 2


@pytest.mark.parametrize("ambiguous", ["strict", "lenient"])
def test_every_other_5xx_is_in_doubt_either_way(cli: CommandLine, ambiguous: str) -> None:
    """Each was sent once and is listed."""
    statuses = [500, 502, 504, 520, 522, 524, 599]
    rules = [
        {"on": "create", "prompt": f"s{status}", "do": {"fault": "answer", "status": status}} for status in statuses
    ]
    with serving(*rules) as emulator:
        source = rows(cli, *(f"s{status}" for status in statuses))
        assert cli.batch(emulator, source, "--no-download", "--ambiguous", ambiguous).code == 1
        assert set(stands(cli).values()) == {"unknown"}
        assert len(emulator.requests) == len(statuses)
        told = cli("status", "pika-out").out
        assert all(f"job s{status} at native" in told and f"came back: HTTP {status};" in told for status in statuses)


# --- the terminal -----------------------------------------------------------------------------------------------------


def test_nothing_that_is_shown_steers_the_terminal(cli: CommandLine) -> None:
    """Control characters of prompts, answers, task ids and the folder's name, in every command, at every log level."""
    hostile = "\x1b[2J\x9b31m\x07\x08[bold]\u202e"
    said = {"error": {"message": f"{hostile} upstream", "code": hostile}}
    rules = (
        {"on": "create", "nth": 1, "do": {"fault": "answer", "status": 500, "body": said}},
        {"on": "create", "nth": 1, "do": {"fault": "fails", "reason": hostile}},
        {"on": "create", "nth": 1, "do": {"fault": "refuse", "as": "key"}},
    )
    debug = ("--log-level", "debug")
    with serving(*rules) as emulator:
        content = "".join(json.dumps({"key": key, "prompt": f"{key} {hostile}"}) + "\n" for key in "abcd")
        out = "odd\x1b[2J\x07"
        rans = [
            cli.batch(emulator, cli.write("b.jsonl", content), "--out", out, "--max-in-flight", "1", *debug),
            cli("status", out, *debug),
            cli("status", out, "--json"),
            cli("resolve", out, "a", "--task-id", hostile, *debug),
            cli("resume", out, "--deadline", "0.3", *debug),
            cli("resume", out, "--deadline", "0.3", "--json"),
            cli("status", out),
            cli("resume", out + "no", *debug),
        ]
        assert [ran.code for ran in rans] == [3, 0, 0, 0, 1, 1, 0, 2]
        for ran in rans:
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", ran.out + ran.err)
        assert "DEBUG" in rans[0].err
        assert stands(cli, out) == {"a": "timed_out", "b": "failed", "c": "succeeded", "d": "succeeded"}
