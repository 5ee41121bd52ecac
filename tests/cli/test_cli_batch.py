"""`batch` over real sockets: one charge for each prompt of every input format, and an exit code for every outcome."""

from __future__ import annotations

import base64
import json
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pika_async.cli.results import COLUMNS
from pika_async.emulator import EMULATED_GATEWAYS, Emulator, Scenario
from tests.cli.batch_process import HANG_S, start_batch, wait_until
from tests.cli.command_line import KEY, CommandLine, files_with, serving
from tests.http.media_files import made

TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as serving:
        yield serving


def charged(emulator: Emulator, prompts: list[str]) -> list[str]:
    """Return the prompts among `prompts` that were charged, one entry for each charge."""
    return sorted(charge.prompt for charge in emulator.ledger if charge.prompt in set(prompts))


FORMATS: dict[str, Callable[[list[str]], str]] = {
    "jsonl": lambda prompts: "\n".join(json.dumps({"prompt": prompt, "seed": 3}) for prompt in prompts),
    "csv": lambda prompts: "\n".join(["prompt,camera.pan", *(f'"{prompt}",left' for prompt in prompts)]),
    "txt": lambda prompts: "\n\n".join(["# prompts", *prompts]),
    "stdin": "\n".join,
}


@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
@pytest.mark.parametrize("format_name", FORMATS)
def test_every_prompt_is_charged_once_and_downloaded(
    cli: CommandLine, emulator: Emulator, provider: str, format_name: str
) -> None:
    """Every input format and provider gives exit code 0, and a line and a file for each prompt."""
    prompts = [f"{provider} {format_name} {number}, with a comma" for number in range(5)]
    content = FORMATS[format_name](prompts)
    if format_name == "stdin":
        ran = cli.batch(emulator, "-", provider=provider, stdin=content.encode())
    else:
        ran = cli.batch(emulator, cli.write(f"b.{format_name}", content), provider=provider)
    assert ran.code == 0
    assert charged(emulator, prompts) == sorted(prompts)
    records = sorted(cli.results(), key=lambda record: int(record["index"]))
    assert [record["prompt"] for record in records] == prompts
    assert all((cli.folder / "pika-out" / record["file"]).read_bytes()[4:8] == b"ftyp" for record in records)
    assert "5 jobs: 5 succeeded; 5 on disk" in ran.out
    assert files_with(cli.folder, KEY) == []
    assert emulator.cdn_credentials == []


def test_a_line_has_exactly_the_documented_columns(cli: CommandLine, emulator: Emulator) -> None:
    """They are in order, with times in UTC, the file relative to the folder, and null where there is no value."""
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


def test_json_output_is_only_the_result_lines(cli: CommandLine, emulator: Emulator) -> None:
    """Standard output has the lines of the file in the same order; the summary is on standard error."""
    prompts = "a\nb\u2028c \u202e\nd \x9b31m"
    ran = cli.batch(emulator, cli.write("b.txt", prompts), "--json", "--no-download")
    assert (ran.code, ran.records, len(ran.out.splitlines())) == (0, cli.results(), 3)
    assert ran.out.isascii()
    assert "3 jobs: 3 succeeded" in ran.err
    assert not (cli.folder / "pika-out" / "videos").exists()


def test_equal_rows_are_paid_once(cli: CommandLine, emulator: Emulator) -> None:
    """Two rows with equal key and content are one job."""
    row = '{"prompt": "only once", "key": "once"}\n'
    ran = cli.batch(emulator, cli.write("b.jsonl", row + '{"prompt": "between"}\n' + row))
    assert (ran.code, len(cli.results()), charged(emulator, ["only once"])) == (0, 2, ["only once"])


def test_a_local_image_is_sent(cli: CommandLine, emulator: Emulator) -> None:
    """A path in a row is read and sent inline if the provider takes bytes."""
    cli.write("a.png", made("png"))
    ran = cli.batch(emulator, cli.write("b.csv", "prompt,image\nwith a picture,a.png\n"), "--no-download")
    [charge] = [charge for charge in emulator.ledger if charge.prompt == "with a picture"]
    assert (ran.code, charge.body["image"]) == (0, base64.b64encode(made("png")).decode())


