"""Rows that are refused: what stops a batch without burning them, and how rejected ones are sent again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pika_async.__main__ import main
from pika_async._journal.sqlite import SqliteJournal
from pika_async.cli.exits import ExitCode, exit_code_for
from pika_async.cli.terminal import Terminal
from pika_async.emulator import Emulator
from pika_async.errors import GatewayInTrouble, RefusedAlike
from tests.cli.command_line import CommandLine, serving

ROWS = "key,prompt\n" + "".join(f"k{number},prompt {number}\n" for number in range(9))


def answered(status: int, body: object) -> dict[str, Any]:
    return {"fault": "answer", "status": status, "body": body if isinstance(body, str) else json.dumps(body)}


def refused(words: str, code: str = "bad") -> dict[str, Any]:
    return answered(400, {"error": {"message": words, "type": "gateway_error", "param": "", "code": code}})


def charged(emulator: Emulator) -> Counter[str]:
    return Counter(charge.prompt for charge in emulator.ledger)


def statuses(cli: CommandLine) -> Counter[str]:
    return Counter(record["status"] for record in cli.results())


# --- stops over sockets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["batch", "resume"])
def test_the_same_refusal_for_every_row_stops_with_the_words_and_burns_none(cli: CommandLine, command: str) -> None:
    """Exit code 3 after five rows; all nine stay planned; mended, the same command or `resume` ends with 0."""
    with serving({"on": "create", "first": 5, "do": refused("this group may not generate")}) as emulator:
        source = cli.write("b.csv", ROWS)
        ran = cli.batch(emulator, source, "--no-download")
        assert (ran.code, statuses(cli)) == (3, {"planned": 9})
        assert (
            "5 different requests were refused alike, not charged: HTTP 400: bad: this group may not generate"
            in ran.err
        )
        assert "this group may not generate" in cli("status", "pika-out").out
        assert len(emulator.ledger) == 0
        again = cli.batch(emulator, source, "--no-download") if command == "batch" else cli("resume", "pika-out")
        assert (again.code, statuses(cli)) == (0, {"succeeded": 9})
        assert set(charged(emulator).values()) == {1}


def test_receipts_that_cannot_be_read_stop_after_three_rows(cli: CommandLine) -> None:
    """Three rows are in doubt, six are planned, and the message says that the URL or the wire is not right."""
    with serving({"on": "create", "do": {**answered(200, {"state": "SUCCESS"}), "charge": True}}) as emulator:
        ran = cli.batch(emulator, cli.write("b.csv", ROWS), "--no-download")
        assert (ran.code, statuses(cli)) == (1, {"unknown": 3, "planned": 6})
        assert "3 answers hold no task id that can be read" in ran.err
        assert len(emulator.ledger) == 3


def test_a_gateway_in_trouble_stops_with_exit_code_3(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve of 20 rows are in doubt; the same command sends the other eight once the gateway has recovered."""
    monkeypatch.setattr("pika_async._planning.fuses.PROBE_WAITS_S", (0.01, 0.01, 0.01, 0.01))
    with serving({"on": "create", "first": 12, "do": answered(502, "bad gateway")}) as emulator:
        source = cli.write("b.txt", "\n".join(f"prompt {number}" for number in range(20)))
        ran = cli.batch(emulator, source, "--no-download")
        assert (ran.code, statuses(cli)) == (3, {"unknown": 12, "planned": 8})
        assert "the gateway is in trouble: 12 answers in a row" in ran.err
        assert cli.batch(emulator, source, "--no-download").code == 1
        assert statuses(cli) == {"unknown": 12, "succeeded": 8}


@pytest.mark.parametrize("error", [GatewayInTrouble(provider="p"), RefusedAlike(provider="p")])
def test_these_stops_share_the_exit_code_of_a_stopped_account(error: Exception) -> None:
    """Something has to be mended at the gateway before anything can be sent."""
    assert exit_code_for(error) is ExitCode.ACCOUNT_STOPPED


# --- rejected rows ------------------------------------------------------------------------------------------------------


