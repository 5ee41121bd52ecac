"""`--callbacks` and `--listen` over real sockets: who is told, who listens, what a person sees, what is found again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.callback_options import CallbackListener
from pika_async.cli.exits import UsageError
from pika_async.emulator import Emulator
from tests.cli.command_line import ENV, KEY, CommandLine, CommandResult, serving
from tests.fakes.raw_server import free_port

LOST: Final = {"on": "create", "prompt": "lost", "do": "drop"}
SILENT: Final = {"on": "callback", "do": "lost"}
TOKEN: Final = re.compile(r"callbacks/[A-Za-z0-9_-]{8}")


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


def rows(cli: CommandLine, *keys: str) -> str:
    """A file with a row for each key, whose prompt is the key."""
    return cli.write("b.jsonl", "".join(json.dumps({"key": key, "prompt": key}) + "\n" for key in keys))


def public(path: str = "") -> str:
    return f"http://127.0.0.1:{free_port()}{path}"


def stands(cli: CommandLine) -> dict[str, str]:
    return {record["key"]: record["status"] for record in cli.results()}


def batch(cli: CommandLine, emulator: Emulator, source: str, *more: str, expected: str = "30") -> CommandResult:
    """`batch` at the provider that calls back; unless it is expected sooner, a callback is quicker than any look."""
    to = ("--provider", "cometapi", "--base-url", emulator.base_url("cometapi"), "--expected-seconds", expected)
    return cli("batch", source, *to, *more)


def answered(emulator: Emulator) -> Counter[int | None]:
    """What the emulator's callbacks were answered."""
    return Counter(call.status for call in emulator.callbacks)


# --- told --------------------------------------------------------------------------------------------------------------


def test_callbacks_are_announced_taken_in_and_counted(cli: CommandLine) -> None:
    """The line says what the gateway is told and who listens; a token is shown nowhere."""
    with serving(durations="constant:0.5") as emulator:
        url = public("/pika")
        ran = batch(cli, emulator, rows(cli, *"abc"), "--callbacks", url, "--log-level", "debug")
        assert (ran.code, answered(emulator), len(emulator.ledger)) == (0, {202: 3}, 3)
        assert {call.url.rpartition("/")[0] for call in emulator.callbacks} == {f"{url}/callbacks"}
        place = url.removeprefix("http://").removesuffix("/pika")
        assert f"callbacks: the gateway is told {url}/callbacks/...; listening on {place}\n" in ran.err
        assert "callbacks: 3 came\n" in ran.out
        assert "though" not in ran.out
        assert not TOKEN.search(ran.out + ran.err + (cli.folder / "pika-out" / "results.jsonl").read_text())


def test_with_json_all_of_it_is_on_standard_error(cli: CommandLine) -> None:
    with serving(LOST, durations="constant:0.5") as emulator:
        url = public()
        ran = batch(cli, emulator, rows(cli, "a", "lost"), "--callbacks", url, "--json", "--no-download")
        assert (ran.code, sorted(ran.records, key=str), len(ran.records)) == (0, sorted(cli.results(), key=str), 2)
        assert "callbacks: the gateway is told" in ran.err
        assert "callbacks: 2 came" in ran.err


# --- lost --------------------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_found_again_by_its_callback(cli: CommandLine) -> None:
    """The batch waits for it: exit code 0, paid once, one line for each job, and the video is there."""
    with serving(LOST, durations="constant:1") as emulator:
        ran = batch(cli, emulator, rows(cli, "a", "lost"), "--callbacks", public())
        assert (ran.code, stands(cli), len(emulator.ledger)) == (0, {"a": "succeeded", "lost": "succeeded"}, 2)
        assert (cli.folder / "pika-out" / "videos" / "lost.mp4").is_file()
        assert len(cli.results()) == 2
        assert "2 jobs: 2 succeeded; 2 on disk" in ran.out
        assert "in doubt" not in ran.out


def test_a_doubt_that_nobody_tells_of_is_reported_as_ever(cli: CommandLine) -> None:
    """Waited for twice as long as the other took; the line says so meanwhile, also without a terminal."""
    lost = {"on": "callback", "prompt": "lost", "do": "lost"}
    for more in ((), ("--json",)):
        with serving(LOST, lost, durations="constant:2") as emulator:
            out = f"out{len(more)}"
            ran = batch(cli, emulator, rows(cli, "a", "lost"), "--callbacks", public(), "--out", out, *more)
            assert (ran.code, len(emulator.ledger), len(cli.results(out))) == (1, 2, 2)
            assert re.search(r"1 of 2 settled .*; 1 callback came; 1 in doubt, waiting for their callbacks\n", ran.err)
            assert f"in doubt, perhaps charged: 1; which, and the ways out: pika-async status {out}" in ran.err


