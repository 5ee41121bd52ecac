"""Going on: the same command again, edited inputs, `--again`, limits, stops, `resume`; the ledger is the judge."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from pika_async.emulator import Charge, Emulator
from pika_async.emulator.records import RequestLogEntry
from tests.cli.command_line import ENV, KEY, CommandLine, CommandResult, Rule, serving

#: How many submissions run side by side at most.
SIDE_BY_SIDE: Final = 8


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


def jsonl(*rows: str | tuple[str, str]) -> str:
    """Prompts, or keys and prompts, as JSON lines."""
    made = [{"prompt": row} if isinstance(row, str) else {"key": row[0], "prompt": row[1]} for row in rows]
    return "".join(json.dumps(row) + "\n" for row in made)


def charged(emulator: Emulator) -> Counter[str]:
    """How often each prompt was paid for."""
    return Counter(charge.prompt for charge in emulator.ledger)


def submissions(emulator: Emulator) -> list[RequestLogEntry]:
    return [seen for seen in emulator.requests if seen.method == "POST" and "/feed" not in seen.path]


def stands(cli: CommandLine, out: str = "pika-out") -> dict[str, str]:
    """The status of each job by its key; every job has one line in `results.jsonl`."""
    records = cli.results(out)
    assert len({record["key"] for record in records}) == len(records)
    return {record["key"]: record["status"] for record in records}


def at_rest_in_flight(cli: CommandLine, emulator: Emulator, source: str, *more: str) -> CommandResult:
    """A batch whose first look is refused with a 401, so that its jobs stay accepted; see `REFUSED_LOOK`."""
    ran = cli.batch(emulator, source, *more)
    assert ran.code == 3
    return ran


REFUSED_LOOK: Final[Rule] = {"on": "feed", "first": 1, "do": {"fault": "refuse", "as": "key"}}


# --- the same command -------------------------------------------------------------------------------------------------


def test_the_same_command_again_asks_nobody_anything(cli: CommandLine) -> None:
    """All is done: exit code 0, no call, no download; the same lines in file and output, and the page is made anew."""
    with serving() as emulator:
        source = cli.write("b.txt", "a\nb\nc")
        assert cli.batch(emulator, source).code == 0
        before = sorted(cli.results(), key=lambda record: str(record["key"]))
        calls = len(emulator.requests), len(emulator.cdn_requests)
        page = cli.folder / "pika-out" / "index.html"
        page.unlink()
        ran = cli.batch(emulator, source, "--json")
        assert (ran.code, (len(emulator.requests), len(emulator.cdn_requests))) == (0, calls)
        for records in (cli.results(), ran.records):
            assert sorted(records, key=lambda record: str(record["key"])) == before
        assert page.is_file()
        assert charged(emulator) == Counter("abc")


def test_a_deleted_video_is_fetched_again_and_not_paid_again(cli: CommandLine) -> None:
    """Only that one is fetched, without a call to the gateway."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        cli.batch(emulator, source)
        gone = cli.folder / "pika-out" / "videos" / "a.mp4"
        content = gone.read_bytes()
        gone.unlink()
        calls, fetched = len(emulator.requests), len(emulator.cdn_requests)
        assert cli.batch(emulator, source).code == 0
        assert (gone.read_bytes(), len(emulator.requests), len(emulator.cdn_requests)) == (content, calls, fetched + 1)


@pytest.mark.parametrize("command", ["batch", "resume"])
def test_an_address_that_has_expired_costs_one_look(cli: CommandLine, command: str) -> None:
    """A fresh address is asked for once, and the video fetched from it."""
    with serving({"on": "cdn", "nth": 2, "do": "expired"}) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        cli.batch(emulator, source)
        gone = cli.folder / "pika-out" / "videos" / "a.mp4"
        gone.unlink()
        calls = len(emulator.requests)
        ran = cli.batch(emulator, source) if command == "batch" else cli("resume", "pika-out")
        later = list(emulator.requests)[calls:]
        assert (ran.code, gone.is_file(), [seen.method for seen in later]) == (0, True, ["GET"])
        assert charged(emulator) == Counter("a")


