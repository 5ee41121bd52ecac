"""`generate`, `fetch` and `doctor` with a file of accounts: which account has the job, and whose key is used."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pika_async.emulator import Emulator
from tests.cli.account_files import QUICK, accounts_of, prompts, write_accounts
from tests.cli.batches import charged, jsonl, statuses
from tests.cli.command_line import KEY, CommandLine, serving


def of(emulator: Emulator, account: str) -> list[str]:
    """Return the ids of the tasks at the gateway of an account of `write_accounts`."""
    provider = "native" if account == "main" else account
    return [charge.task_id for charge in emulator.ledger if charge.provider == provider]


# --- generate --------------------------------------------------------------------------------------------------------


def test_one_prompt_goes_to_the_account_that_the_routing_chooses(cli: CommandLine) -> None:
    """The preview names the candidates, the note the account that took it; the same command again pays nothing."""
    with serving() as emulator:
        file = write_accounts(cli, emulator)
        argv = ("generate", "a cat", "--accounts", file, "--routing", "cheapest", "--journal", "j.db", *QUICK)
        shown = cli(*argv, "--dry-run")
        assert "one of main (native Pika), cometapi, yescale, gptge: 1 new charges, 0 known" in shown.out
        assert "cost: 0.25, the lowest price of the accounts that can take it" in shown.out
        assert len(emulator.ledger) == 0
        ran = cli(*argv, "--out", "cat.mp4")
        assert (ran.code, ran.out) == (0, "cat.mp4\n"), ran.err
        [task] = of(emulator, "cometapi")
        assert f"accepted by cometapi: task {task}" in ran.err
        again = cli(*argv, "--out", "again.mp4")
        assert (again.code, len(emulator.ledger)) == (0, 1)
        assert "cometapi: 0 new charges, 1 known" in again.err


def test_a_prompt_that_one_account_can_make_names_it(cli: CommandLine) -> None:
    """One that none can make is refused with the reason of each, and nothing is sent."""
    with serving() as emulator:
        file = write_accounts(cli, emulator)
        shown = cli("generate", "a cat", "--ingredient", "https://a.example/1.png", "--accounts", file, "--dry-run")
        assert shown.out.startswith("main (native Pika): 1 new charges, 0 known, 0 refused\n")
        ran = cli("generate", "a cat", "--sfx", "--extend", "--accounts", file)
        assert (ran.code, len(emulator.ledger)) == (2, 0)
        assert "cannot be sent to any account: native: " in ran.err


def test_a_refused_key_sends_the_prompt_to_the_next_account(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong key stops its account alone."""
    monkeypatch.setenv("WRONG_KEY", "wrong")
    with serving() as emulator:
        file = write_accounts(cli, emulator, names=("main", "gptge"))
        text = Path(file).read_text().replace("price = 0.5", 'price = 0.5\napi_key_env = "WRONG_KEY"')
        cli.write("accounts.toml", text)
        ran = cli("generate", "a cat", "--accounts", file, "--routing", "cheapest", *QUICK)
        assert (ran.code, list(charged(emulator).values())) == (0, [1]), ran.err
        assert f"accepted by gptge: task {of(emulator, 'gptge')[0]}" in ran.err


def test_what_a_late_generate_prints_is_the_account_of_the_task(cli: CommandLine) -> None:
    """The command works as it is printed."""
    with serving({"on": "create", "prompt": "slow", "do": {"fault": "takes", "seconds": 2}}) as emulator:
        file = write_accounts(cli, emulator, names=("main", "gptge"))
        ran = cli("generate", "slow", "--accounts", file, "--out", "slow.mp4", "--deadline", "0.3", *QUICK)
        assert ran.code == 1
        [command] = re.findall(r"to go on waiting: pika-async (.*)", ran.err)
        assert " --account main " in command
        ran = cli(*shlex.split(command), *QUICK)
        assert (ran.code, ran.out, len(emulator.ledger)) == (0, "slow.mp4\n", 1), ran.err


# --- fetch -----------------------------------------------------------------------------------------------------------


def submitted(cli: CommandLine, emulator: Emulator, count: int = 2) -> str:
    """Submit prompts to two accounts in the folder `elsewhere`; return their file."""
    file = write_accounts(cli, emulator, names=("main", "gptge"), more="max_in_flight = 1\n")
    source = cli.write("b.jsonl", prompts(count))
    assert cli("batch", source, "--accounts", file, "--no-download", "--out", "elsewhere", *QUICK).code == 0
    assert of(emulator, "main")
    assert of(emulator, "gptge")
    return file