def test_a_doubt_whose_callback_comes_late_is_settled_by_the_rest_of_the_batch(cli: CommandLine) -> None:
    """Its line is written last: how it stands then, not when the waiting for it ended."""
    late = {"on": "callback", "prompt": "lost", "do": {"fault": "late", "seconds": 3}}
    slow = {"on": "create", "prompt": "slow", "do": {"fault": "takes", "seconds": 5}}
    with serving(LOST, late, slow, durations="constant:0.1") as emulator:
        ran = batch(cli, emulator, rows(cli, *"abcd", "slow", "lost"), "--callbacks", public())
        assert (ran.code, set(stands(cli).values()), len(emulator.ledger)) == (0, {"succeeded"}, 6)
        assert (cli.folder / "pika-out" / "videos" / "lost.mp4").is_file()


def test_where_no_callback_arrives_there_is_a_hint_and_looks_do_the_work(cli: CommandLine) -> None:
    """Exit code 0: it names both ends of the way that a callback has to take."""
    with serving(SILENT) as emulator:
        port = free_port()
        told = ("--callbacks", "https://hooks.example.org/pika", "--listen", f":{port}")
        ran = batch(cli, emulator, rows(cli, *"abc"), *told, expected="0.2")
        assert (ran.code, emulator.callbacks) == (0, [])
        assert (
            f"callbacks: the gateway is told https://hooks.example.org/pika/callbacks/...; listening on 127.0.0.1:{port}"
            in ran.err
        )
        assert (
            "callbacks: none came, though 3 of the jobs sent now have settled\n  is https://hooks.example.org/pika "
            f"reachable from where the gateway is, and forwarded to 127.0.0.1:{port}?\n"
        ) in ran.out
        assert batch(cli, emulator, rows(cli, *"abc"), *told).out.count("though") == 0


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_that_no_callback_arrives_is_said_while_the_batch_runs(cli: CommandLine, more: tuple[str, ...]) -> None:
    """A few seconds after the first have settled untold, so that it can be mended meanwhile."""
    slow = {"on": "create", "prompt": "slow", "do": {"fault": "takes", "seconds": 6}}
    with serving(SILENT, slow) as emulator:
        url = public()
        ran = batch(cli, emulator, rows(cli, *"abc", "slow"), "--callbacks", url, *more, expected="0.2")
        words = f"no callback yet; does the public address lead to {url.removeprefix('http://')}?\n"
        assert (ran.code, ran.err.count(words)) == (0, 1)


def test_a_proxy_that_changes_the_path_is_told_of(cli: CommandLine) -> None:
    """What comes, and is for nobody, is counted beside."""
    port = free_port()

    def knock() -> None:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"POST /elsewhere HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
            assert b"404" in stranger.recv(1 << 16)

    with serving(SILENT, durations="constant:1") as emulator:
        argv = ("--callbacks", "https://hooks.example.org", "--listen", str(port))
        with started(emulator, cli, rows(cli, "a"), *argv, expected="0.5") as process:
            until(lambda: len(emulator.ledger) == 1)
            knock()
            out, err = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in err) == (0, False)
        assert "  requests for none of these jobs came: 1; is the path forwarded as it is?" in out


# --- what cannot work ---------------------------------------------------------------------------------------------------

