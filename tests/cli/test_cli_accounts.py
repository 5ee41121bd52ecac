"""One batch over several accounts of a file: where its jobs go, what the folder remembers, and what is refused."""

from __future__ import annotations

import asyncio
import csv
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async._planning.reopenings import trial_setting
from pika_async.emulator import EMULATED_GATEWAYS
from tests.cli.account_files import PRICES, QUICK, accounts_of, prompts, write_accounts
from tests.cli.batches import REFUSED_POLL, charged, jsonl, statuses, stop_while_in_flight
from tests.cli.command_line import KEY, CommandLine, serving


def test_a_batch_goes_to_all_accounts_of_a_file(cli: CommandLine) -> None:
    """The preview names them, each job is charged once, and the results and sums have accounts and money."""
    with serving() as emulator:
        file = write_accounts(cli, emulator, more="max_in_flight = 1\n")
        source = cli.write("b.jsonl", prompts(12))
        shown = cli("estimate", source, "--accounts", file)
        assert (shown.code, len(emulator.ledger)) == (0, 0)
        assert "main (native Pika), cometapi, yescale, gptge: 12 new charges, 0 known, 0 refused" in shown.out
        assert "cost: 12.00, each at the highest price of the accounts that can take it" in shown.out
        ran = cli("batch", source, "--accounts", file, *QUICK)
        assert (ran.code, set(charged(emulator).values())) == (0, {1})
        by_gateway = Counter(charge.provider for charge in emulator.ledger)
    assert set(by_gateway) == set(EMULATED_GATEWAYS)
    records = sorted(cli.results(), key=lambda record: record["index"])
    assert {(record["account"], record["provider"], record["cost"]) for record in records} == {
        (name, "native" if name == "main" else name, price) for name, price in PRICES.items()
    }
    rows = list(csv.DictReader(Path("pika-out/results.csv").read_text(encoding="utf-8-sig").splitlines()))
    assert [(row["account"], float(row["cost"])) for row in rows] == [(one["account"], one["cost"]) for one in records]
    assert f"  main: {by_gateway['native']} succeeded; {by_gateway['native']} charge" in ran.out
    shown = cli("status", "pika-out")
    figures = {line.split()[0]: line.split()[1:] for line in shown.out.splitlines() if line.strip()}
    count = by_gateway["gptge"]
    assert figures["gptge"] == [str(count), "succeeded", str(count), f"{count:.2f}"]
    *as_json, last = cli("status", "pika-out", "--json").records
    assert {one["account"]: (one["jobs"], one["charges"], one["cost"]) for one in last["accounts"]} == {
        name: ({"succeeded": count}, count, count * PRICES[name])
        for name, count in Counter(one["account"] for one in records).items()
    }
    assert {one["key"]: (one["account"], one["cost"]) for one in as_json} == {
        one["key"]: (one["account"], one["cost"]) for one in records
    }


def test_the_cheapest_account_that_has_room_gets_each_job(cli: CommandLine) -> None:
    """`--routing cheapest` sends to the lowest price where it has room, and the estimate counts with it."""
    with serving() as emulator:
        file, source = write_accounts(cli, emulator), cli.write("b.jsonl", prompts(4))
        shown = cli("estimate", source, "--accounts", file, "--routing", "cheapest")
        assert "cost: 1.00, each at the lowest price of the accounts that can take it" in shown.out
        assert (
            cli("batch", source, "--accounts", file, "--routing", "cheapest", "--max-in-flight", "1", *QUICK).code == 0
        )
    assert set(accounts_of(cli).values()) == {"cometapi"}