def test_a_file_that_was_put_in_the_place_of_a_video_stays(cli: CommandLine) -> None:
    """It is not overwritten, the job says so, nothing is paid again; once it is gone the video is fetched."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        cli.batch(emulator, source, "--no-download")
        mine = cli.folder / "pika-out" / "videos" / "a.mp4"
        mine.parent.mkdir()
        mine.write_text("mine")
        ran = cli.batch(emulator, source)
        assert (ran.code, mine.read_text(), stands(cli)) == (1, "mine", {"a": "succeeded"})
        assert cli.results()[0]["error"]["type"] == "DownloadFailed"
        mine.unlink()
        assert cli.batch(emulator, source).code == 0
        assert (mine.read_bytes()[4:8], charged(emulator)) == (b"ftyp", Counter("a"))


# --- edits ------------------------------------------------------------------------------------------------------------


def test_rows_are_known_wherever_they_stand(cli: CommandLine) -> None:
    """Reordered, with a row inserted on top, one removed, one edited: only what is new is paid for."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.txt", "a\nb\nc\nd"), "--no-download")
        first = {record["prompt"]: record["key"] for record in cli.results()}
        ran = cli.batch(emulator, cli.write("b.txt", "new\nd\nc, edited\na\nb"), "--no-download")
        assert ran.code == 0
        assert charged(emulator) == Counter(["a", "b", "c", "d", "new", "c, edited"])
        records = {record["prompt"]: record for record in cli.results()}
        assert {prompt: records[prompt]["key"] for prompt in "abcd"} == first
        assert [records[prompt]["index"] for prompt in ("new", "d", "c, edited", "a", "b")] == [0, 1, 2, 3, 4]
        assert "5 jobs: 5 succeeded" in ran.out
        assert "1 jobs of an earlier input are not in this one and were left as they are" in ran.out
        assert len(stands(cli)) == 6


def test_equal_rows_are_as_many_jobs(cli: CommandLine) -> None:
    """Three equal rows where two are known: one new charge; fewer rows again: none, and the third is left as it is."""
    with serving() as emulator:
        for rows, paid in ((2, 2), (3, 3), (1, 3), (3, 3)):
            assert cli.batch(emulator, cli.write("b.txt", "same\n" * rows), "--no-download").code == 0
            assert (len(emulator.ledger), len(stands(cli))) == (paid, paid)


def test_the_form_of_the_input_does_not_matter(cli: CommandLine) -> None:
    """The same content as text, JSON lines and CSV is the same job."""
    with serving() as emulator:
        for name, content in (
            ("b.txt", "a cat\na dog"), ("b.jsonl", jsonl("a dog", "a cat")), ("b.csv", "prompt,seed\na cat,\na dog,\n"),
        ):  # fmt: skip
            assert cli.batch(emulator, cli.write(name, content), "--no-download").code == 0
        assert charged(emulator) == Counter(["a cat", "a dog"])


def test_a_row_that_names_its_job_does_not_stand_for_an_equal_one(cli: CommandLine) -> None:
    """A key copied from the results beside the same prompt without a key: two rows, two jobs, in either order."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.txt", "a"), "--no-download")
        [record] = cli.results()
        named = (str(record["key"]), "a")
        for content in (jsonl(named, "a"), jsonl("a", named)):
            ran = cli.batch(emulator, cli.write("b.jsonl", content), "--no-download")
            assert (ran.code, len(emulator.ledger), len(stands(cli))) == (0, 2, 2)


def test_a_key_with_another_content_is_refused_before_anything_is_sent(cli: CommandLine) -> None:
    """Exit code 2 with the line, the key and the way out; the other rows are not sent either."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        cli.batch(emulator, source, "--no-download")
        before = cli.results()
        calls = len(emulator.requests)
        ran = cli.batch(emulator, cli.write("b.jsonl", jsonl(("a", "a"), ("new", "n"), ("b", "edited"))))
        assert (ran.code, len(emulator.requests), cli.results()) == (2, calls, before)
        assert "b.jsonl:3: key: 'b' belongs to a job with other content (succeeded)" in ran.err
        assert "--again b" in ran.err
        assert "nothing was sent" in ran.err
        assert len(cli("status", "pika-out", "--json").records) == 2


# --- again ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["pika-out", "deep/../other out"])
def test_again_pays_exactly_once_more(cli: CommandLine, out: str) -> None:
    """The earlier job and its file stay, as KEY~1 and so on; the same command without it pays nothing."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        for more in ((), ("--again", "a"), (), ("--again", "a", "--again", "a"), ()):
            assert cli.batch(emulator, source, "--out", out, *more).code == 0
        ids = [charge.task_id for charge in emulator.ledger if charge.prompt == "a"]
        assert charged(emulator) == Counter({"a": 3, "b": 1})
        records = {record["key"]: record for record in cli.results(out)}
        assert [records[key]["task_id"] for key in ("a~1", "a~2", "a")] == ids
        assert [records[key]["file"] for key in ("a~1", "a~2", "a")] == [
            "videos/a~1.mp4", "videos/a~2.mp4", "videos/a.mp4"
        ]  # fmt: skip
        videos = cli.folder / out / "videos"
        assert sorted(path.name for path in videos.iterdir()) == ["a.mp4", "a~1.mp4", "a~2.mp4", "b.mp4"]
        assert len(emulator.cdn_requests) == 4
        assert cli("resume", out).code == 0
        assert len(emulator.requests) == 8


def test_again_with_a_new_content(cli: CommandLine) -> None:
    """The key is the new content's from then on."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.jsonl", jsonl(("a", "old"))), "--no-download")
        source = cli.write("b.jsonl", jsonl(("a", "new")))
        assert cli.batch(emulator, source, "--no-download", "--again", "a").code == 0
        assert cli.batch(emulator, source, "--no-download").code == 0
        assert charged(emulator) == Counter(["old", "new"])
        assert {record["key"]: record["prompt"] for record in cli.results()} == {"a~1": "old", "a": "new"}


