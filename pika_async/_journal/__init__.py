"""Storage of jobs and duration samples, in memory or in an SQLite file.

Import from the modules: this one is empty, so that `_journal.protocol` loads no SQLite.
"""
