"""The key through every fault and every command: it is in no file that a run leaves, on no stream and on no command line."""

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

from pika_async.emulator import FAULTS, Emulator
from tests.cli.command_line import ENV, CommandResult
from tests.cli.fault_gateway import FaultGateway, ServerThread, results_by_prompt, run_command, serving_emulator
from tests.contracts.verdict_rows import LOST_ANSWERS
from tests.fakes.raw_server import Act, Raw, answer

#: One provider of each dialect.
PROVIDERS = ("cometapi", "native")
#: Both, and both ways to give the key.
PAIRS = [("cometapi", "variable"), ("native", "file")]
#: With a slash, which some JSON writers escape.
CANARY = "sk-CANARY-4fJ8/Qm2Zt7Xw1Lr9Bv6Kd3Hn5Gs0Y"
#: Either of these is most of the secret.
HALVES = tuple(CANARY.split("/"))
DEBUG = ("--log-level", "debug")
QUICK = ("--expected-seconds", "0.05")
SWIFT = (*QUICK, "--out", "out")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ServerThread]:
    serving = ServerThread()
    yield serving
    serving.close()


# -- where it may lie ------------------------------------------------------------------------------------------------


@attrs.frozen
class Desk:
    """A working folder with its own temporary folder and home; the key's file lies outside."""

    folder: Path
    key_file: Path

    def found(self, *told: str) -> list[str]:
        """Where the key is found: the files below the folder, their names, and what was told."""
        places = []
        for half in HALVES:
            for path in self.folder.rglob("*"):
                inside = path.is_file() and half.encode() in path.read_bytes()
                places += [str(path)] * (inside or half in path.name)
            places += [text[max(0, text.index(half) - 60) :] for text in told if half in text]
        return places

    def command(self, command: str, provider: str, url: str, *more: str, source: str = "variable") -> CommandResult:
        """A command with the canary from its `source`, at the most talkative level."""
        key = ["--api-key-file", str(self.key_file)] if source == "file" else []
        to = ["--provider", provider, "--base-url", url]
        secret = CANARY if source == "variable" else None
        return run_command(self.folder, *command.split(), *to, *key, *more, *DEBUG, key=secret)

    def batch(self, provider: str, url: str, prompts: list[str], *more: str, source: str = "variable") -> CommandResult:
        (self.folder / "b.txt").write_text("\n".join(prompts))
        return self.command("batch b.txt", provider, url, *SWIFT, *more, source=source)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    folder, key_file = tmp_path / "work", tmp_path / "key"
    for each in (folder, folder / "tmp", folder / "home"):
        each.mkdir()
    key_file.write_text(CANARY + "\n")
    monkeypatch.setattr("tempfile.tempdir", str(folder / "tmp"))
    monkeypatch.setenv("HOME", str(folder / "home"))
    return Desk(folder, key_file)


# -- every fault of the emulator -------------------------------------------------------------------------------------

#: What would hang is quicker.
BRIEF: dict[str, dict[str, Any]] = {
    "delay": {"seconds": 0.1}, "stall": {"seconds": 0.1}, "body-stall": {"seconds": 0.1}, "takes": {"seconds": 0.1},
}  # fmt: skip
#: What ends a batch for good, at whatever it strikes.
STOPPING = [
    ("create", {"fault": "refuse", "as": "key"}),
    ("create", {"fault": "refuse", "as": "quota"}),
    ("create", {"fault": "redirect", "location": f"https://elsewhere.invalid/?key={CANARY}"}),
    ("feed", {"fault": "refuse", "as": "key"}),
]


def _strikes() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """A name, a place and a deed for every fault that strikes an answer, at every place where it may."""
    for name, (places, _) in FAULTS.items():
        for place in sorted(places - {"callback"}):
            deed = {"fault": name, **BRIEF.get(name, {})}
            if (place, name) != ("create", "redirect"):
                yield f"[{name} of {place}]", place, deed