WAY = "https://hooks.example.org"
BAD: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "no-address": (("--callbacks", "hooks"), "--callbacks: 'hooks' is no http or https address; give the address"),
    "scheme": (("--callbacks", "ftp://h"), "--callbacks: 'ftp://h' is no http or https address"),
    "query": (("--callbacks", "https://h/?a=b"), "--callbacks: 'https://h/?a=b' holds white space, a query"),
    "odd-port": (("--callbacks", "http://127.0.0.1:99999"), "--callbacks: 'http://127.0.0.1:99999' is no http"),
    "no-host": (("--callbacks", "http://:80"), "--callbacks: 'http://:80' is no http"),
    "user": (("--callbacks", "https://u:hunter2@h"), "--callbacks: holds a user"),
    "empty": (("--callbacks", ""), "--callbacks: '' is no http or https address"),
    "alone": (("--listen", "8080"), "--listen: '8080' must be given with --callbacks URL"),
    "no-port": (("--callbacks", WAY, "--listen", "localhost"), "--listen: 'localhost' is no place to listen on; give"),
    "bare-v6": (("--callbacks", WAY, "--listen", "::1:8080"), "--listen: '::1:8080' is no place"),
    "url": (("--callbacks", WAY, "--listen", "http://h:1"), "--listen: 'http://h:1' is no place to listen on"),
    "port-0": (("--callbacks", WAY, "--listen", "0"), "--listen: 0 is no port that can be forwarded to"),
    "port-high": (("--callbacks", WAY, "--listen", ":65536"), "--listen: 65536 is no port"),
    "not-here": (("--callbacks", WAY, "--listen", "192.0.2.7:8080"), "--listen: '192.0.2.7' is no address of this"),
    "nobody": (("--callbacks", WAY, "--listen", "no such.host:80"), "--listen: 'no such.host' is no address to"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_work_is_said_before_anything_is_sent(cli: CommandLine, bad: str) -> None:
    """Exit code 2: the option, the value, the way out; what may be a password is not repeated."""
    said, words = BAD[bad]
    with serving() as emulator:
        ran = batch(cli, emulator, rows(cli, "a"), *said)
        assert (ran.code, ran.out, len(emulator.requests)) == (2, "", 0)
        assert words in ran.err
        assert "hunter2" not in ran.err


def test_a_port_that_is_taken(cli: CommandLine) -> None:
    """Exit code 2, nothing sent; the same command goes on as soon as it is free."""
    with serving() as emulator, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        source, url = rows(cli, "a"), f"http://127.0.0.1:{port}"
        ran = batch(cli, emulator, source, "--callbacks", url)
        assert (ran.code, len(emulator.requests)) == (2, 0)
        assert f"--listen: {port} at 127.0.0.1 is taken; give another\n" in ran.err
        taken.close()
        assert batch(cli, emulator, source, "--callbacks", url).code == 0


@pytest.mark.parametrize("provider", ["native", "yescale", "gptge"])
def test_a_provider_that_calls_nobody_back(cli: CommandLine, provider: str) -> None:
    """Said by `batch`, and by `resume` of such jobs; nothing is sent."""
    with serving() as emulator:
        source = rows(cli, "a")
        ran = cli.batch(emulator, source, "--callbacks", public(), provider=provider)
        assert (ran.code, len(emulator.requests)) == (2, 0)
        assert "--callbacks: " in ran.err
        assert "calls nobody back" in ran.err
        cli.batch(emulator, rows(cli, "a", "b"), "--max-charges", "1", "--max-in-flight", "1", provider=provider)
        calls = len(emulator.requests)
        ran = cli("resume", "pika-out", "--max-charges", "9", "--callbacks", public())
        assert (ran.code, len(emulator.requests), "calls nobody back" in ran.err) == (2, calls, True)


@pytest.mark.parametrize(
    ("callbacks", "listen", "place"),
    [
        (WAY, None, "127.0.0.1:8080"),
        (WAY, "9000", "127.0.0.1:9000"),
        (WAY, ":9000", "127.0.0.1:9000"),
        (WAY, "0.0.0.0:9000", "0.0.0.0:9000"),
        (WAY, "[::1]:9000", "[::1]:9000"),
        (WAY, "localhost:9000", "localhost:9000"),
        ("http://127.0.0.1:9001/x", None, "127.0.0.1:9001"),
        ("http://localhost:9001", None, "127.0.0.1:9001"),
        ("http://[::1]:9001", None, "[::1]:9001"),
        ("http://127.0.0.1:9001", "9000", "127.0.0.1:9000"),
        ("https://localhost", None, "127.0.0.1:8080"),
        ("http://192.0.2.1:9001", None, "127.0.0.1:8080"),
    ],
)
def test_where_it_listens(callbacks: str, listen: str | None, place: str) -> None:
    """Where it was said; else at a loopback address itself, as far as that needs no TLS; else where others forward to."""
    listening = CallbackListener.from_options(BatchOptions(callbacks=callbacks, listen=listen))
    assert listening is not None
    assert (listening.address, listening.receiver.public_url) == (place, callbacks.rstrip("/"))
    assert listening.announcement.endswith(f"listening on {place}")


def test_an_address_without_tls_is_warned_of_once(cli: CommandLine) -> None:
    with serving() as emulator:
        told = ("--callbacks", "http://hooks.example.org", "--listen", str(free_port()))
        ran = batch(cli, emulator, rows(cli, "a"), *told, expected="0.2")
        assert (ran.code, ran.err.count("travel in plain text")) == (0, 1)


def test_without_an_address_nobody_listens() -> None:
    assert CallbackListener.from_options(BatchOptions()) is None
    with pytest.raises(UsageError, match="must be given with --callbacks URL"):
        CallbackListener.from_options(BatchOptions(listen="8080"))


# --- processes ----------------------------------------------------------------------------------------------------------

#: What the suite itself was started to ignore (nohup) would be ignored by the command as well.
LAUNCHER: Final = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
"""


def started(
    emulator: Emulator, cli: CommandLine, source: str, *more: str, expected: str = "30"
) -> subprocess.Popen[str]:
    """`batch` at the emulator, in a process of its own."""
    argv = [sys.executable, "-c", LAUNCHER, "batch", source, "--provider", "cometapi", "--base-url"]
    argv += [emulator.base_url("cometapi"), "--expected-seconds", expected, *more]
    env = {**os.environ, ENV["cometapi"]: KEY, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        argv, cwd=cli.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def known(cli: CommandLine) -> dict[str, str]:
    """The status of each job, by the journal."""
    if not (cli.folder / "pika-out" / "journal.db").exists():
        return {}
    return {record["key"]: record["status"] for record in cli("status", "pika-out", "--json").records}


def test_ctrl_c_while_only_a_doubt_is_waited_for(cli: CommandLine) -> None:
    """`status` shows it meanwhile; it ends at once, with a line for each job and the usual words."""
    with serving(LOST, SILENT, durations="constant:0.2") as emulator:
        with started(emulator, cli, rows(cli, "lost"), "--callbacks", public()) as process:
            until(lambda: known(cli).get("lost") == "unknown")
            told = cli("status", "pika-out").out
            stderr = process.stderr
            assert stderr is not None
            until(lambda: "waiting for their callbacks" in stderr.readline())
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, time.monotonic() - began < 5, "Traceback" in out + err) == (130, True, False)
        assert "1 in doubt; a command that runs here now may wait for their callbacks:" in told
        assert "in doubt: job lost at cometapi" in told
        assert "interrupted: 0 accepted and not settled, 0 not sent; nothing is lost" in err
        assert "in doubt, perhaps charged: 1; which, and the ways out: pika-async status pika-out" in err
        assert (stands(cli), len(emulator.ledger)) == ({"lost": "unknown"}, 1)


@pytest.mark.parametrize("again", ["batch", "resume"])
def test_after_a_kill_the_callbacks_of_the_earlier_jobs_are_taken_in(cli: CommandLine, again: str) -> None:
    """The same command listens at the same address; so does `resume DIR`, which needs to be told nothing. The doubt that
    the killed one left is found again.
    """
    slow = {"on": "create", "prompt": "slow", "do": {"fault": "takes", "seconds": 8}}
    with serving(LOST, slow, durations="constant:6") as emulator:
        source, url = rows(cli, "a", "b", "lost", "slow"), public()
        with started(emulator, cli, source, "--callbacks", url) as process:
            until(lambda: Counter(known(cli).values()) in ({"queued": 3, "unknown": 1}, {"running": 3, "unknown": 1}))
            process.kill()
            process.communicate(timeout=20)
        assert emulator.callbacks == []
        ran = batch(cli, emulator, source, "--callbacks", url) if again == "batch" else cli("resume", "pika-out")
        assert (ran.code, set(stands(cli).values()), len(emulator.ledger)) == (0, {"succeeded"}, 4)
        assert answered(emulator) == {202: 4}
        assert "callbacks: 4 came" in ran.out


def test_resume_may_be_told_of_another_address(cli: CommandLine) -> None:
    """New submissions are given that one."""
    with serving(durations="constant:0.3") as emulator:
        source, url, other = rows(cli, *"ab"), public(), public()
        limits = ("--max-charges", "1", "--max-in-flight", "1")
        assert batch(cli, emulator, source, "--callbacks", url, *limits).code == 1
        assert cli("resume", "pika-out", "--max-charges", "2", "--callbacks", other).code == 0
        assert [call.url.partition("/callbacks")[0] for call in emulator.callbacks] == [url, other]


def test_resume_of_two_gateways_listens_for_the_one_that_calls(cli: CommandLine) -> None:
    with serving({"on": "create", "do": {"fault": "takes", "seconds": 1.5}}) as emulator:
        limits = ("--deadline", "0.3", "--max-in-flight", "2")
        cli.batch(emulator, rows(cli, "n"), *limits)
        batch(cli, emulator, rows(cli, "c"), "--callbacks", public(), *limits, expected="0.2")
        ran = cli("resume", "pika-out", "--deadline", "20")
        assert (ran.code, stands(cli)) == (0, {"n": "succeeded", "c": "succeeded"})
        assert ran.err.count("callbacks: the gateway is told") == 1


# --- the emulator -------------------------------------------------------------------------------------------------------


def test_emulate_says_how_to_try_it(cli: CommandLine) -> None:
    """The address that it names is one that it calls, and where `batch` then listens."""
    argv = [sys.executable, "-c", LAUNCHER, "emulate", "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(argv, cwd=cli.folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if "--callbacks" in line)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert said == "for callbacks add: --callbacks http://127.0.0.1:8080\n"
