"""Jobs in doubt: how they are listed, resolved with commands that can be copied, and what puts a job in doubt."""

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


def rows(cli: CommandLine, *keys: str) -> str:
    """Write an input with a row for each key, whose prompt is the key; return its name."""
    return cli.write("b.jsonl", "".join(json.dumps({"key": key, "prompt": key}) + "\n" for key in keys))


def statuses(cli: CommandLine, out: str = "pika-out") -> dict[str, str]:
    """Return the status of each job by its key, from `status --json`."""
    return {record["key"]: record["status"] for record in cli("status", out, "--json").records}


def charged(emulator: Emulator) -> Counter[str]:
    """Count the charges of each prompt."""
    return Counter(charge.prompt for charge in emulator.ledger)


def task_of(emulator: Emulator, prompt: str) -> str:
    """Return the id of the first task of a prompt."""
    return next(charge.task_id for charge in emulator.ledger if charge.prompt == prompt)


def commands_in(text: str) -> list[list[str]]:
    """Return the arguments of every command in a text, as a shell would parse them."""
    shown = [line[line.index("pika-async ") :] for line in text.splitlines() if "pika-async " in line]
    return [shlex.split(command)[1:] for command in shown]


# --- status -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["it's my $HOME; really", "-out", "ab/../ü (1)"])
def test_printed_commands_resolve_jobs_in_doubt(cli: CommandLine, out: str) -> None:
    """They can be copied as printed, whatever the folder name; then `resume` acts on each resolution."""
    with serving({**LOST, "first": 3}) as emulator:
        source = rows(cli, "accepted", "unsent", "given-up", "fine")
        ran = cli.batch(emulator, source, f"--out={out}", "--no-download", "--max-in-flight", "1")
        assert (ran.code, Counter(statuses(cli, f"./{out}").values())) == (1, {"unknown": 3, "succeeded": 1})
        [status] = commands_in(next(line for line in ran.err.splitlines() if "in doubt, possibly charged: 3" in line))
        shown = cli(*status).out
        for key, option in (("accepted", "--task-id"), ("unsent", "--not-charged"), ("given-up", "--abandon")):
            [command] = [one for one in commands_in(shown) if key in one and option in one]
            ran = cli(*[task_of(emulator, key) if part == "ID" else part for part in command])
            assert (ran.code, key in ran.out) == (0, True)
        assert statuses(cli, f"./{out}") == {
            "accepted": "queued", "unsent": "planned", "given-up": "canceled", "fine": "succeeded"
        }  # fmt: skip
        [*_, resume] = commands_in(cli(*status).out)
        for _ in range(2):
            assert cli(*resume).code == 1
            assert statuses(cli, f"./{out}") == {
                "accepted": "succeeded", "unsent": "succeeded", "given-up": "canceled", "fine": "succeeded"
            }  # fmt: skip
            assert charged(emulator) == {"accepted": 1, "unsent": 2, "given-up": 1, "fine": 1}
        assert "charges: 4 accepted or possibly accepted" in cli(*status).out


def test_a_job_in_doubt_is_listed_with_all_that_is_known(cli: CommandLine) -> None:
    """The time, the attempt, the response and the provider's request id are listed."""
    answer = {"status": 502, "headers": {"X-Oneapi-Request-Id": "req-2024-77"}, "body": "bad gateway", "charge": True}
    rules = (
        {"on": "create", "prompt": "slow", "nth": 1, "do": {"fault": "refuse", "as": "no-channel", "retry_after": 0}},
        {"on": "create", "prompt": "slow", "do": {"fault": "answer", **answer}},
        {"on": "create", "prompt": "lost", "do": "drop"},
    )
    with serving(*rules) as emulator:
        cli.batch(emulator, rows(cli, "slow", "lost", "fine"), "--no-download")
        shown = cli("status", "pika-out").out
        assert re.search(r"in doubt: job slow at native: 'slow'\n  sent 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ, attempt 2; "
                         r"response HTTP 502, request id req-2024-77; HTTP 502: bad gateway\n", shown)  # fmt: skip
        assert re.search(r"in doubt: job lost at native: 'lost'\n  sent .*, attempt 1; no response; ", shown)
        assert re.search(r"in doubt +2 ", shown)
        assert "charges: 3 accepted or possibly accepted" in shown


def test_status_shows_points_and_refunds(cli: CommandLine) -> None:
    """They are summed by status; with --json there is a line for each job."""
    with serving({"on": "create", "prompt": "fails", "do": "fails"}) as emulator:
        cli.batch(emulator, rows(cli, "a", "b", "fails"), provider="cometapi")
        shown = cli("status", "pika-out").out
        assert re.search(r"^ succeeded +2 +2 +800 +0", shown, re.MULTILINE), shown
        failed = re.search(r"^ failed +1 +- +(\d+|-) +(\d+)", shown, re.MULTILINE)
        assert failed is not None, shown
        assert int(failed[2]) > 0
        ran = cli("status", "pika-out", "--json")
        assert sorted(ran.records, key=lambda record: int(record["index"])) == sorted(
            cli.results(), key=lambda record: int(record["index"])
        )
        assert (ran.code, ran.err, ran.out.isascii()) == (0, "", True)


