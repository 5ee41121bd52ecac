"""Questions to a person at a terminal. Decides nothing."""

from __future__ import annotations

import sys

from pika_async.cli.terminal import Terminal

__all__ = ["ask", "can_ask"]


def can_ask() -> bool:
    """Return whether a person reads standard error and types into standard input."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def ask(terminal: Terminal, question: str) -> str | None:
    """Print a question to standard error; return the line that is typed, None at the end of the input."""
    terminal.note(question)
    line = sys.stdin.readline()
    return line.strip() if line else None
