"""Commands on machines as they are: proxies of the environment, closed standard
streams, narrow encodings, and the time that a machine gives before it kills.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pika_async.cli.batch_folder import BatchFolder
from tests.cli.command_line import ENV, KEY, CommandLine, serving


@pytest.mark.parametrize(
    "command",
    [("generate", "a cat"), ("batch", "in.jsonl", "--out", "out"), ("doctor",)],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("variable", ["https_proxy", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used_is_named_before_anything_else(
    cli: CommandLine, variable: str, command: tuple[str, ...]
) -> None:
    """The variable is named once, no row is refused, no base URL is suspected, and no folder is created."""
    cli.monkeypatch.delenv("https_proxy", raising=False)
    cli.monkeypatch.setenv(variable, "socks5://127.0.0.1:1080")
    (cli.folder / "in.jsonl").write_text('{"prompt": "a cat"}\n')
    result = cli(*command, "--provider", "gptge")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"error: {variable.upper()}: SOCKS proxies are not supported")
    assert [path.name for path in cli.folder.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    "command",
    [("generate", "a cat"), ("batch", "in.jsonl", "--out", "out")],
    ids=lambda command: command[0],
)
def test_the_grace_must_be_above_zero(cli: CommandLine, command: tuple[str, ...]) -> None:
    """`--grace` reaches the limits of the client, which refuse a grace of none before anything is sent."""
    (cli.folder / "in.jsonl").write_text('{"prompt": "a cat"}\n')
    result = cli(*command, "--provider", "gptge", "--grace", "0")
    assert result.code == 2
    assert result.err.startswith("error: --grace: must be a number above 0, not 0.0")


def test_resume_keeps_the_grace_of_the_batch(cli: CommandLine) -> None:
    """The grace is saved with the options of the batch, which `resume` applies unless another one is given."""
    with serving() as emulator:
        (cli.folder / "in.jsonl").write_text('{"prompt": "a cat"}\n')
        assert cli.batch(emulator, "in.jsonl", "--out", "out", "--grace", "2.5").code == 0
        assert BatchFolder(cli.folder / "out").options().grace == 2.5


def _run_in_shell(
    folder: Path, redirections: str, *argv: str, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    command = ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-m", "pika_async", *argv]
    env = {**os.environ, **dict.fromkeys(ENV.values(), KEY), **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    "redirections",
    [
        pytest.param("<&-", marks=pytest.mark.slow),
        pytest.param(">&-", marks=pytest.mark.slow),
        pytest.param("2>&-", marks=pytest.mark.slow),
        "<&- >&- 2>&-",
    ],
)
def test_a_closed_standard_stream_is_the_null_device(tmp_path: Path, redirections: str) -> None:
    """The batch runs as always: no crash, and no journal or socket gets a descriptor that is printed to."""
    (tmp_path / "in.jsonl").write_text('{"prompt": "a cat", "key": "cat"}\n')
    with serving() as emulator:
        account = ("--provider", "native", "--base-url", emulator.base_url("native"), "--expected-seconds", "0.2")
        ran = _run_in_shell(tmp_path, redirections, "batch", "in.jsonl", "--out", "out", *account)
    assert ran.returncode == 0, ran.stderr
    [line] = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "succeeded"
    assert (tmp_path / "out" / "journal.db").read_bytes().startswith(b"SQLite format 3\0")
    assert ("1 on disk" in ran.stdout.decode()) == (">&-" not in redirections.replace("2>&-", ""))


def test_a_narrow_encoding_of_the_output_changes_no_outcome(tmp_path: Path) -> None:
    """With an ASCII locale prompts of every script are sent, and what cannot be printed is escaped."""
    prompt = "\u732b \u2192 \u00e9"
    (tmp_path / "in.jsonl").write_text(json.dumps({"prompt": prompt, "key": "\u732b"}) + "\n")
    narrow = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    with serving() as emulator:
        account = ("--provider", "native", "--base-url", emulator.base_url("native"), "--expected-seconds", "0.2")
        ran = _run_in_shell(tmp_path, "", "batch", "in.jsonl", "--out", "out", *account, **narrow)
        listed = _run_in_shell(tmp_path, "", "status", "out", **narrow)
    assert (ran.returncode, listed.returncode) == (0, 0), ran.stderr
    assert b"Traceback" not in ran.stderr + listed.stderr
    [line] = (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert (json.loads(line)["prompt"], json.loads(line)["status"]) == (prompt, "succeeded")
