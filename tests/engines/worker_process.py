"""Worker of a cluster in a process of its own, which a test stops, kills and starts again.

Usage: `python -m tests.engines.worker_process JSON`, an object of the fields of `WorkerOptions`. SIGTERM cancels the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import attrs
import sqlalchemy as sa

from pika_async import Account, Cluster, FixedInterval, PikaError
from pika_async.emulator import Emulator
from pika_async.engines import job_writes, tables, worker
from pika_async.engines.cluster_journal import ClusterJournal
from pika_async.jobs import Job, JobStatus

__all__ = [
    "WorkerOptions",
    "WorkerProcess",
    "Workers",
    "account",
    "ended",
    "eventually",
    "opened",
    "recorded",
    "settled",
]

ROOT: Final = Path(__file__).parents[2]
#: The seconds of a lease, after which another worker takes over.
TTL_S: Final = 3.0


@attrs.frozen(kw_only=True)
class WorkerOptions:
    """What a worker is given.

    :param database_url: the database of the cluster.
    :param accounts: the arguments of each account.
    :param lease_ttl: seconds that its lease lasts.
    :param download_to: the folder of the files; None: nothing is downloaded.
    :param max_jobs: number of jobs that it has at once, at most.
    :param stops_at: where the process stops itself, as by SIGSTOP, the first time: "id", after a task id was read and
        before it is saved; "intent", after an intent was committed and before it is sent; "lock", within a transaction.
    :param version: the version of the package that it says it has.
    :param newer_tables: whether it has a version of the tables that follows this one.
    """

    database_url: str
    accounts: list[dict[str, Any]]
    lease_ttl: float = TTL_S
    download_to: str | None = None
    max_jobs: int = 5000
    stops_at: str | None = None
    version: str | None = None
    newer_tables: bool = False


def _stop_once(where: str | None) -> None:
    """Let the process stop itself at a named place."""
    reached = iter((True,))

    def stop() -> None:
        if next(reached, False):
            os.kill(os.getpid(), signal.SIGSTOP)

    write, require_lease_at = ClusterJournal._write, job_writes._require_lease_at

    async def write_and_stop(self: ClusterJournal, write_: Any) -> Any:
        if where == "id" and write_.intent is None and any(job.status is JobStatus.QUEUED for job in write_.jobs):
            stop()
        result = await write(self, write_)
        if where == "intent" and write_.intent is not None and result is None:
            stop()
        return result

    def lock_and_stop(connection: sa.Connection, worker: str) -> tuple[int, float]:
        found = require_lease_at(connection, worker)
        stop()
        return found

    if where in ("id", "intent"):
        ClusterJournal._write = write_and_stop  # type: ignore[assignment,method-assign]
    elif where == "lock":
        vars(job_writes)["_require_lease_at"] = lock_and_stop


def _pretend(options: WorkerOptions) -> None:
    """Let the process be one of another version."""
    if options.version is not None:
        worker.__version__ = options.version  # type: ignore[attr-defined]
    if options.newer_tables:
        step = lambda connection: connection.execute(sa.text("ALTER TABLE pika_jobs ADD COLUMN later TEXT"))  # noqa: E731
        tables.migrate.__defaults__ = ((*tables.TABLE_MIGRATIONS, step),)


async def work(options: WorkerOptions) -> None:
    """Run the worker until SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    accounts = [Account(**each) for each in options.accounts]
    async with Cluster(options.database_url, accounts, polling=FixedInterval(0.2)) as cluster:
        await cluster.run_worker(
            lease_ttl=options.lease_ttl, download_to=options.download_to, max_jobs=options.max_jobs
        )


def main(text: str) -> int:
    """Run the worker; return 0 after SIGTERM, 1 after an error with a message."""
    options = WorkerOptions(**json.loads(text))
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(levelname)s %(message)s")
    _pretend(options)
    _stop_once(options.stops_at)
    try:
        asyncio.run(work(options))
    except PikaError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except asyncio.CancelledError:
        return 0
    return 2