def test_a_bare_id_needs_the_name_of_its_account(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file has several; the keys of the others need not be set."""
    with serving() as emulator:
        file = submitted(cli, emulator)
        task = of(emulator, "gptge")[0]
        ran = cli("fetch", task, "--accounts", file)
        assert (ran.code, ran.out) == (2, "")
        assert (
            "--account: must be given, because a task id does not say whose task it is; choose one of main, gptge"
            in (ran.err)
        )
        ran = cli("fetch", task, "--accounts", file, "--account", "gptg")
        assert (ran.code, "did you mean gptge?" in ran.err) == (2, True)
        monkeypatch.delenv("PIKA_API_KEY")
        ran = cli("fetch", task, "--accounts", file, "--account", "gptge", "--out", "cat.mp4", *QUICK)
        assert (ran.code, ran.out, f"task {task} at gptge is " in ran.err) == (0, "cat.mp4\n", True)
        ran = cli("fetch", task, "--provider", "gptge", "--account", "gptge")
        assert (ran.code, "--account: must be given with --accounts FILE" in ran.err) == (2, True)
        assert len(emulator.ledger) == 2


def test_the_only_account_of_a_file_has_the_task(cli: CommandLine) -> None:
    """A new folder remembers the file, so that `resume` there works."""
    with serving() as emulator:
        submitted(cli, emulator)
        file = write_accounts(cli, emulator, names=("gptge",))
        task = of(emulator, "gptge")[0]
        ran = cli("fetch", task, "--accounts", file, "--out", "found", *QUICK)
        assert (ran.code, statuses(cli, "found")) == (0, {task: "succeeded"})
        requests = len(emulator.requests)
        assert cli("resume", "found").code == 0
        assert (len(emulator.requests), len(emulator.ledger)) == (requests, 2)


def test_a_folder_knows_the_accounts_of_its_tasks(cli: CommandLine) -> None:
    """Tasks of both accounts are fetched by their ids alone; another one needs the name, and the folder keeps its file."""
    with serving() as emulator:
        submitted(cli, emulator)
        ids = [of(emulator, "main")[0], of(emulator, "gptge")[0]]
        ran = cli("fetch", *ids, "--out", "elsewhere", *QUICK)
        assert (ran.code, "2 jobs: 2 succeeded; " in ran.out) == (0, True), ran.err
        source = cli.write("c.jsonl", jsonl(("c", "c")))
        assert cli.batch(emulator, source, "--no-download", "--out", "third", provider="gptge").code == 0
        other = of(emulator, "gptge")[-1]
        assert cli("fetch", other, "--out", "elsewhere").code == 2
        ran = cli("fetch", other, ids[0], "--account", "gptge", "--out", "elsewhere", *QUICK)
        assert (ran.code, len(emulator.ledger)) == (0, 3), ran.err
        assert statuses(cli, "elsewhere")[other] == "succeeded"
        assert accounts_of_folder(cli) == {"main", "gptge"}


def accounts_of_folder(cli: CommandLine) -> set[str]:
    """Return the names of the accounts that the folder `elsewhere` has jobs of."""
    return {one["account"] for one in cli("status", "elsewhere", "--json").records[-1]["accounts"]}


def test_fetch_leaves_the_file_of_another_folder_alone(cli: CommandLine) -> None:
    """A folder of one provider does not go on with the accounts of a `fetch`."""
    with serving() as emulator:
        file = submitted(cli, emulator)
        assert cli.batch(emulator, cli.write("a.jsonl", jsonl(("a", "a"))), provider="yescale").code == 0
        task = of(emulator, "gptge")[0]
        assert cli("fetch", task, "--accounts", file, "--account", "gptge", "--out", "pika-out", *QUICK).code == 0
        assert cli.batch(emulator, cli.write("a.jsonl", jsonl(("a", "a"), ("a2", "a"))), provider="yescale").code == 0
        assert accounts_of(cli) == {"a": "yescale", "a2": "yescale", task: "gptge"}
        (cli.folder / file).unlink()
        assert cli("resume", "pika-out").code == 0


# --- doctor ----------------------------------------------------------------------------------------------------------


def test_each_account_is_checked_with_its_own_key(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name; a wrong or missing key of one does not keep the others from being checked."""
    monkeypatch.setenv("WRONG_KEY", "wrong")
    monkeypatch.setenv("GOOD_KEY", KEY)
    monkeypatch.delenv("GPTGE_API_KEY")
    with serving() as emulator:
        text = ""
        for name, provider, key in (
            ("good", "native", "GOOD_KEY"), ("bad", "native", "WRONG_KEY"), ("none", "gptge", "GPTGE_API_KEY"),
        ):  # fmt: skip
            text += f'[accounts.{name}]\nprovider = "{provider}"\nbase_url = "{emulator.base_url(provider)}"\n'
            text += f'api_key_env = "{key}"\n'
        ran = cli("doctor", "--accounts", cli.write("three.toml", text), "--save", "samples")
        assert len(emulator.ledger) == 0
    parts = re.split(r"^(good|bad|none)\n", ran.out, flags=re.MULTILINE)
    by_name = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert ran.code == 3
    assert "ok         configuration: good (native Pika) at http" in by_name["good"]
    assert "key from the variable GOOD_KEY" in by_name["good"]
    assert "ok         unknown task: " in by_name["good"]
    assert "differs    account: " in by_name["bad"]
    assert (
        "not tried  configuration: no key for none (gpt.ge); set GPTGE_API_KEY, or name another variable with"
        in (by_name["none"])
    )
    assert (Path("samples") / "good" / "error-unknown-task.json").is_file()


def test_one_account_of_a_file_may_pay_for_its_check(cli: CommandLine) -> None:
    """`--spend` pays at the account's own address; options of one provider are refused beside the file."""
    with serving() as emulator:
        file = write_accounts(cli, emulator, names=("gptge",))
        ran = cli("doctor", "--accounts", file, "--spend", *QUICK)
        assert (ran.code, len(of(emulator, "gptge")), len(emulator.ledger)) == (0, 1, 1), ran.out
        ran = cli("doctor", "--accounts", file, "--provider", "gptge")
        assert (ran.code, "--accounts: must not be given with --provider" in ran.err) == (2, True)
