"""Texts that a person reads at a terminal: each fact once, no broken word, and the way out."""

from __future__ import annotations

import re
from typing import Final

import pytest

from pika_async.cli.exits import UsageError
from pika_async.cli.inputs import parse_input
from pika_async.cli.requests import check_rows, input_notes
from pika_async.cli.terminal import Terminal
from pika_async.errors import JournalFailed
from pika_async.providers import NATIVE
from tests.cli.command_line import CommandLine, on_a_terminal, serving, without_codes
from tests.cli.workbooks import by_openpyxl

LOST: Final = {"on": "create", "first": 2, "do": {"fault": "drop", "when": "before-reply"}}


def joined(text: str) -> str:
    """Return `text` with the lines that were wrapped at 80 columns as one line each."""
    return re.sub(r"(?<=: one,)\n    ", " ", text)


def faults_of(suffix: str, data: bytes) -> str:
    with pytest.raises(UsageError) as caught:
        check_rows(parse_input("f", suffix, data), NATIVE)
    return str(caught.value)


# --- the end of a batch -----------------------------------------------------------------------------------------------


def test_doubts_are_said_once_and_grouped_by_reason(cli: CommandLine) -> None:
    """On a terminal no log line repeats what the summary says; jobs with one reason share a line."""
    on_a_terminal(cli.monkeypatch)
    with serving(LOST) as emulator:
        source = cli.write("b.csv", "key,prompt\none,a\ntwo,b\nthree,c\n")
        ran = cli.batch(emulator, source, "--no-download", "--max-in-flight", "1")
    err = without_codes(ran.err)
    assert ran.code == 1
    assert "WARNING" not in err
    assert joined(err).count("the connection was closed") == 1
    assert re.search(r"^  2 x the connection was closed before an answer .*: one, two$", joined(err), re.MULTILINE), err


def test_a_log_on_a_pipe_or_of_another_level_holds_every_doubt(cli: CommandLine) -> None:
    """Only the default level on a terminal leaves out what the summary says."""
    with serving(LOST) as emulator:
        source = cli.write("b.csv", "key,prompt\none,a\ntwo,b\n")
        assert cli.batch(emulator, source, "--no-download").err.count("WARNING") == 2
    on_a_terminal(cli.monkeypatch)
    with serving(LOST) as emulator:
        ran = cli.batch(emulator, source, "--no-download", "--out", "other", "--log-level", "info")
        assert ran.err.count("WARNING") == 2


def test_a_stop_is_said_once(cli: CommandLine) -> None:
    """On a terminal the refused key is named by the summary alone."""
    on_a_terminal(cli.monkeypatch)
    refusal = {"fault": "answer", "status": 401, "body": "no such key"}
    with serving({"on": "create", "do": refusal}) as emulator:
        ran = cli.batch(emulator, cli.write("b.csv", "prompt\na\nb\n"))
    assert (ran.code, without_codes(ran.err).count("no such key")) == (3, 1)


def test_every_doubt_is_named(cli: CommandLine) -> None:
    """However many share a reason, the summary names the key of each."""
    with serving({**LOST, "first": 7}) as emulator:
        source = cli.write("b.csv", "key,prompt\n" + "".join(f"row-{n},cat {n}\n" for n in range(7)))
        ran = cli.batch(emulator, source, "--no-download", "--max-in-flight", "1", "--log-level", "error")
    [line] = [line for line in ran.err.splitlines() if line.startswith("  7 x ")]
    assert line.endswith(f": {', '.join(f'row-{n}' for n in range(7))}")


