"""Bad input to the commands that go on after a run: a sentence, exit code 2, and nothing charged, polled or changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.emulator import Emulator, Scenario
from tests.cli.command_line import EMULATOR_OPTIONS, CommandLine

ROWS = "key,prompt\n" + "".join(f"{key},{prompt}\n" for key, prompt in (
    ("f1", "fails a"), ("f2", "fails b"), ("d1", "lost a"), ("d2", "lost b"), ("ok", "fine"),
))  # fmt: skip
RULES = [
    {"on": "create", "prompt": "fails", "do": "fails"},
    {"on": "create", "prompt": "lost", "do": "drop"},
]
BUSY = "is in use by another client of this process"
NO_BATCH = "must hold a journal.db; give the --out folder of a batch"
FOREIGN = "is not a journal of pika_async; it is left as it is"
#: The account of commands that need one.
AT = ("--provider", "native", "--base-url", "URL")

# name of the case, arguments, text of the error; "URL" stands for the base URL of the emulator
CASES: list[tuple[str, tuple[str, ...], str]] = [
    ("retry-unknown-key", ("retry", "out", "nothing"), "retry: nothing is not the key of a job in this folder"),
    ("retry-ambiguous", ("retry", "out", "f"), "retry: f fits 2 keys (f1, f2); give more of the key"),
    ("retry-succeeded", ("retry", "out", "f1", "ok"), "retry: ok is succeeded; give keys of jobs that ended without"),
    (
        "retry-in-doubt",
        ("retry", "out", "f1", "d1"),
        "retry: d1 is in doubt and may be charged already; to resolve it: pika-async resolve out d1",
    ),
    ("retry-nothing", ("retry", "out", "--new-seed"), "retry needs --rejected, --failed or keys"),
    ("retry-no-folder", ("retry", "none", "--failed"), f"none {NO_BATCH}"),
    ("retry-a-file", ("retry", "file.txt", "--failed"), f"file.txt {NO_BATCH}"),
    ("retry-not-a-batch", ("retry", "empty", "--failed"), f"empty {NO_BATCH}"),
    ("retry-not-ours", ("retry", "foreign", "--failed"), FOREIGN),
    ("retry-beside", ("retry", "busy", "--failed"), BUSY),
    ("retry-no-number", ("retry", "out", "--failed", "--max-charges", "many"), "--max-charges"),
    ("fetch-no-id", ("fetch", *AT), "requires an argument"),
    ("fetch-empty", ("fetch", "' '", *AT), "fetch: needs the id of a task"),
    ("fetch-two-in-a-line", ("fetch", "task a is queued; task b is queued", *AT), "a line must name one task"),
    ("fetch-no-id-of-a-task", ("fetch", "x" * 300, *AT), "task_id: "),
    ("fetch-denied", ("fetch", "wrong-id", *AT), "task wrong-id is not found at native"),
    ("fetch-file-exists", ("fetch", "a", "--out", "there.mp4", *AT), "there.mp4 exists and is never overwritten"),
    ("fetch-one-file", ("fetch", "a", "b", "--out", "new.mp4", *AT), "--out: new.mp4 must be a folder for 2 tasks"),
    ("fetch-no-such-folder", ("fetch", "a", "--out", "none/a.mp4", *AT), "--out: none must be a folder"),
    ("fetch-a-file-as-folder", ("fetch", "a", "--out", "file.txt", *AT), "file.txt exists and is never overwritten"),
    ("fetch-not-ours", ("fetch", "a", "--out", "foreign", *AT), FOREIGN),
    ("fetch-beside", ("fetch", "a", "--out", "busy", *AT), BUSY),
    ("fetch-wrong-provider", ("fetch", "a", "--provider", "nope"), "'nope' must be one of cometapi"),
    ("resolve-unknown-key", ("resolve", "out", "nothing", "--abandon"), "resolve: nothing is not the key of a job"),
    ("resolve-ambiguous", ("resolve", "out", "d", "--abandon"), "resolve: d fits 2 keys (d1, d2)"),
    ("resolve-not-in-doubt", ("resolve", "out", "d1", "ok", "--abandon"), "'ok' must be in doubt to be resolved"),
    ("resolve-one-task-for-two", ("resolve", "out", "d1", "d2", "--task-id", "t"), "--task-id is the task of one job"),
    ("resolve-no-terminal", ("resolve", "out"), "it asks only on a terminal"),
    ("resolve-no-folder", ("resolve", "none", "d1", "--abandon"), f"none {NO_BATCH}"),
    ("resolve-a-file", ("resolve", "file.txt", "--all", "--abandon"), f"file.txt {NO_BATCH}"),
    ("resolve-not-ours", ("resolve", "foreign", "--all", "--abandon"), FOREIGN),
    ("resolve-beside", ("resolve", "busy", "--all", "--abandon"), BUSY),
    ("generate-file-exists", ("generate", "a", "--out", "there.mp4", *AT), "there.mp4 exists and is never overwritten"),
    ("generate-key", ("generate", "a", "--key", "../a", *AT), "key: '../a' must begin with a letter"),
    ("generate-not-ours", ("generate", "a", "--journal", "foreign/journal.db", *AT), FOREIGN),
    (
        "generate-a-folder",
        ("generate", "a", "--journal", "empty", *AT),
        "--journal: empty must be a file; give one in it",
    ),
    ("generate-no-folder", ("generate", "a", "--journal", "none/j.db", *AT), "its folder does not exist"),
    ("generate-beside", ("generate", "a", "--journal", "busy/journal.db", *AT), BUSY),
]


@attrs.frozen
class Site:
    """Working directory with a batch, folders of other kinds, and a journal that another client has open."""

    folder: Path
    emulator: Emulator

    @property
    def statuses(self) -> dict[str, str]:
        return {job.key: job.status for job in SqliteJournal(self.folder / "out" / "journal.db").all()}

    @property
    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if "wal" not in path.name}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    for name in ("empty", "foreign", "busy"):
        (folder / name).mkdir()
    (folder / "foreign" / "journal.db").write_bytes(b"SQLite format 2\0" + bytes(200))
    (folder / "file.txt").write_text("a file")
    (folder / "there.mp4").write_text("precious")
    (folder / "b.csv").write_text(ROWS)
    with Emulator(**EMULATOR_OPTIONS, scenario=Scenario.of(RULES)).in_thread() as emulator:
        yield Site(folder, emulator)


@pytest.fixture
def cli(site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    cli = CommandLine(site.folder, capsys, monkeypatch)
    if not (site.folder / "out").exists():
        assert cli.batch(site.emulator, "b.csv", "--out", "out", "--no-download").code == 1
    monkeypatch.setattr("pika_async._runtime.adoption.MAX_DELAY_S", 0.01)
    return cli


@pytest.mark.parametrize(("argv", "text"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_bad_input_gets_a_sentence_and_exit_code_2(
    cli: CommandLine, site: Site, argv: tuple[str, ...], text: str
) -> None:
    """Nothing is charged, no job changes, and no file is made or removed."""
    before = site.statuses, site.files, len(site.emulator.ledger)
    held = SqliteJournal(site.folder / "busy" / "journal.db") if "busy" in " ".join(argv) else None
    if held is not None:
        asyncio.run(held.open())
        before = site.statuses, site.files, len(site.emulator.ledger)
    try:
        ran = cli(*[word.replace("URL", site.emulator.base_url("native")) for word in argv])
    finally:
        after = site.statuses, site.files, len(site.emulator.ledger)
        if held is not None:
            asyncio.run(held.close())
    assert (ran.code, text in ran.err, ran.out) == (2, True, ""), ran.err
    assert after == before
    assert before[0] == {"f1": "failed", "f2": "failed", "d1": "unknown", "d2": "unknown", "ok": "succeeded"}
