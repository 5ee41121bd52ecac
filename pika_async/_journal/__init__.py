"""Remembers every job of a client, and what was learned: in memory, or in an SQLite file that outlives the process."""

from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent, Journal
from pika_async._journal.sqlite import SqliteJournal

__all__ = ["Intent", "Journal", "MemoryJournal", "SqliteJournal"]
