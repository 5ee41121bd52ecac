"""The API key under every fault and command: never in a file, in the output or on a command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async._planning.fuses import MAX_DOUBTS
from pika_async.emulator import FAULTS, Emulator
from tests.cli.command_line import ENV, CommandResult
from tests.cli.fault_gateway import FaultGateway, ServerThread, results_by_prompt, run_command, serving_emulator
from tests.contracts.verdict_rows import LOST_ANSWERS
from tests.fakes.child_process import ChildProcess
from tests.fakes.raw_server import Act, RawServer, answer

#: One provider of each dialect.
PROVIDERS = ("cometapi", "native")
#: Both dialects, and both ways to give the key.
PAIRS = [("cometapi", "variable"), ("native", "file")]
#: It has a slash, which some JSON writers escape.
CANARY = "sk-CANARY-4fJ8/Qm2Zt7Xw1Lr9Bv6Kd3Hn5Gs0Y"
#: Either half counts as leaked.
HALVES = tuple(CANARY.split("/"))
DEBUG = ("--log-level", "debug")
FAST = ("--expected-seconds", "0.05")
FAST_OUT = (*FAST, "--out", "out")


@pytest.fixture(scope="module")
def server_thread() -> Iterator[ServerThread]:
    serving = ServerThread()
    yield serving
    serving.close()


# -- where the key may be ------------------------------------------------------------------------------------------------


@attrs.frozen
class Workspace:
    """Working folder with its own temporary folder and home; the key file is outside of it."""

    folder: Path
    key_file: Path

    def leaks(self, *outputs: str) -> list[str]:
        """Return where the key occurs: in files below the folder, in their names, or in `outputs`."""
        places = []
        for half in HALVES:
            for path in self.folder.rglob("*"):
                inside = path.is_file() and half.encode() in path.read_bytes()
                places += [str(path)] * (inside or half in path.name)
            places += [text[max(0, text.index(half) - 60) :] for text in outputs if half in text]
        return places

    def command(self, command: str, provider: str, url: str, *more: str, source: str = "variable") -> CommandResult:
        """Run a command at level debug, with the canary from `source`."""
        key = ["--api-key-file", str(self.key_file)] if source == "file" else []
        target = ["--provider", provider, "--base-url", url]
        secret = CANARY if source == "variable" else None
        return run_command(self.folder, *command.split(), *target, *key, *more, *DEBUG, key=secret)

    def batch(self, provider: str, url: str, prompts: list[str], *more: str, source: str = "variable") -> CommandResult:
        (self.folder / "b.txt").write_text("\n".join(prompts))
        return self.command("batch b.txt", provider, url, *FAST_OUT, *more, source=source)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    folder, key_file = tmp_path / "work", tmp_path / "key"
    for each in (folder, folder / "tmp", folder / "home"):
        each.mkdir()
    key_file.write_text(CANARY + "\n")
    monkeypatch.setattr("tempfile.tempdir", str(folder / "tmp"))
    monkeypatch.setenv("HOME", str(folder / "home"))
    return Workspace(folder, key_file)


# -- every fault of the emulator -------------------------------------------------------------------------------------

#: Options that shorten faults which would hang.
SHORT: dict[str, dict[str, Any]] = {
    "delay": {"seconds": 0.1}, "stall": {"seconds": 0.1}, "body-stall": {"seconds": 0.1}, "takes": {"seconds": 0.1},
    "die": {"seconds": 0.1},
}  # fmt: skip
#: Faults that stop a batch.
STOPPING = [
    ("create", {"fault": "refuse", "as": "key"}),
    ("create", {"fault": "refuse", "as": "quota"}),
    ("create", {"fault": "redirect", "location": f"https://elsewhere.invalid/?key={CANARY}"}),
    ("feed", {"fault": "refuse", "as": "key"}),
]


def _faults() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield a name, a place and the options of every fault in a response, for every place where it may occur."""
    for name, (places, _) in FAULTS.items():
        for place in sorted(places - {"callback"}):
            fault = {"fault": name, **SHORT.get(name, {})}
            if (place, name) != ("create", "redirect"):
                yield f"[{name} of {place}]", place, fault


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "source"), PAIRS)
def test_no_fault_leaks_the_key(provider: str, source: str, workspace: Workspace) -> None:
    """Every fault of a scenario occurs at the first request of its kind, in one batch with downloads."""
    faults = list(_faults())
    rules = [{"on": place, "prompt": name, "per": "task", "nth": 1, "do": fault} for name, place, fault in faults]
    with serving_emulator(rules, api_key=CANARY) as emulator:
        prompts = [name for name, *_ in faults]
        ran = workspace.batch(provider, emulator.base_url(provider), prompts, "--max-in-flight", "99", source=source)
        assert {record["status"] for record in results_by_prompt(workspace.folder / "out").values()} >= {
            "succeeded",
            "unknown",
        }
        assert len(emulator.ledger) > len(prompts) / 2
        assert emulator.cdn_credentials == []
    assert (ran.code, workspace.leaks(ran.out, ran.err)) == (1, [])
    assert "DEBUG" in ran.err


