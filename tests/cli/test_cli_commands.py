"""`generate`, `providers`, `demo`, `emulate`, help texts, and the hints about missing extras."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pika_async.cli.demo
from pika_async import PikaClient, provider_names
from pika_async.__main__ import main
from pika_async.cli.commands import app
from pika_async.cli.demo_prompts import demo_requests
from pika_async.emulator import EMULATED_GATEWAYS, EMULATED_PROVIDERS, Emulator, Scenario
from pika_async.providers import PROVIDERS as RECORDS
from tests.cli.command_line import KEY, CommandLine, files_with
from tests.fakes.child_process import ChildProcess
from tests.fakes.page_data import page_data


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(api_key=KEY, render=False, durations="constant:0.1").in_thread() as serving:
        yield serving


def target(emulator: Emulator, provider: str) -> list[str]:
    """Return the options that send a command to the emulator."""
    return ["--provider", provider, "--base-url", emulator.base_url(provider), "--expected-seconds", "0.2"]


# --- generate -----------------------------------------------------------------------------------------------------------


def test_generate_saves_one_video(cli: CommandLine, emulator: Emulator) -> None:
    """Standard output has only the file name; standard error has the task id as soon as it is known."""
    ran = cli("generate", "one cat", *target(emulator, "gptge"), "--out", "cat.mp4")
    [charge] = [charge for charge in emulator.ledger if charge.prompt == "one cat"]
    assert (ran.code, ran.out) == (0, "cat.mp4\n")
    assert (cli.folder / "cat.mp4").read_bytes()[4:8] == b"ftyp"
    assert f"\naccepted by gptge: task {charge.task_id}\n" in ran.err
    assert files_with(cli.folder, KEY) == []


def test_generate_without_a_file_prints_the_url(cli: CommandLine, emulator: Emulator) -> None:
    """With --json it prints the job as one line."""
    ran = cli("generate", "two cats", *target(emulator, "native"))
    assert (ran.code, ran.out.startswith(emulator.cdn_url), len(ran.out.splitlines())) == (0, True, 1)
    ran = cli("generate", "three cats", *target(emulator, "native"), "--json")
    assert (ran.code, [record["prompt"] for record in ran.records]) == (0, ["three cats"])


def test_generate_sends_every_option(cli: CommandLine, emulator: Emulator) -> None:
    """Each option reaches the gateway under the provider's name for it."""
    options = (
        "--effect melt --aspect-ratio 1:1 --frame-rate 12 --camera pan=left,zoom=in --guidance-scale 9 --motion 3 "
        "--negative-prompt ugly --seed 5 --sfx --model 1.5"
    )
    ran = cli("generate", "every option", *target(emulator, "cometapi"), *options.split(" "))
    [charge] = [charge for charge in emulator.ledger if charge.prompt == "every option"]
    assert ran.code == 0
    assert {name: value for name, value in charge.body.items() if name != "callback_url"} == {
        "prompt": "every option", "ratio": "1:1", "style": "Melt", "sfx": True, "model": 1.5,
        "options": {
            "frameRate": 12, "camera": {"pan": "left", "zoom": "in"},
            "parameters": {"guidanceScale": 9, "motion": 3, "negativePrompt": "ugly", "seed": 5},
        },
    }  # fmt: skip


def test_generate_names_the_option_that_no_page_documents(cli: CommandLine, emulator: Emulator) -> None:
    """A length, a resolution and a last image are refused before they cost."""
    for option, value in (("duration", "5"), ("resolution", "4K"), ("last-image", "http://a.example/1.png")):
        ran = cli("generate", "refused", *target(emulator, "gptge"), f"--{option}", value)
        assert (ran.code, f"its page documents no {option.replace('-', ' ')}" in ran.err) == (2, True), ran.err
    assert [charge for charge in emulator.ledger if charge.prompt == "refused"] == []


def test_generate_takes_ingredients(cli: CommandLine, emulator: Emulator) -> None:
    """The option may be given several times."""
    more = "--ingredient http://a.example/1.png --ingredient http://a.example/2.png --ingredients-mode creative"
    ran = cli("generate", "ingredients", *target(emulator, "native"), *more.split(" "))
    [charge] = [charge for charge in emulator.ledger if charge.prompt == "ingredients"]
    assert (ran.code, charge.body["ingredient"]) == (0, ["http://a.example/1.png", "http://a.example/2.png"])
    assert charge.body["options"]["ingredients-mode"] == "creative"