def test_a_row_goes_where_it_can_be_made(cli: CommandLine) -> None:
    """A row that one account alone can make goes there; one that none can make is refused with the reason of each."""
    with serving() as emulator:
        file = write_accounts(cli, emulator)
        rows = [
            {"key": "a", "prompt": "a", "ingredients": ["https://a.example/1.png"]},
            {"key": "b", "prompt": "b", "sfx": True},
        ]
        source = cli.write("b.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        assert cli("batch", source, "--accounts", file, *QUICK).code == 0
        assert accounts_of(cli) == {"a": "main", "b": "cometapi"}
        source = cli.write("c.jsonl", json.dumps({"prompt": "c", "sfx": True, "extend": True}) + "\n")
        ran = cli("batch", source, "--accounts", file)
        assert (ran.code, len(emulator.ledger)) == (2, 2)
        assert "cannot be sent to any account: native: " in ran.err
        assert "cometapi: " in ran.err


def test_a_stopped_account_is_left_and_named(cli: CommandLine) -> None:
    """The others make all jobs; `status` has the reason, and the page the way of the job."""
    refuse = {"on": "create", "provider": "cometapi", "do": {"fault": "refuse", "as": "quota"}}
    with serving(refuse) as emulator:
        file, source = write_accounts(cli, emulator), cli.write("b.jsonl", prompts(8))
        ran = cli("batch", source, "--accounts", file, *QUICK)
        assert (ran.code, set(charged(emulator).values()), len(emulator.ledger)) == (0, {1}, 8)
    assert "cometapi" not in accounts_of(cli).values()
    stops = [line for line in cli("status", "pika-out").out.splitlines() if ", stopped: " in line]
    assert [line.partition(":")[0] for line in stops] == ["account cometapi, stopped"]
    sums = cli("status", "pika-out", "--json").records[-1]["accounts"]
    assert {one["account"] for one in sums if one["stopped"] is None} == {"main", "yescale", "gptge"}
    (stopped,) = [one for one in sums if one["stopped"] is not None]
    assert (stopped["account"], stopped["jobs"], stopped["charges"]) == ("cometapi", {}, 0)
    assert stopped["stopped"] == stops[0].partition(": ")[2]
    page = Path("pika-out/index.html").read_text(encoding="utf-8")
    assert '["cometapi","stop","' in page


@contextmanager
def running_command(cli: CommandLine, notes: dict[str, dict[str, str]]) -> Iterator[None]:
    """Own the folder's journal as a running batch does, with notes of when accounts are tried again."""
    journal, loop = SqliteJournal(cli.folder / "pika-out" / "journal.db"), asyncio.new_event_loop()
    loop.run_until_complete(journal.open())
    for name, note in notes.items():
        loop.run_until_complete(journal.set_setting(trial_setting(name), note))
    yield
    loop.run_until_complete(journal.close())
    loop.close()


def test_the_status_of_a_running_batch_names_when_a_stopped_account_is_tried_again(cli: CommandLine) -> None:
    """Neither one that was tried already nor, after the batch, any."""
    with serving() as emulator:
        file, source = write_accounts(cli, emulator), cli.write("b.jsonl", prompts(1))
        assert cli("batch", source, "--accounts", file, *QUICK).code == 0
    notes = {
        "main": {"at": "2121-01-02T03:04:05+00:00", "reason": "main: cannot be reached"},
        "gptge": {"at": "2021-01-02T03:04:05+00:00", "reason": "gptge: cannot be reached"},
    }
    with running_command(cli, notes):
        during = [line for line in cli("status", "pika-out").out.splitlines() if "tried again" in line]
    assert during == ["account main, tried again with one job at 03:04:05 UTC: main: cannot be reached"]
    assert "tried again" not in cli("status", "pika-out").out


def test_the_folder_remembers_the_file(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """`resume`, `retry` and `batch` use it without an option, from any folder; the journal holds no key."""
    fails = {"on": "create", "first": 3, "do": {"fault": "fails", "reason": "a node was lost"}}
    with serving(fails) as emulator:
        file = write_accounts(cli, emulator, names=("main", "gptge"))
        source = cli.write("b.jsonl", prompts(4))
        ran = cli("batch", source, "--accounts", file, "--max-charges", "3", *QUICK)
        assert (ran.code, Counter(statuses(cli).values())) == (1, {"failed": 3, "planned": 1})
        elsewhere = cli.folder / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        assert cli("resume", "../pika-out", "--max-charges", "9").code == 1
        shown = cli("retry", "../pika-out", "--failed", "--dry-run")
        assert "main (native Pika), gptge: 3 new charges" in shown.out
        assert cli("retry", "../pika-out", "--failed").code == 0
        assert len(emulator.ledger) == 7
        monkeypatch.chdir(cli.folder)
        assert "4 known" in cli("batch", source, *QUICK).out
    assert set(accounts_of(cli).values()) <= {"main", "gptge"}


def test_a_folder_of_one_provider_goes_on_with_accounts(cli: CommandLine) -> None:
    """Jobs that the account of the same name and address accepted are followed there; the rest goes to any account."""
    with serving(REFUSED_POLL) as emulator:
        source = cli.write("b.jsonl", prompts(5))
        target = ("--max-in-flight", "2", "--price", "0.5")
        stop_while_in_flight(cli, emulator, source, *target)
        accepted = {key for key, status in statuses(cli).items() if status != "planned"}
        text = f'[accounts.native]\nprovider = "native"\nbase_url = "{emulator.base_url("native")}"\nprice = 0.5\n'
        text += f'[accounts.gptge]\nprovider = "gptge"\nbase_url = "{emulator.base_url("gptge")}"\nprice = 0.1\n'
        file = cli.write("two.toml", text)
        ran = cli("resume", "pika-out", "--accounts", file, "--routing", "cheapest", "--max-in-flight", "9")
        assert (ran.code, set(charged(emulator).values()), len(emulator.ledger)) == (0, {1}, 5)
    accounts = accounts_of(cli)
    assert accepted
    assert {accounts[key] for key in accepted} == {"native"}
    assert set(accounts.values()) <= {"native", "gptge"}


def test_jobs_of_a_missing_account_wait_and_are_named(cli: CommandLine) -> None:
    """Also where an account of another name has the address: they are not sent again, and the account brings them to their ends."""
    with serving(REFUSED_POLL) as emulator:
        source = cli.write("b.jsonl", prompts(3))
        stop_while_in_flight(cli, emulator, source, "--max-in-flight", "1")
        (waiting,) = [key for key, status in statuses(cli).items() if status != "planned"]
        file = write_accounts(cli, emulator, names=("gptge", "main"))
        ran = cli("resume", "pika-out", "--accounts", file)
        assert (ran.code, set(charged(emulator).values()), len(emulator.ledger)) == (1, {1}, 3)
        url = emulator.base_url("native")
        assert f"accepted by the account native at {url}, which this client does not have" in ran.err
        accounts = accounts_of(cli)
        assert accounts.pop(waiting) == "native"
        assert set(accounts.values()) <= {"gptge", "main"}
        shown = cli("status", "pika-out")
        path = cli.folder / file
        assert f"1 job waits for the account native (native at {url}), which is not in {path}: {waiting}" in shown.out
        sums = {one["account"]: one for one in cli("status", "pika-out", "--json").records[-1]["accounts"]}
        assert sums["native"] == {
            "account": "native", "jobs": {"queued": 1}, "charges": 1, "cost": None, "points": None, "stopped": None,
            "waiting": [waiting],
        }  # fmt: skip
        assert {name for name, one in sums.items() if one["waiting"] == []} == {"gptge", "main"}
        write_accounts(cli, emulator, names=("gptge", "native"))
        assert (cli("resume", "pika-out").code, len(emulator.ledger)) == (0, 3)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--accounts", "accounts.toml", "--provider", "native"), "--accounts: must not be given with --provider"),
        (("--accounts", "accounts.toml", "--base-url", "http://h"), "--accounts: must not be given with --base-url"),
        (("--accounts", "accounts.toml", "--api-key-file", "k"), "--accounts: must not be given with --api-key-file"),
        (("--accounts", "accounts.toml", "--price", "1"), "--price: must be given to each account in "),
        (("--provider", "native", "--routing", "cheapest"), "--routing: must be given with --accounts FILE"),
        (("--accounts", "none.toml"), "none.toml: cannot be read: No such file or directory"),
        (("--accounts", "bad.toml"), "2 faults:\n  (1) [accounts.a] provider: must be given"),
        (("--accounts", "accounts.toml", "--budget", "3"), "--budget: needs a price of each account; give a one in "),
        (("--accounts", "accounts.toml", "--max-charges", "3"), "no key for a (native Pika); set NO_SUCH_KEY"),
    ],
)  # fmt: skip
def test_options_that_exclude_each_other_are_named(cli: CommandLine, options: tuple[str, ...], problem: str) -> None:
    """Exit code 2, and nothing is made."""
    cli.write(
        "accounts.toml", '[accounts.a]\nprovider = "native"\nbase_url = "http://h"\napi_key_env = "NO_SUCH_KEY"\n'
    )
    cli.write("bad.toml", '[accounts.a]\nprice = 1\n[accounts.b]\nprovider = "native"\nbudgt = 3\n')
    ran = cli("batch", cli.write("b.txt", "a cat\n"), *options)
    assert (ran.code, ran.out, Path("pika-out").exists()) == (2, "", False)
    assert problem in ran.err


