"""Runner of commands for tests: in this process, against an emulator, with standard output and error apart."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from pika_async.__main__ import main
from pika_async.emulator import Emulator, Scenario

KEY = "canary-3f9b2c7d51e84a06"
ENV = {
    "cometapi": "COMETAPI_API_KEY", "yescale": "YESCALE_API_KEY", "gptge": "GPTGE_API_KEY", "native": "PIKA_API_KEY",
}  # fmt: skip
#: Options of an emulator that settles tasks at once and serves one short clip for all of them.
EMULATOR_OPTIONS: Final[dict[str, Any]] = {
    "api_key": KEY, "render": False, "durations": "constant:0.05", "video_seconds": 1.0,
}  # fmt: skip

Rule = dict[str, Any]
#: Codes of a terminal: colours and cursor, and the addresses of links.
_CODES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b\x07]*(?:\x1b\\|\x07)")


def without_codes(text: str) -> str:
    """Return `text` without the codes of a terminal."""
    return _CODES.sub("", text)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 80, **more: str) -> None:
    """Let the next commands print as on a terminal without colours."""
    for name, value in {"TTY_COMPATIBLE": "1", "FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": columns, **more}.items():
        monkeypatch.setenv(name, str(value))


@contextlib.contextmanager
def serving(*rules: Rule, **settings: Any) -> Iterator[Emulator]:
    """Serve an emulator with fault rules in a thread of its own."""
    with Emulator(**{**EMULATOR_OPTIONS, **settings}, scenario=Scenario.of(rules)).in_thread() as emulator:
        yield emulator


@attrs.frozen
class CommandResult:
    """Exit code and output of one command."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output, parsed as lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


@attrs.define
class CommandLine:
    """Runner of commands in `folder` with the canary as every provider's key."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def __attrs_post_init__(self) -> None:
        self.monkeypatch.chdir(self.folder)
        for variable in ENV.values():
            self.monkeypatch.setenv(variable, KEY)
        self.monkeypatch.setenv("COLUMNS", "200")
        self.capsys.readouterr()

    def __call__(self, *argv: str, stdin: bytes | None = None) -> CommandResult:
        if stdin is not None:
            self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(list(argv))
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        assert KEY not in out + err
        return CommandResult(code, out, err)

    def batch(
        self, emulator: Emulator, source: str, *more: str, provider: str = "native", stdin: bytes | None = None
    ) -> CommandResult:
        """Run `batch` against the emulator, whose generations take a moment."""
        target = ("--provider", provider, "--base-url", emulator.base_url(provider), "--expected-seconds", "0.2")
        return self("batch", source, *target, *more, stdin=stdin)

    def results(self, out: str = "pika-out") -> list[dict[str, Any]]:
        """Return the lines of `results.jsonl`."""
        return [json.loads(line) for line in (self.folder / out / "results.jsonl").read_text().splitlines()]

    def write(self, name: str, content: str | bytes) -> str:
        """Write a file in the folder and return its name."""
        (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name


def files_with(folder: Path, secret: str) -> list[str]:
    """Return the names of the files below `folder` that hold `secret`."""
    names_with_secret = []
    for root, _, names in os.walk(folder):
        names_with_secret += [name for name in names if secret.encode() in (Path(root) / name).read_bytes()]
    return names_with_secret
