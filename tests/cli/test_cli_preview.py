"""Preview and question before a command costs, and what its summary says about money afterwards."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
import threading
from collections.abc import Iterator

import pytest

from pika_async.emulator import Emulator, Scenario
from tests.cli.batches import charged
from tests.cli.command_line import CommandLine, serving, without_codes
from tests.fakes.stepped_emulator import SteppedEmulator

ROWS = "prompt,effect\na cat,\na dog,Melt\na cat,\n"
#: Options of an emulator at which the first task fails.
FIRST_FAILS = {"scenario": Scenario.of([{"on": "create", "first": 1, "do": "fails"}])}
NOTHING_LISTENS = "http://127.0.0.1:9"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serving() as served:
        yield served


def new_charges(text: str) -> list[int]:
    """Return the numbers of new charges, in their order."""
    return [int(number) for number in re.findall(r"(\d+) new charges?\b", text)]


# --- dry runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["estimate"], ["batch", "--dry-run"]])
def test_a_dry_run_sends_nothing_and_makes_nothing(cli: CommandLine, emulator: Emulator, command: list[str]) -> None:
    """It prints charges, cost, time and equal rows with their line numbers, and ends with 0."""
    source = cli.write("b.csv", ROWS)
    target = ("--provider", "native", "--base-url", emulator.base_url("native"))
    ran = cli(*command, source, *target, "--price", "0.28")
    assert (ran.code, ran.err) == (0, "")
    assert "3 new charges, 0 known, 0 refused" in ran.out
    assert "cost: 0.84 (0.28 each)" in ran.out
    assert "b.csv:2, b.csv:4 have the same content" in ran.out
    assert f"native Pika at {emulator.base_url('native')}" in ran.out
    assert (len(emulator.requests), [path.name for path in cli.folder.iterdir()]) == (0, ["b.csv"])


def test_each_preview_announces_the_charges_of_the_ledger(cli: CommandLine, emulator: Emulator) -> None:
    """First all rows, then none with all known, then a new one; the summary says the same, apart from earlier runs."""
    source = cli.write("b.txt", "one\ntwo\n")
    first = cli.batch(emulator, source, "--price", "0.28")
    assert (new_charges(first.err), len(emulator.ledger)) == ([2], 2)
    assert "this run: 2 new charges, 0.56; 0 known, 0 refused; earlier: 0 charges" in first.out
    again = cli.batch(emulator, source)
    assert "0 new charges, 2 known, 0 refused" in again.err
    assert "this run: 0 new charges; 2 known, 0 refused; earlier: 2 charges" in again.out
    cli.write("b.txt", "one\ntwo\nthree\n")
    third = cli.batch(emulator, source)
    assert "1 new charges, 2 known, 0 refused" in third.err
    assert "cost: 0.28 (0.28 each)" in third.err, "the price is kept"
    assert "this run: 1 new charges, 0.28; 2 known, 0 refused; earlier: 2 charges" in third.out
    assert len(emulator.ledger) == 3


def test_points_of_settled_jobs_are_the_cost_without_a_price(cli: CommandLine, emulator: Emulator) -> None:
    """The summary has the points of this run, the next preview those that are expected."""
    ran = cli.batch(emulator, cli.write("b.txt", "one\ntwo\n"), provider="cometapi")
    assert "cost: unknown; give --price" in ran.err
    assert "this run: 2 new charges, 800 points" in ran.out
    cli.write("b.txt", "one\ntwo\nthree\nfour\nfive\n")
    ran = cli("estimate", "b.txt", "--provider", "cometapi", "--base-url", emulator.base_url("cometapi"), "--json")
    [estimate] = ran.records
    assert (estimate["new_charges"], estimate["known"], estimate["refused"]) == (3, 2, [])
    assert (estimate["money"], estimate["unit"], estimate["learned_from"]) == (1200, "points", 2)
    assert estimate["seconds"][0] < estimate["seconds"][1]


@pytest.mark.parametrize(
    ("command", "is_asked"),
    [
        (["batch", "b.txt"], True),
        (["batch", "b.txt", "--no-quotes"], False),
        (["batch", "b.txt", "--price", "0.3"], False),
        (["estimate", "b.txt"], False),
        (["estimate", "b.txt", "--quotes"], True),
        (["generate", "one"], True),
        (["generate", "one", "--no-quotes"], False),
    ],
    ids=str,
)
def test_a_provider_is_asked_for_its_price(
    cli: CommandLine, everywhere: SteppedEmulator, command: list[str], is_asked: bool
) -> None:
    """Before it costs, where no price is given; a dry run asks nothing without --quotes."""
    cli.write("b.txt", "one\ntwo\n")
    ran = cli(*command, "--provider", "pika")
    rows = 1 if command[0] == "generate" else 2
    assert ran.code == 0
    shown = ran.out if command[0] == "estimate" else ran.err
    assert (f"cost: {rows * 0.45:.2f} US dollars, as quoted by Pika" in shown) == is_asked
    asked = [request for request in everywhere.requests if request.path.endswith("/quote")]
    assert len(asked) == is_asked
    assert len(everywhere.ledger) == (0 if command[0] == "estimate" else rows)


@pytest.mark.parametrize("everywhere", [FIRST_FAILS], indirect=True)
def test_a_quote_has_its_unit_in_json_and_before_a_repetition(cli: CommandLine, everywhere: SteppedEmulator) -> None:
    """`retry` asks as well; a provider without quotes is asked nothing."""
    cli.write("b.txt", "one\n")
    [estimate] = cli("estimate", "b.txt", "--provider", "pika", "--quotes", "--json").records
    assert (estimate["money"], estimate["unit"], estimate["price"]) == (0.45, "quote", None)
    [estimate] = cli("estimate", "b.txt", "--provider", "cometapi", "--quotes", "--json").records
    assert (estimate["money"], estimate["unit"]) == (None, None)
    assert cli("batch", "b.txt", "--provider", "pika", "--out", "out").code == 1
    ran = cli("retry", "out", "--failed")
    assert "cost: 0.45 US dollars, as quoted by Pika" in ran.err
    assert ran.code == 0


def test_a_folder_whose_batch_runs_can_be_estimated(cli: CommandLine) -> None:
    """Its jobs are known, nothing is locked and nothing is sent."""
    with serving(durations="constant:60") as emulator:
        source = cli.write("b.txt", "one\ntwo\n")
        with pytest.MonkeyPatch.context() as patch:
            estimated: list[int] = []
            patch.setattr(
                "pika_async.cli.batch.ProviderBatch.run",
                lambda *_: _estimate_meanwhile(cli, emulator, estimated),
            )
            cli.batch(emulator, source)
        assert estimated == [0]
        assert len(emulator.ledger) == 0


async def _estimate_meanwhile(cli: CommandLine, emulator: Emulator, estimated: list[int]) -> None:
    def estimate() -> None:
        from pika_async.cli import run

        target = ("--provider", "native", "--base-url", emulator.base_url("native"))
        estimated.append(run(["estimate", str(cli.folder / "b.txt"), *target, "--out", str(cli.folder / "pika-out")]))

    thread = threading.Thread(target=estimate)
    thread.start()
    thread.join()


def test_models_and_effects_without_documentation_are_named(cli: CommandLine) -> None:
    """They are sent only on demand, and named before they cost."""
    source = cli.write("b.jsonl", '{"prompt": "a cat", "model": "9.9", "effect": "Whirl", "strict": false}\n')
    ran = cli("estimate", source, "--provider", "native", "--base-url", NOTHING_LISTENS)
    assert (ran.code, "does not list model 9.9, effect Whirl" in ran.out) == (0, True)


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_a_budget_stops_and_names_a_higher_one(cli: CommandLine, emulator: Emulator) -> None:
    """The rest stays planned, the exit code is 1, and the printed command sends the rest."""
    source = cli.write("b.txt", "one\ntwo\nthree\nfour\n")
    ran = cli.batch(emulator, source, "--price", "0.1", "--budget", "0.3")
    assert ran.code == 1
    assert "3 new charges, 0 known, 0 refused" in ran.err
    assert "limit: --budget 0.30, 0.00 used; 1 left planned" in ran.err
    assert "the budget of 0.3 is reached: 0.3 of it are used; raise it to at least 0.4" in ran.err
    assert "to send the other 1: pika-async resume pika-out --budget 0.4" in ran.err
    for text in (ran.err, cli("status", "pika-out").out):
        assert "to send the other 1: pika-async resume pika-out --budget 0.4" in text
        assert "to continue" not in text
    assert len(emulator.ledger) == 3
    assert cli.batch(emulator, source).code == 1, "the budget is kept"
    assert len(emulator.ledger) == 3
    assert cli("resume", "pika-out", "--budget", "0.4").code == 0
    assert set(charged(emulator).values()) == {1}
    assert len(emulator.ledger) == 4


def test_a_charge_limit_names_a_higher_one(cli: CommandLine, emulator: Emulator) -> None:
    """The preview announces as many charges as the limit allows."""
    ran = cli.batch(emulator, cli.write("b.txt", "one\ntwo\nthree\n"), "--max-charges", "1")
    assert (ran.code, new_charges(ran.err)[0], len(emulator.ledger)) == (1, 1, 1)
    assert "limit: --max-charges 1, 0 used; 2 left planned" in ran.err
    for text in (ran.err, cli("status", "pika-out").out):
        assert "to send the other 2: pika-async resume pika-out --max-charges 3" in text
        assert "to continue" not in text


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--price", "-1"], "--price: must be a number above 0, not -1.0"),
        (["--price", "nan"], "--price: must be a number above 0, not nan"),
        (["--price", "0"], "--price: must be a number above 0, not 0.0"),
        (["--price", "much"], "--price"),
        (["--budget", "25"], "--budget: needs the price of one charge; give --price as well"),
        (["--budget", "-1", "--price", "1"], "--budget: must be a number above 0, not -1.0"),
        (["--budget", "inf", "--price", "1"], "--budget: must be a number above 0, not inf"),
    ],
)
@pytest.mark.parametrize("command", [["batch", "b.txt"], ["estimate", "b.txt"], ["generate", "a cat"]])
def test_bad_money_is_named(cli: CommandLine, command: list[str], argv: list[str], named: str) -> None:
    """There is one line that names it, exit code 2, and nothing is sent."""
    cli.write("b.txt", "a cat")
    ran = cli(*command, "--provider", "native", "--base-url", NOTHING_LISTENS, *argv)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert named in ran.err
    assert not (cli.folder / "pika-out").exists()


# --- the question -----------------------------------------------------------------------------------------------------


class TypingPerson:
    """A terminal in place of standard input and error, on which a person types an answer to the question.

    :param answer: typed as soon as the question is read; `\\x04` at the start of a line ends the input.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
        self.text = ""
        self._leader, follower = pty.openpty()
        self._answer = answer
        monkeypatch.setattr(sys, "stdin", os.fdopen(os.dup(follower)))
        monkeypatch.setattr(sys, "stderr", os.fdopen(follower, "w"))
        monkeypatch.setenv("TERM", "xterm")
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._leader, 4096)
            except OSError:  # the other side is closed
                return
            self.text += data.decode()
            if "[y/N]" in self.text and self._answer:
                os.write(self._leader, self._answer.encode())
                self._answer = ""

    def leave(self) -> str:
        """Return everything that was shown, without colours."""
        sys.stdin.close()
        sys.stderr.close()
        self._thread.join()
        os.close(self._leader)
        return without_codes(self.text.replace("\r\n", "\n"))