def test_many_doubts_are_grouped_by_status_too(cli: CommandLine) -> None:
    """Seven doubts of one reason are one example with each way out and every other key, not a paragraph for each."""
    with serving({**LOST, "first": 7}) as emulator:
        source = cli.write("b.csv", "key,prompt\n" + "".join(f"row-{n},cat {n}\n" for n in range(7)))
        summary = cli.batch(emulator, source, "--no-download", "--max-in-flight", "1", "--log-level", "error").err
    lines = cli("status", "pika-out").out.splitlines()
    assert "in doubt, possibly charged: 7; to list and resolve them: pika-async status pika-out" in summary.splitlines()
    assert "in doubt, possibly charged: 7" in lines
    assert f"  6 more for the same reason: {', '.join(f'row-{n}' for n in range(1, 7))}" in lines
    assert "  it was accepted:     pika-async resolve pika-out row-0 --task-id ID" in lines
    assert "to be asked about each in turn: pika-async resolve pika-out" in lines
    assert len(lines) < 20


@pytest.mark.parametrize("status", [400, 502])
def test_no_word_of_a_summary_is_broken(cli: CommandLine, status: int) -> None:
    """Prose is wrapped between words; a command stays on one line, so that it can be copied."""
    on_a_terminal(cli.monkeypatch)
    answer = {"fault": "answer", "status": status, "body": "words " * 20}
    folder = "a-folder-with-a-name-that-is-longer-than-others-and-makes-commands-long-too"
    with serving({"on": "create", "nth": 1, "do": answer}) as emulator:
        ran = cli.batch(emulator, cli.write("b.csv", "prompt,Owner\na,x\nb,y\n"), "--no-download", "--out", folder)
    status_of = cli("status", folder)
    lines = without_codes(ran.err + status_of.out).splitlines()
    long = [line for line in lines if len(line.rstrip()) > 80]
    assert all("pika-async " in line or len(line.split()[-1]) > 60 for line in long), long
    assert any(line.endswith(f"pika-async status {folder}") for line in lines) or status == 400


def test_jobs_that_timed_out_have_a_count_and_a_way_on(cli: CommandLine) -> None:
    """The summary and `status` say the same of them."""
    with serving(durations="constant:60") as emulator:
        source = cli.write("b.csv", "key,prompt\none,a\ntwo,b\n")
        ran = cli.batch(emulator, source, "--no-download", "--deadline", "0.3")
    assert ran.code == 1
    for text in (ran.err, cli("status", "pika-out").out):
        lines = text.splitlines()
        at = lines.index("timed out, the task ids are kept: 2")
        assert re.match(r"  2 x not settled within 0.3 s.*: one, two$", lines[at + 1])
        assert "to continue: pika-async resume pika-out" in lines


def test_a_command_without_room_has_a_line_of_its_own(cli: CommandLine) -> None:
    """It is whole, below the words before it; where there is room it stays behind them."""
    command = "pika-async retry clips --failed --new-seed"
    for columns, lines in (
        (90, [f"to pay for them again: {command}"]),
        (50, ["to pay for them again:", f"  {command}"]),
    ):
        on_a_terminal(cli.monkeypatch, columns)
        terminal = Terminal()
        terminal.show(f"to pay for them again: {command}\n  KEY=k {command} --more words --more words --more words")
        shown = without_codes(cli.capsys.readouterr().out).splitlines()
        assert shown == [*lines, f"  KEY=k {command} --more words --more words --more words"]


def test_a_preview_of_nothing_new_is_one_line(cli: CommandLine) -> None:
    """No blank line stands between it and the summary."""
    with serving() as emulator:
        source = cli.write("b.csv", "key,prompt\none,a\n")
        cli.batch(emulator, source, "--no-download")
        on_a_terminal(cli.monkeypatch)
        assert "\n\n" not in without_codes(cli.batch(emulator, source, "--no-download").err)


def test_a_job_that_was_paid_again_counts_once(cli: CommandLine) -> None:
    """The table of `status` has its earlier record in a row of its own."""
    fails = {"on": "create", "first": 1, "do": {"fault": "fails", "reason": "moderation"}}
    with serving(fails) as emulator:
        source = cli.write("b.csv", "key,prompt\none,a\n")
        cli.batch(emulator, source, "--no-download")
        assert cli("retry", "pika-out", "one", "--yes").code == 0
        status = cli("status", "pika-out").out
    assert status.splitlines()[0].rstrip() == "pika-out: 1 job"
    assert re.search(r"^ paid for again +1 ", status, re.MULTILINE)