def test_status_sends_nothing_and_needs_no_key(cli: CommandLine) -> None:
    """The same holds for `resolve`, which brings the lines of the last command up to date; `status` leaves them."""
    with serving({**LOST, "first": 1}) as emulator:
        cli.batch(emulator, rows(cli, "a"), "--no-download")
        for variable in ENV.values():
            cli.monkeypatch.delenv(variable)
        results = cli.folder / "pika-out" / "results.jsonl"
        before, calls = results.read_bytes(), len(emulator.requests)
        assert cli("status", "pika-out").code == 0
        assert results.read_bytes() == before
        assert cli("resolve", "pika-out", "a", "--not-charged").code == 0
        assert [json.loads(line)["status"] for line in results.read_text(encoding="utf-8").splitlines()] == ["planned"]
        assert len(emulator.requests) == calls


def test_status_works_while_the_batch_runs(cli: CommandLine) -> None:
    """It shows what is accepted, while commands that change the folder name the process that uses it."""
    with serving(durations="constant:60") as emulator:
        argv = ["batch", rows(cli, "a", "b"), "--provider", "native", "--base-url", emulator.base_url("native")]
        with subprocess.Popen(
            [sys.executable, "-m", "pika_async", *argv], cwd=cli.folder, stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        ) as process:  # fmt: skip
            try:
                deadline = time.monotonic() + 60
                while not (cli.folder / "pika-out" / "journal.db").exists() or "queued" not in statuses(cli).values():
                    assert (process.poll(), time.monotonic() < deadline) == (None, True)
                    time.sleep(0.05)
                assert cli("status", "pika-out").code == 0
                for command in (("resolve", "pika-out", "a", "--abandon"), ("resume", "pika-out")):
                    ran = cli(*command)
                    assert (ran.code, f"is in use by process {process.pid}" in ran.err) == (2, True)
            finally:
                process.kill()
        assert set(statuses(cli).values()) <= {"queued", "running", "submitting"}
        assert len(emulator.ledger) == 2


# --- resolve ----------------------------------------------------------------------------------------------------------

WRONG: Final[dict[str, tuple[str, ...]]] = {
    "none": ("doubt",),
    "two": ("doubt", "--abandon", "--not-charged"),
    "three": ("doubt", "--abandon", "--not-charged", "--task-id", "x"),
    "unknown": ("missing", "--abandon"),
    "unknown-earlier": ("doubt~1", "--abandon"),
    "no-key": ("--abandon",),
    "odd-key": ("\x1b[2Jdoubt", "--abandon"),
    "done": ("fine", "--not-charged"),
    "done-task": ("fine", "--task-id", "x"),
    "empty": ("doubt", "--task-id", ""),
    "blank": ("doubt", "--task-id", " \t"),
    "option": ("doubt", "--charged"),
}


def test_invalid_resolve_commands_change_nothing(cli: CommandLine) -> None:
    """Each gives exit code 2 and a sentence, the task id of another job included."""
    with serving({**LOST, "prompt": "doubt"}) as emulator:
        cli.batch(emulator, rows(cli, "doubt", "fine"), "--no-download")
        before = cli("status", "pika-out", "--json").out
        wrong = {**WRONG, "another's": ("doubt", "--task-id", task_of(emulator, "fine"))}
        for name, arguments in wrong.items():
            ran = cli("resolve", "pika-out", *arguments)
            assert (name, ran.code, ran.out, ran.err.startswith("error: ")) == (name, 2, "", True)
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ran.err)
            assert cli("status", "pika-out", "--json").out == before
        assert "belongs to job fine; look up this one's at the provider" in ran.err
        assert len(emulator.ledger) == 2


def test_a_job_in_doubt_is_resolved_once(cli: CommandLine) -> None:
    """A second command does not change the resolution."""
    with serving({**LOST, "first": 3}) as emulator:
        cli.batch(emulator, rows(cli, "a", "b", "c"), "--no-download")
        resolutions = {"a": ("--abandon",), "b": ("--not-charged",), "c": ("--task-id", task_of(emulator, "c"))}
        for key, way in resolutions.items():
            assert cli("resolve", "pika-out", key, *way).code == 0
        before = cli("status", "pika-out", "--json").out
        for key in resolutions:
            for way in resolutions.values():
                ran = cli("resolve", "pika-out", key, *way)
                assert (ran.code, "must be in doubt to be resolved, but is" in ran.err) == (2, True)
        assert cli("status", "pika-out", "--json").out == before


