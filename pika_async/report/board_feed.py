"""Cards of the live board and the messages that carry their changes. Each card is encoded once. Reads no file or clock.

A message is a server-sent event. Its id is the revision of the journal up to which its reader is complete, so that a
reader who comes back with that id gets the rest. A reader may get a card twice, and misses none of one process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs

from pika_async._journal.protocol import JobState
from pika_async.report.cards import problem_groups, problem_of, shell_command
from pika_async.report.page import script_json

__all__ = ["MAX_CARDS_AT_ONCE", "BoardCard", "BoardFeed", "message"]

#: Most cards of one message: a page that gets thousands stays usable between two messages.
MAX_CARDS_AT_ONCE: Final = 200


@attrs.frozen(kw_only=True)
class BoardCard:
    """A card as readers get it. It is encoded once, in whatever thread has read its job."""

    key: str
    index: int
    #: The card as JSON.
    line: str
    #: Facts for the groups of problems; None unless its job is one.
    problem: Mapping[str, Any] | None
    #: The files that it links, by their links.
    files: Mapping[str, Path]

    @classmethod
    def of(cls, card: Mapping[str, Any], root: Path, *, file: Path | None) -> Self:
        """Return a card with the facts that `card_of` makes.

        :param root: folder of the batch.
        :param file: the file of its job; None without one.
        """
        key = card["key"]
        files = {card["file"]: file} if file is not None and "file" in card else {}
        if "poster" in card:
            files[card["poster"]] = root / "posters" / f"{key}.jpg"
        return cls(
            key=key, index=card["index"], line=script_json(card), files=files,
            problem=problem_of(card),
        )  # fmt: skip


@attrs.frozen
class _Entry:
    #: Revision of the journal when the card was put here.
    revision: int
    #: Number of the change in this process: some changes have no revision of their own.
    number: int
    line: str
    #: Place of the card in the batch; None for one that has gone.
    index: int | None


@attrs.define
class BoardFeed:
    """Latest state of each job; its cards in the order of their last change.

    :param subject: the words of a command that name the jobs; see `cards.folder_subject`.
    """

    subject: Sequence[str]
    #: Latest revision that was read.
    revision: int = attrs.field(default=0, init=False)
    #: Number of the latest change of what a page shows, in this process.
    number: int = attrs.field(default=0, init=False)
    #: Path of each linked file, by its link in the page.
    files: dict[str, Path] = attrs.field(factory=dict, init=False)
    _entries: dict[str, _Entry] = attrs.field(factory=dict, init=False)
    _problems: dict[str, Mapping[str, Any]] = attrs.field(factory=dict, init=False)
    #: Status of each job that has no card, and how many there are of each.
    _active: dict[str, str] = attrs.field(factory=dict, init=False)
    _counts: Counter[str] = attrs.field(factory=Counter, init=False)
    _groups: list[dict[str, Any]] | None = attrs.field(default=None, init=False)

    def put(self, card: BoardCard, revision: int) -> None:
        """Show `card`, in place of what is known of its job.

        :param revision: revision of its change, or the latest one that was read.
        """
        self._forget(card.key)
        if card.problem is not None:
            self._problems[card.key] = card.problem
            self._groups = None
        self._add(card.key, revision, card.line, card.index)
        self.files.update(card.files)

    def put_state(self, state: JobState, revision: int) -> None:
        """Count a job that has no card, or no longer has one; the same status again changes nothing.

        :param revision: revision of its change.
        """
        self.revision = max(self.revision, revision)
        if self._active.get(state.key) == state.status.value:
            return
        had_card = state.key in self._entries
        self._forget(state.key)
        self._active[state.key] = state.status.value
        self._counts[state.status.value] += 1
        if had_card:
            self._add(state.key, revision, _gone(state.key), None)
        else:
            self.number += 1

    def _forget(self, key: str) -> None:
        self._entries.pop(key, None)
        if self._problems.pop(key, None) is not None:
            self._groups = None
        if (status := self._active.pop(key, None)) is not None:
            self._counts[status] -= 1

    def _add(self, key: str, revision: int, line: str, index: int | None) -> None:
        self.revision = max(self.revision, revision)
        self.number += 1
        self._entries[key] = _Entry(self.revision, self.number, line, index)

    def cards(self) -> list[str]:
        """Return the cards of the page, each as JSON, in the order of the batch."""
        shown = [(entry.index, key, entry.line) for key, entry in self._entries.items() if entry.index is not None]
        return [line for _, _, line in sorted(shown)]

    def head(self, *, is_running: bool, written: str) -> dict[str, Any]:
        """Return the facts of the whole batch, as the page of the folder has them.

        :param is_running: whether the batch goes on.
        :param written: present time, as text.
        """
        if self._groups is None:
            self._groups = problem_groups(self._problems.values(), self.subject)
        return {
            "running": is_running, "waiting": 0, "unfinished": {name: n for name, n in self._counts.items() if n},
            "resume": shell_command("resume", self.subject), "groups": self._groups, "written": written,
            "revision": self.revision, "live": True,
        }  # fmt: skip

    def messages(self, after: int, seen: int | None = None) -> Iterator[bytes]:
        """Yield the messages that a reader needs.

        Without `seen`, the changes of the revision `after` are repeated: a download that ended later has joined it. A
        message ends between two revisions, so that its id holds for all of it.

        :param after: revision up to which the reader is complete; 0 for a reader who may have cards of another process.
        :param seen: number of the last change of this process that the reader has; default None, unknown.
        """
        newer: list[_Entry] = []
        for entry in reversed(self._entries.values()):
            if entry.revision < after if seen is None else entry.number <= seen:
                break
            newer.append(entry)
        newer.reverse()
        lines = [_gone(key) for key in self._active if key not in self._entries] if after == 0 and seen is None else []
        if lines and not newer:
            yield message("cards", f"[{','.join(lines)}]", self.revision)
        for place, entry in enumerate(newer):
            lines.append(entry.line)
            is_last = place + 1 == len(newer)
            if is_last or (len(lines) >= MAX_CARDS_AT_ONCE and newer[place + 1].revision > entry.revision):
                yield message("cards", f"[{','.join(lines)}]", entry.revision)
                lines = []


def _gone(key: str) -> str:
    """Return the line of a job that has no card."""
    return script_json({"key": key, "gone": True})


def message(event: str, data: str, number: int | None = None) -> bytes:
    """Return one server-sent event.

    :param event: its name.
    :param data: its data, in one line.
    :param number: its id; default None, the reader keeps the last one.
    """
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {event}\ndata: {data}\n\n".encode()
