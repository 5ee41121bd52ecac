"""`resolve`: several doubts at once, and one after the other on a terminal."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

import pika_async
from pika_async.cli.terminal import Terminal
from pika_async.emulator import Emulator
from tests.cli.command_line import ENV, KEY, CommandLine, serving
from tests.fakes.child_process import ChildProcess

KEYS: Final = ("a1", "a2", "b", "c")
LOST: Final = {"on": "create", "first": len(KEYS), "do": "drop"}
FINE: Final = "fine"
#: Makes standard input the terminal of this process, so that Ctrl-C typed there is its signal; then runs the command.
IN_TERMINAL: Final = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "from pika_async.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


def in_doubt(cli: CommandLine, emulator: Emulator) -> None:
    """Leave four jobs in doubt, and one that succeeded."""
    rows = "".join(json.dumps({"key": key, "prompt": key}) + "\n" for key in (*KEYS, FINE))
    assert cli.batch(emulator, cli.write("b.jsonl", rows), "--no-download", "--max-in-flight", "1").code == 1
    assert statuses(cli) == {**dict.fromkeys(KEYS, "unknown"), FINE: "succeeded"}


def test_people_read_in_doubt_and_programs_unknown(cli: CommandLine) -> None:
    """The summary, `status` and refusals have the words of people; JSON, the lines and the table those of programs."""
    with serving({**LOST, "first": 1}) as emulator:
        rows = '{"key": "a1", "prompt": "a1"}\n{"key": "fine", "prompt": "fine"}\n'
        ran = cli.batch(
            emulator, cli.write("b.jsonl", rows), "--no-download", "--max-in-flight", "1", "--log-level", "error"
        )
        assert "2 jobs: 1 in doubt, 1 succeeded;" in ran.err or "2 jobs: 1 succeeded, 1 in doubt;" in ran.err
        changed = cli.batch(emulator, cli.write("c.jsonl", '{"key": "a1", "prompt": "another"}\n'), "--no-download")
        sentences = [
            ran,
            changed,
            cli("status", "pika-out"),
            cli("retry", "pika-out", "a1"),
            cli("resolve", "pika-out", "fine", "--abandon"),
        ]
        assert [shown.code for shown in sentences] == [1, 2, 0, 2, 2]
        assert not any("unknown" in (shown.out + shown.err).replace("cost: unknown", "") for shown in sentences)
        assert "a1 belongs to a job with other content (in doubt)" in changed.err.replace("'", "")
        assert re.search(r"^ in doubt +1 ", sentences[2].out, re.MULTILINE)
        assert {record["status"] for record in cli("status", "pika-out", "--json").records} == {"unknown", "succeeded"}
        assert {record["status"] for record in cli.results()} == {"unknown", "succeeded"}
        assert "unknown" in (cli.folder / "pika-out" / "results.csv").read_text(encoding="utf-8-sig")


def test_no_text_holds_the_bare_value_of_a_status() -> None:
    """Texts have `label`; values are for records, log lines and measurements alone."""
    package = Path(pika_async.__file__).parent
    bare = re.compile(r"\{[\w.]*job\.status(\.value)?\}|\{status\.value\}|status\.(value\.)?replace\(")
    assert [str(path) for path in package.rglob("*.py") if bare.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("outcome", ["--abandon", "--not-charged"])
def test_a_resolution_is_in_the_results_at_once(cli: CommandLine, outcome: str) -> None:
    """The line and the row of the job say what became of it, in its place of the input; the others stay as they were."""
    with serving({**LOST, "first": 2}) as emulator:
        rows = "".join(f'{{"key": "{key}", "prompt": "{key}"}}\n' for key in ("a1", "a2", "fine"))
        cli.batch(emulator, cli.write("b.jsonl", rows), "--no-download", "--max-in-flight", "1", "--log-level", "error")
        before = {record["key"]: record for record in cli.results()}
        [doubtful, other, fine] = sorted(before, key=lambda key: (before[key]["status"] != "unknown", key))
        assert cli("resolve", "pika-out", doubtful, outcome).code == 0
    after = {record["key"]: record for record in cli.results()}
    expected = {"--abandon": "canceled", "--not-charged": "planned"}[outcome]
    assert after[doubtful]["status"] == expected
    assert [after[key] for key in (other, fine)] == [before[key] for key in (other, fine)]
    with (cli.folder / "pika-out" / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        table = [(row["key"], row["status"]) for row in csv.DictReader(file)]
    assert table == [(key, after[key]["status"]) for key in ("a1", "a2", "fine")]


def statuses(cli: CommandLine) -> dict[str, str]:
    return {record["key"]: record["status"] for record in cli("status", "pika-out", "--json").records}


def task_of(emulator: Emulator, prompt: str) -> str:
    return next(charge.task_id for charge in emulator.ledger if charge.prompt == prompt)


def test_several_doubts_are_resolved_at_once(cli: CommandLine) -> None:
    """Keys may be beginnings and in quotes; `--all` takes the rest; a job that is not in doubt is left alone."""
    with serving(LOST) as emulator:
        in_doubt(cli, emulator)
        ran = cli("resolve", "pika-out", "'a1'", "b", "--not-charged")
        assert (ran.code, ran.out.count("was not charged and will be sent again")) == (0, 2)
        assert "to continue: pika-async resume pika-out" in ran.out
        assert cli("resolve", "pika-out", "a", "--task-id", f'"{task_of(emulator, "a2")}"').code == 0
        ran = cli("resolve", "pika-out", "--all", "--abandon")
        assert (ran.code, ran.out.count("is abandoned")) == (0, 1)
        assert statuses(cli) == {"a1": "planned", "a2": "queued", "b": "planned", "c": "canceled", FINE: "succeeded"}
        ran = cli("resolve", "pika-out", "--all", "--abandon")
        assert (ran.code, "no job is in doubt" in ran.out) == (0, True)
        assert cli("resume", "pika-out").code == 1
        assert Counter(charge.prompt for charge in emulator.ledger) == {"a1": 2, "a2": 1, "b": 2, "c": 1, FINE: 1}


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ((), "resolve needs keys or --all and what became of them; it asks only on a terminal"),
        (("a1",), "resolve needs exactly one of --task-id ID, --not-charged, --abandon"),
        (("a1", "--abandon", "--not-charged"), "resolve needs exactly one of"),
        (("--abandon",), "resolve needs keys of jobs in doubt, or --all"),
        (("b", "--all", "--abandon"), "resolve takes keys or --all, not both"),
        (("a", "--abandon"), "a fits 2 keys (a1, a2); give more of the key"),
        (("b", "nothing", "--abandon"), "nothing is not the key of a job in this folder"),
        (
            ("b", FINE, "--abandon"),
            "key: 'fine' must be in doubt to be resolved, but is succeeded; nothing was changed",
        ),
        (("b", "c", "--task-id", "t"), "--task-id is the task of one job, but 2 were given; nothing was changed"),
        (("--all", "--task-id", "t"), "--task-id is the task of one job, but 4 were given; nothing was changed"),
        (("b", "--task-id", "' '"), "task_id: '' must be the provider's task id"),
    ],
)
def test_a_resolution_that_cannot_be_meant_changes_no_job(cli: CommandLine, argv: tuple[str, ...], text: str) -> None:
    """Exit code 2 with a sentence, also for the keys before the wrong one."""
    with serving(LOST) as emulator:
        in_doubt(cli, emulator)
        ran = cli("resolve", "pika-out", *argv)
        assert (ran.code, text in ran.err) == (2, True), ran.err
        assert Counter(statuses(cli).values()) == {"unknown": 4, "succeeded": 1}


def test_doubts_are_walked_through_on_a_terminal(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is shown with all that is known and the account's page; a wrong answer is asked for again."""
    answer = {"status": 502, "headers": {"X-Oneapi-Request-Id": "req-77"}, "body": "bad gateway", "charge": True}
    rule = {"on": "create", "first": len(KEYS), "do": {"fault": "answer", **answer}}
    with serving(rule) as emulator:
        rows = "".join(json.dumps({"key": key, "prompt": f"prompt {key}"}) + "\n" for key in (*KEYS, FINE))
        cli.batch(emulator, cli.write("b.jsonl", rows), "--no-download", "--max-in-flight", "1", provider="cometapi")
        monkeypatch.setattr(Terminal, "can_ask", True)
        task, taken = task_of(emulator, "prompt a1"), task_of(emulator, "prompt fine")
        answers = f"what\nt\n{taken}\nt\n\nt\n{task}\nn\ns\nq\n"
        ran = cli("resolve", "pika-out", stdin=answers.encode())
        assert (ran.code, "pika-out: 4 in doubt" in ran.out) == (0, True)
        assert "1 of 4: job a1 at cometapi: 'prompt a1'\n  sent 20" in ran.out
        assert "attempt 1; response HTTP 502, request id req-77; HTTP 502: bad gateway" in ran.out
        assert "your account, to find the submission: https://www.cometapi.com" in ran.out
        assert "belongs to job fine" in ran.err
        assert "must be the provider's task id" in ran.err
        assert f"job a1 is accepted as task {task}" in ran.out
        assert statuses(cli) == {"a1": "queued", "a2": "planned", "b": "unknown", "c": "unknown", FINE: "succeeded"}
        assert ran.err.count("[q] quit") == 7


