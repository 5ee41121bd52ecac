"""`batch` over real sockets: one charge for each prompt from every form of input, every ending with its exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pika_async.cli.results import COLUMNS
from pika_async.emulator import EMULATED_PROVIDERS, Emulator, Scenario
from tests.cli.command_line import ENV, KEY, CommandLine, files_with

TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as serving:
        yield serving


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


def charged(emulator: Emulator, prompts: list[str]) -> list[str]:
    return sorted(charge.prompt for charge in emulator.ledger if charge.prompt in set(prompts))


FORMS: dict[str, Callable[[list[str]], str]] = {
    "jsonl": lambda prompts: "\n".join(json.dumps({"prompt": prompt, "seed": 3}) for prompt in prompts),
    "csv": lambda prompts: "\n".join(["prompt,camera.pan", *(f'"{prompt}",left' for prompt in prompts)]),
    "txt": lambda prompts: "\n\n".join(["# prompts", *prompts]),
    "stdin": "\n".join,
}


@pytest.mark.parametrize("provider", EMULATED_PROVIDERS)
@pytest.mark.parametrize("form", FORMS)
def test_every_prompt_is_charged_once_and_downloaded(
    cli: CommandLine, emulator: Emulator, provider: str, form: str
) -> None:
    """From every form, through every provider's wire: exit code 0, a line and a file for each."""
    prompts = [f"{provider} {form} {number}, with a comma" for number in range(5)]
    content = FORMS[form](prompts)
    if form == "stdin":
        ran = cli.batch(emulator, "-", provider=provider, stdin=content.encode())
    else:
        ran = cli.batch(emulator, cli.write(f"b.{form}", content), provider=provider)
    assert ran.code == 0
    assert charged(emulator, prompts) == sorted(prompts)
    records = sorted(cli.results(), key=lambda record: int(record["index"]))
    assert [record["prompt"] for record in records] == prompts
    assert all((cli.folder / "pika-out" / record["file"]).read_bytes()[4:8] == b"ftyp" for record in records)
    assert "5 jobs: 5 succeeded; 5 on disk" in ran.out
    assert files_with(cli.folder, KEY) == []
    assert emulator.cdn_credentials == []


def test_a_line_has_exactly_the_documented_keys(cli: CommandLine, emulator: Emulator) -> None:
    """In their order, with times in UTC, the file relative to the folder, and null where there is nothing."""
    cli.batch(emulator, cli.write("b.jsonl", '{"prompt": "schema", "key": "k-1"}'), provider="cometapi")
    [record] = cli.results()
    assert tuple(record) == COLUMNS
    assert {name: record[name] for name in ("key", "index", "status", "provider", "prompt", "file", "error")} == {
        "key": "k-1", "index": 0, "status": "succeeded", "provider": "cometapi", "prompt": "schema",
        "file": "videos/k-1.mp4", "error": None,
    }  # fmt: skip
    assert TIME.fullmatch(record["submitted_at"])
    assert TIME.fullmatch(record["settled_at"])
    assert (record["points"], len(record["sha256"]), record["polls"] > 0) == (400, 64, True)
    assert record["task_id"] in {charge.task_id for charge in emulator.ledger}
    assert record["video_url"].startswith(emulator.cdn_url)


def test_json_output_is_the_lines_and_nothing_else(cli: CommandLine, emulator: Emulator) -> None:
    """What is on standard output is what is in the file, in the same order; the summary goes elsewhere."""
    prompts = "a\nb\u2028c \u202e\nd \x9b31m"
    ran = cli.batch(emulator, cli.write("b.txt", prompts), "--json", "--no-download")
    assert (ran.code, ran.records, len(ran.out.splitlines())) == (0, cli.results(), 3)
    assert ran.out.isascii()
    assert "3 jobs: 3 succeeded" in ran.err
    assert not (cli.folder / "pika-out" / "videos").exists()


def test_equal_rows_are_paid_once(cli: CommandLine, emulator: Emulator) -> None:
    """Two rows with one key and one content are one job."""
    row = '{"prompt": "only once", "key": "once"}\n'
    ran = cli.batch(emulator, cli.write("b.jsonl", row + '{"prompt": "between"}\n' + row))
    assert (ran.code, len(cli.results()), charged(emulator, ["only once"])) == (0, 2, ["only once"])


