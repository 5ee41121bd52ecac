"""The command line as a test drives it: in this process, against an emulator, with its two streams apart."""

from __future__ import annotations

import contextlib
import io
import json
import os
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
#: An emulator that settles at once and serves the same short clip for every task.
EMULATOR_OPTIONS: Final[dict[str, Any]] = {
    "api_key": KEY, "render": False, "durations": "constant:0.05", "video_seconds": 1.0,
}  # fmt: skip

Rule = dict[str, Any]


@contextlib.contextmanager
def serving(*rules: Rule, **settings: Any) -> Iterator[Emulator]:
    """An emulator with these rules, in a thread of its own."""
    with Emulator(**{**EMULATOR_OPTIONS, **settings}, scenario=Scenario.of(rules)).in_thread() as emulator:
        yield emulator


@attrs.frozen
class CommandResult:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


@attrs.define
class CommandLine:
    """Runs commands in `folder` with the canary as every provider's key."""

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
        """`batch` at the emulator, whose generations take a moment."""
        to = ("--provider", provider, "--base-url", emulator.base_url(provider), "--expected-seconds", "0.2")
        return self("batch", source, *to, *more, stdin=stdin)

    def results(self, out: str = "pika-out") -> list[dict[str, Any]]:
        """The lines of `results.jsonl`."""
        return [json.loads(line) for line in (self.folder / out / "results.jsonl").read_text().splitlines()]

    def write(self, name: str, content: str | bytes) -> str:
        """A file in the folder; its name."""
        (self.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name


def files_with(folder: Path, secret: str) -> list[str]:
    """The files anywhere below `folder` that hold `secret`."""
    found = []
    for root, _, names in os.walk(folder):
        found += [name for name in names if secret.encode() in (Path(root) / name).read_bytes()]
    return found
