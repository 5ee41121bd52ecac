"""Event log of a process that may be killed at any moment.

Events are lines in shared memory. Writing one makes no system call, so that a tracer does not count it.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

__all__ = ["Event", "EventLog", "create_event_log", "read_events", "unresolved_submissions"]

CAPACITY_BYTES: Final = 1 << 20


@attrs.frozen
class Event:
    """One event of a process.

    :param kind: What happened, such as "sending" or "saved".
    :param subject: The key of the job, or its prompt for a send.
    :param status: The status of a saved record.
    :param task_id: The task id of a saved record.
    """

    kind: str
    subject: str = ""
    status: str = ""
    task_id: str = ""


def create_event_log(path: Path) -> None:
    """Create the zero-filled file of one event log."""
    with path.open("xb") as file:
        file.truncate(CAPACITY_BYTES)


class EventLog:
    """Writer of an event log. Other processes see an event at once, even if the writer is killed right after it."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), CAPACITY_BYTES)
        self._end = 0
        self._lock = threading.Lock()

    def record(self, kind: str, subject: str = "", status: str = "", task_id: str | None = None) -> None:
        """Append an event. An event that does not fit is dropped; a test that waits for it then fails."""
        line = "\t".join([kind, subject, status, task_id or ""]).encode() + b"\n"
        with self._lock:
            if self._end + len(line) < CAPACITY_BYTES:
                self._memory[self._end : self._end + len(line)] = line
                self._end += len(line)


def read_events(path: Path) -> list[Event]:
    """Return the events recorded so far, without an incomplete last line."""
    with path.open("rb") as file:
        text = file.read().partition(b"\0")[0].decode()
    return [Event(*line.split("\t")) for line in text.split("\n")[:-1]]


def unresolved_submissions(events: Sequence[Event]) -> set[str]:
    """Return the keys of jobs whose intent was being saved or was saved, and whose answer was not.

    A kill at this moment can put only these jobs in doubt.
    """
    found: set[str] = set()
    for event in events:
        if event.kind == "intending":
            found.add(event.subject)
        elif event.kind == "saved" and event.status != "submitting":
            found.discard(event.subject)
    return found
