"""Continuing a batch: the same command again, limits, stops, `resume`; checked by charges."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from typing import Final

import attrs
import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.emulator import Emulator
from pika_async.errors import JobCanceled
from pika_async.jobs import JobStatus
from tests.cli.batches import REFUSED_POLL, charged, jsonl, statuses, stop_while_in_flight, submissions
from tests.cli.command_line import ENV, KEY, CommandLine, Rule, serving
from tests.fakes.page_data import page_data
from tests.http.media_files import made

#: Most submissions that are sent at the same time.
MAX_CONCURRENT_SUBMITS: Final = 8


# --- the same command -------------------------------------------------------------------------------------------------


def test_the_same_command_again_sends_nothing(cli: CommandLine) -> None:
    """Exit code 0, no request and no download; file and output have the same lines, and the page is written again."""
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


def test_a_resume_with_nothing_to_do_leaves_the_page_whole(cli: CommandLine) -> None:
    """Where all jobs have ended, or are in doubt, no client is opened; the page has every job all the same."""
    with serving({"on": "create", "prompt": "b", "do": {"fault": "drop"}}) as emulator:
        assert cli.batch(emulator, cli.write("b.txt", "a\nb\nc")).code == 1
        before = page_data(cli.folder / "pika-out")["cards"]
        assert cli("resume", "pika-out").code == 1
        assert page_data(cli.folder / "pika-out")["cards"] == before
        assert sorted(card["status"] for card in before) == ["succeeded", "succeeded", "unknown"]


def test_a_deleted_video_is_downloaded_and_not_paid_again(cli: CommandLine) -> None:
    """Only the missing video is downloaded, without a request to the gateway."""
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
def test_an_expired_url_costs_one_poll(cli: CommandLine, command: str) -> None:
    """One poll gives a fresh URL, and the video is downloaded from it."""
    with serving({"on": "cdn", "nth": 2, "do": {"fault": "expired", "status": 410}}) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        cli.batch(emulator, source)
        gone = cli.folder / "pika-out" / "videos" / "a.mp4"
        gone.unlink()
        calls = len(emulator.requests)
        ran = cli.batch(emulator, source) if command == "batch" else cli("resume", "pika-out")
        later = list(emulator.requests)[calls:]
        assert (ran.code, gone.is_file(), [request.method for request in later]) == (0, True, ["GET"])
        assert charged(emulator) == Counter("a")


def test_a_foreign_file_in_place_of_a_video_is_kept(cli: CommandLine) -> None:
    """The job has an error, and nothing is paid again; once the file is gone the video is downloaded."""
    with serving() as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a")))
        cli.batch(emulator, source, "--no-download")
        mine = cli.folder / "pika-out" / "videos" / "a.mp4"
        mine.parent.mkdir()
        mine.write_text("mine")
        ran = cli.batch(emulator, source)
        assert (ran.code, mine.read_text(), statuses(cli)) == (1, "mine", {"a": "succeeded"})
        assert cli.results()[0]["error"]["type"] == "DownloadFailed"
        mine.unlink()
        assert cli.batch(emulator, source).code == 0
        assert (mine.read_bytes()[4:8], charged(emulator)) == (b"ftyp", Counter("a"))


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_limit_of_charges_holds_over_all_commands(cli: CommandLine) -> None:
    """The rest stays planned with exit code 1; commands without a limit keep it, and a higher one continues."""
    with serving() as emulator:
        source = cli.write("b.txt", "a\nb\nc\nd\ne")
        first = cli.batch(emulator, source, "--no-download", "--max-charges", "2")
        same = cli.batch(emulator, source, "--no-download", "--max-charges", "2")
        without_limit = cli.batch(emulator, source, "--no-download")
        resumed = cli("resume", "pika-out")
        for ran in (first, same, without_limit, resumed):
            assert ran.code == 1
            assert "the limit of 2 charges is reached; raise it to send the rest" in ran.err
        assert (len(emulator.ledger), Counter(statuses(cli).values())) == (2, {"succeeded": 2, "planned": 3})
        assert "2 accepted or possibly accepted, of 2 allowed" in cli("status", "pika-out").out
        assert cli("resume", "pika-out", "--max-charges", "4").code == 1
        assert cli("resume", "pika-out").code == 1
        assert len(emulator.ledger) == 4
        assert cli("resume", "pika-out", "--max-charges", "9").code == 0
        assert charged(emulator) == Counter("abcde")


def test_a_limit_of_0_charges_is_refused(cli: CommandLine) -> None:
    """Exit code 2, nothing is sent, and an earlier limit stays, in a new folder and in an existing one."""
    with serving() as emulator:
        source = cli.write("b.txt", "a\nb")
        for sent in (0, 1, 1):
            ran = cli.batch(emulator, source, "--no-download", "--max-charges", "0")
            assert (ran.code, len(emulator.ledger)) == (2, sent)
            assert "--max-charges: must be an integer >= 1, not 0" in ran.err
            cli.batch(emulator, source, "--no-download", "--max-charges", "1")


def test_a_job_in_doubt_counts_as_a_charge(cli: CommandLine) -> None:
    """This includes abandoned jobs, and jobs replaced with --again."""
    with serving({"on": "create", "first": 2, "do": "drop"}) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b"), ("c", "c")))
        more = ("--no-download", "--max-charges", "2")
        assert cli.batch(emulator, source, *more).code == 1
        assert statuses(cli) == {"a": "unknown", "b": "unknown", "c": "planned"}
        assert cli("resolve", "pika-out", "a", "--abandon").code == 0
        assert cli.batch(emulator, source, *more, "--again", "b").code == 1
        assert statuses(cli) == {"a": "canceled", "b~1": "unknown", "b": "planned", "c": "planned"}
        assert len(emulator.ledger) == 2
        assert cli("resolve", "pika-out", "b~1", "--not-charged").code == 0
        assert cli("resume", "pika-out").code == 1
        assert len(emulator.ledger) == 3


def test_resume_keeps_max_in_flight(cli: CommandLine) -> None:
    """With `--max-in-flight 1` no two generations overlap, in `resume` neither."""
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
    """Exit code 3, and only submissions already under way are still sent; later all continue, with one charge each."""
    prompts = [f"prompt {number}" for number in range(12)]
    with serving({"on": "create", "nth": [3, 4, 5, 6], "do": STOPS[stop]}) as emulator:
        source = cli.write("b.txt", "\n".join(prompts))
        ran = cli.batch(emulator, source, "--no-download")
        stopped = 0
        while ran.code == 3:
            stopped += 1
            assert set(statuses(cli).values()) <= {"planned", "succeeded", "queued", "running"}
            assert "the account is stopped" in ran.err
            sent = [request.status for request in submissions(emulator)]
            assert (
                len(sent) - sent.index(next(status for status in sent if status != 200))
                <= MAX_CONCURRENT_SUBMITS * stopped
            )
            ran = cli.batch(emulator, source, "--no-download") if command == "batch" else cli("resume", "pika-out")
        assert (ran.code, 1 <= stopped <= 3) == (0, True)
        assert charged(emulator) == Counter(prompts)


@pytest.mark.parametrize("command", ["batch", "resume"])
def test_an_account_stopped_by_a_poll_parks_its_jobs(cli: CommandLine, command: str) -> None:
    """A refused poll parks accepted and unsent jobs; both continue later."""
    with serving(REFUSED_POLL) as emulator:
        source = cli.write("b.txt", "a\nb\nc")
        stop_while_in_flight(cli, emulator, source, "--max-in-flight", "1")
        assert sorted(statuses(cli).values()) == ["planned", "planned", "queued"]
        assert "to continue: pika-async resume pika-out" in cli("status", "pika-out").out
        ran = cli.batch(emulator, source) if command == "batch" else cli("resume", "pika-out")
        assert (ran.code, charged(emulator)) == (0, Counter("abc"))


# --- resume -----------------------------------------------------------------------------------------------------------


def run_two_gateways(cli: CommandLine, emulator: Emulator) -> None:
    """Run two batches at two providers in one folder, each with one job accepted and one not sent."""
    for provider, limit in (("native", "1"), ("cometapi", "2")):
        source = cli.write(f"{provider}.txt", f"{provider} 1\n{provider} 2")
        ran = cli.batch(
            emulator, source, "--deadline", "0.2", "--max-in-flight", "1", "--max-charges", limit, provider=provider
        )
        assert ran.code == 1


def test_resume_polls_each_job_where_it_was_accepted(cli: CommandLine) -> None:
    """Jobs of two providers are polled or sent, and downloaded; each has its current line."""
    with serving({"on": "create", "nth": [1, 2], "do": {"fault": "takes", "seconds": 0.9}}) as emulator:
        run_two_gateways(cli, emulator)
        assert Counter(statuses(cli).values()) == {"timed_out": 2, "planned": 2}
        ran = cli("resume", "pika-out", "--deadline", "20", "--max-charges", "9", "--json")
        assert ran.code == 0
        assert charged(emulator) == Counter(["native 1", "native 2", "cometapi 1", "cometapi 2"])
        assert {charge.prompt.split()[0] == charge.provider for charge in emulator.ledger} == {True}
        assert emulator.refusals == []
        assert set(statuses(cli).values()) == {"succeeded"}
        assert sorted(record["index"] for record in cli.results()) == [0, 1, 2, 3]
        assert {record["key"]: record["status"] for record in ran.records} == statuses(cli)
        assert len(list((cli.folder / "pika-out" / "videos").iterdir())) == 4


def test_resume_needs_every_key_before_it_sends_anything(cli: CommandLine) -> None:
    """Exit code 2 with the variable's name; one key file for two providers is refused, as it would leak the key."""
    with serving({"on": "create", "nth": [1, 2], "do": {"fault": "takes", "seconds": 0.9}}) as emulator:
        run_two_gateways(cli, emulator)
        calls = len(emulator.requests)
        ran = cli("resume", "pika-out", "--api-key-file", cli.write("key", KEY))
        assert (ran.code, "PIKA_API_KEY, COMETAPI_API_KEY" in ran.err) == (2, True)
        cli.monkeypatch.delenv(ENV["cometapi"])
        ran = cli("resume", "pika-out")
        assert (ran.code, ENV["cometapi"] in ran.err) == (2, True)
        assert len(emulator.requests) == calls


