"""A batch on the workers of a shared database: the same results, exit codes and commands as in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from pika_async.cli.terminal import Terminal
from pika_async.engines import shared_statements, statements
from pika_async.engines.cluster import Cluster
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from tests.cli.account_files import write_accounts
from tests.cli.batch_process import LAUNCHER, address
from tests.cli.batches import jsonl
from tests.cli.board_page import request
from tests.cli.command_line import ENV, KEY, CommandLine, Rule, serving
from tests.fakes.child_process import ChildProcess
from tests.fakes.raw_server import free_port

#: Fields of a result that differ from run to run.
OWN: Final = ("task_id", "video_url", "polls", "submitted_at", "settled_at")
#: A row that the gateway refuses, and one that it fails.
ROWS: Final = jsonl(("k0", "a cat"), ("k1", "a dog"), ("refused", "a refused one"), ("failed", "a failed one"))
RULES: Final[list[Rule]] = [
    {"on": "create", "prompt": "a refused one", "do": {"fault": "refuse", "as": "invalid"}},
    {"on": "create", "prompt": "a failed one", "do": {"fault": "fails"}},
]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


def start(folder: Path, *argv: str) -> ChildProcess:
    """Start a command in a process of its own."""
    command = [sys.executable, "-c", LAUNCHER, *argv]
    env = {**os.environ, **dict.fromkeys(ENV.values(), KEY)}
    return ChildProcess(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@contextlib.contextmanager
def working(folder: Path, url: str, *more: str) -> Iterator[ChildProcess]:
    """Run a worker meanwhile, which must end well."""
    process = start(
        folder, "worker", "--database", url, "--accounts", "accounts.toml", "--lease-ttl", "6", "--expected-seconds",
        "0.2", *more,
    )  # fmt: skip
    with process:
        process.read_errors_until("Ctrl-C hands its jobs over")
        yield process
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
        assert (process.returncode, "Traceback" in errors) == (0, False), errors


def without_own(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without the times and ids of its run."""
    text = json.dumps({name: value for name, value in result.items() if name not in OWN})
    return dict(json.loads(text.replace(result["task_id"] or "no id", "ID")))


async def save(url: str, *jobs: Job) -> None:
    async with Cluster(url) as cluster:
        await cluster._database.run(statements.insert_jobs, jobs)


def job(key: str, status: JobStatus, **more: Any) -> Job:
    base: dict[str, Any] = {
        "request": GenerationRequest(f"a {key}"),
        "provider": "native",
        "base_url": "http://127.0.0.1:9",
    }
    return Job(key=key, status=status, **(base | more))


def test_the_same_file_gives_the_same_results_in_a_folder_and_on_workers(cli: CommandLine, url: str) -> None:
    """Field by field but for times and ids, rows in the order of the input; the same command again pays nothing."""
    cli.write("b.jsonl", ROWS)
    with serving(*RULES) as emulator:
        write_accounts(cli, emulator, names=("main",))
        quick = ("--expected-seconds", "0.2")
        local = cli("batch", "b.jsonl", "--accounts", "accounts.toml", "--out", "local", *quick)
        shared = ("batch", "b.jsonl", "--accounts", "accounts.toml", "--out", "shared", "--database", url)
        with working(cli.folder, url, "--download-to", "shared/videos"):
            ran = cli(*shared)
            again = cli(*shared)
        assert len(emulator.ledger) == 2 * len({"k0", "k1", "failed"})
    assert (local.code, ran.code, again.code) == (1, 1, 1), ran
    assert "0 new charges, 4 known" in again.err
    ours, theirs = ({one["key"]: one for one in cli.results(out)} for out in ("shared", "local"))
    assert ours.keys() == theirs.keys() == {"k0", "k1", "refused", "failed"}
    for key, result in ours.items():
        assert without_own(result) == without_own(theirs[key])
        assert (result["task_id"] is None) == (theirs[key]["task_id"] is None)
    with (cli.folder / "shared" / "results.csv").open(encoding="utf-8-sig") as file:
        assert [row["key"] for row in csv.DictReader(file)] == ["k0", "k1", "refused", "failed"]
    assert (cli.folder / "shared" / "videos" / "k0.mp4").read_bytes()[4:8] == b"ftyp"
    page = (cli.folder / "shared" / "index.html").read_text()
    assert ("k1" in page, f"pika-async retry --database {url} failed --new-seed" in page) == (True, True)
    assert not (cli.folder / "shared" / "journal.db").exists()


