"""`--callbacks` and `--listen` over real sockets: addresses, output, and recovery of lost submissions."""

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
from tests.fakes.child_process import ChildProcess
from tests.fakes.raw_server import free_port

LOST: Final = {"on": "create", "prompt": "lost", "do": "drop"}
SILENT: Final = {"on": "callback", "do": "lost"}
TOKEN: Final = re.compile(r"callbacks/[A-Za-z0-9_-]{8}")


def rows(cli: CommandLine, *keys: str) -> str:
    """Write an input with a row for each key, whose prompt is the key; return its name."""
    return cli.write("b.jsonl", "".join(json.dumps({"key": key, "prompt": key}) + "\n" for key in keys))


def public_url(path: str = "") -> str:
    """Return a URL on a free port of this machine."""
    return f"http://127.0.0.1:{free_port()}{path}"


def statuses(cli: CommandLine) -> dict[str, str]:
    """Return the status of each job by its key, from `results.jsonl`."""
    return {record["key"]: record["status"] for record in cli.results()}


def batch(cli: CommandLine, emulator: Emulator, source: str, *more: str, expected: str = "30") -> CommandResult:
    """Run `batch` at the provider with callbacks; by default a callback arrives before the first poll."""
    target = ("--provider", "cometapi", "--base-url", emulator.base_url("cometapi"), "--expected-seconds", expected)
    return cli("batch", source, *target, *more)


def response_statuses(emulator: Emulator) -> Counter[int | None]:
    """Count the HTTP statuses with which callbacks were answered."""
    return Counter(call.status for call in emulator.callbacks)


# --- output --------------------------------------------------------------------------------------------------------------


def test_callbacks_are_announced_and_counted(cli: CommandLine) -> None:
    """A line names the public URL and the local address; no callback token is printed."""
    with serving(durations="constant:0.5") as emulator:
        url = public_url("/pika")
        ran = batch(cli, emulator, rows(cli, *"abc"), "--callbacks", url, "--log-level", "debug")
        assert (ran.code, response_statuses(emulator), len(emulator.ledger)) == (0, {202: 3}, 3)
        assert {call.url.rpartition("/")[0] for call in emulator.callbacks} == {f"{url}/callbacks"}
        place = url.removeprefix("http://").removesuffix("/pika")
        assert f"callbacks: public URL {url}/callbacks/...; listening on {place}\n" in ran.err
        assert "callbacks: 3 received\n" in ran.out
        assert "although" not in ran.out
        assert not TOKEN.search(ran.out + ran.err + (cli.folder / "pika-out" / "results.jsonl").read_text())


def test_with_json_messages_are_on_standard_error(cli: CommandLine) -> None:
    with serving(LOST, durations="constant:0.5") as emulator:
        url = public_url()
        ran = batch(cli, emulator, rows(cli, "a", "lost"), "--callbacks", url, "--json", "--no-download")
        assert (ran.code, sorted(ran.records, key=str), len(ran.records)) == (0, sorted(cli.results(), key=str), 2)
        assert "callbacks: public URL" in ran.err
        assert "callbacks: 2 received" in ran.err


# --- lost submissions and callbacks --------------------------------------------------------------------------------------------------------------


def test_a_lost_response_is_recovered_by_its_callback(cli: CommandLine) -> None:
    """The batch waits for the callback: exit code 0, one charge, one line for each job, and the video is there."""
    with serving(LOST, durations="constant:1") as emulator:
        ran = batch(cli, emulator, rows(cli, "a", "lost"), "--callbacks", public_url())
        assert (ran.code, statuses(cli), len(emulator.ledger)) == (0, {"a": "succeeded", "lost": "succeeded"}, 2)
        assert (cli.folder / "pika-out" / "videos" / "lost.mp4").is_file()
        assert len(cli.results()) == 2
        assert "2 jobs: 2 succeeded; 2 on disk" in ran.out
        assert "in doubt" not in ran.out


