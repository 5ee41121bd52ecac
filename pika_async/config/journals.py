"""The journal of a client: one in memory, the one in a file, or the caller's own. Opens nothing."""

from __future__ import annotations

import os

from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Journal
from pika_async._planning.limits import Limits
from pika_async.errors import ConfigurationError

__all__ = ["create_journal"]


def create_journal(journal: str | os.PathLike[str] | Journal | None, limits: Limits) -> Journal:
    """Return `journal` itself if it is one, a journal in the file of that path, or one in memory for None.

    :raises ConfigurationError: if it is neither.
    """
    if journal is None:
        return MemoryJournal(settled=limits.settled)
    if isinstance(journal, str | os.PathLike):
        if journal != "":
            from pika_async._journal.sqlite import SqliteJournal  # noqa: PLC0415 - not for a client without a file

            return SqliteJournal(journal)
    elif hasattr(journal, "record_intent"):
        return journal
    raise ConfigurationError(setting="journal", reason=f"{journal!r} must be a path; give the path of a file")