def test_rejected_rows_are_counted_and_sent_again_on_purpose(cli: CommandLine) -> None:
    """The same command counts them with their reasons and sends nothing; `retry --rejected` sends them once more."""
    rules = [
        {"on": "create", "prompt": f"prompt {number}", "first": 1, "do": refused(f"no {word}")}
        for number, word in ((2, "cats"), (4, "cats"), (6, "dogs"))
    ]
    with serving(*rules) as emulator:
        source = cli.write("b.csv", ROWS)
        first = cli.batch(emulator, source, "--no-download")
        assert (first.code, statuses(cli)) == (1, {"succeeded": 6, "rejected": 3})
        for ran in (first, cli.batch(emulator, source, "--no-download")):
            assert "rejected, not charged: 3" in ran.err
            assert "2 x HTTP 400: bad: no cats" in ran.err
            assert "pika-async retry pika-out --rejected" in ran.err
        assert len(emulator.ledger) == 6
        assert "2 x HTTP 400: bad: no cats" in cli("status", "pika-out").out
        ran = cli("retry", "pika-out", "--rejected")
        assert ran.code == 0
        assert {record["key"]: record["status"] for record in cli.results()} == {
            **{f"k{number}": "succeeded" for number in range(9)},
            **{f"k{number}~1": "rejected" for number in (2, 4, 6)},
        }
        assert charged(emulator) == Counter(f"prompt {number}" for number in range(9))
        history = [record for record in cli("status", "pika-out", "--json").records if record["key"] == "k2~1"]
        assert "no cats" in history[0]["error"]["message"]
        assert "rejected, not charged" not in cli("status", "pika-out").out
        assert cli.batch(emulator, source, "--no-download").code == 0
        assert cli("resume", "pika-out").code == 0
        assert len(emulator.ledger) == 9


def test_only_the_named_rows_are_sent_again(cli: CommandLine) -> None:
    """A key names one row; `--failed` adds the failed ones, which are charged once more."""
    with serving(
        {"on": "create", "prompt": "prompt 2", "first": 1, "do": refused("no cats")},
        {"on": "create", "prompt": "prompt 4", "first": 1, "do": refused("no dogs")},
        {"on": "create", "prompt": "prompt 6", "first": 1, "do": {"fault": "fails", "reason": "moderated"}},
    ) as emulator:
        cli.batch(emulator, cli.write("b.csv", ROWS), "--no-download")
        assert statuses(cli) == {"succeeded": 6, "rejected": 2, "failed": 1}
        assert cli("retry", "pika-out", "k2", "--failed").code == 1
        assert {record["key"] for record in cli.results() if record["status"] == "rejected"} == {"k2~1", "k4"}
        assert charged(emulator)["prompt 6"] == 2
        assert cli("retry", "pika-out", "k4").code == 0


def test_many_rows_that_are_sent_again_are_counted_and_not_named(cli: CommandLine) -> None:
    """Above ten rows there is one line instead of one for each."""
    prompts = [f"prompt {number:02}" for number in range(12)]
    rules = [{"on": "create", "prompt": prompt, "first": 1, "do": refused(f"no {prompt[-2:]} {'x' * number}")}
             for number, prompt in enumerate(prompts)]  # fmt: skip
    with serving(*rules) as emulator:
        cli.batch(emulator, cli.write("b.txt", "\n".join(prompts)), "--no-download")
        assert statuses(cli) == {"rejected": 12}
        ran = cli("retry", "pika-out", "--rejected")
        assert ran.code == 0
        assert "12 jobs are paid for again" in ran.err
        assert "is paid for again" not in ran.err


def test_a_row_whose_record_was_archived_by_a_killed_command_is_not_lost(cli: CommandLine) -> None:
    """The command was killed after the record became KEY~1 and before the new one was planned."""

    async def archive(path: Path) -> None:
        journal = SqliteJournal(path)
        await journal.open()
        job = journal.get("k2")
        assert job is not None
        await journal.archive(job)
        await journal.close()

    with serving({"on": "create", "prompt": "prompt 2", "first": 1, "do": refused("no cats")}) as emulator:
        cli.batch(emulator, cli.write("b.csv", ROWS), "--no-download")
        asyncio.run(archive(cli.folder / "pika-out" / "journal.db"))
        assert cli("retry", "pika-out", "--rejected").code == 0
        assert charged(emulator) == Counter(f"prompt {number}" for number in range(9))


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ((), "retry needs --rejected, --failed or keys"),
        (("k1",), "k1 is succeeded; give keys of jobs that ended without a video"),
        (("nothing",), "nothing is not the key of a job in this folder"),
    ],
)
def test_a_retry_of_nothing_is_a_usage_error(cli: CommandLine, argv: tuple[str, ...], text: str) -> None:
    """The message names the key and the way out, and nothing is sent."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.csv", ROWS), "--no-download")
        ran = cli("retry", "pika-out", *argv)
        assert ran.code == 2
        assert text in ran.err
        assert len(emulator.ledger) == 9


def test_a_retry_without_any_rejected_row_sends_nothing(cli: CommandLine) -> None:
    """The other rows are shown as they are."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.csv", ROWS), "--no-download")
        assert cli("retry", "pika-out", "--rejected").code == 0
        assert len(emulator.ledger) == 9