def test_foreign_text_does_not_control_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control characters and markup in the reason of a failure are printed as text."""
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
    assert (record["status"], record["error"]["type"], record["error"]["kind"]) == (
        "failed",
        "GenerationFailed",
        "other",
    )


def test_results_have_the_kind_of_an_error(cli: CommandLine) -> None:
    """A line of `results.jsonl` and of `--json` has the type, the kind and the message of its error."""
    with serving({"on": "create", "do": {"fault": "fails", "reason": "content_moderation"}}) as emulator:
        ran = cli.batch(emulator, cli.write("b.txt", "a cat"), "--json")
    assert ran.records == cli.results()
    assert cli.results()[0]["error"] == {
        "type": "GenerationFailed", "kind": "moderation", "message": ran.records[0]["error"]["message"],
    }  # fmt: skip


# --- exit codes -------------------------------------------------------------------------------------------------------

OUTCOMES: list[tuple[str, list[dict[str, Any]], tuple[str, ...], int, dict[str, int]]] = [
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
    ("wrong-address", [{"on": "create", "do": "redirect"}], (), 1, {"planned": 6}),
    ("deadline", [{"on": "create", "nth": 1, "do": {"fault": "takes", "seconds": 60}}], ("--deadline", "1"), 1,
     {"succeeded": 5, "timed_out": 1}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "more", "code", "counts"), [pytest.param(*outcome[1:], id=outcome[0]) for outcome in OUTCOMES]
)
def test_every_outcome_has_its_exit_code_and_a_line_for_each_job(
    cli: CommandLine, rules: list[dict[str, Any]], more: tuple[str, ...], code: int, counts: dict[str, int]
) -> None:
    """Failures, rejections, jobs in doubt, a stopped account and limits show in the code and in `results.jsonl`."""
    settings: dict[str, Any] = {"api_key": KEY, "render": False, "durations": "constant:0.1", "video_seconds": 1.0}
    with Emulator(**settings, scenario=Scenario.of(rules)).in_thread() as emulator:
        source = cli.write("b.txt", "\n".join(f"prompt {number}" for number in range(6)))
        ran = cli.batch(emulator, source, "--max-in-flight", "1", *more)
        records = cli.results()
        assert ran.code == code
        assert Counter(record["status"] for record in records) == counts
        assert sorted(record["index"] for record in records) == list(range(6))
        known_tasks = {record["task_id"] for record in records if record["task_id"]}
        in_doubt = [charge for charge in emulator.ledger if charge.task_id not in known_tasks]
        assert len(in_doubt) == counts.get("unknown", 0)
        assert (cli.folder / "pika-out" / "index.html").is_file()


def test_a_full_disk_loses_no_task_id(cli: CommandLine, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """If `results.jsonl` cannot be written, its lines go to standard error and nothing more is sent."""
    original_open = Path.open

    def open_full(path: Path, *how: Any, **more: Any) -> Any:
        file = original_open(path, *how, **more)
        if path.name != "results.jsonl" or "ab" not in how:  # the file that takes the lines of settled jobs
            return file
        file.close()
        return open("/dev/full", "wb", buffering=0)  # noqa: PTH123

    monkeypatch.setattr(Path, "open", open_full)
    ran = cli.batch(emulator, cli.write("b.txt", "full 1\nfull 2"), "--no-download")
    printed = [json.loads(line) for line in ran.err.splitlines() if line.startswith("{")]
    charged_tasks = {charge.task_id for charge in emulator.ledger if charge.prompt.startswith("full ")}
    assert (ran.code, {record["task_id"] for record in printed} - {None}) == (1, charged_tasks)
    assert "No space left" in ran.err


# --- signals ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_batch_has_a_line_for_every_job(tmp_path: Path, number: signal.Signals) -> None:
    """The first Ctrl-C, SIGTERM or SIGHUP gives exit code 130, and every accepted task id is in the file."""
    slow = [{"on": "create", "nth": 5, "do": {"fault": "delay", "seconds": 1.0}}]
    with Emulator(
        api_key=KEY, render=False, durations="constant:60", scenario=Scenario.of(slow)
    ).in_thread() as emulator:
        with start_batch(emulator, tmp_path, "--max-in-flight", "5") as process:
            wait_until(lambda: len(emulator.ledger) == 5)
            process.send_signal(number)
            out, err = process.communicate(timeout=HANG_S)
        records = [json.loads(line) for line in (tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()]
        assert process.returncode == 130
        assert sorted(record["index"] for record in records) == list(range(40))
        assert {r["task_id"] for r in records} - {None} == {charge.task_id for charge in emulator.ledger}
        assert ("Traceback" in out + err, KEY in out + err, "Ctrl-C again" in err) == (False, False, True)
        assert "5 still in flight, 35 not sent" in err


def test_the_second_interrupt_exits_at_once(tmp_path: Path) -> None:
    """A second Ctrl-C ends the process before a pending response arrives; every receipt read so far is in the file."""
    slow = [{"on": "create", "nth": 5, "do": {"fault": "delay", "seconds": 2 * HANG_S}}]
    with Emulator(api_key=KEY, render=False, scenario=Scenario.of(slow)).in_thread() as emulator:
        with start_batch(emulator, tmp_path, "--max-in-flight", "5") as process:
            wait_until(lambda: len(emulator.ledger) == 5)
            process.send_signal(signal.SIGINT)
            process.read_errors_until("stopping")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=HANG_S)  # the pending response takes twice as long
        assert process.returncode == 130
        records = [json.loads(line) for line in (tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()]
        received = {charge.task_id for charge in emulator.ledger if charge.fault is None}
        assert (len(records), {record["task_id"] for record in records} - {None}) == (40, received)
        assert [record["status"] for record in records].count("submitting") == 1
        assert "Traceback" not in out + err
        assert "exited at once" in err


def test_a_closed_reader_does_not_stop_the_batch(tmp_path: Path) -> None:
    """After `batch --json | head -1` the batch continues and fills its file."""
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as emulator:
        with start_batch(emulator, tmp_path, "--json", "--no-download", "--expected-seconds", "0.2") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            err = process.stderr.read()
            assert process.wait(HANG_S) == 0
        assert len((tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()) == 40
        assert "BrokenPipe" not in err


def test_a_closed_standard_error_does_not_stop_the_batch(tmp_path: Path) -> None:
    """After `batch 2>&1 | head -1`, or without its terminal, the batch continues."""
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as emulator:
        with start_batch(
            emulator, tmp_path, "--no-download", "--expected-seconds", "0.2", "--log-level", "debug"
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stderr.readline()
            process.stderr.close()
            process.stdout.close()
            assert process.wait(HANG_S) == 0
        assert len((tmp_path / "pika-out" / "results.jsonl").read_text().splitlines()) == 40
