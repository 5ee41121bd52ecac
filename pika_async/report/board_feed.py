"""Cards of the live board and the messages that carry their changes. Each card is encoded once. Reads no file or clock.

A message is a server-sent event. Its id is the revision of the journal up to which its reader is complete, so that a
reader who comes back with that id gets the rest. A reader may get a card twice, and misses none of one process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from pika_async.jobs import Job
from pika_async.report.cards import is_shown, problem_groups, shell_command
from pika_async.report.page import script_json

__all__ = ["MAX_CARDS_AT_ONCE", "BoardFeed", "message"]

#: Most cards of one message: a page that gets thousands stays usable between two messages.
MAX_CARDS_AT_ONCE: Final = 200
#: Fields of a card that its place and its group of problems need.
_GROUPED_FIELDS: Final = ("key", "index", "status", "reason", "error", "earlier", "adopted")


@attrs.frozen
class _Entry:
    #: Revision of the journal when the card was put here.
    revision: int
    #: Number of the change in this process: some changes have no revision of their own.
    number: int
    line: str


@attrs.define
class BoardFeed:
    """Latest state of each job of `root`, in the order of its last change.

    :param root: folder of the batch.
    """

    root: Path
    #: Latest revision that was read from the journal.
    revision: int = attrs.field(default=0, init=False)
    #: Number of the latest change in this process.
    number: int = attrs.field(default=0, init=False)
    #: Path of each linked file, by its link in the page.
    files: dict[str, Path] = attrs.field(factory=dict, init=False)
    _entries: dict[str, _Entry] = attrs.field(factory=dict, init=False)
    _grouped: dict[str, dict[str, Any]] = attrs.field(factory=dict, init=False)
    _active: dict[str, str] = attrs.field(factory=dict, init=False)
    _groups: list[dict[str, Any]] | None = attrs.field(default=None, init=False)

    def put(self, job: Job, card: Mapping[str, Any], revision: int) -> None:
        """Replace what is shown of `job`.

        :param card: its card.
        :param revision: revision of its change, or the latest one that was read.
        """
        key = job.key
        self.revision = max(self.revision, revision)
        self._groups = None
        self._entries.pop(key, None)
        self._grouped.pop(key, None)
        self._active.pop(key, None)
        if is_shown(job):
            self._grouped[key] = {name: card[name] for name in _GROUPED_FIELDS if name in card}
            line = script_json(card)
        else:
            self._active[key] = job.status.value
            line = script_json({"key": key, "gone": True})
        self.number += 1
        self._entries[key] = _Entry(self.revision, self.number, line)
        if job.file is not None and "file" in card:
            self.files[card["file"]] = job.file
        if "poster" in card:
            self.files[card["poster"]] = self.root / "posters" / f"{key}.jpg"

    def cards(self) -> list[str]:
        """Return the cards of the page, each as JSON, in the order of the batch."""
        ordered = sorted(self._grouped, key=lambda key: (self._grouped[key]["index"], key))
        return [self._entries[key].line for key in ordered]

    def head(self, *, is_running: bool, written: str) -> dict[str, Any]:
        """Return the facts of the whole batch, as the page of the folder has them.

        :param is_running: whether the batch goes on.
        :param written: present time, as text.
        """
        if self._groups is None:
            self._groups = problem_groups(self._grouped.values(), self.root)
        return {
            "running": is_running, "waiting": 0, "unfinished": dict(Counter(self._active.values())),
            "resume": shell_command("resume", self.root), "groups": self._groups, "written": written,
            "revision": self.revision, "live": True,
        }  # fmt: skip

    def messages(self, after: int, seen: int | None = None) -> Iterator[bytes]:
        """Yield the messages that a reader needs.

        Without `seen`, the changes of the revision `after` are repeated: a download that ended later has joined it. A
        message ends between two revisions, so that its id holds for all of it.

        :param after: revision up to which the reader is complete; 0 for a reader who has nothing.
        :param seen: number of the last change of this process that the reader has; default None, unknown.
        """
        newer: list[_Entry] = []
        for entry in reversed(self._entries.values()):
            if entry.revision < after if seen is None else entry.number <= seen:
                break
            newer.append(entry)
        newer.reverse()
        lines: list[str] = []
        for place, entry in enumerate(newer):
            lines.append(entry.line)
            is_last = place + 1 == len(newer)
            if is_last or (len(lines) >= MAX_CARDS_AT_ONCE and newer[place + 1].revision > entry.revision):
                yield message("cards", f"[{','.join(lines)}]", entry.revision)
                lines = []


def message(event: str, data: str, number: int | None = None) -> bytes:
    """Return one server-sent event.

    :param event: its name.
    :param data: its data, in one line.
    :param number: its id; default None, the reader keeps the last one.
    """
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {event}\ndata: {data}\n\n".encode()
