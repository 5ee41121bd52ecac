"""The two streams of a command, and its log: whatever strangers wrote is shown as plain printable text."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pika_async.errors import printable

__all__ = ["LEVELS", "Terminal", "logging_to", "plain", "table"]

LEVELS: Final = ("debug", "info", "warning", "error")


def plain(text: object, style: str = "") -> Text:
    """`text` without control characters and without markup; its line ends stay."""
    lines = str(text).split("\n")
    return Text("\n".join(printable(line) for line in lines), style=style)


def table(title: str, *columns: str, right: int = 99) -> Table:
    """An empty table; columns from the one at `right` on hold numbers."""
    made = Table(
        title=plain(title, "bold"), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for number, column in enumerate(columns):
        made.add_column(plain(column), justify="right" if number >= right else "left", overflow="fold")
    return made


class Terminal:
    """Standard output for results, standard error for everything else. A reader that leaves early stops nothing."""

    def __init__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        self.out = Console(highlight=False, soft_wrap=False)
        self.err = Console(stderr=True, highlight=False)
        self._deaf = False

    def say(self, text: object, style: str = "") -> None:
        """One message to standard error."""
        self.err.print(plain(text, style), soft_wrap=True)

    def error(self, text: object) -> None:
        """What went wrong."""
        self.err.print(Text("error: ", style="bold red") + plain(text), soft_wrap=True)

    def show(self, what: Any, *, to_error: bool = False) -> None:
        """A table or a message of the result."""
        console = self.err if to_error else self.out
        item = plain(what) if isinstance(what, str) else what
        if not to_error and self._deaf:
            return
        try:
            console.print(item, soft_wrap=isinstance(item, Text))
        except BrokenPipeError:
            self._close_output()

    def write(self, line: str) -> None:
        """A line for programs to standard output, as it is."""
        if self._deaf:
            return
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            self._close_output()

    def _close_output(self) -> None:
        """Nobody reads any more: what is paid for goes on, into its files."""
        self._deaf = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Handler(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._terminal.say(self.format(record), "dim")
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def logging_to(terminal: Terminal, level: str) -> Iterator[None]:
    """Show what `pika_async` logs from `level` on, on standard error, while the command runs."""
    log = logging.getLogger("pika_async")
    handler = _Handler(terminal)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    before, propagates = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(level.upper())
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
        log.propagate = propagates