@pytest.mark.parametrize(
    ("columns", "answer", "outcome"),
    [
        ("80", "y\n", (0, 2)), ("200", "YES\n", (0, 2)), ("80", "\n", (1, 0)), ("200", "n\n", (1, 0)),
        ("80", "maybe\n", (1, 0)), ("80", "\x04", (2, 0)),
    ],
)  # fmt: skip
def test_a_person_is_asked_on_a_terminal(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, columns: str, answer: str, outcome: tuple[int, int]
) -> None:
    """Only yes goes on; anything else sends nothing and says so. No word is broken at the edge of the terminal."""
    monkeypatch.setenv("COLUMNS", columns)
    source = cli.write("b.txt", "one\ntwo\n")
    with serving() as emulator:
        person = TypingPerson(monkeypatch, answer)
        try:
            ran = cli.batch(emulator, source, "--price", "0.28", "--no-download")
        finally:
            shown = person.leave()
        assert (ran.code, len(emulator.ledger)) == outcome
        question = " ".join(shown[: shown.index("[y/N]")].split())
        assert f"Send 2 new charges to native Pika at {emulator.base_url('native')}, 0.56, " in question
    is_sent = outcome[1] > 0
    assert ("nothing was sent" in shown) is not is_sent
    assert (cli.folder / "pika-out").exists() is is_sent
    assert all(len(line) <= int(columns) for line in shown.splitlines())