@pytest.mark.parametrize("number", range(len(STOPPING)))
def test_a_stopped_batch_does_not_leak_the_key(number: int, workspace: Workspace) -> None:
    """Its key was refused, its balance was empty, or it was redirected to a URL with the key."""
    place, fault = STOPPING[number]
    with serving_emulator([{"on": place, "do": fault}], api_key=CANARY) as emulator:
        ran = workspace.batch("native", emulator.base_url("native"), ["one", "two"])
    assert (ran.code, workspace.leaks(ran.out, ran.err)) == (1 if fault["fault"] == "redirect" else 3, [])


# -- a gateway that repeats the key -------------------------------------------------------------------------


def _escaped(text: str, form: str) -> str:
    return "".join(f"\\u{ord(letter):{form}}" for letter in text)


SPELLINGS: dict[str, str] = {
    "plain": CANARY,
    "as a header": f"Authorization: Bearer {CANARY}",
    "slashes escaped": CANARY.replace("/", r"\/"),
    "escaped": _escaped(CANARY, "04x"),
    "escaped in capitals": _escaped(CANARY, "04X"),
    "one letter escaped": _escaped(CANARY[0], "04x") + CANARY[1:],
    "a slash escaped as a number": CANARY.replace("/", r"\u002f"),
    "twice": CANARY + CANARY,
    "behind many words": "word " * 60 + CANARY,
}
PAGE = {"Content-Type": "text/html"}


def _failure_json(provider: str, code: str, text: str) -> str:
    """Return a failure in the dialect of the provider; `text` is escaped for JSON already."""
    if provider == "cometapi":
        return f'{{"code": "{code}", "msg": "{text}", "data": null}}'
    return f'{{"error": {{"message": "{text}", "type": "x", "param": "{text}", "code": "{code}"}}}}'


def _body_echoes(provider: str, text: str) -> dict[str, Act]:
    """Return responses to a submission with `text` in their body; none stops the batch."""
    failure = _failure_json(provider, "bad", text)
    return {
        **{f"{status}": Act(answer(status, failure)) for status in (400, 413, 422, 500, 502, 504)},
        "200 that refuses": Act(answer(200, failure)),
        "200 that says nothing": Act(answer(200, f'{{"you sent": "{text}"}}')),
        "200 whose code it is": Act(answer(200, _failure_json(provider, text, "no"))),
        "500 page": Act(answer(500, f"<html>{text}</html>", PAGE)),
        "400 text": Act(answer(400, text, {"Content-Type": "text/plain"})),
        "400 cut": Act(answer(400, b"", {"Content-Length": "9999"}) + failure.encode(), "fin"),
    }


def _head_echoes(_provider: str, text: str) -> dict[str, Act]:
    """Return responses to a submission with `text` outside of their body."""
    bearer = f"Bearer {text}"
    return {
        "a header": Act(answer(400, "{}", {"X-Echo": bearer})),
        "the content type": Act(answer(400, "no", {"Content-Type": f"text/plain; key={text}"})),
        "the coding": Act(answer(400, "no", {"Content-Encoding": text})),
        "a date": Act(answer(429, "{}", {"Retry-After": "0", "Date": text})),
        "the reason": Act(answer(f"400 {bearer}", "{}")),
        "the status": Act(f"HTTP/1.1 {text} OK\r\n\r\n".encode(), "fin"),
        "no HTTP": Act(f"{bearer}\r\n\r\n".encode(), "fin"),
        "a header without a colon": Act(f"HTTP/1.1 200 OK\r\n{bearer}\r\n\r\n".encode(), "fin"),
        "a header too long": Act(answer(200, "{}", {"X-Echo": bearer * 3000})),
        "a chunk's size": Act(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}\r\n".encode(), "fin"),
        "a cookie": Act(answer(400, "{}", {"Set-Cookie": f"key={text}"})),
    }


def _always(act: Act) -> Callable[[str], Act]:
    return lambda _: act


