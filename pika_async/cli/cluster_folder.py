"""The jobs of a database in the place of those of a folder, and the folder that gets the results of some of them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.database import open_cluster, start_command
from pika_async.cli.exits import UsageError
from pika_async.cli.terminal import Terminal
from pika_async.config.accounts import Account, Routing
from pika_async.jobs import Job
from pika_async.models import GenerationRequest

if TYPE_CHECKING:
    from pika_async.engines.cluster import Cluster
    from pika_async.engines.cluster_client import ClusterClient
    from pika_async.engines.cluster_view import ClusterView

__all__ = ["ClusterFolder", "database_jobs"]

#: The file of a folder that says whose results it has.
MARK: Final = "database.json"


@attrs.define
class ClusterFolder(BatchFolder):
    """Jobs of a database, as they were last read.

    :param database: the address of the database.
    """

    database: str = attrs.field(kw_only=True)
    #: What was read of the database; the same as `journal`.
    view: ClusterView = attrs.field(init=False)
    #: Not connected but between `open` and `close`.
    cluster: Cluster = attrs.field(init=False)
    #: Runs the jobs of a batch.
    client: ClusterClient | None = attrs.field(default=None, init=False)
    _options: BatchOptions = attrs.field(factory=BatchOptions, init=False)

    def __attrs_post_init__(self) -> None:
        from pika_async.engines.cluster_view import ClusterView  # noqa: PLC0415 - an extra, and slow to import

        self.journal = self.view = ClusterView()
        self.cluster = open_cluster(self.database)

    @property
    def title(self) -> str:
        """See `BatchFolder`: the address of the database, without its password."""
        return self.cluster.database

    @property
    def is_shared(self) -> bool:
        """See `BatchFolder`."""
        return True

    @property
    def stopped_accounts(self) -> Mapping[str, str]:
        """See `BatchFolder`."""
        return {} if self.client is None else self.client.stopped_accounts

    @property
    def has_results(self) -> bool:
        """See `BatchFolder`: the jobs of a database are in any number of folders."""
        return False

    @property
    def videos(self) -> Path:
        """See `BatchFolder`."""
        return self.root.absolute() / "videos"

    @property
    def subject(self) -> Sequence[str]:
        """See `BatchFolder`."""
        return ("--database", self.title)

    @property
    def is_new(self) -> bool:
        """Whether no batch of a database has results here."""
        return not (self.root / MARK).exists()

    def check(self, keys: Collection[str], videos: Path | None = None) -> None:  # noqa: ARG002 - the workers have both
        """See `BatchFolder`."""
        if (self.root / "journal.db").exists():
            reason = "holds a batch without --database, with a journal of its own; choose another --out"
            raise UsageError(f"--out: {self.root} {reason}; nothing was sent")
        super().check(())

    def create(self, keys: Collection[str], videos: Path | None = None) -> None:  # noqa: ARG002 - as above
        """See `BatchFolder`."""
        super().create(())
        try:
            (self.root / MARK).write_text(json.dumps({"database": self.title}) + "\n")
        except OSError as error:
            raise UsageError(f"--out: {self.root} cannot be used: {error.strerror}; nothing was sent") from None

    def connect(self, accounts: Sequence[Account], options: BatchOptions, terminal: Terminal) -> ClusterClient:
        """Return a client that gives the jobs of a batch to the workers, not yet open.

        :param accounts: those of the workers; at least one.
        """
        from pika_async.engines.cluster_client import ClusterClient  # noqa: PLC0415 - as above

        def notify(text: str) -> None:
            terminal.note(f"{text}; start one: {start_command()}")

        self._options = options
        routing = Routing(options.routing or "capacity")
        self.client = ClusterClient(self.database, accounts, notify=notify, routing=routing)
        return self.client

    def _remove_stale_files(self) -> None:
        """Remove nothing: a worker may be downloading into this folder."""

    async def read(self, requests: Sequence[GenerationRequest]) -> None:
        """Read what the database knows of the requests of a batch.

        :raises ClusterUnusable: if it cannot be reached.
        """
        assert self.client is not None  # noqa: S101 - connected before
        self.journal = self.view = await self.client.read(requests)

    async def recover(self) -> None:
        """Do nothing: the workers do that."""

    async def open(self) -> None:
        """Connect, and read all jobs.

        :raises ClusterUnusable: if the database cannot be reached.
        """
        await self.cluster.open()
        self.journal = self.view = await self.cluster.view()

    async def close(self) -> None:
        """Close every connection."""
        await self.cluster.aclose()

    async def resolve(self, key: str, *, task_id: str | None, charged: bool | None, abandon: bool) -> Job:
        """See `BatchFolder`."""
        job = await self.cluster.resolve(key, task_id=task_id, charged=charged, abandon=abandon)
        await self.journal.save(job)
        return job

    def running_process(self) -> int | None:
        """Return None: the command `workers` shows the processes."""
        return None

    def starting_process(self) -> int | None:
        """Return None: see `running_process`."""
        return None

    def require_existing(self) -> None:
        """Require nothing: a database without jobs is one."""

    def options(self) -> BatchOptions:
        """Return what the command was given; the workers do the downloads."""
        return attrs.evolve(self._options, download=False)

    async def save_options(self, options: BatchOptions) -> None:
        """Save nothing: each command has its own."""

    def command(self, name: str, *rest: str) -> str:
        """Return the shell command `name` for this database, without its password."""
        return shlex.join(["pika-async", name, "--database", self.title, *rest])


def database_jobs(database: str) -> ClusterFolder:
    """Return the jobs of a database, not yet read.

    :raises ClusterUnusable: if `database` cannot be the address of one.
    """
    return ClusterFolder(Path("database"), database=database)
