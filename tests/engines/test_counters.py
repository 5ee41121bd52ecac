"""Random whole runs over three workers: what is counted of each account is always what its jobs use, within its bounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async._journal.protocol import Intent
from pika_async._planning.repetition import repetition
from pika_async._planning.resolution import apply_resolution
from pika_async.engines import job_writes, statements, tables
from pika_async.engines.bounds import Held
from pika_async.engines.shared_statements import LeaseEndedError, end_expired
from pika_async.errors import JobError
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models.results import Snapshot, TaskState, Video
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.rows import Rows
from tests.journal.builders import a_job

KEYS: Final = ("a", "b", "c", "d", "e", "f")
PRICES: Final = {"main": 0.1, "spare": 0.3}
MAX_IN_FLIGHT: Final = {"": 3, "main": 2, "spare": None}
MAX_CHARGES: Final = {"": 9, "main": None, "spare": 4}
BUDGET: Final = {"": 1.6, "main": 0.7, "spare": None}
IN_FLIGHT: Final = {JobStatus.SUBMITTING, JobStatus.QUEUED, JobStatus.RUNNING}
OPS: Final = ("claim", "submit", "verdict", "poll", "release", "expire", "resolve", "resubmit", "archive", "zombie")

steps = st.lists(st.tuples(st.sampled_from(OPS), *(st.integers(0, 11) for _ in range(3))), max_size=60)


@attrs.define
class Run:
    """Three workers, those that they replaced, and their jobs as they should be in the database."""

    rows: Rows
    workers: list[str] = attrs.field(factory=lambda: ["w0", "w1", "w2"])
    #: Ended workers, each with the jobs that it had.
    zombies: list[tuple[str, dict[str, Job]]] = attrs.field(factory=list)
    jobs: dict[str, Job] = attrs.field(factory=lambda: {key: a_job(key) for key in KEYS})
    owners: dict[str, str | None] = attrs.field(factory=lambda: dict.fromkeys(KEYS))
    number: int = 3

    def __attrs_post_init__(self) -> None:
        def clear(connection: sa.Connection) -> None:
            for table in (tables.jobs, tables.workers, tables.accounts):
                connection.execute(sa.delete(table))

        self.rows.run(clear)
        for name in MAX_IN_FLIGHT:
            bounds: dict[str, Any] = {"max_in_flight": MAX_IN_FLIGHT, "max_charges": MAX_CHARGES, "budget": BUDGET}
            self.rows.add_account(name, **{bound: values[name] for bound, values in bounds.items()})
        for worker in self.workers:
            self.rows.add_worker(worker)
        self.rows.add_jobs(*KEYS)

    def step(self, name: str, first: int, second: int, third: int) -> None:
        worker = self.workers[first % 3]
        key = sorted(self.jobs)[second % len(self.jobs)]
        operation: Callable[[str, str, int], None] = getattr(self, name)
        operation(worker, key, third)

    def claim(self, worker: str, key: str, _: int) -> None:
        claimed = self.rows.claim(worker, key)
        owner = self.owners[key]
        assert (claimed is None) == (owner in self.workers and owner != worker)
        if claimed is not None:
            assert claimed[0] == self.jobs[key]
            self.owners[key] = worker

    def submit(self, worker: str, key: str, third: int) -> None:
        """Of a worker that has not the job the whole group is refused."""
        job = self.jobs[key]
        if job.status is not JobStatus.PLANNED:
            return
        account = ("main", "spare")[third % 2]
        self.number += 1
        intent = Intent(at=utc_from_timestamp(1e9 + self.number), body_sha256="ab")
        sent = attrs.evolve(job, account=account).submitting(PRICES[account])
        if self.owners[key] != worker:
            if self.fits(account):
                with pytest.raises(LeaseEndedError):
                    self.rows.intend(worker, sent, intent)
            return
        fits = self.fits(account)
        result = self.rows.intend(worker, sent, intent)
        assert (result is None) is fits, result
        if result is None:
            self.jobs[key] = sent
            assert self.rows.intend(worker, sent, intent) is None
            assert not self.beyond()
        else:
            assert isinstance(result, Held)

    def verdict(self, worker: str, key: str, third: int) -> None:
        job = self.jobs[key]
        if job.status is not JobStatus.SUBMITTING:
            return
        error = JobError(key=key, provider="p", reason="r")
        self.save(
            worker,
            (
                lambda: job.accepted(f"t{self.number}", 1e9),
                job.requeued,
                lambda: job.rejected(error, 2e9),
                lambda: job.in_doubt(error, utc_from_timestamp(1e9)),
            )[third % 4](),
        )

    def poll(self, worker: str, key: str, third: int) -> None:
        job = self.jobs[key]
        if job.status not in {JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.TIMED_OUT}:
            return
        error = JobError(key=key, provider="p", reason="r")
        video = Video(url="https://x.test/v.mp4")
        done = Snapshot(task_id="t", state=TaskState.SUCCEEDED, video=video)
        changed = (
            lambda: job.with_snapshot(done, 2e9),
            lambda: job.with_snapshot(attrs.evolve(done, cost=0.05), 2e9),
            lambda: job.with_snapshot(Snapshot(task_id="t", state=TaskState.FAILED, points=0), 2e9, failure=error),
            lambda: job.with_snapshot(Snapshot(task_id="t", state=TaskState.RUNNING, progress=third), 2e9),
            lambda: job.reopened() if job.status is JobStatus.TIMED_OUT else job.timed_out(error),
        )[third % 5]()
        self.save(worker, changed)

    def save(self, worker: str, job: Job) -> None:
        lost = self.rows.save(worker, job)
        assert lost == ([] if self.owners[job.key] == worker else [job])
        if not lost:
            self.jobs[job.key] = job

    def release(self, worker: str, key: str, _: int) -> None:
        self.rows.release(worker, key)
        if self.owners[key] == worker:
            self.owners[key] = None

    def expire(self, worker: str, _: str, __: int) -> None:
        self.rows.expire(worker)
        assert self.rows.run(end_expired) == [worker]
        had = {key: self.jobs[key] for key, owner in self.owners.items() if owner == worker}
        self.zombies.append((worker, had))
        self.number += 1
        self.workers[self.workers.index(worker)] = new = f"w{self.number}"
        self.rows.add_worker(new)

    def zombie(self, _: str, __: str, third: int) -> None:
        if not self.zombies:
            return
        worker, had = self.zombies[third % len(self.zombies)]
        jobs = [attrs.evolve(job, progress=99, status=JobStatus.SUCCEEDED) for job in had.values()]
        with pytest.raises(LeaseEndedError):
            self.rows.save(worker, *jobs)

    def resolve(self, _: str, key: str, third: int) -> None:
        """Only what no worker has is resolved."""
        if self.jobs[key].status is not JobStatus.UNKNOWN:
            return
        ways: tuple[dict[str, Any], ...] = ({"task_id": f"found-{key}"}, {"charged": False}, {"abandon": True})
        way = {"task_id": None, "charged": None, "abandon": False} | ways[third % 3]
        job = apply_resolution(self.jobs[key], 2e9, **way)
        lost = self.rows.run(job_writes.save_free, [job], JobStatus.UNKNOWN)
        assert lost == ([] if self.owners[key] is None else [job])
        if not lost:
            self.jobs[key] = job

    def resubmit(self, _: str, key: str, __: int) -> None:
        job, archived = self.jobs[key], f"{key}~{self.number}"
        if not job.is_final or self.owners[key] is not None or "~" in key:
            return
        self.number += 1
        earlier = attrs.evolve(job, key=archived)
        assert self.rows.run(statements.rename, key, archived)
        assert self.rows.run(job_writes.save_free, [earlier], job.status) == []
        again = repetition(earlier, key, job.request)
        assert self.rows.run(statements.insert_jobs, [again, *self.jobs.values()]) == [key]
        self.jobs |= {archived: earlier, key: again}
        self.owners |= {archived: None, key: None}

    def archive(self, worker: str, key: str, _: int) -> None:
        job, archived = self.jobs[key], f"{key}~{self.number}"
        self.number += 1
        if self.owners[key] != worker:
            with pytest.raises(LeaseEndedError):
                self.rows.run(job_writes.archive_owned, worker, key, attrs.evolve(job, key=archived))
        elif job.is_final and "~" not in key:
            self.rows.run(job_writes.archive_owned, worker, key, attrs.evolve(job, key=archived))
            self.jobs[archived] = attrs.evolve(self.jobs.pop(key), key=archived)
            self.owners[archived] = self.owners.pop(key)

    # --- what must hold -----------------------------------------------------------------------------------------------

    def uses(self, name: str) -> tuple[int, int, Fraction]:
        """Return what the jobs use of an account, or of all together."""
        jobs = [job for job in self.jobs.values() if job.account is not None and name in {"", job.account}]
        charged = [job for job in jobs if job.may_be_charged]
        spent = sum((Fraction(repr(job.cost)) for job in charged if job.cost is not None), Fraction())
        return sum(job.status in IN_FLIGHT for job in jobs), len(charged), spent

    def fits(self, account: str) -> bool:
        """Whether one more submission to an account stays within every bound."""
        for name in ("", account):
            in_flight, charges, spent = self.uses(name)
            places, limit, budget = MAX_IN_FLIGHT[name], MAX_CHARGES[name], BUDGET[name]
            if (places is not None and in_flight >= places) or (limit is not None and charges >= limit):
                return False
            if budget is not None and spent + Fraction(repr(PRICES[account])) > Fraction(repr(budget)):
                return False
        return True

    def beyond(self) -> list[str]:
        """Return the accounts that are in flight beyond their bound."""
        return [name for name, places in MAX_IN_FLIGHT.items() if places is not None and self.uses(name)[0] > places]

    def check(self) -> None:
        assert self.rows.jobs() == self.jobs
        assert self.rows.owners() == self.owners
        for name in MAX_IN_FLIGHT:
            in_flight, charges, spent = self.uses(name)
            assert self.rows.used(name) == (in_flight, charges, int(spent * 10**9))
            limit, budget = MAX_CHARGES[name], BUDGET[name]
            assert limit is None or charges <= limit
            assert budget is None or spent <= Fraction(repr(budget))


def run(rows: Rows, steps: list[tuple[str, int, int, int]]) -> None:
    """Run steps, and check after each."""
    it = Run(rows)
    it.check()
    for step in steps:
        it.step(*step)
        it.check()


def test_counts_follow_every_job_in_a_file() -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows.create(f"sqlite:///{Path(folder, 'cluster.db')}")

        @settings(max_examples=40)
        @given(steps)
        def explore(steps: list[tuple[str, int, int, int]]) -> None:
            run(rows, steps)

        explore()
        rows.engine.dispose()


def test_counts_follow_every_job_on_a_server(postgres: PostgresServer) -> None:
    rows = Rows.create(new_database(postgres))

    @settings(max_examples=25)
    @given(steps)
    def explore(steps: list[tuple[str, int, int, int]]) -> None:
        run(rows, steps)

    explore()
    rows.engine.dispose()
