"""Import of the fallback file into the database when a journal is opened."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import attrs

from pika_async._journal import queries
from pika_async._journal.displacement import Notice
from pika_async._journal.fallback_file import FallbackFile
from pika_async._journal.schema import unusable
from pika_async._journal.serialization import JOB_COLUMNS, is_later, job_from_row
from pika_async.errors import JournalUnusable, strip_control
from pika_async.jobs import JobStatus
from pika_async.logs import log_job

__all__ = ["Recovery"]

#: Keys that an error names, at most.
MAX_NAMED_KEYS: Final = 5

_log = logging.getLogger("pika_async.journal")


def _is_charged(record: Mapping[str, Any]) -> bool:
    """Whether the job of a record may have been paid for, as `Job.may_be_charged`."""
    has_facts = record.get("task_id") is not None or record.get("submitted_at") is not None
    return has_facts or record["status"] == JobStatus.SUBMITTING


@attrs.define
class Recovery:
    """Lines of the fallback file of the journal at `path`, and their import."""

    path: Path
    fallback: FallbackFile
    records: list[dict[str, Any]] = attrs.Factory(list)
    notices: list[Notice] = attrs.Factory(list)
    #: Whether a line is incomplete, or was not written by a journal.
    has_bad_lines: bool = False

    @classmethod
    def read(cls, path: Path, fallback: FallbackFile) -> Self:
        """Read the fallback file.

        :raises JournalUnusable: if it cannot be read.
        """
        recovery = cls(path, fallback)
        try:
            lines = fallback.read_lines()
        except OSError as error:
            raise recovery._failed(error) from None
        for line in lines:
            try:
                values = json.loads(line)
                notice = Notice.from_values(values)
                if notice is not None:
                    recovery.notices.append(notice)
                else:
                    JobStatus(values["status"]), values["key"], values["previous_key"], values["journal"]
                    recovery.records.append(values)
            except (TypeError, ValueError, KeyError):
                recovery.has_bad_lines = True
        return recovery

    def _failed(self, error: Exception) -> JournalUnusable:
        reason = f"cannot be completed with the records in {self.fallback.path}: {error}; mend that, then open it again"
        return unusable(self.path, reason)

    @property
    def _files(self) -> str:
        return " and ".join(map(str, self.fallback.files))

    def require_journal(self, connection: sqlite3.Connection | None, journal: str | None, revision: int) -> None:
        """Require that the lines belong to the journal that is about to be opened.

        :param connection: a connection to it; None if the file does not exist.
        :param journal: its random number; None if it was never opened.
        :param revision: the number of its latest change.
        :raises JournalUnusable: if another journal, or an earlier state of this one, has taken the place of theirs.
        """
        for notice in self.notices:
            if not notice.is_satisfied_by(journal, revision):
                copy = "" if notice.copy is None else f" (a whole copy is {notice.copy})"
                text = f"is not the journal that was here: that {notice.displaced}, in process {notice.pid}"
                way_out = f"put it back{copy}; to pay for its jobs again, remove {self._files}"
                raise unusable(self.path, f"{text}: {way_out}")
        lost = [strip_control(record["key"]) for record in self.records if self._is_lost(connection, journal, record)]
        if lost:
            keys = ", ".join(dict.fromkeys(lost[:MAX_NAMED_KEYS])) + (", ..." if len(lost) > MAX_NAMED_KEYS else "")
            text = f"does not have the jobs whose records are in {self._files} ({keys})"
            way_out = f"put the journal that has them back; to pay for them again, remove {self._files}"
            raise unusable(self.path, f"{text}: {way_out}")

    def _is_lost(self, connection: sqlite3.Connection | None, journal: str | None, record: Mapping[str, Any]) -> bool:
        if not _is_charged(record):
            return False  # at worst it is sent, for the first time
        if connection is None or record["journal"] != journal:
            return True
        others = [it["previous_key"] for it in self.records if it["key"] == record["key"]]
        keys = [record["key"], *(key for key in others if key is not None)]
        return all(queries.select_job(connection, key) is None for key in keys)

    def apply(self, connection: sqlite3.Connection, folder: Path, revision: int) -> int:
        """Save each record that is later than the stored job, then clear the file; return the latest change.

        :param folder: the folder of the journal.
        :param revision: the number of the latest change before.
        :raises JournalUnusable: if a record cannot be saved, or the file not be cleared.
        """
        try:
            with queries.transaction(connection):
                for record in self.records:
                    revision = self._apply_record(connection, record, folder, revision)
            if not self.has_bad_lines or self.fallback.set_aside():
                self.fallback.clear()
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from None
        return revision

    def _apply_record(
        self, connection: sqlite3.Connection, record: Mapping[str, Any], folder: Path, revision: int
    ) -> int:
        key, previous_key = record["key"], record["previous_key"]
        stored = queries.select_job(connection, key)
        if previous_key is not None and stored is None:
            queries.rename_job(connection, previous_key, key)
            stored = queries.select_job(connection, key)
        if stored is None:
            return revision
        try:
            job = job_from_row(stored | {name: record.get(name) for name in JOB_COLUMNS}, folder)
            if not is_later(job, job_from_row(stored, folder)):
                return revision
            revision = queries.upsert_job(connection, job, None, folder, revision)
        except sqlite3.Error:
            raise
        except Exception:  # a value that was damaged, or that no column can hold, fails in any way
            self.has_bad_lines = True
        else:
            log_job(_log, logging.WARNING, job, "recovered from the fallback file")
        return revision