@pytest.mark.slow
def test_an_interrupt_leaves_the_jobs_to_the_workers(cli: CommandLine, url: str) -> None:
    """Without a worker it says so; Ctrl-C ends the following alone, and the same command again follows on."""
    cli.write("b.jsonl", jsonl(("k0", "a cat"), ("k1", "a dog")))
    with serving() as emulator:
        write_accounts(cli, emulator, names=("main",))
        argv = ("batch", "b.jsonl", "--accounts", "accounts.toml", "--database", url)
        with start(cli.folder, *argv) as process:
            process.read_errors_until("no worker is running")
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
        assert process.returncode == 130
        assert "stopping: the workers go on with the jobs" in errors
        assert "interrupted: the workers go on with 2 jobs" in errors
        assert "no worker is running; start one: pika-async worker" in cli("status", "--database", url).out
        with working(cli.folder, url):
            ran = cli(*argv)
            shown = cli("workers", "--database", url)
        assert (ran.code, len(emulator.ledger)) == (0, 2)
        assert "1 worker" in shown.out
    (worker,) = cli("workers", "--database", url, "--json").records
    assert (worker["ended"], worker["jobs"]) == ("closed", 0)


@pytest.mark.slow
def test_a_worker_receives_callbacks(cli: CommandLine, url: str) -> None:
    """A callback comes long before the first poll; it is announced and counted, without its token."""
    cli.write("b.jsonl", jsonl(("k0", "a cat"), ("k1", "a dog")))
    public = f"http://127.0.0.1:{free_port()}"
    with serving(durations="constant:0.3") as emulator:
        write_accounts(cli, emulator, names=("cometapi",))
        argv = ("worker", "--database", url, "--accounts", "accounts.toml", "--expected-seconds", "600")
        with start(cli.folder, *argv, "--callbacks", public) as process:
            text = process.read_errors_until("listening on")
            ran = cli("batch", "b.jsonl", "--accounts", "accounts.toml", "--database", url)
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate()
        assert [call.status for call in emulator.callbacks] == [202, 202]
    assert (ran.code, process.returncode) == (0, 0), (ran, errors)
    assert f"callbacks: public URL {public}/callbacks/..." in text
    assert "callbacks: 2 received" in errors
    assert not [call for call in emulator.callbacks if call.url.rpartition("/")[2] in text + errors]


@pytest.mark.slow
def test_a_batch_whose_accounts_are_all_stopped_ends_with_the_reasons(cli: CommandLine, url: str) -> None:
    cli.write("b.jsonl", jsonl(("k0", "a cat"), ("k1", "a dog")))
    refused = {"on": "create", "do": {"fault": "refuse", "as": "key"}}
    with serving(refused) as emulator:
        write_accounts(cli, emulator, names=("main",))
        with working(cli.folder, url):
            ran = cli("batch", "b.jsonl", "--accounts", "accounts.toml", "--database", url)
    assert ran.code == 3, ran
    assert "  main: the account is stopped" in ran.err
    assert "2 jobs stay queued" in ran.err


