"""Storage of jobs and duration samples, in memory or in an SQLite file. Plans nothing and opens no socket.

Import from the modules; this one is empty, so that importing `_journal.protocol` does not load SQLite.
"""
