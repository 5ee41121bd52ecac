"""What belongs to the whole process: log handlers, signal handlers, variables, the working directory."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def process_state() -> dict[str, Any]:
    """Return what belongs to the whole process and that a test must leave as it found it."""
    loggers = {name: logging.getLogger(name) for name in ("", "pika_async")}
    logs = {
        f"logger {name!r}": (log.level, log.propagate, set(log.handlers), set(log.filters))
        for name, log in loggers.items()
    }
    handlers = {f"handler of {number.name}": signal.getsignal(number) for number in _SIGNALS}
    environment = {f"${name}": value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return logs | handlers | environment | {"working directory": Path.cwd()}


@contextlib.contextmanager
def restored_process() -> Iterator[None]:
    """Undo what a script that is run in this process changes for its process."""
    logs = [logging.getLogger(name) for name in ("", "pika_async")]
    state = [(log, log.level, list(log.handlers)) for log in logs]
    handlers = [(number, signal.getsignal(number)) for number in _SIGNALS]
    try:
        yield
    finally:
        for log, level, before in state:
            log.setLevel(level)
            log.handlers[:] = before
        for number, handler in handlers:
            signal.signal(number, handler)