@pytest.mark.parametrize("command", ["batch", "resume"])
def test_a_job_in_doubt_is_never_sent_again_by_itself(cli: CommandLine, command: str) -> None:
    """This holds however often the command is run, and after the job was abandoned."""
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
        assert statuses(cli) == {"a": "canceled"}


def test_a_resolved_task_id_is_polled_and_downloaded(cli: CommandLine) -> None:
    """The same command does so; white space around the id is ignored."""
    with serving({**LOST, "first": 1}) as emulator:
        source = rows(cli, "a")
        cli.batch(emulator, source)
        assert cli("resolve", "pika-out", "a", "--task-id", f" {task_of(emulator, 'a')}\n").code == 0
        assert cli.batch(emulator, source).code == 0
        [record] = cli.results()
        assert (record["task_id"], record["file"]) == (task_of(emulator, "a"), "videos/a.mp4")
        assert charged(emulator) == {"a": 1}


def test_a_job_in_doubt_stays_listed_after_again(cli: CommandLine) -> None:
    """It counts as charged, can be resolved, is never sent again, and is polled once its task id is given."""
    with serving({**LOST, "first": 1}) as emulator:
        source = rows(cli, "a")
        cli.batch(emulator, source, "--no-download")
        assert cli.batch(emulator, source, "--no-download", "--again", "a").code == 0
        shown = cli("status", "pika-out").out
        assert "in doubt: job a~1" in shown
        assert "charges: 2 accepted" in shown
        new = emulator.ledger[1].task_id
        ran = cli("resolve", "pika-out", "a~1", "--task-id", new)
        assert (ran.code, "belongs to job a" in ran.err) == (2, True)
        ran = cli("resolve", "pika-out", "a~1", "--task-id", emulator.ledger[0].task_id)
        assert (ran.code, "to continue" in ran.out) == (0, True)
        assert cli("resume", "pika-out").code == 0
        assert (statuses(cli), len(emulator.ledger)) == ({"a~1": "succeeded", "a": "succeeded"}, 2)


# --- what is in doubt --------------------------------------------------------------------------------------------------


def test_lenient_sends_again_after_a_bare_503(cli: CommandLine) -> None:
    """The job then succeeds with one charge."""
    with serving({"on": "create", "first": 2, "do": {"fault": "answer", "status": 503}}) as emulator:
        ran = cli.batch(emulator, rows(cli, "a"), "--no-download", "--ambiguous", "lenient")
        assert (ran.code, charged(emulator), statuses(cli)) == (0, {"a": 1}, {"a": "succeeded"})


def test_strict_leaves_a_bare_503_in_doubt(cli: CommandLine) -> None:
    """Giving `lenient` later does not change that."""
    with serving({"on": "create", "first": 1, "do": {"fault": "answer", "status": 503}}) as emulator:
        source = rows(cli, "a")
        for more in ((), ("--ambiguous", "strict"), ("--ambiguous", "lenient")):
            assert cli.batch(emulator, source, "--no-download", *more).code == 1
            assert (statuses(cli), len(emulator.requests)) == ({"a": "unknown"}, 1)
        assert cli.batch(emulator, source, "--ambiguous", "odd").code == 2


@pytest.mark.parametrize("ambiguous", ["strict", "lenient"])
def test_every_other_5xx_is_in_doubt_either_way(cli: CommandLine, ambiguous: str) -> None:
    """Each submission was sent once and is listed."""
    codes = [500, 502, 504, 520, 522, 524, 599]
    rules = [{"on": "create", "prompt": f"s{code}", "do": {"fault": "answer", "status": code}} for code in codes]
    with serving(*rules) as emulator:
        source = rows(cli, *(f"s{code}" for code in codes))
        assert cli.batch(emulator, source, "--no-download", "--ambiguous", ambiguous).code == 1
        assert set(statuses(cli).values()) == {"unknown"}
        assert len(emulator.requests) == len(codes)
        shown = cli("status", "pika-out").out
        assert all(f"job s{code} at native" in shown and f"response HTTP {code};" in shown for code in codes)


# --- the terminal -----------------------------------------------------------------------------------------------------


def test_foreign_text_never_controls_the_terminal(cli: CommandLine) -> None:
    """Control characters in prompts, replies, task ids and folder names are escaped by every command."""
    hostile = "\x1b[2J\x9b31m\x07\x08[bold]\u202e"
    body = {"error": {"message": f"{hostile} upstream", "code": hostile}}
    rules = (
        {"on": "create", "nth": 1, "do": {"fault": "answer", "status": 500, "body": body}},
        {"on": "create", "nth": 1, "do": {"fault": "fails", "reason": hostile}},
        {"on": "create", "first": 2, "do": {"fault": "refuse", "as": "key"}},
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
        assert statuses(cli, out) == {"a": "timed_out", "b": "failed", "c": "succeeded", "d": "succeeded"}