@pytest.fixture
def run_with_acts(workspace: Workspace, server_thread: ServerThread) -> Callable[[str, dict[str, Act]], CommandResult]:
    """Return a function that runs a batch with one job for each act."""

    def of(provider: str, acts: dict[str, Act]) -> CommandResult:
        gateway = FaultGateway(provider)
        for name, act in acts.items():
            gateway.answer_with(f"[{name}]", _always(act))
        with server_thread.serving(gateway):
            ran = workspace.batch(provider, gateway.url, [f"[{name}]" for name in acts], "--no-download")
        assert set(gateway.posts) == {f"[{name}]" for name in acts}
        return ran

    return of


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_key_repeated_in_a_body_is_not_leaked(
    provider: str, spelling: str, workspace: Workspace, run_with_acts: Callable[[str, dict[str, Act]], CommandResult]
) -> None:
    """This holds for every kind of response to a submission and every spelling."""
    ran = run_with_acts(provider, _body_echoes(provider, SPELLINGS[spelling]))
    assert workspace.leaks(ran.out, ran.err) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_key_repeated_outside_of_a_body_is_not_leaked(
    provider: str, workspace: Workspace, run_with_acts: Callable[[str, dict[str, Act]], CommandResult]
) -> None:
    """It may be in headers, the status line or a chunk, well formed or not."""
    ran = run_with_acts(provider, _head_echoes(provider, CANARY))
    assert workspace.leaks(ran.out, ran.err) == []


@pytest.mark.slow
@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_lost_response_does_not_leak_the_key(
    provider: str, workspace: Workspace, run_with_acts: Callable[[str, dict[str, Act]], CommandResult]
) -> None:
    """Every connection fault, except silence, because no option shortens that timeout; too few at once for a stop."""
    acts = {row.name: row.act(provider) for row in LOST_ANSWERS}
    names = [name for name, act in acts.items() if act.then != "stall"]
    for start in range(0, len(names), MAX_DOUBTS - 1):
        ran = run_with_acts(provider, {name: acts[name] for name in names[start : start + MAX_DOUBTS - 1]})
        assert workspace.leaks(ran.out, ran.err) == []


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_repeated_in_a_poll_is_not_leaked(spelling: str, workspace: Workspace) -> None:
    """No reason, unknown word or URL with the key gets into the results, the page or the log."""
    text = json.loads(f'"{SPELLINGS[spelling]}"')
    polls: list[dict[str, Any]] = [
        {"fault": "answer", "status": 404, "body": f'{{"error": {{"message": "{SPELLINGS[spelling]}"}}}}'},
        *_raw_feeds(SPELLINGS[spelling]),
    ]
    if spelling in {"as a header", "escaped"}:  # half a second until the next poll
        polls += [{"fault": "answer", "status": status, "body": SPELLINGS[spelling]} for status in (400, 429, 502)]
    if "\\" not in SPELLINGS[spelling]:
        polls += [{"fault": "word", "word": text}, {"fault": "link", "url": f"http://127.0.0.1:9/{text}?key={text}"}]
    names = [f"[{number}]" for number in range(len(polls))]
    rules = [
        {"on": "feed", "prompt": name, "per": "task", "nth": 1, "do": fault}
        for name, fault in zip(names, polls, strict=True)
    ]
    with serving_emulator(rules, api_key=CANARY) as emulator:
        ran = workspace.batch("native", emulator.base_url("native"), names, "--no-download")
    assert workspace.leaks(ran.out, ran.err) == []


def _raw_feeds(text: str) -> Iterator[dict[str, Any]]:
    """Yield a failed and a succeeded task whose every text is the key."""
    for status in ("error", "finished"):
        video = f'{{"id": "v", "status": "{status}", "error": "{text}", "resultUrl": "https://a.example/{text}.mp4"}}'
        yield {"fault": "answer", "body": f'{{"id": "{{task_id}}", "promptText": "{text}", "videos": [{video}]}}'}


# -- the other commands ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "source"), PAIRS)
def test_generate_does_not_leak_the_key(
    provider: str, source: str, workspace: Workspace, server_thread: ServerThread
) -> None:
    """Responses repeat it in the body and outside, also when they refuse the account."""
    refusal = _failure_json(provider, "no", f"Bearer {CANARY}")
    acts = {
        **_body_echoes(provider, CANARY), **_head_echoes(provider, CANARY),
        **{f"{status} refused": Act(answer(status, refusal, {"X-Echo": CANARY})) for status in (401, 402, 403)},
        "404 page": Act(answer(404, f"<html>{CANARY}</html>", PAGE)),
        "a redirect": Act(answer(307, "", {"Location": f"https://elsewhere.invalid/{CANARY}"})),
    }  # fmt: skip
    gateway = FaultGateway(provider)
    outputs = []
    with server_thread.serving(gateway):
        for name, act in acts.items():
            gateway.answer_with(f"[{name}]", _always(act))
            ran = workspace.command(f"generate [{name.replace(' ', '_')}]", provider, gateway.url, *FAST, source=source)
            outputs += [ran.out, ran.err]
    assert workspace.leaks(*outputs) == []