def test_again_for_a_job_that_failed(cli: CommandLine) -> None:
    """Failed and refused jobs are left alone by the same command; `--again` is the way to try them once more."""
    rules = (
        {"on": "create", "prompt": "fails", "nth": 1, "do": "fails"},
        {"on": "create", "prompt": "refused", "nth": 1, "do": {"fault": "refuse", "as": "invalid"}},
    )
    with serving(*rules) as emulator:
        source = cli.write("b.jsonl", jsonl(("f", "fails"), ("r", "refused")))
        for _ in range(2):
            assert cli.batch(emulator, source, "--no-download").code == 1
            assert len(submissions(emulator)) == 2
        assert cli.batch(emulator, source, "--no-download", "--again", "f", "--again", "r").code == 0
        assert charged(emulator) == Counter({"fails": 2, "refused": 1})
        assert stands(cli) == {"f~1": "failed", "r~1": "rejected", "f": "succeeded", "r": "succeeded"}


def test_again_of_a_key_that_is_not_in_the_input(cli: CommandLine) -> None:
    """Exit code 2, nothing sent; of one that is in the input and new: it is paid once, as without."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        for key in ("b", "a~1", "", "\x1b[2J"):
            ran = cli.batch(emulator, source, "--again", key)
            assert (ran.code, len(emulator.requests)) == (2, 0)
            assert "--again" in ran.err
            assert "\x1b" not in ran.err
        assert cli.batch(emulator, source, "--again", "a").code == 0
        assert (charged(emulator), stands(cli)) == (Counter("a"), {"a": "succeeded"})


def test_again_of_a_job_in_flight_goes_on_with_it(cli: CommandLine) -> None:
    """It is refused, said, and the job is followed to its end; one charge."""
    with serving(REFUSED_LOOK) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        at_rest_in_flight(cli, emulator, source)
        ran = cli.batch(emulator, source, "--again", "a")
        assert (ran.code, stands(cli), charged(emulator)) == (0, {"a": "succeeded"}, Counter("a"))
        assert "'a' must be finished before it is paid again; wait for it" in ran.err


def test_again_with_a_new_content_for_a_job_in_flight_sends_nothing(cli: CommandLine) -> None:
    """Exit code 2 naming the row, before any other row is sent."""
    with serving(REFUSED_LOOK) as emulator:
        at_rest_in_flight(cli, emulator, cli.write("b.jsonl", jsonl(("a", "a"))))
        calls = len(emulator.requests)
        ran = cli.batch(emulator, cli.write("b.jsonl", jsonl("new", ("a", "edited"))), "--again", "a")
        assert (ran.code, len(emulator.requests)) == (2, calls)
        assert "b.jsonl:2: key: 'a' belongs to a job in flight with other content" in ran.err


def test_again_of_a_job_that_was_never_sent_pays_once(cli: CommandLine) -> None:
    """There is no earlier job of it, and nothing is left to go on with."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        cli.batch(emulator, source, "--no-download", "--max-charges", "1", "--max-in-flight", "1")
        assert stands(cli) == {"a": "succeeded", "b": "planned"}
        ran = cli.batch(emulator, source, "--no-download", "--again", "b", "--max-charges", "2")
        assert (ran.code, charged(emulator)) == (0, Counter("ab"))
        assert stands(cli) == {"a": "succeeded", "b": "succeeded"}
        assert "to go on" not in cli("status", "pika-out").out


