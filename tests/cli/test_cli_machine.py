"""Commands on machines as they are: proxies of the environment, and the time that a machine gives before it kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from pika_async.cli.batch_folder import BatchFolder
from tests.cli.command_line import CommandLine, serving


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return CommandLine(tmp_path, capsys, monkeypatch)


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
