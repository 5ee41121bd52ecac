"""`batch --videos`: another folder, or a store; remembered by the commands after it, and checked before it costs."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.batch_process import LAUNCHER
from tests.cli.batches import charged, jsonl, statuses
from tests.cli.command_line import ENV, KEY, CommandLine, serving
from tests.fakes.child_process import ChildProcess
from tests.fakes.object_stores import BUCKET, Fault, StoreProxy

ROWS = jsonl(("a", "heron"), ("b", "lantern"))
PLACE = f"s3://{BUCKET}/take-1"


def assert_stored(cli: CommandLine, store: StoreProxy) -> None:
    """Each line of the results names an object with the bytes of its digest."""
    records = cli.results()
    assert [record["file"] for record in records] == [f"{PLACE}/{record['key']}.mp4" for record in records]
    for record in records:
        content = store.get(record["file"].removeprefix(f"s3://{BUCKET}/"))
        assert hashlib.sha256(content).hexdigest() == record["sha256"]


def test_videos_of_a_batch_are_stored(cli: CommandLine, store: StoreProxy) -> None:
    """The folder keeps the journal, the results and the page; the same command again stores nothing twice."""
    with serving() as emulator:
        source = cli.write("b.jsonl", ROWS)
        ran = cli.batch(emulator, source, "--videos", PLACE)
        assert (ran.code, "2 jobs: 2 succeeded; 2 stored" in ran.out) == (0, True)
        assert_stored(cli, store)
        again = cli.batch(emulator, source)
        assert (again.code, store.count("PUT"), charged(emulator).total()) == (0, 2, 2)
    assert not (cli.folder / "pika-out" / "videos").exists()
    assert f"{PLACE}/a.mp4" in (cli.folder / "pika-out" / "index.html").read_text()
    status = cli("status", "pika-out")
    assert status.code == 0
    assert (ran.out + ran.err + status.out).count("canary") == 0


def test_resume_stores_the_videos_that_the_store_refused(cli: CommandLine, store: StoreProxy) -> None:
    """The place is remembered; the journal and the results hold no credential."""
    store.faults = [Fault("PUT", 503, "SlowDown", times=99)]
    with serving() as emulator:
        ran = cli.batch(emulator, cli.write("b.jsonl", ROWS), "--videos", PLACE)
        assert ran.code == 1
        assert "not downloaded: 2" in ran.err
        assert "it was fetched whole and not stored: the store answered SlowDown" in ran.err
        assert "pika-async resume" in ran.err
        store.faults = []
        resumed = cli("resume", "pika-out")
        assert (resumed.code, charged(emulator).total()) == (0, 2)
    assert_stored(cli, store)
    for path in (cli.folder / "pika-out").iterdir():
        assert path.is_dir() or b"canary" not in path.read_bytes()


@pytest.mark.parametrize(
    "videos, reason",
    [
        ("s3://missing/x", "s3://missing/x/ cannot be used: there is no such bucket"),
        ("s3:///x", "must name a bucket"),
        (
            "az://clips/x",
            "must be a path, or s3://BUCKET/PREFIX as text, not 'az://clips/x'; no other kind of store is supported",
        ),
    ],
)
def test_a_place_that_cannot_be_used_ends_the_command_before_it_costs(
    cli: CommandLine, store: StoreProxy, videos: str, reason: str
) -> None:
    """Exit code 2: nothing was sent, and no folder is left."""
    with serving() as emulator:
        ran = cli.batch(emulator, cli.write("b.jsonl", ROWS), "--videos", videos)
        assert (ran.code, charged(emulator).total()) == (2, 0)
    assert f"--videos: {reason}" in ran.err
    assert not (cli.folder / "pika-out").exists()


def test_a_new_batch_refuses_a_prefix_with_an_object_of_its_keys(cli: CommandLine, store: StoreProxy) -> None:
    """Before it costs, as a folder with such a file."""
    store.put("take-1/b.png", b"of somebody else")
    with serving() as emulator:
        ran = cli.batch(emulator, cli.write("b.jsonl", ROWS), "--videos", PLACE)
        assert (ran.code, charged(emulator).total()) == (2, 0)
    assert (
        f"--videos: {PLACE}/b.png exists and is never overwritten; choose another prefix; nothing was sent" in ran.err
    )


def test_videos_go_to_another_folder(cli: CommandLine) -> None:
    """One that all machines can read, for example; resume keeps it whatever the working directory."""
    shared = cli.folder / "share" / "videos"
    # Each result is asked for twice: an address that has expired is renewed once.
    with serving({"on": "cdn", "first": 4, "do": {"fault": "answer", "status": 410}}) as emulator:
        ran = cli.batch(emulator, cli.write("b.jsonl", ROWS), "--videos", "share/videos")
        assert (ran.code, "not downloaded: 2" in ran.err) == (1, True)
        cli.monkeypatch.chdir("/")
        resumed = cli("resume", str(cli.folder / "pika-out"))
        assert (resumed.code, "2 succeeded; 2 on disk" in resumed.out, charged(emulator).total()) == (0, True, 2)
    assert sorted(path.name for path in shared.iterdir()) == ["a.mp4", "b.mp4"]
    assert sorted(record["file"] for record in cli.results()) == [str(shared / f"{key}.mp4") for key in "ab"]


def test_a_folder_that_cannot_be_used_is_named_before_it_costs(cli: CommandLine) -> None:
    """By `batch` and by `resume`; what can be used is left as it was."""
    with serving({"on": "cdn", "first": 2, "do": {"fault": "answer", "status": 410}}) as emulator:
        source = cli.write("b.jsonl", jsonl(("a", "heron")))
        ran = cli.batch(emulator, source, "--videos", "b.jsonl/x")
        assert (ran.code, charged(emulator).total()) == (2, 0)
        assert "b.jsonl/x cannot be used: Not a directory; nothing was sent" in ran.err
        assert cli.batch(emulator, source).code == 1
        resumed = cli("resume", "pika-out", "--videos", "b.jsonl")
        assert (resumed.code, "--videos: " in resumed.err) == (2, True)
        assert cli("resume", "pika-out", "--videos", "new").code == 0
    assert [path.name for path in (cli.folder / "new").iterdir()] == ["a.mp4"]


def test_a_file_in_another_folder_is_never_overwritten(cli: CommandLine) -> None:
    """A new batch is refused before it costs."""
    (cli.folder / "share").mkdir()
    (cli.folder / "share" / "a.mp4").write_bytes(b"of somebody else")
    with serving() as emulator:
        ran = cli.batch(emulator, cli.write("b.jsonl", ROWS), "--videos", "share")
        assert (ran.code, charged(emulator).total()) == (2, 0)
    assert "share/a.mp4 exists and is never overwritten" in ran.err


def test_a_batch_that_is_killed_inside_an_upload_is_stored_whole_by_resume(cli: CommandLine, store: StoreProxy) -> None:
    """Nothing of the half upload can be seen, nothing is paid again, and no file is left beside the journal."""
    store.faults = [Fault("PUT", hold=True)]
    with serving() as emulator:
        source = cli.write("b.jsonl", ROWS)
        command = [sys.executable, "-c", LAUNCHER, "batch", source, "--provider", "native", "--videos", PLACE]
        command += ["--base-url", emulator.base_url("native"), "--expected-seconds", "0.2"]
        with ChildProcess(
            command, cwd=cli.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, ENV["native"]: KEY},
        ) as process:  # fmt: skip
            assert store.is_holding.wait(60)
            process.send_signal(signal.SIGKILL)
        assert all(key.removeprefix("take-1/") in {"a.mp4", "b.mp4"} for key in store.object_keys())
        assert len(store.object_keys()) < 2
        resumed = cli("resume", "pika-out")
        assert (resumed.code, sorted(charged(emulator).values())) == (0, [1, 1])
    assert statuses(cli) == {"a": "succeeded", "b": "succeeded"}
    assert_stored(cli, store)
    assert (sorted(store.object_keys()), store.uploads()) == (["take-1/a.mp4", "take-1/b.mp4"], 0)
    assert [path.name for path in (cli.folder / "pika-out").iterdir() if path.suffix == ".part"] == []


def test_the_lines_of_a_machine_name_the_objects(cli: CommandLine, store: StoreProxy) -> None:
    """`--json` prints the same lines."""
    with serving() as emulator:
        ran = cli.batch(emulator, cli.write("b.jsonl", ROWS), "--videos", PLACE, "--json")
    assert sorted(json.loads(line)["file"] for line in ran.out.splitlines()) == [f"{PLACE}/a.mp4", f"{PLACE}/b.mp4"]