@pytest.mark.parametrize("answer", ["y\n", "n\n"])
def test_generate_asks_as_well(
    cli: CommandLine, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """One video is paid for like many."""
    person = TypingPerson(monkeypatch, answer)
    try:
        target = ("--provider", "native", "--base-url", emulator.base_url("native"), "--expected-seconds", "0.2")
        ran = cli("generate", "a cat", *target)
    finally:
        shown = person.leave()
    assert "1 new charges, 0 known, 0 refused" in shown
    assert re.search(r"time +up to 1 s, a guess: no generation has settled here yet", shown)
    assert (ran.code, len(emulator.ledger)) == ((0, 1) if answer == "y\n" else (1, 0))


@pytest.mark.parametrize("more", [["--yes"], ["--dry-run"]])
def test_nothing_is_asked_where_the_answer_is_given(
    cli: CommandLine, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    """With --yes, and in a dry run."""
    source = cli.write("b.txt", "one\n")
    person = TypingPerson(monkeypatch, "")
    try:
        ran = cli.batch(emulator, source, *more)
    finally:
        shown = person.leave()
    assert (ran.code, "[y/N]" in shown, len(emulator.ledger)) == (0, False, more == ["--yes"])


def test_nothing_is_asked_if_nothing_is_charged(
    cli: CommandLine, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch whose jobs are all known runs without a question."""
    source = cli.write("b.txt", "one\n")
    assert cli.batch(emulator, source).code == 0
    person = TypingPerson(monkeypatch, "")
    try:
        ran = cli.batch(emulator, source)
    finally:
        shown = person.leave()
    assert (ran.code, "0 new charges, 1 known" in shown, "[y/N]" in shown) == (0, True, False)


def test_an_interrupt_at_the_question_sends_nothing(
    cli: CommandLine, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 130 and a sentence."""

    def interrupted(_: object, __: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("pika_async.cli.terminal.Terminal.can_ask", True)
    monkeypatch.setattr("pika_async.cli.terminal.Terminal.ask", interrupted)
    ran = cli.batch(emulator, cli.write("b.txt", "one\n"))
    assert (ran.code, "interrupted: nothing was sent" in ran.err, len(emulator.ledger)) == (130, True, 0)


def test_the_estimate_of_many_rows_is_one_line_of_json(cli: CommandLine) -> None:
    """Also with --json, a dry run prints nothing else on standard output."""
    source = cli.write("b.txt", "".join(f"prompt {number}\n" for number in range(2000)))
    ran = cli("batch", source, "--provider", "native", "--base-url", NOTHING_LISTENS, "--dry-run", "--json")
    assert (ran.code, ran.err, json.loads(ran.out)["new_charges"]) == (0, "", 2000)