def test_again_does_not_write_over_a_file(cli: CommandLine) -> None:
    """Where the earlier video's new name is taken: exit code 2, nothing is sent, both files stay."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        cli.batch(emulator, source)
        videos = cli.folder / "pika-out" / "videos"
        (videos / "a~1.mp4").write_text("mine")
        calls = len(emulator.requests)
        ran = cli.batch(emulator, source, "--again", "a")
        assert (ran.code, len(emulator.requests), (videos / "a~1.mp4").read_text()) == (2, calls, "mine")
        assert "--again a: " in ran.err
        assert "which exists already; remove one of them; nothing was sent" in ran.err
        assert cli.batch(emulator, source).code == 0
        assert charged(emulator) == Counter("a")


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_limit_of_charges_holds_over_all_commands(cli: CommandLine) -> None:
    """The rest stays planned and the exit code is not 0; whoever says no limit holds to it; raising it goes on."""
    with serving() as emulator:
        source = cli.write("b.txt", "a\nb\nc\nd\ne")
        first = cli.batch(emulator, source, "--no-download", "--max-charges", "2")
        same = cli.batch(emulator, source, "--no-download", "--max-charges", "2")
        unsaid = cli.batch(emulator, source, "--no-download")
        resumed = cli("resume", "pika-out")
        for ran in (first, same, unsaid, resumed):
            assert ran.code == 1
            assert "the limit of 2 charges is reached; raise it to send the rest" in ran.err
        assert (len(emulator.ledger), Counter(stands(cli).values())) == (2, {"succeeded": 2, "planned": 3})
        assert "2 accepted or perhaps accepted, of 2 allowed" in cli("status", "pika-out").out
        assert cli("resume", "pika-out", "--max-charges", "4").code == 1
        assert cli("resume", "pika-out").code == 1
        assert len(emulator.ledger) == 4
        assert cli("resume", "pika-out", "--max-charges", "9").code == 0
        assert charged(emulator) == Counter("abcde")


def test_a_limit_of_no_charges_is_refused_and_lifts_none(cli: CommandLine) -> None:
    """0 is no limit that can be held to: exit code 2, and nothing is sent, in a new folder and in a known one."""
    with serving() as emulator:
        source = cli.write("b.txt", "a\nb")
        for sent in (0, 1, 1):
            ran = cli.batch(emulator, source, "--no-download", "--max-charges", "0")
            assert (ran.code, len(emulator.ledger)) == (2, sent)
            assert "--max-charges: 0 is no whole number from 1 up" in ran.err
            cli.batch(emulator, source, "--no-download", "--max-charges", "1")


def test_a_doubt_counts_as_a_charge(cli: CommandLine) -> None:
    """Also one that was given up, and one that another job took the place of."""
    with serving({"on": "create", "first": 2, "do": "drop"}) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b"), ("c", "c")))
        more = ("--no-download", "--max-charges", "2")
        assert cli.batch(emulator, source, *more).code == 1
        assert stands(cli) == {"a": "unknown", "b": "unknown", "c": "planned"}
        assert cli("resolve", "pika-out", "a", "--abandon").code == 0
        assert cli.batch(emulator, source, *more, "--again", "b").code == 1
        assert stands(cli) == {"a": "canceled", "b~1": "unknown", "b": "planned", "c": "planned"}
        assert len(emulator.ledger) == 2
        assert cli("resolve", "pika-out", "b~1", "--not-charged").code == 0
        assert cli("resume", "pika-out").code == 1
        assert len(emulator.ledger) == 3


def test_one_at_a_time_stays_so(cli: CommandLine) -> None:
    """`--max-in-flight` holds in `resume` too, unless it is said anew."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.txt", "a\nb\nc\nd"), "--no-download", "--max-in-flight", "1", "--max-charges",
                  "2")  # fmt: skip
        assert cli("resume", "pika-out", "--max-charges", "9").code == 0
        ledger = sorted(emulator.ledger, key=lambda charge: charge.charged_at)
        assert all(one.settles_at <= following.charged_at for one, following in itertools.pairwise(ledger))
        assert charged(emulator) == Counter("abcd")


# --- a stopped account ------------------------------------------------------------------------------------------------

STOPS: Final[dict[str, Rule]] = {
    "key": {"fault": "refuse", "as": "key"},
    "quota": {"fault": "refuse", "as": "quota"},
    "402": {"fault": "answer", "status": 402, "body": "payment required"},
    "403": {"fault": "answer", "status": 403, "body": {"error": {"message": "forbidden"}}},
}