def test_faults_of_an_input_are_wrapped_between_words(cli: CommandLine) -> None:
    """A fault of many rows takes several lines, none of them wider than the terminal."""
    on_a_terminal(cli.monkeypatch)
    source = cli.write("b.csv", "prompt,seed\n" + "".join(f"cat {n},abc{n}\n" for n in range(300)))
    ran = cli("estimate", source, "--provider", "native", "--base-url", "http://127.0.0.1:9/native")
    assert ran.code == 2
    assert max(len(line) for line in without_codes(ran.err).splitlines()) <= 80


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_mistyped_columns_name_the_fields_once(cli: CommandLine) -> None:
    """Each is followed by its suggestion; none is also said to be kept, and no row is blamed for it."""
    data = b"promt,sed,aspect,neg prompt,Owner\na cat,1,16:9,x,me\n"
    text = faults_of(".csv", data)
    assert text.count("guidance_scale") == 1
    for name in ("prompt", "seed", "aspect_ratio", "negative_prompt"):
        assert f"did you mean {name}?" in text
    assert "f:2" not in text
    assert list(input_notes(parse_input("f", ".csv", data))) == [
        "f: not fields of a request, kept as metadata: 'Owner'"
    ]


def test_a_title_above_the_columns_of_a_sheet_is_named() -> None:
    """The way out of a sheet is not that of a CSV file."""
    text = faults_of(".xlsx", by_openpyxl([["My campaign"], ["Prompt", "Effect"], ["a cat", "Melt"]]))
    assert "separator" not in text
    assert "delete the rows above the names of the columns" in text


@pytest.mark.parametrize("suffix", [".csv", ".txt", ".jsonl"])
def test_a_workbook_under_another_name_is_recognized(suffix: str) -> None:
    """Its text is not blamed for bytes that are not UTF-8."""
    text = faults_of(suffix, by_openpyxl([["Prompt"], ["a cat"]]))
    assert text == "f: is an .xlsx workbook under another name; rename it to end in .xlsx; nothing was sent"


@pytest.mark.parametrize("data", [b'prompt\n"a cat\nb\n', b'prompt,seed\n"a "big" cat",1\n'])
def test_a_broken_quote_has_a_way_out(data: bytes) -> None:
    """A row whose quotes do not match says how quotes are written."""
    assert 'close each quoted cell, and write " within one as ""' in faults_of(".csv", data)


# --- help, options, configuration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["batch", "estimate"])
def test_help_of_an_input_is_whole(cli: CommandLine, command: str) -> None:
    """The sign of a comment is not taken for a heading."""
    text = re.sub(r"[\s│]+", " ", cli(command, "--help").out)
    assert "lines that begin with # are comments), or -" in text


def test_a_value_other_than_a_number_is_said_in_plain_words(cli: CommandLine) -> None:
    """An option, a file and a variable name no type of Python."""
    assert '"x" must be a number' in cli("resume", "here", "--deadline", "x").err
    cli.write("pika-async.toml", 'deadline = "x"\n')
    assert cli("resume", "here").err == 'error: pika-async.toml: deadline: "x" must be a number\n'


def test_an_unknown_provider_is_named_by_what_was_typed(cli: CommandLine) -> None:
    """`providers` has an argument, not an option."""
    ran = cli("providers", "nope")
    assert (ran.code, ran.err) == (
        2,
        "error: NAME: 'nope' must be one of cometapi, yescale, gptge, native, pika, fal\n",
    )


def test_a_failed_journal_without_a_provider_has_no_empty_name() -> None:
    """The text begins with the journal where no client was open yet."""
    assert str(JournalFailed(provider="", path="j.db", reason="full")).startswith("the journal j.db")
    assert str(JournalFailed(provider="native", path="j.db", reason="full")).startswith("native: the journal j.db")