@pytest.mark.parametrize("source", ["variable", "file"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_doctor_does_not_print_or_save_the_key(
    provider: str, source: str, workspace: Workspace, server_thread: ServerThread
) -> None:
    """Responses repeat the key in their body."""
    outputs = []
    acts = _body_echoes(provider, CANARY)
    with server_thread.serving(server := RawServer(provider)):
        for number, act in enumerate(acts.values()):
            server.poll_acts.append(act)
            ran = workspace.command("doctor", provider, server.url, "--save", f"samples-{number}", source=source)
            outputs += [ran.out, ran.err]
    assert len(list(workspace.folder.glob("samples-*/*.json"))) == len(acts)
    assert workspace.leaks(*outputs) == []


def test_doctor_does_not_save_a_key_outside_of_a_body(workspace: Workspace, server_thread: ServerThread) -> None:
    """Saved headers are redacted like the body."""
    outputs = []
    with server_thread.serving(server := RawServer("native")):
        for number, act in enumerate(_head_echoes("native", CANARY).values()):
            server.poll_acts.append(act)
            ran = workspace.command("doctor", "native", server.url, "--save", f"samples-{number}")
            outputs += [ran.out, ran.err]
    assert workspace.leaks(*outputs) == []


@pytest.mark.parametrize("spelling", [name for name, spelling in SPELLINGS.items() if r"\u" in spelling])
def test_doctor_does_not_save_an_escaped_key(spelling: str, workspace: Workspace, server_thread: ServerThread) -> None:
    """An escaped key in the JSON of a sample is the key."""
    body = _failure_json("native", "bad", SPELLINGS[spelling])
    with server_thread.serving(server := RawServer("native")):
        server.poll_acts.append(Act(answer(400, body)))
        ran = workspace.command("doctor", "native", server.url, "--save", "samples")
    assert workspace.leaks(ran.out, ran.err) == []


# -- a process -------------------------------------------------------------------------------------------------------

#: A command inherits ignored signals: restore them.
LAUNCHER = """
import runpy, signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)
runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def _start_batch(emulator: Emulator, workspace: Workspace, source: str) -> Iterator[ChildProcess]:
    (workspace.folder / "b.txt").write_text("\n".join(f"prompt {number}" for number in range(40)))
    argv = [sys.executable, "-c", LAUNCHER, "batch", "b.txt", "--provider", "native", *FAST_OUT, *DEBUG]
    argv += ["--base-url", emulator.base_url("native"), "--max-in-flight", "20"]
    env = {name: value for name, value in os.environ.items() if name not in ENV.values()}
    env |= {"TMPDIR": str(workspace.folder / "tmp"), "HOME": str(workspace.folder / "home")}
    if source == "variable":
        env[ENV["native"]] = CANARY
    else:
        argv += ["--api-key-file", str(workspace.key_file)]
    with ChildProcess(
        argv, cwd=workspace.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _command_lines(pid: int) -> list[bytes]:
    """Return the command lines of a process and of its descendants."""
    lines = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                lines += _command_lines(int(child))
    return lines


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("source", ["variable", "file"])
def test_a_killed_process_leaves_no_key(source: str, number: signal.Signals, workspace: Workspace) -> None:
    """No command line holds the key, and a process killed during submissions, polls and downloads leaves no key."""
    rules = [
        {"on": "create", "nth": 15, "do": {"fault": "stall", "seconds": 20.0}},
        {"on": "cdn", "nth": 4, "do": {"fault": "body-stall", "seconds": 20.0}},
    ]
    command_lines: set[bytes] = set()
    with serving_emulator(rules, api_key=CANARY) as emulator, _start_batch(emulator, workspace, source) as process:
        deadline = time.monotonic() + 60
        while len(emulator.ledger) < 15 or len(emulator.cdn_requests) < 4:
            assert time.monotonic() < deadline
            assert process.poll() is None
            command_lines.update(_command_lines(process.pid))
            time.sleep(0.01)
        process.send_signal(number)
        if number is signal.SIGTERM:
            process.read_errors_until("stopping")
            process.kill()
        out, err = process.communicate(timeout=20)
    assert any(b"batch" in line for line in command_lines)
    assert [line for line in command_lines if CANARY.encode() in line] == []
    assert (workspace.leaks(out, err), (workspace.folder / "out" / "results.jsonl").exists()) == ([], True)