@pytest.mark.parametrize(
    ("do", "code", "text"),
    [
        ("fails", 1, "generation failed"),
        ({"fault": "refuse", "as": "invalid"}, 1, "rejected, not charged"),
        ({"fault": "drop", "when": "before-reply"}, 1, "in doubt"),
        ({"fault": "refuse", "as": "key"}, 3, "the account is stopped"),
        ({"fault": "takes", "seconds": 60}, 1, "not settled within 1 s"),
    ],
)
def test_generate_reports_every_outcome(cli: CommandLine, do: object, code: int, text: str) -> None:
    """Each outcome has an exit code and a sentence."""
    script = Scenario.of([{"on": "create", "do": do}])
    with Emulator(api_key=KEY, render=False, durations="constant:0.1", scenario=script).in_thread() as emulator:
        ran = cli("generate", "a cat", *target(emulator, "yescale"), "--deadline", "1")
    assert (ran.code, ran.out, text in ran.err) == (code, "", True)


def test_a_failed_download_names_the_task(cli: CommandLine) -> None:
    """The paid task is not lost: exit code 1, its task id and how to get the video."""
    script = Scenario.of([{"on": "cdn", "do": {"fault": "answer", "status": 410}}])
    with Emulator(api_key=KEY, render=False, durations="constant:0.1", scenario=script).in_thread() as emulator:
        ran = cli("generate", "a cat", *target(emulator, "yescale"), "--out", "a.mp4")
        assert (ran.code, emulator.ledger[0].task_id in ran.err, "stays paid" in ran.err) == (1, True, True)


def test_an_interrupted_generate_names_its_task(tmp_path: Path) -> None:
    """It exits with 130 and the task id, so that the accepted task is not lost."""
    with Emulator(api_key=KEY, render=False, durations="constant:60").in_thread() as emulator:
        argv = [sys.executable, "-m", "pika_async", "generate", "a cat", *target(emulator, "native")]
        argv += ["--api-key-file", _write(tmp_path, "key", KEY)]
        with ChildProcess(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.read_errors_until("accepted by native").startswith("accepted by native")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        task = emulator.ledger[0].task_id
    assert (process.returncode, out, "Traceback" in err) == (130, "", False)
    assert re.search(f"interrupted: task {task} is (queued|running) and continues at native", err)


# --- providers and help -------------------------------------------------------------------------------------------------


def test_providers_shows_every_field_of_every_provider(cli: CommandLine) -> None:
    """It prints a matrix; of one provider the spelling and the limits of each field; or JSON."""
    ran = cli("providers")
    assert ran.code == 0
    lines = [line.split() for line in ran.out.splitlines()]
    names, *rows = [
        line for line in lines[1:] if len(line) == 1 + len(RECORDS) and set(line[1:]) <= {*RECORDS, "yes", "-"}
    ]
    marks = {field: dict(zip(names[1:], row, strict=True)) for field, *row in rows}
    for provider in RECORDS.values():
        assert provider.api_key_env in ran.out
        alone = " ".join(cli("providers", provider.title).out.split())
        for field, capability in provider.capabilities.items():
            assert marks[field][provider.name] == ("yes" if capability.supported else "-")
            assert f"{field} {capability.wire or 'not supported'} {capability.note}".strip() in alone
    records = json.loads(cli("providers", "--json").out)
    assert [record["name"] for record in records] == provider_names()
    assert records[0]["capabilities"]["effect"] == {"wire": "style", "note": "13 effects", "supported": True}


@pytest.mark.parametrize("command", [name for name in app if not name.startswith("-")])
def test_every_command_has_a_help_text(cli: CommandLine, command: str) -> None:
    """--help has an example, and every command takes --log-level but no key."""
    ran = cli(command, "--help")
    assert f"Example: pika-async {command}" in ran.out
    assert {"Commands", "Parameters"}.isdisjoint(re.findall(r"^╭─ (.*?) ─", cli("--help").out, re.MULTILINE))
    assert (ran.code, "--log-level" in ran.out, re.search(r"--api-key(?!-file)", ran.out)) == (0, True, None)


def test_without_a_command_the_help_is_printed(cli: CommandLine) -> None:
    """The exit code is 0, as with --help and --version."""
    assert (cli().code, cli("--help").code, cli("--version").code) == (0, 0, 0)


# --- demo and emulate ---------------------------------------------------------------------------------------------------


def test_the_demo_leaves_real_videos_and_a_correct_summary(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each prompt has one charge, a file and a poster; a second demo replaces the files of the first."""
    monkeypatch.setattr(pika_async.cli.demo, "_TIME_SCALE", 0.005)
    for _ in range(2):
        ran = cli("demo", "--prompts", "12", "--seed", "3")
        assert ran.code == 0
        assert "one charge for each prompt: yes (12 charges in the emulator's ledger, 12 prompts sent)" in ran.out
        assert "credentials seen at the CDN: 0" in ran.out
        records = cli.results("pika-demo")
        assert [sum(r["provider"] == name for r in records) for name in EMULATED_GATEWAYS] == [3, 3, 3, 3]
        assert len({record["sha256"] for record in records}) == 12
        for record in records:
            assert (cli.folder / "pika-demo" / "posters" / f"{record['key']}.jpg").is_file()
    assert len(list((cli.folder / "pika-demo" / "videos").iterdir())) == 12
    (cli.folder / "pika-demo" / "videos" / "mine.mp4").write_text("mine")
    assert cli("demo", "--prompts", "4").code == 0
    assert (cli.folder / "pika-demo" / "videos" / "mine.mp4").read_text() == "mine"


def test_demo_requests_are_distinct_and_reproducible() -> None:
    """Prompts are distinct even beyond the word lists, providers accept them, and a seed reproduces them."""
    providers = list(RECORDS.values())
    dealt = demo_requests(providers, 4000, 1)
    prompts = [request.prompt for requests in dealt.values() for request in requests]
    assert (len(prompts), len(set(prompts))) == (4000, 4000)
    assert dealt == demo_requests(providers, 4000, 1)
    for provider in providers:
        for request in dealt[provider.name]:
            provider.check(request)
    assert {request.sfx for request in dealt["cometapi"]} == {None, True}


def test_the_emulator_serves_until_interrupted(tmp_path: Path) -> None:
    """It prints its addresses and its key, serves a batch, and prints what it charged."""
    argv = [sys.executable, "-m", "pika_async", "emulate", "--port", "0", "--durations", "constant:0.1"]
    with ChildProcess(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        head = [process.stdout.readline() for _ in range(11)]
        urls = dict(line.split() for line in head[1:7])
        assert list(urls) == list(EMULATED_PROVIDERS)
        key = head[7].removeprefix("key: ").strip()
        code = main(
            ["batch", _write(tmp_path), "--provider", "native", "--base-url", urls["native"], "--out",
             str(tmp_path / "out"), "--api-key-file", _write(tmp_path, "key", key), "--expected-seconds", "0.2"]
        )  # fmt: skip
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (code, process.returncode, "Traceback" in err) == (0, 0, False)
    assert "charges: 2 (cometapi 0, yescale 0, gptge 0, native 2, pika 0, fal 0)" in out


def _write(folder: Path, name: str = "b.txt", content: str = "a\nb") -> str:
    (folder / name).write_text(content)
    return str(folder / name)


# --- without the extras -------------------------------------------------------------------------------------------------

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from pika_async.__main__ import main
sys.exit(main({argv!r}))
"""


@pytest.mark.parametrize(
    ("blocked", "argv", "hint"),
    [
        ({"cyclopts"}, ["demo"], 'python -m pip install "pika_async[cli]"'),
        ({"rich"}, [], 'python -m pip install "pika_async[cli]"'),
        ({"jinja2"}, ["batch"], 'python -m pip install "pika_async[cli]"'),
        ({"cyclopts", "rich"}, ["providers"], 'python -m pip install "pika_async[cli]"'),
        ({"av"}, ["demo"], 'python -m pip install "pika_async[cli,emulator]"'),
        ({"PIL"}, ["emulate"], 'python -m pip install "pika_async[cli,emulator]"'),
    ],
)
def test_a_missing_extra_gives_one_line_with_the_command_to_install_it(
    tmp_path: Path, blocked: set[str], argv: list[str], hint: str
) -> None:
    """Exit code 2 and no traceback."""
    code = BLOCKED.format(blocked=blocked, argv=argv)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, len(ran.stderr.splitlines())) == (2, "", 1)
    assert hint in ran.stderr


def test_another_import_error_is_not_reported_as_a_missing_extra(tmp_path: Path) -> None:
    """Any other ImportError is raised as it is."""
    code = BLOCKED.format(blocked={"attrs"}, argv=[])
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, "No module named 'attrs'" in ran.stderr) == (1, True)


