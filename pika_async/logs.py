"""Log lines about jobs: their fields, their format, and a function that shows them.

Does not decide what is logged. Each module logs under its own name, such as `pika_async.job_table` or
`pika_async.submitter`. A line about a job has the fields below. It never contains a gateway's text, which may repeat a
prompt; that is in the job's `error`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import Final

from pika_async.errors import strip_control
from pika_async.jobs import Job

__all__ = ["LOG_FIELDS", "SHOWN_CHARS", "LineFormatter", "about", "debug_logging", "describe", "log_job"]

#: The attributes of every log record about a job.
LOG_FIELDS: Final = ("pika_job", "pika_task", "pika_provider", "pika_status", "pika_attempt")
#: Characters of a task id that are shown: the provider chooses its length.
SHOWN_CHARS: Final = 200


def describe(job: Job) -> str:
    """Return the name of a job in a log line: its key, provider and task id."""
    task = "" if job.task_id is None else f", task {strip_control(job.task_id[:SHOWN_CHARS])}"
    return f"{strip_control(job.key)} ({job.provider}{task})"


def about(job: Job) -> dict[str, str | int | None]:
    """Return the fields of a log record about *job*: plain, printable values. `pika_task` is None before acceptance."""
    return {
        "pika_job": strip_control(job.key),
        "pika_task": None if job.task_id is None else strip_control(job.task_id[:SHOWN_CHARS]),
        "pika_provider": job.provider,
        "pika_status": job.status.value,
        "pika_attempt": job.attempts,
    }


def log_job(log: logging.Logger, level: int, job: Job, message: str, *args: object, exc_info: bool = False) -> None:
    """Log one line about *job*. Exceptions of handlers are dropped: the next step may be to save a payment."""
    with contextlib.suppress(Exception):
        if log.isEnabledFor(level):
            shown = [strip_control(arg) if isinstance(arg, str) else arg for arg in args]
            line = f"job %s: {message}"
            log.log(level, line, describe(job), *shown, extra=about(job), exc_info=exc_info, stacklevel=2)


class LineFormatter(logging.Formatter):
    """Formatter for time, level, logger, message and fields as key=value, on one line without control characters."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's
        """Format the line without a traceback."""
        values = [(name, getattr(record, name, None)) for name in LOG_FIELDS]
        fields = "".join(f" {name}={_value(value)}" for name, value in values if value is not None)
        return strip_control(super().formatMessage(record) + fields)

    def format(self, record: logging.LogRecord) -> str:
        """Format the line and, below it, the traceback if there is one."""
        return "\n".join(strip_control(line) for line in super().format(record).split("\n"))


def _value(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(mark in text for mark in ' "=') else text


class _StandardError(logging.Handler):
    """Handler that writes to the current `sys.stderr`, even if that is replaced later."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def debug_logging(level: int | str = "DEBUG") -> logging.Handler:
    """Write the log lines of pika_async to standard error.

    A second call changes the level and adds no second handler. The root logger is not changed; if it has handlers, they
    write the lines as well. To undo: `logging.getLogger("pika_async").removeHandler(handler)`, then
    `setLevel(logging.NOTSET)` on the same logger.

    :param level: the lowest level that is shown, by number or by name in any case (default: DEBUG).
    :return: the handler.
    :raises ValueError: if there is no such level.
    """
    log = logging.getLogger("pika_async")
    log.setLevel(level.upper() if isinstance(level, str) else level)
    for handler in log.handlers:
        if isinstance(handler, _StandardError):
            return handler
    added = _StandardError()
    added.setFormatter(LineFormatter())
    log.addHandler(added)
    return added