# --- other seeds, beginnings of keys, repetitions that were interrupted -------------------------------------------------


def journal_of(cli: CommandLine) -> dict[str, Any]:
    """Return the jobs of the journal by key."""
    return {job.key: job for job in SqliteJournal(cli.folder / "pika-out" / "journal.db").all()}


def standing(cli: CommandLine) -> dict[str, tuple[str, int | None]]:
    """Return the status and the seed of each job of the journal."""
    return {key: (job.status, job.request.seed) for key, job in journal_of(cli).items()}


FAILS = {"fault": "fails", "reason": "moderated"}


def test_failed_rows_are_paid_again_with_other_seeds(cli: CommandLine) -> None:
    """Each new seed differs from the old one and is in the journal and on the wire; the old record stays as KEY~1."""
    rules = [{"on": "create", "prompt": f"prompt {number}", "first": 1, "do": FAILS} for number in (2, 4)]
    rows = "key,prompt,seed\n" + "".join(f"k{number},prompt {number},{number}\n" for number in range(6))
    with serving(*rules) as emulator:
        ran = cli.batch(emulator, cli.write("b.csv", rows))
        assert (ran.code, "failed at the provider: 2" in ran.err, "2 x moderated" in ran.err) == (1, True, True)
        assert "pika-async retry pika-out --failed --new-seed" in ran.err
        assert "pika-async retry pika-out --failed --new-seed" in cli("status", "pika-out").out
        assert cli("retry", "pika-out", "--failed", "--new-seed").code == 0
        jobs = journal_of(cli)
        assert {key: jobs[key].request.seed for key in ("k0", "k2~1", "k4~1")} == {"k0": 0, "k2~1": 2, "k4~1": 4}
        sent = {
            charge.prompt: json.loads(charge.raw_body)["options"]["parameters"]["seed"]
            for charge in list(emulator.ledger)[6:]
        }
        assert sent == {f"prompt {number}": jobs[f"k{number}"].request.seed for number in (2, 4)}
        assert all(jobs[f"k{number}"].request.seed != number for number in (2, 4))
        assert len(emulator.ledger) == 8
        assert "failed at the provider" not in cli("status", "pika-out").out


def test_a_key_may_be_in_quotes_or_be_given_by_its_beginning(cli: CommandLine) -> None:
    """The whole of a made key need not be typed; a beginning that two keys have is named with both."""
    with serving({"on": "create", "prompt": "prompt", "first": 2, "do": FAILS}) as emulator:
        cli.batch(emulator, cli.write("b.txt", "prompt a\nprompt b\n"), "--no-download")
        one, two = sorted(record["key"] for record in cli.results())
        ran = cli("retry", "pika-out", "0000")
        assert (ran.code, f"0000 fits 2 keys ({one}, {two}); give more" in ran.err) == (2, True)
        assert len(emulator.ledger) == 2
        assert cli("retry", "pika-out", f"'{one[:5]}'").code == 1
        assert {record["key"]: record["status"] for record in cli.results()} == {
            one: "succeeded", f"{one}~1": "failed", two: "failed"
        }  # fmt: skip
        assert charged(emulator) == {"prompt a": 2, "prompt b": 1}


def test_an_interrupted_retry_goes_on_with_the_same_command(cli: CommandLine) -> None:
    """What it had sent is not paid again, and what it had only planned is sent; then nothing is left to do."""
    with serving({"on": "create", "prompt": "prompt", "first": 4, "do": FAILS}) as emulator:
        source = cli.write("b.txt", "".join(f"prompt {number}\n" for number in range(4)))
        cli.batch(emulator, source, "--no-download")
        assert cli("retry", "pika-out", "--failed", "--max-charges", "6").code == 1
        assert len(emulator.ledger) == 6
        assert cli("retry", "pika-out", "--failed", "--max-charges", "100").code == 0
        assert cli("retry", "pika-out", "--failed").code == 0
        assert set(charged(emulator).values()) == {2}
        key = min(journal_of(cli))
        ran = cli("retry", "pika-out", key)
        assert (ran.code, "is succeeded" in ran.err) == (2, True)
        assert len(emulator.ledger) == 8


