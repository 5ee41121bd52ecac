"""Standard output, standard error and log of a command. Prints foreign text without control characters or markup."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO, cast

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from pika_async.cli.streams import escape_unencodable
from pika_async.errors import strip_control
from pika_async.logs import LineFormatter

__all__ = ["LEVELS", "Terminal", "fits", "linked", "logging_to", "plain", "table"]

LEVELS: Final = ("debug", "info", "warning", "error")
#: A command to copy, at the beginning of a line or behind what it does.
_COMMAND: Final = re.compile(r"(?:^|(?<=: )) *(?P<command>(?:[A-Z][A-Z_]*=\S+ )*(?:pika-async |export [A-Z]))")
#: Cells by which the further lines of a text are indented more than its first.
HANGING_INDENT: Final = 2
#: Cells of the left and the right edge of a table.
TABLE_EDGE_CELLS: Final = 1
#: Cells between two columns, and behind the last.
COLUMN_GAP_CELLS: Final = 2
#: The loggers whose warnings are about the outcome of jobs, which each command says at its end.
_OUTCOME_LOGGERS: Final = frozenset({"pika_async.job_table", "pika_async.resolution"})


def plain(text: object, style: str = "") -> Text:
    """Return `text` without control characters and markup, keeping its line ends."""
    lines = str(text).split("\n")
    return Text("\n".join(strip_control(line) for line in lines), style=style)


def linked(path: Path, label: str = "") -> Text:
    """Return `path` as a text that opens it on terminals with links; elsewhere it is only the text.

    :param label: text in front, such as "results: "; default none.
    """
    text = Text(strip_control(str(path)))  # a line end of a name is not one of the text
    with contextlib.suppress(ValueError):  # a name that no address can hold
        text.stylize(Style(link=path.absolute().as_uri()))
    return plain(label) + text


def table(title: str, *columns: str, right: int = 99) -> Table:
    """Return an empty table.

    :param right: index of the first right-aligned column; default none is.
    """
    empty = Table(
        title=plain(title, "bold"), title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for number, column in enumerate(columns):
        empty.add_column(plain(column), justify="right" if number >= right else "left", overflow="fold")
    return empty


def fits(table: Table, width: int) -> bool:
    """Give each column of a table the width that its texts need, the first ones first, at least that of a word.

    :param width: cells of a line.
    :return: whether no word has to be broken; if False, the table is unchanged.
    """
    needs = [_widths([column.header, *column.cells], whole=column.no_wrap) for column in table.columns]
    spare = width - sum(least for least, _ in needs) - TABLE_EDGE_CELLS - COLUMN_GAP_CELLS * len(needs)
    if spare < 0:
        return False
    for column, (least, most) in zip(table.columns, needs, strict=True):
        column.width = least + min(spare, most - least)
        spare -= column.width - least
    return True


def _widths(cells: Sequence[object], *, whole: bool) -> tuple[int, int]:
    """Return the widths of the longest word (with `whole`: of the longest line) and of the longest line."""
    lines = [line for cell in cells for line in str(cell).split("\n")]
    most = max(map(cell_len, lines))
    return most if whole else max((cell_len(word) for line in lines for word in line.split()), default=0), most


def _print_prose(console: Console, text: Text) -> None:
    """Print lines; on a terminal they are wrapped between words, except commands, which can then be copied.

    Further lines of one are indented more than its first. A command for which there is no room behind the words before
    it has a line of its own.
    """
    for line in text.split("\n", allow_blank=True):
        indent = " " * (len(line.plain) - len(line.plain.lstrip()) + HANGING_INDENT)
        command = _COMMAND.search(line.plain) if console.is_terminal else None
        if command is not None:
            words, rest = line.divide([command.start("command")])
            if words.plain.strip() and cell_len(line.plain) > console.width:
                words.rstrip()
                _print_prose(console, words)
                line = Text(indent) + rest  # noqa: PLW2901
            console.print(line, soft_wrap=True)
            continue
        wraps = console.is_terminal
        parts = line.divide(_breaks(line.plain, console.width, len(indent)) if wraps else [])
        for number, part in enumerate(parts):
            if wraps:
                part.rstrip()
            console.print(Text(indent) + part if number else part, soft_wrap=True)


def _breaks(line: str, width: int, indent: int) -> list[int]:
    """Return the offsets of the words that begin a new line; a word that is wider than a line is left whole.

    :param indent: cells before a new line.
    """
    offsets = []
    used = 0
    for word in re.finditer(r"\s*\S+\s*", line):
        if used > indent and used + cell_len(word[0].rstrip()) > width:
            offsets.append(word.start())
            used = indent
        used += cell_len(word[0])
    return offsets


def _print_records(console: Console, table: Table) -> None:
    """Print a table that is wider than a line: under the first cell of each row a line for each of the others."""
    _print_prose(console, plain(table.title, "bold"))
    _, *headers = (column.header for column in table.columns)
    for first, *others in zip(*(column.cells for column in table.columns), strict=True):
        _print_prose(console, Text(" ") + plain(first, "bold"))
        for header, cell in zip(headers, others, strict=True):
            if str(cell):
                _print_prose(console, Text("  ") + plain(f"{header}: {cell}"))


class _SafeStream:
    """Stream that drops what it can no longer write, because its reader or its terminal is gone.

    The paid work continues and ends up in the files.
    """

    def __init__(self, stream: TextIO) -> None:
        escape_unencodable(stream)
        self._stream = stream
        self._closed = False

    def write(self, text: str) -> int:
        if not self._closed:
            try:
                self._stream.write(text)
            except (OSError, ValueError):
                self._discard()
        return len(text)

    def flush(self) -> None:
        if not self._closed:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._discard()

    def _discard(self) -> None:
        self._closed = True
        # Python writes the rest of the buffer when it exits; that must not fail either.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Terminal:
    """Console of a command: standard output for results, standard error for everything else."""

    def __init__(self) -> None:
        self._out, err = _SafeStream(sys.stdout), _SafeStream(sys.stderr)
        self.out = Console(file=cast("TextIO", self._out), highlight=False)
        self.err = Console(file=cast("TextIO", err), highlight=False)

    def note(self, text: object, style: str = "") -> None:
        """Print a message to standard error."""
        _print_prose(self.err, text if isinstance(text, Text) else plain(text, style))

    def note_whole(self, text: object, style: str = "") -> None:
        """Print a line for machines or logs to standard error; it is never wrapped."""
        self.err.print(plain(text, style), soft_wrap=True)

    def error(self, text: object) -> None:
        """Print an error to standard error."""
        _print_prose(self.err, Text("error: ", style="bold red") + plain(text))

    def show(self, what: str | Text | Table, *, to_error: bool = False) -> None:
        """Print a table or a message of the result.

        :param to_error: print it to standard error; default False.
        """
        console = self.err if to_error else self.out
        if isinstance(what, Table):
            if what.show_header and not fits(what, console.width):
                _print_records(console, what)
            else:
                console.print(what)
        else:
            _print_prose(console, plain(what) if isinstance(what, str) else what)

    @property
    def can_ask(self) -> bool:
        """Whether a person reads standard error and types into standard input."""
        return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))

    def ask(self, question: str) -> str | None:
        """Print a question to standard error; return the line that is typed, None at the end of the input."""
        self.err.print(plain(question), end=" ")
        self.err.file.flush()
        line = sys.stdin.readline()
        return line.strip() if line else None

    def fields(self, rows: Sequence[tuple[str, str]], *, to_error: bool) -> None:
        """Print texts with their labels; on a terminal each text is wrapped between words, in a column of its own."""
        console = self.err if to_error else self.out
        if not console.is_terminal:
            for label, text in rows:
                console.print(plain(f"  {label}: {text}"), soft_wrap=True)
            return
        if not rows:
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        for label, text in rows:
            grid.add_row(plain(f"  {label}"), plain(text))
        console.print(grid)

    def marked(self, mark: Text, text: str) -> None:
        """Print a line of the result behind a mark; on a terminal it is wrapped between words, beside the mark."""
        if not self.out.is_terminal:
            self.out.print(mark + plain(text), soft_wrap=True)
            return
        grid = Table.grid()
        grid.add_column(no_wrap=True)
        grid.add_row(mark, plain(text))
        self.out.print(grid)

    def write(self, line: str) -> None:
        """Write a machine-readable line to standard output, unchanged."""
        self._out.write(line)
        self._out.flush()


class _TerminalHandler(logging.Handler):
    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._terminal.note_whole(self.format(record), "dim")
        except Exception:
            self.handleError(record)


@contextlib.contextmanager
def logging_to(terminal: Terminal, level: str) -> Iterator[None]:
    """Print log records of `pika_async` from `level` upwards to standard error while the command runs.

    At the level `warning` a terminal does not show those that the command repeats at its end.
    """
    log = logging.getLogger("pika_async")
    handler = _TerminalHandler(terminal)
    handler.setFormatter(LineFormatter())
    if terminal.err.is_terminal and level == "warning":
        handler.addFilter(lambda record: record.levelno > logging.WARNING or record.name not in _OUTCOME_LOGGERS)
    level_before, propagated = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(level.upper())
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level_before)
        log.propagate = propagated