class WorkerProcess:
    """The process of a worker, with the file of what it logs.

    :param log: the file of its standard error.
    :param options: what it is given.
    """

    def __init__(self, log: Path, options: WorkerOptions) -> None:
        self.log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.engines.worker_process", json.dumps(attrs.asdict(options))],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    @property
    def is_stopped(self) -> bool:
        """Whether it is stopped, as by SIGSTOP."""
        return Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self._process.kill()
        self._process.wait()

    async def ended(self, seconds: float = 60.0) -> int:
        """Wait for the end of the process, and return its exit code."""
        await eventually(lambda: self.code is not None, seconds)
        assert self.code is not None
        return self.code


@attrs.define
class Workers:
    """The worker processes of a test, which end with it.

    :param folder: the folder of their logs.
    :param options: what each is given, unless the test says otherwise.
    """

    folder: Path
    options: WorkerOptions
    processes: list[WorkerProcess] = attrs.field(init=False, factory=list)

    def start(self, **changes: Any) -> WorkerProcess:
        process = WorkerProcess(self.folder / f"worker{len(self.processes)}.log", attrs.evolve(self.options, **changes))
        self.processes.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()

    @property
    def texts(self) -> str:
        """What all of them have logged."""
        return "\n".join(f"--- {process.log.name}: {process.code}\n{process.text}" for process in self.processes)


@contextlib.contextmanager
def workers(folder: Path, database_url: str, accounts: Sequence[dict[str, Any]], **options: Any) -> Iterator[Workers]:
    """Yield the worker processes of a test; if the test fails, print what they have logged."""
    given = WorkerOptions(database_url=database_url, accounts=[dict(each) for each in accounts], **options)
    with Workers(folder, given) as processes:
        try:
            yield processes
        except BaseException:
            print(processes.texts)
            raise


async def eventually(condition: Any, seconds: float = 60.0) -> None:
    """Wait until `condition()` is true, or what it awaits is; fail after a time that says that something hangs."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        assert time.monotonic() < end, "it does not come to pass"
        await asyncio.sleep(0.05)


def account(emulator: Emulator, **options: Any) -> dict[str, Any]:
    return {"provider": "native", "api_key": emulator.api_key, "base_url": emulator.url} | options


def opened(database_url: str, *accounts: dict[str, Any]) -> Cluster:
    return Cluster(database_url, [Account(**each) for each in accounts], polling=FixedInterval(0.2))


async def settled(cluster: Cluster, keys: list[str], seconds: float = 60.0) -> list[Job]:
    """Return the jobs once all of them are finished."""
    async with asyncio.timeout(seconds):
        return [job async for job in cluster.as_settled(keys)]


def verify(emulator: Emulator, jobs: list[Job], in_doubt: int = 0) -> None:
    """Check that each job was charged once at most, and that all but those in doubt succeeded."""
    charged = Counter(charge.prompt for charge in emulator.ledger)
    assert max(charged.values()) == 1
    assert (
        Counter(job.status for job in jobs)
        == Counter({JobStatus.SUCCEEDED: len(jobs) - in_doubt, JobStatus.UNKNOWN: in_doubt}) - Counter()
    )
    ids = {charge.prompt: charge.task_id for charge in emulator.ledger}
    for job in jobs:
        if job.status is JobStatus.SUCCEEDED:
            assert ids[job.request.prompt] == job.task_id
            assert job.file is None or job.file.read_bytes()[4:8] == b"ftyp"


async def recorded(cluster: Cluster, number: int) -> None:
    """Wait until as many jobs have a task id."""

    async def are_recorded() -> bool:
        return len([job async for job in cluster.jobs() if job.task_id is not None]) >= number

    await eventually(are_recorded)


async def ended(cluster: Cluster) -> list[str]:
    return [worker.ended for worker in await cluster.workers() if worker.ended is not None]


async def started(cluster: Cluster, number: int = 1) -> None:
    """Wait until as many workers have a lease."""

    async def are_there() -> bool:
        return len([worker for worker in await cluster.workers() if worker.ended is None]) >= number

    await eventually(are_there)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
