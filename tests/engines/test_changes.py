"""The feed of changes: a follower misses none, whatever transactions commit in which order."""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import attrs

from pika_async.engines import job_reads, statements
from pika_async.engines.job_writes import Write, write_all
from pika_async.engines.statements import insert_jobs, take_run
from pika_async.jobs import Job
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.rows import Rows, accepted
from tests.journal.builders import a_job


def test_a_change_that_commits_late_is_not_passed_over(postgres: PostgresServer) -> None:
    """Its number is lower than that of a change which was committed, and could have been read, before it."""
    rows = Rows.create(new_database(postgres))
    rows.add_worker("w")
    rows.add_jobs("slow", "quick", owner="w")
    after = rows.run(statements.visible_revision) - 1
    with rows.engine.begin() as slow:
        write_all(slow, "w", [Write([accepted("slow")])])
        assert rows.save("w", accepted("quick")) == []
        assert rows.run(job_reads.select_changed, after, 100) == []
        with rows.engine.begin() as reader:  # what it sees at its beginning is what it reads
            assert job_reads.select_changed(reader, after, 100) == []
    changes = rows.run(job_reads.select_changed, after, 100)
    assert [job for _, job, _ in changes] == [accepted("slow"), accepted("quick")]
    assert changes[0][0] < changes[1][0]
    assert rows.run(job_reads.select_changed, changes[0][0], 100) == changes[1:]
    assert rows.run(job_reads.select_changed, changes[1][0], 100) == []
    rows.engine.dispose()


def test_changes_are_read_in_pages_of_whole_transactions(rows: Rows) -> None:
    rows.add_worker("w")
    for number in range(4):
        rows.add_jobs(*(f"{number}-{each}" for each in range(3)))
    seen: list[str] = []
    after = 0
    while page := rows.run(job_reads.select_changed, after, 4):
        assert len(page) in {3, 6}
        after = page[-1][0]
        seen += [job.key for _, job, _ in page]
    assert seen == [f"{number}-{each}" for number in range(4) for each in range(3)]


def test_a_release_is_a_change_and_says_that_the_job_is_idle(rows: Rows) -> None:
    rows.add_worker("w")
    rows.run(insert_jobs, [a_job("x")])
    rows.run(take_run, ["x"])
    (first,) = rows.run(job_reads.select_changed, 0, 9)
    assert (first[1], first[2]) == (a_job("x"), False)
    rows.claim("w", "x")
    rows.release("w", "x")
    (second,) = rows.run(job_reads.select_changed, first[0], 9)
    assert (second[1], second[2]) == (a_job("x"), True)


def test_a_follower_of_concurrent_writers_sees_the_last_state_of_each_job(rows: Rows) -> None:
    workers, keys = ("a", "b", "c"), [f"k{number}" for number in range(9)]
    for number, worker in enumerate(workers):
        rows.add_worker(worker)
        rows.add_jobs(*keys[number::3], owner=worker)
    seen: dict[str, Job] = {}
    numbers: list[int] = []
    done = threading.Event()

    def write(number: int) -> None:
        random = Random(number)
        for polls in range(1, 25):
            some = random.sample(keys[number::3], random.randint(1, 3))
            rows.run(write_all, workers[number], [Write([attrs.evolve(a_job(key), polls=polls)]) for key in some])

    def follow() -> None:
        after = 0
        while True:
            is_last = done.is_set()
            page = rows.run(job_reads.select_changed, after, 5)
            numbers.extend(revision for revision, _, _ in page)
            seen.update({job.key: job for _, job, _ in page})
            after = page[-1][0] if page else after
            if is_last and not page:
                return

    with ThreadPoolExecutor(4) as threads:
        following = threads.submit(follow)
        writing = [threads.submit(functools.partial(write, number)) for number in range(3)]
        for each in writing:
            each.result(60)
        done.set()
        following.result(60)
    assert numbers == sorted(numbers)
    assert seen == rows.jobs()