def test_the_commands_of_a_folder_take_a_database(cli: CommandLine, url: str) -> None:
    """Keys by a unique beginning, `--all` and `--dry-run` as in a folder; nothing is sent without a worker."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    jobs = [
        job("one", JobStatus.UNKNOWN, submitted_at=at, attempts=1), job("two", JobStatus.UNKNOWN, attempts=1),
        job("bad", JobStatus.REJECTED, settled_at=at), job("late", JobStatus.TIMED_OUT, task_id="t", attempts=1),
    ]  # fmt: skip
    asyncio.run(save(url, *jobs))
    database = ("--database", url)
    assert "in doubt, possibly charged: 2" in cli("status", *database).out
    assert f"pika-async resolve --database {url} two --abandon" in cli("status", *database).out
    assert {one["key"]: one["status"] for one in cli("status", *database, "--json").records} == {
        "one": "unknown", "two": "unknown", "bad": "rejected", "late": "timed_out",
    }  # fmt: skip
    assert "job one was not charged and will be sent again" in cli("resolve", "on", "--not-charged", *database).out
    assert "job two is abandoned" in cli("resolve", "--all", "--abandon", *database).out
    assert "1 new charges, 0 known" in cli("retry", "ba", "--dry-run", *database).out
    ran = cli("retry", "--rejected", "--yes", *database)
    assert (ran.code, "1 job queued for the workers" in ran.out) == (0, True), ran
    assert "1 job queued again" in cli("resume", *database).out
    statuses = {one["key"]: one["status"] for one in cli("status", *database, "--json").records}
    assert statuses == {"one": "planned", "two": "canceled", "bad~1": "rejected", "late": "timed_out", "bad": "planned"}


def test_a_batch_on_workers_leaves_the_files_that_they_are_writing(cli: CommandLine, url: str) -> None:
    """Its folder may be the one into which they download; a batch without workers has its own alone."""
    cli.write("b.jsonl", jsonl(("k0", "a cat")))
    cli.write("accounts.toml", '[accounts.a]\nprovider = "native"\nbase_url = "http://127.0.0.1:9"\n')
    done = job("k0", JobStatus.SUCCEEDED, request=GenerationRequest("a cat", key="k0"), task_id="t", attempts=1)
    asyncio.run(save(url, done))
    part = cli.folder / "shared" / "videos" / f".pika-{'0' * 24}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    ran = cli("batch", "b.jsonl", "--accounts", "accounts.toml", "--out", "shared", "--database", url)
    assert (ran.code, part.exists(), "0 new charges, 1 known" in ran.err) == (0, True, True), ran


def test_the_board_of_a_database_is_guarded_and_only_reads(cli: CommandLine, url: str) -> None:
    """Its page has the jobs, the workers and the accounts; 403 without the secret or by another name."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    asyncio.run(save(url, job("bad", JobStatus.REJECTED, settled_at=at), job("new", JobStatus.PLANNED)))
    with start(cli.folder, "board", "--database", url) as process:
        whole = address(process)
        place, _, query = whole.removeprefix("http://").partition("/?")
        status, _, body = request(place, "GET", f"/?{query}", {})
        assert status == 200
        data = json.loads(body.partition('type="application/json">')[2].partition("</script>")[0])
        assert [card["key"] for card in data["cards"]] == ["bad"]
        assert data["cards"][0]["command"] == f"pika-async retry --database {url} bad"
        assert (data["head"]["unfinished"], data["head"]["running"]) == ({"planned": 1}, False)
        assert data["head"]["batch"]["cluster"] == {
            "workers": [], "more": 0, "accounts": [], "start": f"pika-async worker --database {url} --accounts FILE",
        }  # fmt: skip
        assert request(place, "GET", "/", {})[0] == 403
        assert request(place, "GET", f"/?{query}", {"Host": "evil.example"})[0] == 403
        assert request(place, "POST", f"/control/pause?{query}", {})[0] == 403
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert len(cli("status", "--database", url, "--json").records) == 2


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (("status", "clips", "--database", "URL"), "--database: must not be given with a folder, but clips was"),
        (("status",), "status needs the --out folder of a batch, or --database URL"),
        (("resume",), "resume needs the --out folder of a batch, or --database URL"),
        (
            ("worker", "--database", "URL", "--accounts", "accounts.toml", "--callbacks", "http://127.0.0.1:8"),
            "sends no callbacks",
        ),
        (
            ("worker", "--database", "URL", "--accounts", "accounts.toml", "--listen", "8080"),
            "must be given with --callbacks",
        ),
        (("board",), "board needs the --out folder of a batch, or --database URL"),
        (("board", "clips", "--database", "URL"), "--database: must not be given with a folder, but clips was"),
        (("board", "--database", "postgresql://pika:secret@127.0.0.1:9/x"), "pika:***@127.0.0.1:9/x cannot be used"),
        (("workers",), "--database: must be given to workers: postgresql://USER@HOST/DATABASE"),
        (("workers", "--database", "postgresql://pika:secret@127.0.0.1:9/x"), "pika:***@127.0.0.1:9/x cannot be used"),
        (
            ("batch", "b.jsonl", "--database", "URL", "--max-in-flight", "3"),
            "--max-in-flight: must be given to the work",
        ),
        (("batch", "b.jsonl", "--database", "URL", "--out", "local"), "holds a batch without --database"),
    ],
)
def test_a_command_that_cannot_work_is_refused_in_a_sentence(
    cli: CommandLine, url: str, argv: tuple[str, ...], reason: str
) -> None:
    cli.write("b.jsonl", jsonl("a cat"))
    cli.write("accounts.toml", '[accounts.a]\nprovider = "native"\nbase_url = "http://127.0.0.1:9"\n')
    (cli.folder / "local").mkdir()
    cli.write("local/journal.db", "")
    accounts = ("--accounts", "accounts.toml") if argv[0] == "batch" else ()
    ran = cli(*(url if word == "URL" else word for word in argv), *accounts)
    assert (ran.code, ran.err.count("\n"), "secret" in ran.err) == (2, 1, False)
    assert reason in ran.err