def test_resume_with_a_wrong_key(cli: CommandLine) -> None:
    """Exit code 3, and no job fails; if nothing is left to do, a wrong key does not matter."""
    with serving(REFUSED_POLL) as emulator:
        stop_while_in_flight(cli, emulator, cli.write("b.txt", "a"))
        cli.monkeypatch.setenv(ENV["native"], "wrong")
        assert (cli("resume", "pika-out").code, list(statuses(cli).values())) == (3, ["queued"])
        assert cli("resume", "pika-out", "--api-key-file", cli.write("key", KEY)).code == 0
        assert cli("resume", "pika-out").code == 0
        assert charged(emulator) == Counter("a")


def test_a_stopped_account_does_not_stop_the_other_gateway(cli: CommandLine) -> None:
    """The other gateway's jobs are polled and sent; the exit code is still 3."""
    with serving({"on": "create", "nth": [1, 2], "do": {"fault": "takes", "seconds": 0.9}}) as emulator:
        run_two_gateways(cli, emulator)
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
    """Ctrl-C while the first gateway is polled: exit code 130, and the second one's jobs have lines too."""
    with serving({"on": "create", "nth": [1, 2], "do": {"fault": "takes", "seconds": 60}}) as emulator:
        run_two_gateways(cli, emulator)
        before, polls = statuses(cli), emulator.polls.total

        def interrupt() -> None:
            while emulator.polls.total == polls:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        ran = cli("resume", "pika-out", "--deadline", "30", "--json")
        thread.join()
        assert (ran.code, set(statuses(cli)), len(ran.records)) == (130, set(before), 4)
        assert "to continue: pika-async resume pika-out" in ran.err
        assert "earlier input" not in ran.err
        assert len(emulator.ledger) == 2