def test_a_local_picture_is_sent(cli: CommandLine, emulator: Emulator) -> None:
    """A path in a row is read and sent where the wire takes bytes."""
    cli.write("a.png", b"\x89PNG tiny")
    ran = cli.batch(emulator, cli.write("b.csv", "prompt,image\nwith a picture,a.png\n"), "--no-download")
    [charge] = [charge for charge in emulator.ledger if charge.prompt == "with a picture"]
    assert (ran.code, charge.body["image"]) == (0, "iVBORyB0aW55")


def test_what_a_stranger_wrote_does_not_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control characters and markup in a failure's reason are shown as text."""
    reason = "\x1b[2J[bold red]moderation[/] \x9b31m\x07"
    rules = [{"on": "create", "do": {"fault": "fails", "reason": reason}}]
    with Emulator(
        api_key=KEY, render=False, durations="constant:0.1", scenario=Scenario.of(rules)
    ).in_thread() as emulator:
        cli = CommandLine(tmp_path, capsys, monkeypatch)
        ran = cli.batch(emulator, cli.write("b.txt", "[red]a cat"), "--log-level", "debug")
    assert ran.code == 1
    assert "[bold red]moderation[/]" in ran.err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ran.out + ran.err)
    [record] = cli.results()
    assert (record["status"], record["error"]["type"]) == ("failed", "GenerationFailed")


# --- exit codes -------------------------------------------------------------------------------------------------------