@pytest.mark.parametrize(
    ("stop", "command"), [("key", "batch"), ("quota", "resume"), ("402", "resume"), ("403", "batch")]
)
def test_a_stopped_account_fails_no_job(cli: CommandLine, stop: str, command: str) -> None:
    """Exit code 3, at most as many calls more as were under way; once it is mended all goes on, one charge each."""
    prompts = [f"{number} {'marked' if number % 3 == 2 else ''}" for number in range(12)]
    with serving({"on": "create", "prompt": "marked", "first": 2, "do": STOPS[stop]}) as emulator:
        source = cli.write("b.txt", "\n".join(prompts))
        ran = cli.batch(emulator, source, "--no-download")
        stopped = 0
        while ran.code == 3:
            stopped += 1
            assert set(stands(cli).values()) <= {"planned", "succeeded", "queued", "running"}
            assert "the account is stopped" in ran.err
            seen = [seen.status for seen in submissions(emulator)]
            assert len(seen) - seen.index(next(status for status in seen if status != 200)) <= SIDE_BY_SIDE * stopped
            ran = cli.batch(emulator, source, "--no-download") if command == "batch" else cli("resume", "pika-out")
        assert (ran.code, 1 <= stopped <= 2) == (0, True)
        assert charged(emulator) == Counter(prompt.strip() for prompt in prompts)


@pytest.mark.parametrize("command", ["batch", "resume"])
def test_an_account_that_is_stopped_while_jobs_are_awaited(cli: CommandLine, command: str) -> None:
    """A refused look parks what was accepted and what was not sent; both go on later."""
    with serving(REFUSED_LOOK) as emulator:
        source = cli.write("b.txt", "a\nb\nc")
        at_rest_in_flight(cli, emulator, source, "--max-in-flight", "1")
        assert sorted(stands(cli).values()) == ["planned", "planned", "queued"]
        assert "to go on: pika-async resume pika-out" in cli("status", "pika-out").out
        ran = cli.batch(emulator, source) if command == "batch" else cli("resume", "pika-out")
        assert (ran.code, charged(emulator)) == (0, Counter("abc"))


# --- resume -----------------------------------------------------------------------------------------------------------


def two_gateways(cli: CommandLine, emulator: Emulator) -> None:
    """Two batches at two providers in one folder; of each, one job is accepted and not settled, one was not sent."""
    for provider, limit in (("native", "1"), ("cometapi", "2")):
        source = cli.write(f"{provider}.txt", f"{provider} 1\n{provider} 2")
        ran = cli.batch(
            emulator, source, "--deadline", "0.2", "--max-in-flight", "1", "--max-charges", limit, provider=provider
        )
        assert ran.code == 1


def test_resume_asks_each_job_where_it_was_accepted(cli: CommandLine) -> None:
    """Accepted jobs of two providers are followed, the others sent, all fetched; each has its line as it now stands."""
    with serving({"on": "create", "nth": [1, 2], "do": {"fault": "takes", "seconds": 0.9}}) as emulator:
        two_gateways(cli, emulator)
        assert Counter(stands(cli).values()) == {"timed_out": 2, "planned": 2}
        ran = cli("resume", "pika-out", "--deadline", "20", "--max-charges", "9", "--json")
        assert ran.code == 0
        assert charged(emulator) == Counter(["native 1", "native 2", "cometapi 1", "cometapi 2"])
        assert {charge.prompt.split()[0] == charge.provider for charge in emulator.ledger} == {True}
        assert emulator.refusals == []
        assert set(stands(cli).values()) == {"succeeded"}
        assert sorted(record["index"] for record in cli.results()) == [0, 1, 2, 3]
        assert {record["key"]: record["status"] for record in ran.records} == stands(cli)
        assert len(list((cli.folder / "pika-out" / "videos").iterdir())) == 4


def test_resume_needs_every_key_before_it_sends_anything(cli: CommandLine) -> None:
    """Exit code 2 with the variable's name; one key file for two providers would show one's key to the other."""
    with serving({"on": "create", "nth": [1, 2], "do": {"fault": "takes", "seconds": 0.9}}) as emulator:
        two_gateways(cli, emulator)
        calls = len(emulator.requests)
        ran = cli("resume", "pika-out", "--api-key-file", cli.write("key", KEY))
        assert (ran.code, "PIKA_API_KEY, COMETAPI_API_KEY" in ran.err) == (2, True)
        cli.monkeypatch.delenv(ENV["cometapi"])
        ran = cli("resume", "pika-out")
        assert (ran.code, ENV["cometapi"] in ran.err) == (2, True)
        assert len(emulator.requests) == calls


def test_resume_with_a_wrong_key(cli: CommandLine) -> None:
    """Exit code 3, and nothing is failed; where nothing is left to do the key is not needed to be good."""
    with serving(REFUSED_LOOK) as emulator:
        at_rest_in_flight(cli, emulator, cli.write("b.txt", "a"))
        cli.monkeypatch.setenv(ENV["native"], "wrong")
        assert (cli("resume", "pika-out").code, list(stands(cli).values())) == (3, ["queued"])
        assert cli("resume", "pika-out", "--api-key-file", cli.write("key", KEY)).code == 0
        assert cli("resume", "pika-out").code == 0
        assert charged(emulator) == Counter("a")