@pytest.mark.slow
def test_a_job_in_doubt_without_a_callback_is_reported(cli: CommandLine) -> None:
    """The batch waits twice as long as the other job took, and prints a line about it, also without a terminal."""
    lost = {"on": "callback", "prompt": "lost", "do": "lost"}
    for more in ((), ("--json",)):
        with serving(LOST, lost, durations="constant:2") as emulator:
            out = f"out{len(more)}"
            ran = batch(cli, emulator, rows(cli, "a", "lost"), "--callbacks", public_url(), "--out", out, *more)
            assert (ran.code, len(emulator.ledger), len(cli.results(out))) == (1, 2, 2)
            assert re.search(
                r"1 of 2 finished .*; 1 callback received; 1 in doubt, waiting for their callbacks\n", ran.err
            )
            assert f"in doubt, possibly charged: 1; to list and resolve them: pika-async status {out}" in ran.err


@pytest.mark.slow
def test_a_late_callback_still_resolves_its_job_before_the_batch_ends(cli: CommandLine) -> None:
    """The line of a job in doubt is written last, with its status at that time."""
    late = {"on": "callback", "prompt": "lost", "do": {"fault": "late", "seconds": 3}}
    slow = {"on": "create", "prompt": "slow", "do": {"fault": "takes", "seconds": 5}}
    with serving(LOST, late, slow, durations="constant:0.1") as emulator:
        ran = batch(cli, emulator, rows(cli, *"abcd", "slow", "lost"), "--callbacks", public_url())
        assert (ran.code, set(statuses(cli).values()), len(emulator.ledger)) == (0, {"succeeded"}, 6)
        assert (cli.folder / "pika-out" / "videos" / "lost.mp4").is_file()


def test_without_callbacks_there_is_a_hint_and_polls_find_every_result(cli: CommandLine) -> None:
    """Exit code 0; the hint names the public URL and the local address."""
    with serving(SILENT) as emulator:
        port = free_port()
        options = ("--callbacks", "https://hooks.example.org/pika", "--listen", f":{port}")
        ran = batch(cli, emulator, rows(cli, *"abc"), *options, expected="0.2")
        assert (ran.code, emulator.callbacks) == (0, [])
        assert (
            f"callbacks: public URL https://hooks.example.org/pika/callbacks/...; listening on 127.0.0.1:{port}"
            in ran.err
        )
        assert (
            "callbacks: none received, although 3 submitted jobs have settled\n  is https://hooks.example.org/pika "
            f"reachable from where the gateway is, and forwarded to 127.0.0.1:{port}?\n"
        ) in ran.out
        assert batch(cli, emulator, rows(cli, *"abc"), *options).out.count("although") == 0


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_missing_callbacks_are_reported_while_the_batch_runs(cli: CommandLine, more: tuple[str, ...]) -> None:
    """The hint appears once the first jobs have settled without a callback, in time to fix the forwarding."""
    slow = {"on": "create", "prompt": "slow", "do": {"fault": "takes", "seconds": 600}}
    with serving(SILENT, slow) as emulator:
        url = public_url()
        hint = f"no callback yet; does the public address forward to {url.removeprefix('http://')}?\n"
        options = ("--callbacks", url, *more)
        with start_batch(emulator, cli, rows(cli, *"abc", "slow"), *options, expected="0.2") as process:
            stderr = process.stderr
            assert stderr is not None
            wait_until(lambda: stderr.readline().endswith(hint))
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=HANG_S)
        assert (process.returncode, hint in rest) == (130, False)


@pytest.mark.slow
def test_a_proxy_that_changes_the_path_is_reported(cli: CommandLine) -> None:
    """Requests that match no job are counted separately."""
    port = free_port()

    def send_stray_request() -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /elsewhere HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
            assert b"404" in connection.recv(1 << 16)

    with serving(SILENT, durations="constant:1") as emulator:
        argv = ("--callbacks", "https://hooks.example.org", "--listen", str(port))
        with start_batch(emulator, cli, rows(cli, "a"), *argv, expected="0.5") as process:
            wait_until(lambda: len(emulator.ledger) == 1)
            send_stray_request()
            out, err = process.communicate(timeout=HANG_S)
        assert (process.returncode, "Traceback" in err) == (0, False)
        assert "  requests that match none of these jobs: 1; is the path forwarded unchanged?" in out