def test_a_missing_extra_is_named(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without importing it first."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "dbos" else found(name))
    ran = cli("workers", "--database", "sqlite:////tmp/x.db")
    reason = '--database: needs an extra: python -m pip install "pika_async[cli,dbos]"'
    assert (ran.code, ran.err) == (2, f"error: {reason}\n")


@pytest.mark.slow
def test_a_worker_whose_lease_is_ended_says_so(cli: CommandLine, url: str) -> None:
    """Exit code 1, with the way out: something should start it again."""
    with serving() as emulator:
        write_accounts(cli, emulator, names=("main",))
        argv = ("worker", "--database", url, "--accounts", "accounts.toml", "--lease-ttl", "2")
        with start(cli.folder, *argv) as process:
            text = process.read_errors_until("Ctrl-C hands its jobs over")
            worker = text.split("worker ")[1].split()[0]
            asyncio.run(end_lease(url, worker))
            _, errors = process.communicate()
    assert process.returncode == 1
    assert "the lease of this worker has ended (it was not extended in time): other workers have its jobs" in errors


async def end_lease(url: str, worker: str) -> None:
    async with Cluster(url) as cluster:
        await cluster._database.run(shared_statements.end_lease, worker, "expired")


def test_records_of_old_jobs_are_deleted_once_that_is_agreed(
    cli: CommandLine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Charges stay counted; a job in doubt stays, whatever its age."""
    at = datetime(2025, 1, 1, tzinfo=UTC)
    jobs = [job("old", JobStatus.FAILED, settled_at=at), job("doubt", JobStatus.UNKNOWN, submitted_at=at)]
    asyncio.run(save(url, *jobs))
    command = ("prune", "--database", url, "--older-than", "30")
    counted = cli(*command, "--dry-run").out
    assert re.fullmatch(r"1 job record settled before \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", counted)
    refused = cli(*command)
    assert (refused.code, "would be deleted; --yes deletes without asking" in refused.err) == (2, True)
    monkeypatch.setattr(Terminal, "can_ask", True)
    answered = [cli(*command, stdin=answer) for answer in (b"n\n", b"y\n")]
    assert [ran.code for ran in answered] == [1, 0]
    assert "nothing was deleted" in answered[0].err
    assert "Their requests are paid for again if submitted once more. [y/N]" in answered[1].err
    assert answered[1].out == "1 record deleted\n"
    assert cli(*command, "--yes").out.startswith("0 job records settled")
    assert "job doubt at native" in cli("status", "--database", url).out