@pytest.mark.parametrize(("provider", "source"), PAIRS)
def test_no_fault_brings_the_key_out(provider: str, source: str, table: Desk) -> None:
    """Every fault of the script language at the first call of each kind, in one batch with its downloads."""
    strikes = list(_strikes())
    rules = [{"on": place, "prompt": name, "per": "task", "nth": 1, "do": deed} for name, place, deed in strikes]
    with serving_emulator(rules, api_key=CANARY) as emulator:
        prompts = [name for name, *_ in strikes]
        ran = table.batch(provider, emulator.base_url(provider), prompts, "--max-in-flight", "99", source=source)
        assert {record["status"] for record in results_by_prompt(table.folder / "out").values()} >= {
            "succeeded",
            "unknown",
        }
        assert len(emulator.ledger) > len(prompts) / 2
        assert emulator.cdn_credentials == []
    assert (ran.code, table.found(ran.out, ran.err)) == (1, [])
    assert "DEBUG" in ran.err


@pytest.mark.parametrize("number", range(len(STOPPING)))
def test_what_stops_a_batch_does_not_bring_the_key_out(number: int, table: Desk) -> None:
    """A refused key, no balance, a redirect to an address that holds the key."""
    place, deed = STOPPING[number]
    with serving_emulator([{"on": place, "do": deed}], api_key=CANARY) as emulator:
        ran = table.batch("native", emulator.base_url("native"), ["one", "two"])
    assert (ran.code, table.found(ran.out, ran.err)) == (1 if deed["fault"] == "redirect" else 3, [])


# -- a gateway that repeats what it was told -------------------------------------------------------------------------


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


def _says(provider: str, code: str, said: str) -> str:
    """An explicit failure as each dialect puts it; `said` is JSON text already."""
    if provider == "cometapi":
        return f'{{"code": "{code}", "msg": "{said}", "data": null}}'
    return f'{{"error": {{"message": "{said}", "type": "x", "param": "{said}", "code": "{code}"}}}}'


def _echoes(provider: str, said: str) -> dict[str, Act]:
    """Answers to a submission that repeat the key in their body, as `said` spells it; none ends the batch."""
    failure = _says(provider, "bad", said)
    return {
        **{f"{status}": Act(answer(status, failure)) for status in (400, 413, 422, 500, 502, 504)},
        "200 that refuses": Act(answer(200, failure)),
        "200 that says nothing": Act(answer(200, f'{{"you sent": "{said}"}}')),
        "200 whose code it is": Act(answer(200, _says(provider, said, "no"))),
        "500 page": Act(answer(500, f"<html>{said}</html>", PAGE)),
        "400 text": Act(answer(400, said, {"Content-Type": "text/plain"})),
        "400 cut": Act(answer(400, b"", {"Content-Length": "9999"}) + failure.encode(), "fin"),
    }


