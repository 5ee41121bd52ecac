"""`generate` with a journal: the same command again pays once. And what an interrupted one prints works when typed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.emulator import Emulator
from tests.cli.command_line import ENV, KEY, CommandLine, CommandResult, serving
from tests.fakes.child_process import ChildProcess


def generate(cli: CommandLine, emulator: Emulator, prompt: str, *argv: str) -> CommandResult:
    where = ("--provider", "native", "--base-url", emulator.base_url("native"), "--expected-seconds", "0.2")
    return cli("generate", prompt, *where, *argv)


@pytest.mark.parametrize(
    "options", [("--journal", "one.db"), ("--key", "cat"), ("--journal", "one.db", "--key", "cat")]
)
def test_the_same_command_again_pays_once(cli: CommandLine, options: tuple[str, ...]) -> None:
    """The file is there already and stays; deleted, it is downloaded again; the preview says what is charged."""
    with serving() as emulator:
        first = generate(cli, emulator, "a cat", "--out", "cat.mp4", *options)
        assert (first.code, first.out, "1 new charges" in first.err) == (0, "cat.mp4\n", True)
        content = (cli.folder / "cat.mp4").read_bytes()
        for _ in range(2):
            ran = generate(cli, emulator, "a cat", "--out", "cat.mp4", *options)
            assert (ran.code, ran.out, "known already, not paid again: task " in ran.err) == (0, "cat.mp4\n", True)
            assert "0 new charges, 1 known" in ran.err
            assert (cli.folder / "cat.mp4").read_bytes() == content
            (cli.folder / "cat.mp4").unlink()
        assert len(emulator.ledger) == 1
        journal = "one.db" if "one.db" in options else "pika-async.db"
        [job] = SqliteJournal(cli.folder / journal).all()
        assert job.key.startswith("cat" if "--key" in options else "a-cat-")


def test_another_key_or_another_content_is_another_video(cli: CommandLine) -> None:
    """A key belongs to one content; without a key the content decides."""
    with serving() as emulator:
        journal = ("--journal", "one.db")
        assert generate(cli, emulator, "a cat", *journal).code == 0
        assert generate(cli, emulator, "a cat", *journal, "--seed", "7").code == 0
        assert generate(cli, emulator, "a cat", *journal, "--key", "second").code == 0
        assert len(emulator.ledger) == 3
        ran = generate(cli, emulator, "a dog", *journal, "--key", "second")
        assert (ran.code, "key: 'second' belongs to a job with another content" in ran.err) == (2, True)
        assert len(emulator.ledger) == 3


def test_a_doubt_without_a_journal_names_the_way_to_its_task(cli: CommandLine) -> None:
    """Nothing remembers the job, so that `resolve` cannot follow it; `fetch` can."""
    with serving({"on": "create", "first": 1, "do": "drop"}) as emulator:
        ran = generate(cli, emulator, "a cat", "--out", "cat.mp4")
        assert (ran.code, len(emulator.ledger)) == (1, 1)
        command = f"pika-async fetch TASK_ID --provider native --base-url {emulator.base_url('native')} --out cat.mp4"
        assert f"if its task stands at the provider: {command}" in ran.err
        task_id = emulator.ledger[0].task_id
        assert cli(*command.replace("TASK_ID", task_id).split()[1:]).code == 0
        assert (cli.folder / "cat.mp4").exists()


def test_without_a_journal_each_command_pays(cli: CommandLine) -> None:
    """Nothing is remembered, and no file is left."""
    with serving() as emulator:
        for _ in range(2):
            assert generate(cli, emulator, "a cat").code == 0
        assert (len(emulator.ledger), list(cli.folder.iterdir())) == (2, [])


def test_the_file_of_somebody_else_is_refused_before_it_costs(cli: CommandLine) -> None:
    """Also where the journal knows a video, but not in this file."""
    with serving() as emulator:
        cli.write("cat.mp4", "precious")
        for more in ((), ("--journal", "one.db")):
            ran = generate(cli, emulator, "a cat", "--out", "cat.mp4", *more)
            assert (ran.code, "cat.mp4 exists and is never overwritten" in ran.err) == (2, True)
        assert (len(emulator.ledger), (cli.folder / "cat.mp4").read_text()) == (0, "precious")
        assert generate(cli, emulator, "a cat", "--out", "dog.mp4", "--journal", "one.db").code == 0
        ran = generate(cli, emulator, "a cat", "--out", "cat.mp4", "--journal", "one.db")
        assert (ran.code, (cli.folder / "cat.mp4").read_text()) == (2, "precious")
        assert len(emulator.ledger) == 1


def test_a_failure_is_remembered_and_a_refusal_is_sent_again(cli: CommandLine) -> None:
    """A failed job was perhaps charged: only another key pays again. A rejected one was not charged."""
    bad = {"fault": "answer", "status": 400, "body": '{"error": {"message": "no cats", "code": "bad"}}'}
    rules = (
        {"on": "create", "prompt": "fails", "first": 1, "do": {"fault": "fails", "reason": "moderated"}},
        {"on": "create", "prompt": "bad", "first": 2, "do": bad},
    )
    with serving(*rules) as emulator:
        for _ in range(2):
            ran = generate(cli, emulator, "fails", "--journal", "one.db")
            assert (ran.code, "moderated" in ran.err, "give another --key" in ran.err) == (1, True, True)
        assert len(emulator.ledger) == 1
        assert generate(cli, emulator, "fails", "--journal", "one.db", "--key", "two").code == 0
        ran = generate(cli, emulator, "bad", "--journal", "one.db")
        assert (ran.code, "no cats" in ran.err) == (1, True)
        ran = generate(cli, emulator, "bad", "--journal", "one.db")
        assert "1 new charges" in ran.err
        assert ran.code in {0, 1}
        assert generate(cli, emulator, "bad", "--journal", "one.db").code == 0
        assert len(emulator.ledger) == 3


def test_a_doubt_is_not_paid_again_by_the_same_command(cli: CommandLine) -> None:
    """It stays in doubt, with exit code 1."""
    with serving({"on": "create", "first": 1, "do": "drop"}) as emulator:
        for _ in range(2):
            ran = generate(cli, emulator, "a cat", "--journal", "one.db")
            assert (ran.code, "in doubt" in ran.err) == (1, True)
            assert "no journal has this job" not in ran.err
        assert len(emulator.ledger) == 1


def interrupt(cli: CommandLine, emulator: Emulator, *argv: str) -> tuple[int, str]:
    """Run a command in a process of its own, and interrupt it once a task was polled; return its code and output."""
    environment = {**os.environ, **dict.fromkeys(ENV.values(), KEY), "COLUMNS": "200"}
    with ChildProcess(
        [sys.executable, "-m", "pika_async", *argv], cwd=cli.folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while process.poll() is None and not any("feed" in request.path for request in list(emulator.requests)):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    return process.returncode, out + err


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--journal", "one.db")])
def test_what_an_interrupted_generate_prints_works_when_typed(cli: CommandLine, options: tuple[str, ...]) -> None:
    """Without a journal it is the fetch command with the id; with one it is the same command."""
    with serving(durations="constant:2") as emulator:
        argv = ["generate", "a cat", "--provider", "native", "--base-url", emulator.base_url("native")]
        argv += ["--expected-seconds", "0.2", "--out", "my cat.mp4", *options]
        code, err = interrupt(cli, emulator, *argv)
        assert code == 130
        [way_on] = [line.partition(": ")[2] for line in err.splitlines() if line.startswith("to go on waiting: ")]
        if options:
            assert way_on == "run the same command again"
            ran = cli(*argv)
        else:
            ran = cli(*shlex.split(way_on)[1:], "--expected-seconds", "0.2")
        assert (ran.code, ran.out) == (0, "my cat.mp4\n"), ran.err
        assert len(emulator.ledger) == 1


@pytest.mark.slow
def test_the_fetch_command_that_an_interrupted_batch_prints_works_when_typed(cli: CommandLine) -> None:
    """The id is that of a job of the folder: its own video comes, and nothing is paid."""
    with serving(durations="constant:2") as emulator:
        source = cli.write("b.csv", "key,prompt\nmine,a cat\n")
        argv = ["batch", source, "--provider", "native", "--base-url", emulator.base_url("native"), "--yes"]
        code, shown = interrupt(cli, emulator, *argv, "--expected-seconds", "0.2", "--out", "my clips")
        assert (code, "interrupted: 1 still in flight" in shown) == (130, True), shown
        [way_on] = [line for line in shown.splitlines() if line.startswith("to follow one task alone: ")]
        assert cli(*shlex.split(way_on.partition(": ")[2])[1:]).code == 0
        assert (cli.folder / "my clips" / "videos" / "mine.mp4").is_file()
        assert len(emulator.ledger) == 1