def test_batches_work_without_the_emulators_libraries(tmp_path: Path, emulator: Emulator) -> None:
    """The page then has videos without posters."""
    argv = ["batch", _write(tmp_path), *target(emulator, "native"), "--api-key-file", _write(tmp_path, "key", KEY)]
    code = BLOCKED.format(blocked={"av", "PIL"}, argv=argv)
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("Traceback")) == (0, 0)
    cards = page_data(tmp_path / "pika-out")["cards"]
    assert [("poster" in card, "file" in card) for card in cards] == [(False, True)] * 2


def test_importing_the_client_does_not_import_the_command_line() -> None:
    """Neither cyclopts nor rich is imported with the SDK."""
    code = f"import sys, {PikaClient.__module__}; sys.exit('cyclopts' in sys.modules or 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_batch_runs_without_uvloop(tmp_path: Path, emulator: Emulator) -> None:
    """uvloop is optional."""
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    address = emulator.base_url("native")
    argv = [
        "batch",
        "a.txt",
        "--provider",
        "native",
        "--base-url",
        address,
        "--no-download",
        "--expected-seconds",
        "0.2",
    ]
    code = BLOCKED.format(blocked={"uvloop"}, argv=argv)
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PIKA_API_KEY": emulator.api_key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, sorted(charge.prompt for charge in emulator.ledger[-2:])) == (0, ["one", "two"])