def test_a_file_or_a_variable_may_name_the_accounts(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every option; what is typed replaces it, and an error names the places of two that exclude each other."""
    with serving() as emulator:
        file = write_accounts(cli, emulator, names=("main", "yescale"))
        cli.write("pika-async.toml", f'[batch]\naccounts = "{file}"\n')
        source = cli.write("b.jsonl", prompts(2))
        monkeypatch.setenv("PIKA_ASYNC_ROUTING", "cheapest")
        assert cli("batch", source, "--max-in-flight", "1", *QUICK).code == 0
        assert set(accounts_of(cli).values()) == {"main"}
        target = ("--provider", "gptge", "--base-url", emulator.base_url("gptge"))
        cli.write("pika-async.toml", f'accounts = "{file}"\n')
        shown = cli("estimate", source, *target, "--out", "other")
        assert (shown.code, "gpt.ge at http://127.0.0.1" in shown.out) == (0, True)
        cli.write("pika-async.toml", 'provider = "native"\nprice = 3\n')
        assert "main (native Pika), yescale: 2 new" in cli("estimate", source, "--accounts", file, "--out", "x").out
        monkeypatch.setenv("PIKA_ASYNC_ACCOUNTS", file)
        ran = cli("batch", source)
        assert (ran.code, "PIKA_ASYNC_ACCOUNTS: must not be given with --provider" in ran.err) == (2, True)
        assert "--provider is given by pika-async.toml: provider" in ran.err


def test_one_provider_in_a_folder_that_remembers_accounts(cli: CommandLine) -> None:
    """`--provider` sends the new rows there alone; later commands use the accounts again, and a file that is gone is named."""
    with serving() as emulator:
        file = write_accounts(cli, emulator, names=("main", "gptge"))
        assert cli("batch", cli.write("a.jsonl", jsonl(("a", "a"))), "--accounts", file, *QUICK).code == 0
        assert cli.batch(emulator, cli.write("b.jsonl", jsonl(("b", "b"))), provider="yescale").code == 0
        (cli.folder / file).unlink()
        ran = cli("resume", "pika-out")
        assert (ran.code, "accounts.toml: cannot be read" in ran.err) == (2, True)
        shown = cli("status", "pika-out")
        assert shown.code == 0
        assert "to continue with another file: pika-async resume pika-out --accounts FILE" in shown.out
        shown = cli("status", "pika-out", "--json")
        assert "accounts.toml: cannot be read" in shown.err
        assert {one["account"]: one["waiting"] for one in shown.records[-1]["accounts"]} == dict.fromkeys(
            (shown.records[0]["account"], "yescale")
        )


def test_a_spent_budget_of_several_accounts_names_a_higher_one(cli: CommandLine) -> None:
    """It pays for the rest at the highest price; `status` prints the same command, and it works."""
    with serving() as emulator:
        file, source = write_accounts(cli, emulator, names=("main", "cometapi")), cli.write("b.jsonl", prompts(5))
        ran = cli("batch", source, "--accounts", file, "--routing", "cheapest", "--budget", "0.5", "--yes", *QUICK)
        paid = sum(PRICES[accounts_of(cli)[charge.prompt.replace("prompt ", "k")]] for charge in emulator.ledger)
        left = list(statuses(cli).values()).count("planned")
        assert (ran.code, paid <= 0.5, left >= 3) == (1, True, True)
        command = f"pika-async resume pika-out --budget {paid + 0.5 * left:g}"
        for text in (ran.err, cli("status", "pika-out").out):
            assert f"to send the other {left}: {command}" in text
            assert "to continue: " not in text
        assert cli(*command.split()[1:]).code == 0
        assert set(charged(emulator).values()) == {1}


def test_the_spent_limits_of_accounts_are_named_with_their_fields(cli: CommandLine) -> None:
    """Once one of them is raised in the file, `resume` sends the rest."""
    with serving() as emulator:
        source = cli.write("b.jsonl", prompts(6))
        file = write_accounts(cli, emulator, names=("main",), more="max_charges = 2\n")
        limited = Path(file).read_text()
        cli.write(
            file, limited + Path(write_accounts(cli, emulator, names=("gptge",), more="budget = 2.5\n")).read_text()
        )
        ran = cli("batch", source, "--accounts", file, *QUICK)
        assert (ran.code, len(emulator.ledger)) == (1, 4)
        assert "no account is left that can take the rest; mend one of these, then run the same again:" in ran.err
        assert "  main: the limit of 2 charges is reached; raise it to send the rest\n" in ran.err
        shown = cli("status", "pika-out")
        assert "account main: the limit of 2 charges is reached" in shown.out
        for text in (ran.err, shown.out):
            assert (
                "to send the other 2: raise max_charges of main (2 of 2 used) or budget of gptge (2.00 of 2.50 used) in "
                f"{cli.folder / file}, then: pika-async resume pika-out\n"
            ) in text
        cli.write(file, Path(file).read_text().replace("max_charges = 2", "max_charges = 9"))
        assert "to continue: pika-async resume pika-out" in cli("status", "pika-out").out
        assert (cli("resume", "pika-out").code, len(emulator.ledger)) == (0, 6)


def test_the_spent_limit_of_the_only_account_of_a_file_is_its_field(cli: CommandLine) -> None:
    """A higher `--max-charges` would not help."""
    with serving() as emulator:
        source = cli.write("b.jsonl", prompts(3))
        file = write_accounts(cli, emulator, names=("main",), more="max_charges = 2\n")
        ran = cli("batch", source, "--accounts", file, *QUICK)
        assert (ran.code, len(emulator.ledger)) == (1, 2)
        assert "to send the other 1: raise max_charges of main (2 of 2 used) in " in ran.err
        assert "--max-charges" not in ran.err


def test_a_summary_names_the_accounts_that_stopped_in_this_run(cli: CommandLine) -> None:
    """While others went on; a run that sends nothing names none."""
    refuse = {"on": "create", "provider": "cometapi", "do": {"fault": "refuse", "as": "quota"}}
    with serving(refuse) as emulator:
        file, source = write_accounts(cli, emulator), cli.write("b.jsonl", prompts(8))
        ran = cli("batch", source, "--accounts", file, *QUICK)
        [line] = [line for line in ran.out.splitlines() if line.startswith("account ")]
        assert line.startswith("account cometapi, stopped: ")
        assert line.endswith("; mend it, then the same command uses it again")
        assert "account " not in cli("batch", source, "--accounts", file).out


def test_keys_that_are_all_refused_are_exit_code_3(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each account has a line with its reason, in the summary, in `status` and of `generate`."""
    with serving() as emulator:
        monkeypatch.setenv("PIKA_API_KEY", "wrong")
        monkeypatch.setenv("GPTGE_API_KEY", "wrong")
        file = write_accounts(cli, emulator, names=("main", "gptge"))
        ran = cli("batch", cli.write("b.jsonl", prompts(4)), "--accounts", file, *QUICK)
        assert (ran.code, statuses(cli), len(emulator.ledger)) == (
            3,
            {f"k{number}": "planned" for number in range(4)},
            0,
        )
        shown = cli("generate", "a cat", "--accounts", file)
        for text, rest in ((ran.err, "the rest"), (shown.err, "this")):
            assert f"no account is left that can take {rest}; mend one of these, then run the same again:\n" in text
            assert "\n  main: the account is stopped: HTTP 401: " in text
            assert "\n  gptge: the account is stopped: HTTP 401: " in text
        assert "\naccount main: the account is stopped: HTTP 401: " in cli("status", "pika-out").out


def test_a_budget_that_a_provider_spares_a_part_of_names_a_higher_one(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own figure is below the price, so that another charge would fit once all have ended."""
    monkeypatch.setenv("PIKA_DEV_API_KEY", KEY)
    with serving() as emulator:
        text = f'[accounts.own]\nprovider = "pika"\nbase_url = "{emulator.base_url("pika")}"\nprice = 0.6\n'
        text += f'[accounts.ge]\nprovider = "gptge"\nbase_url = "{emulator.base_url("gptge")}"\nprice = 0.6\n'
        file, source = cli.write("two.toml", text + "max_in_flight = 1\n"), cli.write("b.jsonl", prompts(8))
        ran = cli("batch", source, "--accounts", file, "--budget", "1.9", *QUICK)
        left = list(statuses(cli).values()).count("planned")
        assert (ran.code, f"to send the other {left}: pika-async resume pika-out --budget " in ran.err) == (1, True)