ENDINGS: list[tuple[str, list[dict[str, Any]], tuple[str, ...], int, dict[str, int]]] = [
    ("one-fails", [{"on": "create", "nth": 2, "do": "fails"}], (), 1, {"succeeded": 5, "failed": 1}),
    (
        "one-refused",
        [{"on": "create", "nth": 2, "do": {"fault": "refuse", "as": "invalid"}}],
        (),
        1,
        {"succeeded": 5, "rejected": 1},
    ),
    (
        "one-in-doubt",
        [{"on": "create", "nth": 2, "do": {"fault": "drop", "when": "before-reply"}}],
        (),
        1,
        {"succeeded": 5, "unknown": 1},
    ),
    ("not-downloaded", [{"on": "cdn", "do": {"fault": "answer", "status": 410}}], (), 1, {"succeeded": 6}),
    ("bad-key", [{"on": "create", "do": {"fault": "refuse", "as": "key"}}], (), 3, {"planned": 6}),
    ("no-balance", [{"on": "create", "do": {"fault": "refuse", "as": "quota"}}], (), 3, {"planned": 6}),
    ("charge-limit", [], ("--max-charges", "2"), 1, {"succeeded": 2, "planned": 4}),
    ("wrong-address", [{"on": "create", "do": "redirect"}], (), 1, {"rejected": 1, "planned": 5}),
    ("deadline", [{"on": "create", "nth": 1, "do": {"fault": "takes", "seconds": 60}}], ("--deadline", "1"), 1,
     {"succeeded": 5, "timed_out": 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "more", "code", "counts"), [pytest.param(*ending[1:], id=ending[0]) for ending in ENDINGS]
)
def test_every_ending_has_its_exit_code_and_a_line_for_each_job(
    cli: CommandLine, rules: list[dict[str, Any]], more: tuple[str, ...], code: int, counts: dict[str, int]
) -> None:
    """Failures, refusals, doubts, a stopped account, a limit: each is told by the code and in `results.jsonl`."""
    settings: dict[str, Any] = {"api_key": KEY, "render": False, "durations": "constant:0.1", "video_seconds": 1.0}
    with Emulator(**settings, scenario=Scenario.of(rules)).in_thread() as emulator:
        source = cli.write("b.txt", "\n".join(f"prompt {number}" for number in range(6)))
        ran = cli.batch(emulator, source, "--max-in-flight", "1", *more)
        records = cli.results()
        assert ran.code == code
        found = [record["status"] for record in records]
        assert {status: found.count(status) for status in found} == counts
        assert sorted(record["index"] for record in records) == list(range(6))
        ours = {record["task_id"] for record in records if record["task_id"]}
        doubts = [charge for charge in emulator.ledger if charge.task_id not in ours]
        assert len(doubts) == counts.get("unknown", 0)
        assert (cli.folder / "pika-out" / "index.html").is_file()


def test_a_full_disk_loses_no_task_id(cli: CommandLine, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `results.jsonl` cannot be written, its lines go to standard error and nothing more is sent."""
    real = Path.open

    def full(path: Path, *how: Any, **more: Any) -> Any:
        opened = real(path, *how, **more)
        if path.name != ".results.jsonl.part":
            return opened
        opened.close()
        return open("/dev/full", "wb", buffering=0)  # noqa: PTH123

    monkeypatch.setattr(Path, "open", full)
    ran = cli.batch(emulator, cli.write("b.txt", "full 1\nfull 2"), "--no-download")
    lost = [json.loads(line) for line in ran.err.splitlines() if line.startswith("{")]
    ours = {charge.task_id for charge in emulator.ledger if charge.prompt.startswith("full ")}
    assert (ran.code, {record["task_id"] for record in lost} - {None}) == (1, ours)
    assert "No space left" in ran.err


# --- signals ------------------------------------------------------------------------------------------------------------


#: What the suite itself was started to ignore (nohup) would be ignored by the command as well. Not a `preexec_fn`: the
#: emulator has threads, and a fork among threads may never come back.
LAUNCHER = """
import runpy, signal
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
"""


def start(emulator: Emulator, folder: Path, *more: str) -> subprocess.Popen[str]:
    (folder / "b.txt").write_text("\n".join(f"prompt {number}" for number in range(40)))
    argv = [sys.executable, "-c", LAUNCHER, "batch", "b.txt", "--provider", "yescale"]
    argv += ["--base-url", emulator.base_url("yescale"), *more]
    return subprocess.Popen(
        argv,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, ENV["yescale"]: KEY},
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_batch_has_a_line_for_every_job(tmp_path: Path, number: signal.Signals) -> None:
    """The first Ctrl-C, SIGTERM, or a closed terminal: exit code 130, every accepted task id is in the file, no traceback."""
    slow = [{"on": "create", "nth": 5, "do": {"fault": "delay", "seconds": 1.0}}]
    with Emulator(
        api_key=KEY, render=False, durations="constant:60", scenario=Scenario.of(slow)
    ).in_thread() as emulator:
        with start(emulator, tmp_path, "--max-in-flight", "5") as process:
            until(lambda: len(emulator.ledger) == 5)
            process.send_signal(number)
            out, err = process.communicate(timeout=20)
        records = [json.loads(line) for line in (tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()]
        assert process.returncode == 130
        assert sorted(record["index"] for record in records) == list(range(40))
        assert {r["task_id"] for r in records} - {None} == {charge.task_id for charge in emulator.ledger}
        assert ("Traceback" in out + err, KEY in out + err, "Ctrl-C again" in err) == (False, False, True)
        assert "5 accepted and not settled" in err


def test_the_second_interrupt_leaves_at_once(tmp_path: Path) -> None:
    """While a receipt is awaited, a second Ctrl-C ends the process; every receipt that had come is in the file."""
    slow = [{"on": "create", "nth": 5, "do": {"fault": "delay", "seconds": 30.0}}]
    with Emulator(api_key=KEY, render=False, scenario=Scenario.of(slow)).in_thread() as emulator:
        with start(emulator, tmp_path, "--max-in-flight", "5") as process:
            until(lambda: len(emulator.ledger) == 5)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert "stopping" in process.stderr.readline()
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
        assert (process.returncode, time.monotonic() - began < 5) == (130, True)
        records = [json.loads(line) for line in (tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()]
        came = {charge.task_id for charge in emulator.ledger if charge.fault is None}
        assert (len(records), {record["task_id"] for record in records} - {None}) == (40, came)
        assert [record["status"] for record in records].count("submitting") == 1
        assert "Traceback" not in out + err
        assert "left at once" in err


def test_a_reader_that_leaves_does_not_stop_what_is_paid(tmp_path: Path) -> None:
    """`batch --json | head -1`: the batch goes on into its file."""
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as emulator:
        with start(emulator, tmp_path, "--json", "--no-download", "--expected-seconds", "0.2") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            err = process.stderr.read()
            assert process.wait(30) == 0
        assert len((tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()) == 40
        assert "BrokenPipe" not in err


def test_a_closed_standard_error_does_not_stop_what_is_paid(tmp_path: Path) -> None:
    """`batch 2>&1 | head -1`, or a terminal that is gone: the batch goes on."""
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as emulator:
        with start(emulator, tmp_path, "--no-download", "--expected-seconds", "0.2", "--log-level", "debug") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stderr.readline()
            process.stderr.close()
            process.stdout.close()
            assert process.wait(30) == 0
        assert len((tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()) == 40
