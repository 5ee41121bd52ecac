"""`board` of a database that workers share: the live page of its jobs, its workers and its accounts. Only reads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pika_async.cli.database import open_cluster
from pika_async.cli.worker import lease_words
from pika_async.report.board_access import BoardAccess
from pika_async.report.cards import shell_command

if TYPE_CHECKING:
    from pika_async.engines.cluster_reader import ClusterReader
    from pika_async.report.board import Board

__all__ = ["database_board"]

#: Workers that the page names.
MAX_WORKERS_LISTED: Final = 20


@asynccontextmanager
async def database_board(database: str, access: BoardAccess) -> AsyncIterator[Board]:
    """Yield the board of a database, which is closed behind the block.

    :raises ClusterUnusable: if the database cannot be reached, or has tables of a later version.
    """
    from pika_async.engines.cluster_reader import ClusterReader  # noqa: PLC0415 - an extra, and slow to import
    from pika_async.report.board import Board  # noqa: PLC0415
    from pika_async.report.board_source import ChangeFollower  # noqa: PLC0415

    async with open_cluster(database):
        pass  # as every other command: tables that are missing are made
    reader = ClusterReader(database)
    subject = ("--database", reader.text)
    try:
        yield Board(
            ChangeFollower(Path("/"), reader, subject=subject), access, reader.text,
            lambda: any(worker.is_alive for worker in reader.workers),
            state=lambda: {"cluster": cluster_facts(reader)},
        )  # fmt: skip
    finally:
        reader.close()


def cluster_facts(reader: ClusterReader) -> Mapping[str, Any]:
    """Return what the page shows of the workers and the accounts."""
    shown = [worker for worker in reader.workers if worker.expires_in is not None or worker.jobs]
    return {
        "workers": [
            {"id": one.id, "jobs": one.jobs, "lease": lease_words(one), "version": one.version, "alive": one.is_alive}
            for one in shown[:MAX_WORKERS_LISTED]
        ],
        "more": max(len(shown) - MAX_WORKERS_LISTED, 0),
        "accounts": [
            {
                "name": name, "flying": one.in_flight, "room": one.max_in_flight, "charges": one.charges,
                "most": one.max_charges, "spent": one.spent, "budget": one.budget,
                "stopped": None if one.stopped is None else one.stopped.removeprefix(f"{name}: "),
            }
            for name, one in sorted(reader.accounts.items())
        ],
        "start": shell_command("worker", ("--database", reader.text), "--accounts", "FILE"),
    }  # fmt: skip