def _heads(_provider: str, said: str) -> dict[str, Act]:
    """Answers that repeat the key outside of the body."""
    bearer = f"Bearer {said}"
    return {
        "a header": Act(answer(400, "{}", {"X-Echo": bearer})),
        "the content type": Act(answer(400, "no", {"Content-Type": f"text/plain; key={said}"})),
        "the coding": Act(answer(400, "no", {"Content-Encoding": said})),
        "a date": Act(answer(429, "{}", {"Retry-After": "0", "Date": said})),
        "the reason": Act(answer(f"400 {bearer}", "{}")),
        "the status": Act(f"HTTP/1.1 {said} OK\r\n\r\n".encode(), "fin"),
        "no HTTP": Act(f"{bearer}\r\n\r\n".encode(), "fin"),
        "a header without a colon": Act(f"HTTP/1.1 200 OK\r\n{bearer}\r\n\r\n".encode(), "fin"),
        "a header too long": Act(answer(200, "{}", {"X-Echo": bearer * 999})),
        "a chunk's size": Act(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{said}\r\n".encode(), "fin"),
        "a cookie": Act(answer(400, "{}", {"Set-Cookie": f"key={said}"})),
    }


def _always(act: Act) -> Callable[[str], Act]:
    return lambda _: act


@pytest.fixture
def repeated(table: Desk, elsewhere: ServerThread) -> Callable[[str, dict[str, Act]], CommandResult]:
    """A batch with one job for each act."""

    def of(provider: str, acts: dict[str, Act]) -> CommandResult:
        gateway = FaultGateway(provider)
        for name, act in acts.items():
            gateway.answer_with(f"[{name}]", _always(act))
        with elsewhere.serving(gateway):
            ran = table.batch(provider, gateway.url, [f"[{name}]" for name in acts], "--no-download")
        assert set(gateway.posts) == {f"[{name}]" for name in acts}
        return ran

    return of


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_a_gateway_repeats_of_the_key_is_not_told(
    provider: str, spelling: str, table: Desk, repeated: Callable[[str, dict[str, Act]], CommandResult]
) -> None:
    """In the body of every kind of answer to a submission, however it is spelled."""
    ran = repeated(provider, _echoes(provider, SPELLINGS[spelling]))
    assert table.found(ran.out, ran.err) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_a_gateway_repeats_in_its_heads_is_not_told(
    provider: str, table: Desk, repeated: Callable[[str, dict[str, Act]], CommandResult]
) -> None:
    """In headers, the status line, a chunk: well formed or not."""
    ran = repeated(provider, _heads(provider, CANARY))
    assert table.found(ran.out, ran.err) == []


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_lost_answer_does_not_bring_the_key_out(
    provider: str, table: Desk, repeated: Callable[[str, dict[str, Act]], CommandResult]
) -> None:
    """Everything that breaks on the wire; silence apart, for which no option can shorten the patience."""
    acts = {row.name: row.act(provider) for row in LOST_ANSWERS}
    ran = repeated(provider, {name: act for name, act in acts.items() if act.then != "stall"})
    assert table.found(ran.out, ran.err) == []


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_a_look_repeats_of_the_key_is_not_told(spelling: str, table: Desk) -> None:
    """A reason, an unknown word, an address with the key: none is in the results, the page or the log."""
    said = json.loads(f'"{SPELLINGS[spelling]}"')
    deeds: list[dict[str, Any]] = [
        {"fault": "answer", "status": 404, "body": f'{{"error": {{"message": "{SPELLINGS[spelling]}"}}}}'},
        *_raw_feeds(SPELLINGS[spelling]),
    ]
    if spelling in {"as a header", "escaped"}:  # half a second until the next look
        deeds += [{"fault": "answer", "status": status, "body": SPELLINGS[spelling]} for status in (400, 429, 502)]
    if "\\" not in SPELLINGS[spelling]:
        deeds += [{"fault": "word", "word": said}, {"fault": "link", "url": f"http://127.0.0.1:9/{said}?key={said}"}]
    names = [f"[{number}]" for number in range(len(deeds))]
    rules = [
        {"on": "feed", "prompt": name, "per": "task", "nth": 1, "do": deed}
        for name, deed in zip(names, deeds, strict=True)
    ]
    with serving_emulator(rules, api_key=CANARY) as emulator:
        ran = table.batch("native", emulator.base_url("native"), names, "--no-download")
    assert table.found(ran.out, ran.err) == []


def _raw_feeds(said: str) -> Iterator[dict[str, Any]]:
    """A failed and a finished task whose every text is the key."""
    for status in ("error", "finished"):
        video = f'{{"id": "v", "status": "{status}", "error": "{said}", "resultUrl": "https://a.example/{said}.mp4"}}'
        yield {"fault": "answer", "body": f'{{"id": "{{task_id}}", "promptText": "{said}", "videos": [{video}]}}'}


# -- the other commands ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "source"), PAIRS)
def test_generate_does_not_tell_the_key(provider: str, source: str, table: Desk, elsewhere: ServerThread) -> None:
    """Through answers that repeat it, in the body and outside; also where the account is refused."""
    refusal = _says(provider, "no", f"Bearer {CANARY}")
    acts = {
        **_echoes(provider, CANARY), **_heads(provider, CANARY),
        **{f"{status} refused": Act(answer(status, refusal, {"X-Echo": CANARY})) for status in (401, 402, 403)},
        "404 page": Act(answer(404, f"<html>{CANARY}</html>", PAGE)),
        "a redirect": Act(answer(307, "", {"Location": f"https://elsewhere.invalid/{CANARY}"})),
    }  # fmt: skip
    gateway = FaultGateway(provider)
    told = []
    with elsewhere.serving(gateway):
        for name, act in acts.items():
            gateway.answer_with(f"[{name}]", _always(act))
            ran = table.command(f"generate [{name.replace(' ', '_')}]", provider, gateway.url, *QUICK, source=source)
            told += [ran.out, ran.err]
    assert table.found(*told) == []


@pytest.mark.parametrize("source", ["variable", "file"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_doctor_does_not_tell_or_save_the_key(provider: str, source: str, table: Desk, elsewhere: ServerThread) -> None:
    """What it prints and what it saves of an answer that repeats the key in its body."""
    told = []
    acts = _echoes(provider, CANARY)
    with elsewhere.serving(server := Raw(provider)):
        for number, act in enumerate(acts.values()):
            server.poll_acts.append(act)
            ran = table.command("doctor", provider, server.url, "--save", f"samples-{number}", source=source)
            told += [ran.out, ran.err]
    assert len(list(table.folder.glob("samples-*/*.json"))) == len(acts)
    assert table.found(*told) == []


def test_doctor_does_not_save_a_head_that_repeats_the_key(table: Desk, elsewhere: ServerThread) -> None:
    """The headers that it keeps as samples are cleaned like the body."""
    told = []
    with elsewhere.serving(server := Raw("native")):
        for number, act in enumerate(_heads("native", CANARY).values()):
            server.poll_acts.append(act)
            ran = table.command("doctor", "native", server.url, "--save", f"samples-{number}")
            told += [ran.out, ran.err]
    assert table.found(*told) == []


@pytest.mark.parametrize("spelling", [name for name, spelling in SPELLINGS.items() if r"\u" in spelling])
def test_doctor_does_not_save_what_spells_the_key(spelling: str, table: Desk, elsewhere: ServerThread) -> None:
    """Whoever reads a sample reads its JSON, so an escaped key is the key."""
    body = _says("native", "bad", SPELLINGS[spelling])
    with elsewhere.serving(server := Raw("native")):
        server.poll_acts.append(Act(answer(400, body)))
        ran = table.command("doctor", "native", server.url, "--save", "samples")
    assert table.found(ran.out, ran.err) == []


# -- a process -------------------------------------------------------------------------------------------------------

#: What the suite itself was started to ignore would be ignored by the command as well.
LAUNCHER = """
import runpy, signal
signal.signal(signal.SIGTERM, signal.SIG_DFL)
runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def _started(emulator: Emulator, table: Desk, source: str) -> Iterator[subprocess.Popen[str]]:
    (table.folder / "b.txt").write_text("\n".join(f"prompt {number}" for number in range(40)))
    argv = [sys.executable, "-c", LAUNCHER, "batch", "b.txt", "--provider", "native", *SWIFT, *DEBUG]
    argv += ["--base-url", emulator.base_url("native"), "--max-in-flight", "20"]
    env = {name: value for name, value in os.environ.items() if name not in ENV.values()}
    env |= {"TMPDIR": str(table.folder / "tmp"), "HOME": str(table.folder / "home")}
    if source == "variable":
        env[ENV["native"]] = CANARY
    else:
        argv += ["--api-key-file", str(table.key_file)]
    with subprocess.Popen(
        argv, cwd=table.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _command_lines(pid: int) -> list[bytes]:
    """The command line of a process and of everything that it has started."""
    lines = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                lines += _command_lines(int(child))
    return lines


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("source", ["variable", "file"])
def test_a_killed_process_leaves_the_key_nowhere(source: str, number: signal.Signals, table: Desk) -> None:
    """While it runs no command line holds the key; in the midst of submissions, looks and downloads it is ended."""
    rules = [
        {"on": "create", "nth": 15, "do": {"fault": "stall", "seconds": 20.0}},
        {"on": "cdn", "nth": 4, "do": {"fault": "body-stall", "seconds": 20.0}},
    ]
    seen: set[bytes] = set()
    with serving_emulator(rules, api_key=CANARY) as emulator, _started(emulator, table, source) as process:
        deadline = time.monotonic() + 15
        while len(emulator.ledger) < 15 or len(emulator.cdn_requests) < 4:
            assert time.monotonic() < deadline
            assert process.poll() is None
            seen.update(_command_lines(process.pid))
            time.sleep(0.01)
        process.send_signal(number)
        if number is signal.SIGTERM:
            assert process.stderr is not None
            while "stopping" not in process.stderr.readline():
                pass
            process.kill()
        out, err = process.communicate(timeout=20)
    assert any(b"batch" in line for line in seen)
    assert [line for line in seen if CANARY.encode() in line] == []
    assert (table.found(out, err), (table.folder / "out" / "results.jsonl").exists()) == ([], True)
