"""What a process did until it died: lines in shared memory, written without a system call, so that none is miscounted."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

__all__ = ["Event", "Witness", "events_of", "make_room", "open_windows"]

ROOM: Final = 1 << 20


@attrs.frozen
class Event:
    """`what` happened to `whom`: a key, or for a send the prompt; `status` and `task_id` of a record."""

    what: str
    whom: str = ""
    status: str = ""
    task_id: str = ""


def make_room(path: Path) -> None:
    """A new file of zeros for one witness."""
    with path.open("xb") as file:
        file.truncate(ROOM)


class Witness:
    """The writing side. What is written is there for others at once, also when the process is killed right after."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), ROOM)
        self._end = 0
        self._lock = threading.Lock()

    def tell(self, what: str, whom: str = "", status: str = "", task_id: str | None = None) -> None:
        """Add an event; what finds no room is left out, and a test that counts on it fails."""
        line = "\t".join([what, whom, status, task_id or ""]).encode() + b"\n"
        with self._lock:
            if self._end + len(line) < ROOM:
                self._memory[self._end : self._end + len(line)] = line
                self._end += len(line)


def events_of(path: Path) -> list[Event]:
    """The events that are there now; a last line that is not whole is left out."""
    with path.open("rb") as file:
        told = file.read().partition(b"\0")[0].decode()
    return [Event(*line.split("\t")) for line in told.split("\n")[:-1]]


def open_windows(events: Sequence[Event]) -> set[str]:
    """The keys of the jobs that were between the call that keeps their intent and the end of the one that keeps what
    came back: what a kill puts in doubt, at most."""
    found: set[str] = set()
    for event in events:
        if event.what == "intending":
            found.add(event.whom)
        elif event.what == "kept" and event.status != "submitting":
            found.discard(event.whom)
    return found
