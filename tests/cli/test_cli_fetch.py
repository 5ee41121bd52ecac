"""`fetch`: tasks by their bare ids, into a file, into a folder, or as addresses. The ledger never changes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.cli.fetch_hint import fetch_command
from pika_async.cli.options import CredentialOptions
from pika_async.emulator import EMULATED_GATEWAYS, Emulator
from pika_async.jobs import adopted_job
from tests.cli.batches import REFUSED_POLL, jsonl, statuses
from tests.cli.command_line import CommandLine, CommandResult, Rule, serving

Fetch = Callable[..., CommandResult]


def fetching(cli: CommandLine, emulator: Emulator, provider: str = "native") -> Fetch:
    """Return `fetch` at the emulator."""
    target = ("--provider", provider, "--base-url", emulator.base_url(provider), "--expected-seconds", "0.2")
    return lambda *argv: cli("fetch", *argv, *target)


def tasks(cli: CommandLine, emulator: Emulator, *prompts: str, provider: str = "native") -> list[str]:
    """Submit prompts in a folder of their own; return the ids of their tasks."""
    source = cli.write("elsewhere.jsonl", jsonl(*((f"k{number}", prompt) for number, prompt in enumerate(prompts))))
    cli.batch(emulator, source, "--no-download", "--out", "elsewhere", provider=provider)
    return [record["task_id"] for record in cli.results("elsewhere")]


@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
def test_a_task_is_fetched_into_a_file(cli: CommandLine, provider: str) -> None:
    """The video is on disk, its name is printed, and nothing is charged."""
    with serving() as emulator:
        [task] = tasks(cli, emulator, "a cat", provider=provider)
        ran = fetching(cli, emulator, provider)(task, "--out", "cat.mp4")
        assert (ran.code, ran.out) == (0, "cat.mp4\n")
        assert (cli.folder / "cat.mp4").read_bytes()[4:8] == b"ftyp"
        assert len(emulator.ledger) == 1


def test_without_a_file_the_addresses_are_printed(cli: CommandLine) -> None:
    """Several ids, in quotes and twice; --json prints a line for each."""
    with serving() as emulator:
        one, two = tasks(cli, emulator, "a cat", "a dog")
        fetch = fetching(cli, emulator)
        ran = fetch(f"'{one}'", f"{two},", one)
        assert (ran.code, len(ran.out.splitlines())) == (0, 2)
        assert all(line.startswith("http") for line in ran.out.splitlines())
        ran = fetch(f"accepted by native: task {two}", "--json")
        assert [(record["task_id"], record["status"]) for record in ran.records] == [(two, "succeeded")]
        assert len(emulator.ledger) == 2


def test_tasks_are_fetched_into_a_folder_that_can_be_resumed(cli: CommandLine) -> None:
    """The folder has a journal, lines, videos and the gallery; the same command again, and `resume`, do nothing more."""
    with serving() as emulator:
        ids = tasks(cli, emulator, "a cat", "a dog")
        fetch = fetching(cli, emulator)
        for _ in range(2):
            ran = fetch(*ids, "--out", "found")
            assert (ran.code, "2 jobs: 2 succeeded; 2 on disk" in ran.out) == (0, True)
            assert statuses(cli, "found") == dict.fromkeys(ids, "succeeded")
        assert sorted(path.name for path in (cli.folder / "found" / "videos").iterdir()) == sorted(
            f"{task}.mp4" for task in ids
        )
        requests = len(emulator.requests)
        assert cli("resume", "found").code == 0
        shown = cli("status", "found").out
        assert "charges: 0 accepted or possibly accepted" in shown
        assert (len(emulator.requests), len(emulator.ledger)) == (requests, 2)


def test_a_task_of_a_batch_is_fetched_in_its_folder(cli: CommandLine) -> None:
    """An id that the journal has gives its job: nothing is adopted twice. Another id joins the folder."""
    with serving(REFUSED_POLL) as emulator:
        assert cli.batch(emulator, cli.write("b.jsonl", jsonl(("mine", "a cat")))).code == 3
        [task] = [charge.task_id for charge in emulator.ledger]
        [other] = tasks(cli, emulator, "a dog")
        ran = fetching(cli, emulator)(task, other, "--out", "pika-out")
        assert ran.code == 0
        assert statuses(cli) == {"mine": "succeeded", other: "succeeded"}
        assert "charges: 1 accepted or possibly accepted" in cli("status", "pika-out").out
        assert len(emulator.ledger) == 2


def test_ids_that_the_gateway_denies_are_named(cli: CommandLine, quick_denials: None) -> None:
    """Alone it is exit code 2 and leaves no job; beside others those are fetched, with exit code 1."""
    with serving() as emulator:
        [task] = tasks(cli, emulator, "a cat")
        fetch = fetching(cli, emulator)
        for out in ((), ("--out", "x.mp4"), ("--out", "found")):
            ran = fetch("wrong-id", *out)
            assert ran.code == 2
            assert "task wrong-id is not found at native: " in ran.err
            assert "check the id and the provider" in ran.err
        assert list(SqliteJournal(cli.folder / "found" / "journal.db").all()) == []
        assert not (cli.folder / "x.mp4").exists()
        for out in ((), ("--out", "found")):
            ran = fetch("wrong-id", task, *out)
            assert (ran.code, "task wrong-id is not found" in ran.err) == (1, True)
        assert statuses(cli, "found") == {task: "succeeded"}
        ran = fetch("wrong-id", "other-id")
        assert (ran.code, "none of 2 tasks was found" in ran.err) == (2, True)
        assert len(emulator.ledger) == 1


@pytest.fixture
def quick_denials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pika_async._runtime.adoption.MAX_DELAY_S", 0.01)


def test_a_failed_task_is_reported_and_cannot_be_paid_again_by_its_id(cli: CommandLine) -> None:
    """`retry` leaves it out by name: its prompt is not known."""
    rule: Rule = {"on": "create", "do": {"fault": "fails", "reason": "moderated"}}
    with serving(rule) as emulator:
        [task] = tasks(cli, emulator, "a cat")
        ran = fetching(cli, emulator)(task, "--out", "found")
        assert (ran.code, "moderated" in ran.err, "retry" in ran.err) == (1, True, False)
        ran = cli("retry", "found", "--failed")
        assert (ran.code, f"job {task} is left out: it was taken on by its task id" in ran.err) == (1, True)
        ran = cli("retry", "found", task)
        assert (ran.code, "cannot be paid for again" in ran.err) == (2, True)
        assert len(emulator.ledger) == 1


def test_a_task_that_does_not_settle_is_printed_with_the_command_that_goes_on(cli: CommandLine) -> None:
    """The command works as it is printed."""
    with serving({"on": "create", "prompt": "slow", "do": {"fault": "takes", "seconds": 2}}) as emulator:
        elsewhere = cli.write("slow.jsonl", jsonl(("k", "slow")))
        cli.batch(emulator, elsewhere, "--no-download", "--deadline", "0.3", "--out", "elsewhere")
        [task] = [charge.task_id for charge in emulator.ledger]
        ran = fetching(cli, emulator)(task, "--out", "cat.mp4", "--deadline", "0.2")
        assert ran.code == 1
        [command] = re.findall(r"to follow it again: pika-async (.*)", ran.err)
        ran = cli(*shlex.split(command), "--expected-seconds", "0.2")
        assert (ran.code, ran.out) == (0, "cat.mp4\n")
        assert len(emulator.ledger) == 1


@pytest.mark.parametrize("task_id", ["a1-b2", "it's", "-x", "a b"])
def test_the_printed_command_is_quoted_for_a_shell(task_id: str) -> None:
    """It names the address only where that is not the provider's own, and repeats the options of the credentials."""
    job = adopted_job("k", provider="gptge", base_url="https://api.gpt.ge", task_id=task_id)
    assert shlex.split(fetch_command(job, None))[:2] == ["pika-async", "fetch"]
    assert task_id in shlex.split(fetch_command(job, None))
    assert "--base-url" not in fetch_command(job, Path("my cat.mp4"))
    other = adopted_job("k", provider="native", base_url="http://h:1/x", task_id=task_id)
    credentials = CredentialOptions(api_key_file=Path("my key"), proxy="h:1", allow_results=("http",))
    words = shlex.split(fetch_command(other, Path("-o.mp4"), credentials))
    for word in ("http://h:1/x", "my key", "h:1", "http", "--out=-o.mp4", task_id):
        assert word in words
