"""Command `export`: a whole copy of the journal of a folder. Sends nothing."""

from __future__ import annotations

import sqlite3
from typing import Annotated

from cyclopts import Parameter

from pika_async._journal.export import export_journal
from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.exits import ExitCode, UsageError
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import CommonOptions, UserPath
from pika_async.cli.terminal import Terminal, linked, logging_to, plain

__all__ = ["export"]


def export(
    folder: UserPath,
    file: UserPath,
    /,
    *,
    without_log: Annotated[bool, Parameter(negative=())] = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Copy the journal of a folder into one whole file, also while a batch runs there.

    Example: `pika-async export clips clips.db`

    A running or killed batch keeps its latest changes beside journal.db, so a plain copy of that file lacks them. To
    continue from the copy elsewhere, put it into a folder as journal.db. Continue in one place only: two copies pay for
    the same jobs.

    :param folder: The --out folder of a batch.
    :param file: The copy; an existing file is never overwritten.
    :param without_log: Copy a journal whose log is missing. Jobs that only the log held are then paid for again.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        batch_folder = BatchFolder(folder)
        batch_folder.require_existing()
        try:
            run_in_loop(export_journal(batch_folder.journal_file, file, without_log=without_log))
        except FileExistsError:
            raise UsageError(f"{file} exists and is never overwritten; give another file") from None
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{file} cannot be written: {getattr(error, 'strerror', None) or error}") from None
        note = f": a whole copy of {batch_folder.journal_file}; continue in one place only"
        terminal.show(linked(file) + plain(note))
        return ExitCode.OK
