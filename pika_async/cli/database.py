"""The option `--database`, and the cluster that it names. Connects to nothing by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

from pika_async.cli.exits import UsageError
from pika_async.cli.help_groups import CLUSTER
from pika_async.cli.optional_deps import require_engines
from pika_async.config.accounts import Account

if TYPE_CHECKING:
    from pika_async.engines.cluster import Cluster

__all__ = ["DatabaseOption", "keys_with", "open_cluster", "required_folder", "start_command"]


@Parameter(name="*", group=CLUSTER)
@attrs.frozen(kw_only=True)
class DatabaseOption:
    """Database that many processes share."""

    database: Annotated[str | None, Parameter(show_default=False)] = None
    """Database that the workers share: postgresql://USER@HOST/DATABASE, or sqlite:/// and an absolute path for several
    processes of one machine. See docs/cluster.md. [default: none]"""

    def required(self, command: str) -> str:
        """Return the database that was given.

        :raises UsageError: if none was given, or the extra is missing.
        """
        if self.database is None:
            raise UsageError(
                f"--database: must be given to {command}: postgresql://USER@HOST/DATABASE, or sqlite:/// and an "
                "absolute path"
            )
        require_engines()
        return self.database

    def place(self, command: str, folder: Path | None) -> str:
        """Return the database that was given in the place of a folder.

        :raises UsageError: if a folder was given too, or the extra is missing.
        """
        if folder is not None:
            raise UsageError(f"--database: must not be given with a folder, but {folder} was; leave one of them out")
        return self.required(command)


def required_folder(command: str, folder: Path | None) -> Path:
    """Return the folder that was given.

    :raises UsageError: if none was.
    """
    if folder is None:
        raise UsageError(f"{command} needs the --out folder of a batch, or --database URL")
    return folder


def keys_with(folder: Path | None, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of a command on a database, the first of which was taken for a folder."""
    return (*([] if folder is None else [str(folder)]), *keys)


def open_cluster(url: str, accounts: Sequence[Account] = (), **options: Any) -> Cluster:
    """Return a cluster, not yet connected.

    :param accounts: those of the workers; default none, for commands that send nothing.
    :raises ClusterUnusable: if `url` cannot be a database of one.
    """
    from pika_async.engines.cluster import Cluster  # noqa: PLC0415 - an extra, and slow to import

    return Cluster(url, accounts, **options)


def start_command() -> str:
    """Return the command that starts a worker, without an address that may hold a password."""
    return "pika-async worker --database URL --accounts FILE"
