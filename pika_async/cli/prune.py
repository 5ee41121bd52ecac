"""`prune`: delete the records of jobs that were settled long ago from a database that workers share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from cyclopts import Parameter, validators

from pika_async.cli.database import DatabaseOption, open_cluster
from pika_async.cli.exits import ExitCode, Interrupted, UsageError
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import CommonOptions
from pika_async.cli.terminal import Terminal, logging_to
from pika_async.cli.words import counted

__all__ = ["prune"]

_DAY_S: Final = 86_400.0
Days = Annotated[float, Parameter(validator=validators.Number(gte=0.0))]


def prune(
    *,
    older_than: Days,
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    yes: Annotated[bool, Parameter(negative=())] = False,
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Delete the records of jobs of a database that were settled long ago.

    Example: `pika-async prune --database postgresql://pika@db/pika --older-than 90`

    It asks before, and sends nothing. Files stay, and what was charged stays counted in --max-charges and --budget. But
    the task ids and the addresses of the results are forgotten, and a request that is submitted once more is paid for
    once more. Jobs that are in doubt, timed out or unfinished are kept, however old they are.

    Exit codes: 0 the records are deleted, or there are none, 1 the answer was no, 2 usage error.

    :param older_than: Days since a job was settled, >= 0.
    :param dry_run: Count the records; delete nothing.
    :param yes: Delete them without asking.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        url = database.required("prune")
        number = run_in_loop(_prune(url, older_than, dry_run=True))
        until = datetime.now(UTC) - timedelta(days=older_than)
        records = f"{counted(number, 'job record')} settled before {until:%Y-%m-%d %H:%M} UTC"
        if dry_run or not number:
            terminal.show(records)
            return ExitCode.OK
        if not yes and not _agrees(records, terminal):
            terminal.note("nothing was deleted")
            return ExitCode.INCOMPLETE
        deleted = run_in_loop(_prune(url, older_than, dry_run=False))
        terminal.show(f"{counted(deleted, 'record')} deleted")
        return ExitCode.OK


async def _prune(url: str, days: float, *, dry_run: bool) -> int:
    async with open_cluster(url) as cluster:
        return await cluster.prune(older_than=days * _DAY_S, dry_run=dry_run)


def _agrees(records: str, terminal: Terminal) -> bool:
    """Ask a person whether to delete.

    :raises UsageError: where none can be asked.
    :raises Interrupted: by Ctrl-C at the question.
    """
    if not terminal.can_ask:
        raise UsageError(f"{records} would be deleted; --yes deletes without asking")
    try:
        answer = terminal.ask(f"Delete {records}? Their requests are paid for again if submitted once more. [y/N]")
    except KeyboardInterrupt:
        terminal.note("")
        raise Interrupted("interrupted: nothing was deleted") from None
    return (answer or "").casefold() in {"y", "yes"}
