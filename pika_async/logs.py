"""The lines that the SDK logs: what each says of a job, and one call that shows them. Decides no line's level.

Each room logs under its own name, `pika_async.desk`, `pika_async.submissions` and so on. A line about a job carries the
fields below, and no words of a gateway: those may repeat a prompt, and are in the job's `error`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Final

from pika_async.errors import strip_control
from pika_async.jobs import Job

__all__ = ["FIELDS", "SHOWN", "LineFormatter", "about", "debug_logging", "describe", "log_job"]

#: What `extra` holds on every line that tells of a job.
FIELDS: Final = ("pika_job", "pika_task", "pika_provider", "pika_status", "pika_attempt")
#: How much of a task id is shown, in characters: it is the provider's text, of any length.
SHOWN: Final = 200


def describe(job: Job) -> str:
    """A job as a log line names it."""
    task = "" if job.task_id is None else f", task {strip_control(job.task_id[:SHOWN])}"
    return f"{strip_control(job.key)} ({job.provider}{task})"


def about(job: Job) -> dict[str, str | int | None]:
    """The fields of a line about `job`: plain, printable values; `pika_task` is None before it is accepted."""
    return {
        "pika_job": strip_control(job.key),
        "pika_task": None if job.task_id is None else strip_control(job.task_id[:SHOWN]),
        "pika_provider": job.provider,
        "pika_status": job.status.value,
        "pika_attempt": job.attempts,
    }


def log_job(log: logging.Logger, level: int, job: Job, words: str, *args: object, exc_info: bool = False) -> None:
    """One line about `job`. A handler that raises harms nothing: a payment's record may be what comes next."""
    with contextlib.suppress(Exception):
        if log.isEnabledFor(level):
            shown = [strip_control(arg) if isinstance(arg, str) else arg for arg in args]
            line = f"job %s: {words}"
            log.log(level, line, describe(job), *shown, extra=about(job), exc_info=exc_info, stacklevel=2)


class LineFormatter(logging.Formatter):
    """Time, level, room, message and the fields as key=value, on one line without control characters."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """The line itself; a traceback stands below it."""
        told = [(name, getattr(record, name, None)) for name in FIELDS]
        fields = "".join(f" {name}={_value(value)}" for name, value in told if value is not None)
        return strip_control(super().formatMessage(record) + fields)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and what follows it."""
        return "\n".join(strip_control(line) for line in super().format(record).split("\n"))


def _value(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(mark in text for mark in ' "=') else text


class _StandardError(logging.Handler):
    """Writes to standard error, whichever that is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def debug_logging(level: int | str = "DEBUG") -> logging.Handler:
    """Show what the SDK does, from `level` on, on standard error; gives the handler that does it.

    Called again it changes the level and adds no second handler. The root logger is left alone: if it has handlers of
    its own, they show the lines too. To undo it: `logging.getLogger("pika_async").removeHandler(handler)`, and
    `setLevel(logging.NOTSET)` on the same logger.

    :raises ValueError: if there is no such level.
    """
    log = logging.getLogger("pika_async")
    log.setLevel(level.upper() if isinstance(level, str) else level)
    for known in log.handlers:
        if isinstance(known, _StandardError):
            return known
    handler = _StandardError()
    handler.setFormatter(LineFormatter())
    log.addHandler(handler)
    return handler