def test_the_end_of_the_input_quits_and_keeps_what_was_answered(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-D is like quit."""
    with serving(LOST) as emulator:
        in_doubt(cli, emulator)
        monkeypatch.setattr(Terminal, "can_ask", True)
        assert cli("resolve", "pika-out", stdin=b"a\n").code == 0
        assert Counter(statuses(cli).values()) == {"canceled": 1, "unknown": 3, "succeeded": 1}
        assert cli("resolve", "pika-out", "--all", "--abandon").code == 0
        ran = cli("resolve", "pika-out", stdin=b"")
        assert (ran.code, "no job is in doubt" in ran.out) == (0, True)


@pytest.mark.slow
def test_a_person_at_a_real_terminal_resolves_doubts(cli: CommandLine) -> None:
    """A pseudo-terminal is asked; Ctrl-C ends the walk with 130 and keeps the answers before it."""
    with serving(LOST) as emulator:
        in_doubt(cli, emulator)
        ours, theirs = pty.openpty()
        with ChildProcess(
            [sys.executable, "-c", IN_TERMINAL, "resolve", "pika-out"], cwd=cli.folder, stdin=theirs, stdout=theirs,
            stderr=theirs, env={**os.environ, **dict.fromkeys(ENV.values(), KEY)}, start_new_session=True,
        ) as process:  # fmt: skip
            os.close(theirs)
            shown = b""
            for answers, typed in ((1, b"n\n"), (2, b"\x03")):
                while shown.count(b"[q] quit") < answers:
                    shown += os.read(ours, 4096)
                os.write(ours, typed)
            assert process.wait(20) == 130
        os.close(ours)
        assert Counter(statuses(cli).values()) == {"planned": 1, "unknown": 3, "succeeded": 1}
