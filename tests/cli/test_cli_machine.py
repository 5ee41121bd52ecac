"""Commands on machines as they are: proxies of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command_line import CommandLine


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
