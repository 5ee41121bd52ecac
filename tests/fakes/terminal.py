"""Real terminal for tests: a tmux server of its own, into which a person's keys are typed and whose screen is read."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

from tests.fakes.requirements import require_program

__all__ = ["Terminal", "open_terminal"]

#: Seconds after which a text that a person waits for is missing: far above what any command of a test takes.
PATIENCE: Final = 120.0
PROMPT: Final = "ready>"


@attrs.define
class Terminal:
    """Terminal of `columns` columns, with a shell in it."""

    program: str
    socket: Path
    columns: int

    def tmux(self, *arguments: str) -> str:
        """Run one tmux command on this terminal's server and return what it prints."""
        command = [self.program, "-f", "/dev/null", "-S", str(self.socket), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def screen(self) -> list[str]:
        """Return every line of the terminal as a person sees it, from the first, without trailing blanks."""
        return [line.rstrip() for line in self.tmux("capture-pane", "-p", "-S", "-").rstrip().splitlines()]

    def type(self, text: str) -> None:
        """Type `text` and press Enter."""
        self.tmux("send-keys", "-l", text)
        self.press("Enter")

    def press(self, key: str) -> None:
        """Press one key, such as `Enter` or `C-c`."""
        self.tmux("send-keys", key)

    def wait_for(self, pattern: str, after: int = 0) -> list[str]:
        """Wait until a line below the first `after` lines matches `pattern`; return the lines below."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            lines = self.screen()[after:]
            if any(re.search(pattern, line) for line in lines):
                return lines
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} is not on the screen:\n" + "\n".join(self.screen()))

    def run(self, command: str, *answers: tuple[str, str]) -> tuple[list[str], int]:
        """Run `command` to its end; return its lines and its exit code.

        :param answers: pairs of a pattern to wait for and the text to type then.
        """
        start = len(self.screen())
        self.type(f"{command}; echo exit-code=$?")
        for pattern, answer in answers:
            self.wait_for(pattern, start)
            self.type(answer)
        lines = self.wait_for(r"^exit-code=\d+$", start)
        end = next(index for index, line in enumerate(lines) if re.search(r"^exit-code=\d+$", line))
        return lines[:end], int(lines[end].partition("=")[2])


@contextmanager
def open_terminal(folder: Path, *, columns: int, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Open a terminal in `folder` whose shell has exactly the variables of `environment`."""
    with tempfile.TemporaryDirectory(prefix="tmux-") as sockets:  # the path of a socket must be short
        terminal = Terminal(require_program("tmux"), Path(sockets) / "s", columns)
        variables = {**environment, "TERM": "tmux-256color", "PS1": f"{PROMPT} ", "PS2": "", "LC_ALL": "C.UTF-8"}
        words = [
            "env",
            "-i",
            *(f"{name}={value}" for name, value in variables.items()),
            "bash",
            "--norc",
            "--noprofile",
        ]
        terminal.tmux(
            "start-server", ";", "set-option", "-g", "history-limit", "20000", ";",
            "new-session", "-d", "-x", str(columns), "-y", "50", "-c", str(folder), shlex.join(words),
        )  # fmt: skip
        try:
            terminal.wait_for(f"^{PROMPT}")
            yield terminal
        finally:
            terminal.tmux("kill-server")