def test_a_stopped_account_of_one_gateway_does_not_stop_the_other(cli: CommandLine) -> None:
    """The other's jobs are followed and sent; the exit code says that one account is stopped, whatever came after."""
    with serving({"on": "create", "nth": [1, 2], "do": {"fault": "takes", "seconds": 0.9}}) as emulator:
        two_gateways(cli, emulator)
        cli.monkeypatch.setenv(ENV["native"], "wrong")
        ran = cli("resume", "pika-out", "--deadline", "20", "--max-charges", "2")
        assert (ran.code, "the account is stopped" in ran.err) == (3, True)
        assert Counter((record["provider"], record["status"]) for record in cli.results()) == Counter(
            [("native", "queued"), ("native", "planned"), ("cometapi", "succeeded"), ("cometapi", "planned")]
        )
        cli.monkeypatch.setenv(ENV["native"], KEY)
        assert cli("resume", "pika-out", "--max-charges", "9").code == 0
        assert len(emulator.ledger) == 4


def test_an_interrupted_resume_has_a_line_for_the_jobs_of_every_gateway(cli: CommandLine) -> None:
    """Ctrl-C while the first one's are followed: exit code 130, and the second one's are not forgotten."""
    with serving({"on": "create", "nth": [1, 2], "do": {"fault": "takes", "seconds": 60}}) as emulator:
        two_gateways(cli, emulator)
        before, looks = stands(cli), emulator.polls.total

        def interrupt() -> None:
            while emulator.polls.total == looks:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        ran = cli("resume", "pika-out", "--deadline", "30", "--json")
        thread.join()
        assert (ran.code, set(stands(cli)), len(ran.records)) == (130, set(before), 4)
        assert "to go on: pika-async resume pika-out" in ran.err
        assert "earlier input" not in ran.err
        assert len(emulator.ledger) == 2


def test_what_was_accepted_elsewhere_is_neither_asked_nor_paid_here(cli: CommandLine) -> None:
    """The same rows at another provider: those that were not sent go there, the others say where they are."""
    with serving({"on": "create", "nth": 1, "do": {"fault": "takes", "seconds": 0.9}}) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        first = ("--deadline", "0.2", "--max-in-flight", "1", "--max-charges", "1")
        assert cli.batch(emulator, source, *first).code == 1
        ran = cli.batch(emulator, source, "--max-charges", "2", provider="cometapi")
        assert (ran.code, stands(cli)) == (1, {"a": "timed_out", "b": "succeeded"})
        assert f"accepted at {emulator.base_url('native')}, which is not this client's base URL" in ran.err
        assert "to go on: pika-async resume pika-out" in ran.err
        assert (charged(emulator), emulator.refusals) == (Counter("ab"), [])
        assert cli("resume", "pika-out").code == 0
        assert [charge.provider for charge in emulator.ledger] == ["native", "cometapi"]
        assert len(emulator.ledger) == 2


def test_resume_fetches_what_is_ready(cli: CommandLine) -> None:
    """A video that could not be fetched is fetched, nothing is paid."""
    with serving({"on": "cdn", "first": 2, "do": {"fault": "answer", "status": 410}}) as emulator:
        assert cli.batch(emulator, cli.write("b.txt", "a")).code == 1
        assert cli.results()[0]["error"]["type"] == "DownloadFailed"
        assert cli("resume", "pika-out").code == 0
        assert (cli.results()[0]["error"], charged(emulator)) == (None, Counter("a"))