# --- invalid options ---------------------------------------------------------------------------------------------------

PUBLIC_URL = "https://hooks.example.org"
BAD: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "no-address": (("--callbacks", "hooks"), "--callbacks: 'hooks' must be an http or https URL; give the URL"),
    "scheme": (("--callbacks", "ftp://h"), "--callbacks: 'ftp://h' must be an http or https URL"),
    "query": (
        ("--callbacks", "https://h/?a=b"),
        "--callbacks: 'https://h/?a=b' must not hold white space, control characters, a query",
    ),
    "odd-port": (("--callbacks", "http://127.0.0.1:99999"), "--callbacks: 'http://127.0.0.1:99999' must be an http"),
    "no-host": (("--callbacks", "http://:80"), "--callbacks: 'http://:80' must be an http"),
    "user": (("--callbacks", "https://u:hunter2@h"), "--callbacks: must not hold a user"),
    "empty": (("--callbacks", ""), "--callbacks: '' must be an http or https URL"),
    "alone": (("--listen", "8080"), "--listen: '8080' must be given with --callbacks URL"),
    "no-port": (("--callbacks", PUBLIC_URL, "--listen", "localhost"), "--listen: 'localhost' must be HOST:PORT"),
    "bare-v6": (("--callbacks", PUBLIC_URL, "--listen", "::1:8080"), "--listen: '::1:8080' must be HOST:PORT"),
    "url": (("--callbacks", PUBLIC_URL, "--listen", "http://h:1"), "--listen: 'http://h:1' must be HOST:PORT"),
    "port-0": (("--callbacks", PUBLIC_URL, "--listen", "0"), "--listen: 0 must be a port from 1 to 65535"),
    "port-high": (("--callbacks", PUBLIC_URL, "--listen", ":65536"), "--listen: 65536 must be a port"),
    "not-here": (
        ("--callbacks", PUBLIC_URL, "--listen", "192.0.2.7:8080"),
        "--listen: '192.0.2.7' must be an address of this",
    ),
    "unknown-host": (
        ("--callbacks", PUBLIC_URL, "--listen", "no such.host:80"),
        "--listen: 'no such.host' must be an address to",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_invalid_options_are_refused_before_anything_is_sent(cli: CommandLine, bad: str) -> None:
    """Exit code 2; the error has the option, the value and the fix, but nothing that may be a password."""
    options, text = BAD[bad]
    with serving() as emulator:
        ran = batch(cli, emulator, rows(cli, "a"), *options)
        assert (ran.code, ran.out, len(emulator.requests)) == (2, "", 0)
        assert text in ran.err
        assert "hunter2" not in ran.err


def test_a_port_in_use_is_refused(cli: CommandLine) -> None:
    """Exit code 2, nothing sent; the same command works as soon as the port is free."""
    with serving() as emulator, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        source, url = rows(cli, "a"), f"http://127.0.0.1:{port}"
        ran = batch(cli, emulator, source, "--callbacks", url)
        assert (ran.code, len(emulator.requests)) == (2, 0)
        assert f"--listen: {port} at 127.0.0.1 is taken; give another\n" in ran.err
        taken.close()
        assert batch(cli, emulator, source, "--callbacks", url).code == 0


@pytest.mark.parametrize("provider", ["native", "yescale", "gptge"])
def test_a_provider_without_callbacks_is_refused(cli: CommandLine, provider: str) -> None:
    """`batch` and `resume` refuse --callbacks and send nothing."""
    with serving() as emulator:
        source = rows(cli, "a")
        ran = cli.batch(emulator, source, "--callbacks", public_url(), provider=provider)
        assert (ran.code, len(emulator.requests)) == (2, 0)
        assert "--callbacks: " in ran.err
        assert "sends no callbacks" in ran.err
        cli.batch(emulator, rows(cli, "a", "b"), "--max-charges", "1", "--max-in-flight", "1", provider=provider)
        calls = len(emulator.requests)
        ran = cli("resume", "pika-out", "--max-charges", "9", "--callbacks", public_url())
        assert (ran.code, len(emulator.requests), "sends no callbacks" in ran.err) == (2, calls, True)


@pytest.mark.parametrize(
    ("callbacks", "listen", "place"),
    [
        (PUBLIC_URL, None, "127.0.0.1:8080"),
        (PUBLIC_URL, "9000", "127.0.0.1:9000"),
        (PUBLIC_URL, ":9000", "127.0.0.1:9000"),
        (PUBLIC_URL, "0.0.0.0:9000", "0.0.0.0:9000"),
        (PUBLIC_URL, "[::1]:9000", "[::1]:9000"),
        (PUBLIC_URL, "localhost:9000", "localhost:9000"),
        ("http://127.0.0.1:9001/x", None, "127.0.0.1:9001"),
        ("http://localhost:9001", None, "127.0.0.1:9001"),
        ("http://[::1]:9001", None, "[::1]:9001"),
        ("http://127.0.0.1:9001", "9000", "127.0.0.1:9000"),
        ("https://localhost", None, "127.0.0.1:8080"),
        ("http://192.0.2.1:9001", None, "127.0.0.1:8080"),
    ],
)
def test_the_local_address_follows_from_the_options(callbacks: str, listen: str | None, place: str) -> None:
    """It is --listen if given, else a plain http loopback address in --callbacks, else port 8080."""
    listener = CallbackListener.from_options(BatchOptions(callbacks=callbacks, listen=listen))
    assert listener is not None
    assert (listener.address, listener.receiver.public_url) == (place, callbacks.rstrip("/"))
    assert listener.announcement.endswith(f"listening on {place}")


def test_a_public_url_without_tls_logs_one_warning(cli: CommandLine) -> None:
    with serving() as emulator:
        options = ("--callbacks", "http://hooks.example.org", "--listen", str(free_port()))
        ran = batch(cli, emulator, rows(cli, "a"), *options, expected="0.2")
        assert (ran.code, ran.err.count("travel in plain text")) == (0, 1)


def test_without_a_public_url_there_is_no_listener() -> None:
    assert CallbackListener.from_options(BatchOptions()) is None
    with pytest.raises(UsageError, match="must be given with --callbacks URL"):
        CallbackListener.from_options(BatchOptions(listen="8080"))


# --- processes ----------------------------------------------------------------------------------------------------------

#: A command inherits ignored signals, and nohup makes the suite ignore some: restore them.
LAUNCHER: Final = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("pika_async", run_name="__main__", alter_sys=True)
"""


def start_batch(emulator: Emulator, cli: CommandLine, source: str, *more: str, expected: str = "30") -> ChildProcess:
    """Start `batch` against the emulator in a process of its own."""
    argv = [sys.executable, "-c", LAUNCHER, "batch", source, "--provider", "cometapi", "--base-url"]
    argv += [emulator.base_url("cometapi"), "--expected-seconds", expected, *more]
    env = {**os.environ, ENV["cometapi"]: KEY, "PYTHONPATH": str(Path(__file__).parents[2])}
    return ChildProcess(
        argv, cwd=cli.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip


#: Seconds after which a step that takes one second on an idle machine counts as hanging.
HANG_S: Final = 60


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < deadline, f"the condition is still false after {HANG_S} s"
        time.sleep(0.02)


def journal_statuses(cli: CommandLine) -> dict[str, str]:
    """Return the status of each job by its key, from the journal."""
    if not (cli.folder / "pika-out" / "journal.db").exists():
        return {}
    return {record["key"]: record["status"] for record in cli("status", "pika-out", "--json").records}


@pytest.mark.slow
def test_ctrl_c_ends_a_batch_that_only_waits_for_a_callback(cli: CommandLine) -> None:
    """`status` lists the job meanwhile; the batch ends without waiting for it and writes a line for each job."""
    with serving(LOST, SILENT, durations="constant:0.2") as emulator:
        with start_batch(emulator, cli, rows(cli, "lost"), "--callbacks", public_url()) as process:
            wait_until(lambda: journal_statuses(cli).get("lost") == "unknown")
            status = cli("status", "pika-out").out
            stderr = process.stderr
            assert stderr is not None
            wait_until(lambda: "waiting for their callbacks" in stderr.readline())
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=HANG_S)
        assert (process.returncode, "Traceback" in out + err) == (130, False)
        assert "in doubt, possibly charged: 1; a command running here may still wait for their callbacks" in status
        assert "in doubt: job lost at cometapi" in status
        assert "interrupted: 0 still in flight, 0 not sent; nothing is lost" in err
        assert "in doubt, possibly charged: 1; to list and resolve them: pika-async status pika-out" in err
        assert (statuses(cli), len(emulator.ledger)) == ({"lost": "unknown"}, 1)


@pytest.mark.slow
@pytest.mark.parametrize("again", ["batch", "resume"])
def test_after_a_kill_callbacks_of_earlier_jobs_are_accepted(cli: CommandLine, again: str) -> None:
    """The same command, or `resume DIR` without options, listens at the same address and recovers the job in doubt."""
    slow = {"on": "create", "prompt": "slow", "do": {"fault": "takes", "seconds": 8}}
    with serving(LOST, slow, durations="constant:6") as emulator:
        source, url = rows(cli, "a", "b", "lost", "slow"), public_url()
        with start_batch(emulator, cli, source, "--callbacks", url) as process:
            wait_until(
                lambda: (
                    Counter(journal_statuses(cli).values())
                    in ({"queued": 3, "unknown": 1}, {"running": 3, "unknown": 1})
                )
            )
            process.kill()
            process.communicate(timeout=HANG_S)
        assert emulator.callbacks == []
        ran = batch(cli, emulator, source, "--callbacks", url) if again == "batch" else cli("resume", "pika-out")
        assert (ran.code, set(statuses(cli).values()), len(emulator.ledger)) == (0, {"succeeded"}, 4)
        assert response_statuses(emulator) == {202: 4}
        assert "callbacks: 4 received" in ran.out


def test_resume_takes_another_public_url(cli: CommandLine) -> None:
    """New submissions use it."""
    with serving(durations="constant:0.3") as emulator:
        source, url, other = rows(cli, *"ab"), public_url(), public_url()
        limits = ("--max-charges", "1", "--max-in-flight", "1")
        assert batch(cli, emulator, source, "--callbacks", url, *limits).code == 1
        assert cli("resume", "pika-out", "--max-charges", "2", "--callbacks", other).code == 0
        assert [call.url.partition("/callbacks")[0] for call in emulator.callbacks] == [url, other]


def test_resume_of_two_gateways_listens_for_the_one_with_callbacks(cli: CommandLine) -> None:
    with serving({"on": "create", "do": {"fault": "takes", "seconds": 1.5}}) as emulator:
        limits = ("--deadline", "0.3", "--max-in-flight", "2")
        cli.batch(emulator, rows(cli, "n"), *limits)
        batch(cli, emulator, rows(cli, "c"), "--callbacks", public_url(), *limits, expected="0.2")
        ran = cli("resume", "pika-out", "--deadline", "20")
        assert (ran.code, statuses(cli)) == (0, {"n": "succeeded", "c": "succeeded"})
        assert ran.err.count("callbacks: public URL") == 1


# --- the emulator -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_emulate_prints_the_option_for_callbacks(cli: CommandLine) -> None:
    """The emulator calls the printed address, and `batch` listens on it."""
    argv = [sys.executable, "-c", LAUNCHER, "emulate", "--port", "0"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with ChildProcess(argv, cwd=cli.folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in process.stdout if "--callbacks" in line)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HANG_S)
    assert line == "for callbacks add: --callbacks http://127.0.0.1:8080\n"