def test_a_repetition_that_was_begun_by_name_goes_on_by_name(cli: CommandLine) -> None:
    """A key whose repetition is accepted, or planned, is not paid for a third time."""
    rules = [
        {"on": "create", "prompt": "prompt", "first": 2, "do": FAILS},
        {"on": "feed", "nth": 3, "do": {"fault": "refuse", "as": "key"}},
    ]
    with serving(*rules) as emulator:
        cli.batch(emulator, cli.write("b.csv", "key,prompt\na,prompt a\nb,prompt b\n"), "--no-download")
        assert cli("retry", "pika-out", "a", "b", "--max-charges", "3").code in {1, 3}
        begun = Counter(record["status"] for record in cli.results() if "~" not in record["key"])
        assert begun["planned"] == 1
        assert cli("retry", "pika-out", "a", "b", "--max-charges", "100").code == 0
        assert charged(emulator) == {"prompt a": 2, "prompt b": 2}


def test_a_repetition_whose_file_is_missing_is_downloaded_and_not_paid_again(cli: CommandLine) -> None:
    """By its key as well: a kill between the success and the download leaves such a job."""
    with serving({"on": "create", "first": 1, "do": FAILS}) as emulator:
        cli.batch(emulator, cli.write("b.csv", "key,prompt\na,prompt a\n"))
        assert cli("retry", "pika-out", "a", "--new-seed").code == 0
        video = cli.folder / "pika-out" / "videos" / "a.mp4"
        for chosen in ("a", "--failed"):
            video.unlink()
            ran = cli("retry", "pika-out", chosen, "--new-seed")
            assert (ran.code, "0 new charges, 1 known" in ran.err, video.is_file()) == (0, True, True)
        assert charged(emulator) == {"prompt a": 2}


# --- before it costs ----------------------------------------------------------------------------------------------------


def test_a_retry_announces_its_charges_and_a_dry_run_sends_nothing(cli: CommandLine) -> None:
    """The announced number is that of the ledger; a dry run changes no job and draws no seed for good."""
    with serving({"on": "create", "prompt": "prompt", "first": 3, "do": FAILS}) as emulator:
        cli.batch(emulator, cli.write("b.csv", ROWS), "--no-download")
        before = standing(cli)
        ran = cli("retry", "pika-out", "--failed", "--new-seed", "--dry-run")
        assert (ran.code, "3 new charges, 0 known, 0 refused" in ran.out) == (0, True)
        assert (len(emulator.ledger), standing(cli)) == (9, before)
        ran = cli("retry", "pika-out", "--failed", "--new-seed")
        assert (ran.code, "3 new charges" in ran.err) == (0, True)
        assert len(emulator.ledger) == 12
        ran = cli("retry", "pika-out", "--failed", "--dry-run")
        assert (ran.code, ran.out) == (0, "0 new charges: no such job is left to pay for again\n")


def test_a_person_may_say_no_and_yes(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the question comes after the preview; no sends nothing; --yes does not ask."""
    with serving({"on": "create", "prompt": "prompt", "first": 2, "do": FAILS}) as emulator:
        cli.batch(emulator, cli.write("b.csv", "key,prompt\na,prompt a\nb,prompt b\n"), "--no-download")
        monkeypatch.setattr(Terminal, "can_ask", True)
        before = standing(cli)
        ran = cli("retry", "pika-out", "--failed", stdin=b"n\n")
        assert (ran.code, "Send 2 new charges" in ran.err, "nothing was sent" in ran.err) == (1, True, True)
        assert (len(emulator.ledger), standing(cli)) == (2, before)
        assert cli("retry", "pika-out", "a", stdin=b"y\n").code == 1
        assert cli("retry", "pika-out", "b", "--yes", stdin=b"").code == 0
        assert charged(emulator) == {"prompt a": 2, "prompt b": 2}


def test_a_job_that_another_command_paid_for_meanwhile_is_not_paid_again(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the question stands, the same command runs in a second terminal: the answer comes too late."""
    with serving({"on": "create", "prompt": "prompt", "first": 2, "do": FAILS}) as emulator:
        cli.batch(emulator, cli.write("b.csv", "key,prompt\na,prompt a\nb,prompt b\n"), "--no-download")

        def ask(terminal: Terminal, question: str) -> str:
            assert "2 new charges" in question
            assert main(["retry", "pika-out", "--failed", "--yes"]) == 0
            return "y"

        monkeypatch.setattr(Terminal, "can_ask", True)
        monkeypatch.setattr(Terminal, "ask", ask)
        ran = cli("retry", "pika-out", "--failed")
        assert (ran.code, "a is succeeded now: another command ran here meanwhile" in ran.err) == (2, True)
        assert charged(emulator) == {"prompt a": 2, "prompt b": 2}