def test_resume_holds_to_what_the_batch_was_told(cli: CommandLine) -> None:
    """No downloads and leniency are remembered; what is said anew counts from then on."""
    bare = {"on": "create", "prompt": "b", "do": {"fault": "answer", "status": 503}}
    with serving({**bare, "nth": [1, 3]}) as emulator:
        more = ("--no-download", "--ambiguous", "lenient", "--max-charges", "1", "--max-in-flight", "1")
        cli.batch(emulator, cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b"), ("c", "b again"))), *more)
        assert cli("resume", "pika-out", "--max-charges", "2").code == 1
        assert charged(emulator) == Counter("ab")
        assert not (cli.folder / "pika-out" / "videos").exists()
        ran = cli("resume", "pika-out", "--max-charges", "9", "--download", "--ambiguous", "strict")
        assert (ran.code, stands(cli)) == (1, {"a": "succeeded", "b": "succeeded", "c": "unknown"})
        (cli.folder / "pika-out" / "videos" / "a.mp4").unlink()
        cli("resume", "pika-out")
        assert sorted(path.name for path in (cli.folder / "pika-out" / "videos").iterdir()) == ["a.mp4", "b.mp4"]


def test_the_folder_may_be_moved(cli: CommandLine) -> None:
    """Renamed, and called from elsewhere: what is there is not fetched again, the rest goes on."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        cli.batch(emulator, source, "--max-charges", "1", "--max-in-flight", "1")
        elsewhere = cli.folder / "else where"
        elsewhere.mkdir()
        (cli.folder / "pika-out").rename(cli.folder / "it's moved")
        cli.monkeypatch.chdir(elsewhere)
        assert cli("resume", "../it's moved", "--max-charges", "9").code == 0
        assert charged(emulator) == Counter("ab")
        assert len(emulator.cdn_requests) == 2
        records = cli.results("it's moved")
        assert sorted(record["file"] for record in records) == ["videos/a.mp4", "videos/b.mp4"]
        assert list(elsewhere.iterdir()) == []


def test_a_picture_that_is_not_found_from_here_refuses_no_job(cli: CommandLine) -> None:
    """Called from elsewhere, where a relative path leads nowhere: exit code 2, nothing is sent, the job can go on."""
    with serving({"on": "create", "first": 1, "do": {"fault": "refuse", "as": "key"}}) as emulator:
        cli.write("a.png", b"\x89PNG tiny")
        source = cli.write("b.csv", "key,prompt,image\na,with a picture,a.png\n")
        assert cli.batch(emulator, source, "--no-download").code == 3
        calls = len(emulator.requests)
        (cli.folder / "elsewhere").mkdir()
        cli.monkeypatch.chdir(cli.folder / "elsewhere")
        ran = cli("resume", "../pika-out")
        assert (ran.code, len(emulator.requests), stands(cli)) == (2, calls, {"a": "planned"})
        assert "job a: image: 'a.png' is no file" in ran.err
        cli.monkeypatch.chdir(cli.folder)
        assert (cli("resume", "pika-out").code, len(emulator.ledger)) == (0, 1)


def test_a_folder_beside_is_found_again_from_everywhere(cli: CommandLine) -> None:
    """A video's place does not hang on where the command was called: it is neither fetched nor looked for anew."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.jsonl", jsonl(("a", "a"))))
        cli.monkeypatch.chdir("/")
        [record] = cli("status", str(cli.folder / "pika-out"), "--json").records
        assert (record["file"], record["status"]) == ("videos/a.mp4", "succeeded")
        with contextlib.closing(sqlite3.connect(cli.folder / "pika-out" / "journal.db")) as connection:
            assert connection.execute("SELECT file FROM jobs").fetchall() == [("videos/a.mp4",)]


@pytest.mark.parametrize("command", [("resume",), ("status",), ("resolve", "a", "--abandon")])
def test_a_folder_that_is_no_batchs(cli: CommandLine, command: tuple[str, ...]) -> None:
    """Missing, empty, or a file: exit code 2 with a sentence, and nothing is made there."""
    (cli.folder / "empty").mkdir()
    cli.write("file", "text")
    for name in ("nowhere", "empty", "file", "odd\x1b[2J"):
        ran = cli(command[0], name, *command[1:])
        assert (ran.code, "give the --out folder of a batch" in ran.err) == (2, True)
        assert "\x1b" not in ran.err
    assert sorted(path.name for path in cli.folder.rglob("*")) == ["empty", "file"]


# --- the journal ------------------------------------------------------------------------------------------------------


def _text(journal: Path) -> None:
    journal.write_text("no journal at all, but something that somebody needs\n" * 20)


def _newer(journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _torn(journal: Path) -> None:
    content = journal.read_bytes()
    journal.write_bytes(content[: len(content) // 2])


def _record(journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE requests SET request = 'nonsense'")


def _limits(journal: Path) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("UPDATE settings SET value = '{\"ambiguous\": \"some other way\"}' WHERE name = 'terms'")


def _folder(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


DAMAGES: Final[dict[str, tuple[Callable[[Path], None], str, bool]]] = {
    "text": (_text, "is not a journal of pika_async", True),
    "newer": (_newer, "newer pika_async", True),
    "torn": (_torn, "damaged", True),
    "a-record": (_record, "holds a record of job 'a' that cannot be read", True),
    "limits": (_limits, "holds limits that cannot be read", False),
    "folder": (_folder, "journal.db", True),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_that_cannot_be_used(cli: CommandLine, damage: str) -> None:
    """Exit code 2, a sentence, nothing sent, and the file is left as it is."""
    harm, words, stops_batch = DAMAGES[damage]
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        cli.batch(emulator, source, "--no-download")
        journal = cli.folder / "pika-out" / "journal.db"
        harm(journal)
        before = journal.read_bytes() if journal.is_file() else None
        calls = len(emulator.requests)
        rans = [cli("resume", "pika-out"), cli("status", "pika-out")]
        if stops_batch:
            rans += [cli.batch(emulator, source, "--no-download"), cli("resolve", "pika-out", "a", "--abandon")]
        assert [ran.code for ran in rans] == [2] * len(rans)
        assert all(ran.err.startswith("error: ") and "journal.db" in ran.err for ran in rans)
        assert sum(words in ran.err for ran in rans) >= len(rans) - 1
        assert len(emulator.requests) == calls
        assert (journal.read_bytes() if journal.is_file() else None) == before


def test_a_journal_that_is_gone_is_not_begun_anew_over_what_was_paid(cli: CommandLine) -> None:
    """Results without a journal: exit code 2, nothing is sent, nothing is overwritten."""
    with serving() as emulator:
        source = cli.write("b.txt", "a")
        cli.batch(emulator, source)
        (cli.folder / "pika-out" / "journal.db").unlink()
        before = cli.results()
        ran = cli.batch(emulator, source)
        assert (ran.code, "is there already and is not overwritten" in ran.err) == (2, True)
        assert (cli.results(), charged(emulator)) == (before, Counter("a"))


def test_a_folder_in_use(cli: CommandLine) -> None:
    """By another process: exit code 2 with its number, nothing sent; `status` works all the same."""
    with serving() as emulator:
        source = cli.write("b.txt", "a\nb")
        cli.batch(emulator, source, "--max-charges", "1", "--no-download")
        calls = len(emulator.requests)
        lock = os.open(cli.folder / "pika-out" / "journal.db.lock", os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.ftruncate(lock, 0)
            os.pwrite(lock, b"4711\n", 0)
            before = cli.results()
            for ran in (
                cli.batch(emulator, source, "--no-download"), cli("resume", "pika-out"),
                cli("resolve", "pika-out", "a", "--not-charged"),
            ):  # fmt: skip
                assert (ran.code, "is in use by process 4711" in ran.err) == (2, True)
            assert cli("status", "pika-out").code == 0
            assert (len(emulator.requests), cli.results()) == (calls, before)
        finally:
            os.close(lock)
        assert cli("resume", "pika-out", "--max-charges", "9").code == 0
        assert charged(emulator) == Counter("ab")


READ_ONLY: Final = """
import os, sys
from pathlib import Path
from pika_async.__main__ import main
folder = Path(sys.argv[1])
main(["status", str(folder)])  # what is loaded late is loaded now: the next user may not read it
for path in folder.iterdir():
    path.chmod(0o444)
folder.chmod(0o555)
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
print("code", main(["status", str(folder)]))
print("code", main(["resume", str(folder)]))
to = ["--provider", "native", "--base-url", "http://127.0.0.1:9", "--out", str(folder)]
print("code", main(["batch", sys.argv[2], *to]))
"""


def test_a_folder_that_may_only_be_read(cli: CommandLine) -> None:
    """`status` tells what is there; whatever would send says why it cannot, and does not."""
    with serving() as emulator, tempfile.TemporaryDirectory() as public:
        source = cli.write("b.txt", "a\nb")
        cli.batch(emulator, source, "--max-charges", "1", "--max-in-flight", "1", "--no-download")
        calls = len(emulator.requests)
        Path(public).chmod(0o755)
        folder = Path(public) / "out"
        shutil.copytree(cli.folder / "pika-out", folder)
        shutil.copy(cli.folder / source, public)
        ran = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(folder), str(Path(public) / source)],
            capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        folder.chmod(0o755)
        assert re.findall("^code (.)", ran.stdout, re.MULTILINE) == ["0", "2", "2"], ran.stderr
        assert "charges: 1 accepted or perhaps accepted, of 1 allowed" in ran.stdout
        assert ran.stderr.count("error: ") == 2
        assert "Traceback" not in ran.stderr
        assert len(emulator.requests) == calls


def test_two_commands_agree_on_the_charges(cli: CommandLine) -> None:
    """Whatever was done in between, the journal's receipts are the ledger's."""
    with serving({"on": "create", "nth": 2, "do": "drop"}, {"on": "create", "nth": 3, "do": "fails"}) as emulator:
        source = cli.write("b.txt", "a\nb\nc\nd")
        for limit in ("1", "3", "9"):
            cli.batch(emulator, source, "--no-download", "--max-charges", limit, "--max-in-flight", "1")
        receipts = {record["task_id"] for record in cli.results()} - {None}
        lost: list[Charge] = [charge for charge in emulator.ledger if charge.task_id not in receipts]
        assert (len(emulator.ledger), len(lost)) == (4, 1)
        assert Counter(stands(cli).values()) == {"succeeded": 2, "unknown": 1, "failed": 1}