def test_jobs_accepted_at_another_provider_are_left_there(cli: CommandLine) -> None:
    """The same rows at another provider: unsent jobs go there, the others name the provider that has them."""
    with serving({"on": "create", "nth": 1, "do": {"fault": "takes", "seconds": 0.9}}) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b")))
        first = ("--deadline", "0.2", "--max-in-flight", "1", "--max-charges", "1")
        assert cli.batch(emulator, source, *first).code == 1
        ran = cli.batch(emulator, source, "--max-charges", "2", provider="cometapi")
        assert (ran.code, statuses(cli)) == (1, {"a": "timed_out", "b": "succeeded"})
        assert f"accepted by the account native at {emulator.base_url('native')}, which this client" in ran.err
        assert "to continue: pika-async resume pika-out" in ran.err
        assert (charged(emulator), emulator.refusals) == (Counter("ab"), [])
        assert cli("resume", "pika-out").code == 0
        assert [charge.provider for charge in emulator.ledger] == ["native", "cometapi"]
        assert len(emulator.ledger) == 2


def test_resume_downloads_what_is_ready(cli: CommandLine) -> None:
    """A failed download is repeated, and nothing is paid."""
    with serving({"on": "cdn", "first": 2, "do": {"fault": "answer", "status": 410}}) as emulator:
        assert cli.batch(emulator, cli.write("b.txt", "a")).code == 1
        assert cli.results()[0]["error"]["type"] == "DownloadFailed"
        assert cli("resume", "pika-out").code == 0
        assert (cli.results()[0]["error"], charged(emulator)) == (None, Counter("a"))


def test_resume_keeps_the_options_of_the_batch(cli: CommandLine) -> None:
    """--no-download and --ambiguous are kept; new values replace them from then on."""
    bare = {"on": "create", "prompt": "b", "do": {"fault": "answer", "status": 503}}
    with serving({**bare, "nth": [1, 3]}) as emulator:
        more = ("--no-download", "--ambiguous", "lenient", "--max-charges", "1", "--max-in-flight", "1")
        cli.batch(emulator, cli.write("b.jsonl", jsonl(("a", "a"), ("b", "b"), ("c", "b again"))), *more)
        assert cli("resume", "pika-out", "--max-charges", "2").code == 1
        assert charged(emulator) == Counter("ab")
        assert not (cli.folder / "pika-out" / "videos").exists()
        ran = cli("resume", "pika-out", "--max-charges", "9", "--download", "--ambiguous", "strict")
        assert (ran.code, statuses(cli)) == (1, {"a": "succeeded", "b": "succeeded", "c": "unknown"})
        (cli.folder / "pika-out" / "videos" / "a.mp4").unlink()
        cli("resume", "pika-out")
        assert sorted(path.name for path in (cli.folder / "pika-out" / "videos").iterdir()) == ["a.mp4", "b.mp4"]


def test_the_folder_may_be_moved(cli: CommandLine) -> None:
    """After a move and from another directory, existing videos are not downloaded again, and the rest continues."""
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


def test_an_image_missing_from_here_rejects_no_job(cli: CommandLine) -> None:
    """From a directory where a relative path leads nowhere: exit code 2, nothing is sent, the job can continue."""
    with serving({"on": "create", "first": 1, "do": {"fault": "refuse", "as": "key"}}) as emulator:
        cli.write("a.png", made("png"))
        source = cli.write("b.csv", "key,prompt,image\na,with a picture,a.png\n")
        assert cli.batch(emulator, source, "--no-download").code == 3
        calls = len(emulator.requests)
        (cli.folder / "elsewhere").mkdir()
        cli.monkeypatch.chdir(cli.folder / "elsewhere")
        ran = cli("resume", "../pika-out")
        assert (ran.code, len(emulator.requests), statuses(cli)) == (2, calls, {"a": "planned"})
        assert "job a: image: 'a.png' must be an existing file" in ran.err
        cli.monkeypatch.chdir(cli.folder)
        assert (cli("resume", "pika-out").code, len(emulator.ledger)) == (0, 1)


def test_videos_are_found_from_every_directory(cli: CommandLine) -> None:
    """The path of a video does not depend on the working directory."""
    with serving() as emulator:
        cli.batch(emulator, cli.write("b.jsonl", jsonl(("a", "a"))))
        cli.monkeypatch.chdir("/")
        [record] = cli("status", str(cli.folder / "pika-out"), "--json").records
        assert (record["file"], record["status"]) == ("videos/a.mp4", "succeeded")
        with contextlib.closing(sqlite3.connect(cli.folder / "pika-out" / "journal.db")) as connection:
            assert connection.execute("SELECT file FROM jobs").fetchall() == [("videos/a.mp4",)]


@pytest.mark.parametrize("command", [("resume",), ("status",), ("resolve", "a", "--abandon")])
def test_a_folder_without_a_batch_is_refused(cli: CommandLine, command: tuple[str, ...]) -> None:
    """A missing folder, an empty one and a file: exit code 2 with a sentence, and nothing is created."""
    (cli.folder / "empty").mkdir()
    cli.write("file", "text")
    for name in ("nowhere", "empty", "file", "odd\x1b[2J"):
        ran = cli(command[0], name, *command[1:])
        assert (ran.code, "give the --out folder of a batch" in ran.err) == (2, True)
        assert "\x1b" not in ran.err
    assert sorted(path.name for path in cli.folder.rglob("*")) == ["empty", "file"]


def test_a_canceled_job_is_left_out(cli: CommandLine) -> None:
    """A resume of the other jobs of its gateway does not pay for it, and it keeps its line."""
    with serving() as emulator:
        source = cli.write("b.txt", "one\ntwo\nthree\n")
        cli.batch(emulator, source, "--no-download", "--max-charges", "1")
        journal = SqliteJournal(cli.folder / "pika-out" / "journal.db")

        async def cancel_one() -> str:
            await journal.open()
            job = next(iter(journal.all(JobStatus.PLANNED)))
            error = JobCanceled(key=job.key, provider=job.provider)
            await journal.save(attrs.evolve(job, status=JobStatus.CANCELED, error=error))
            await journal.close()
            return job.key

        key = asyncio.run(cancel_one())
        cli("resume", "pika-out", "--max-charges", "3")
        assert len(emulator.ledger) == 2
        assert [line["key"] for line in cli.results() if line["status"] == "canceled"] == [key]
