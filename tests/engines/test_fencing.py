"""Claims and fencing: a job has one worker at a time, and a worker that was given up writes nothing more."""

from __future__ import annotations

import functools

import attrs
import pytest
import sqlalchemy as sa

from pika_async.engines import tables
from pika_async.engines.job_writes import Write, archive_owned, save_free, write_all
from pika_async.engines.shared_statements import LeaseEndedError, beat, end_lease
from pika_async.engines.statements import rename
from pika_async.jobs import JobStatus
from tests.engines.rows import Rows, accepted, race, sent
from tests.journal.builders import INTENT, a_job, with_token


def test_of_two_workers_that_race_for_a_job_one_has_it(rows: Rows) -> None:
    rows.add_worker("a")
    rows.add_worker("b")
    keys = [f"k{number}" for number in range(12)]
    rows.add_jobs(*keys)
    for key in keys:
        won = race(*(functools.partial(rows.claim, worker, key) for worker in ("a", "b", "a", "b")))
        owner = rows.owners()[key]
        assert [claimed is not None for claimed in won] == [owner == worker for worker in ("a", "b", "a", "b")]


def test_a_job_is_claimed_from_ended_workers_alone_with_its_intent(rows: Rows) -> None:
    rows.add_account("")
    rows.add_worker("a")
    rows.add_worker("b")
    rows.add_jobs("x", owner="a")
    assert rows.intend("a", sent("x"), with_token("t")) is None
    assert rows.claim("b", "x") is None
    assert rows.claim("a", "x") == (sent("x"), with_token("t"))
    rows.expire("a")
    assert rows.claim("b", "x") is None
    rows.run(end_lease, "a", "expired")
    assert rows.claim("b", "x") == (sent("x"), with_token("t"))
    assert rows.claim("b", "nothing") is None
    assert rows.owners() == {"x": "b"}


def test_a_worker_whose_lease_has_ended_writes_nothing(rows: Rows) -> None:
    """Neither alone nor in the middle of a group, though it still owns the jobs."""
    rows.add_account("")
    rows.add_account("main")
    rows.add_worker("a")
    rows.add_jobs("x", "y", owner="a")
    rows.add_jobs("z")
    rows.run(end_lease, "a", "expired")
    group = [Write([accepted("x")]), Write([sent("y")], INTENT), Write([a_job("y")]), Write((), released="x")]
    for writes in (group, group[:1], group[1:2], group[3:]):
        with pytest.raises(LeaseEndedError):
            rows.run(write_all, "a", writes)
    with pytest.raises(LeaseEndedError):
        rows.run(archive_owned, "a", "x", a_job("x~1"))
    with pytest.raises(LeaseEndedError):
        rows.claim("a", "z")
    assert rows.jobs() == {key: a_job(key) for key in ("x", "y", "z")}
    assert rows.owners() == {"x": "a", "y": "a", "z": None}
    assert rows.used() == rows.used("main") == (0, 0, 0)


def test_a_job_of_another_worker_is_not_written(rows: Rows) -> None:
    """It is returned as lost; the rest of the group is saved and counted."""
    rows.add_account("")
    rows.add_worker("a")
    rows.add_worker("b")
    rows.add_jobs("x", "y", owner="a")
    rows.add_jobs("z", owner="b")
    results = rows.run(write_all, "a", [Write([accepted("x"), accepted("z")]), Write([accepted("y")])])
    assert results == [[accepted("z")], []]
    assert rows.jobs() == {"x": accepted("x"), "y": accepted("y"), "z": a_job("z")}
    assert rows.used() == (2, 2, 0)


def test_an_intent_for_a_job_of_another_worker_undoes_its_group(rows: Rows) -> None:
    rows.add_account("")
    rows.add_worker("a")
    rows.add_worker("b")
    rows.add_jobs("x", owner="a")
    rows.add_jobs("z", owner="b")
    for job in (sent("z"), sent("nothing")):
        with pytest.raises(LeaseEndedError):
            rows.run(write_all, "a", [Write([accepted("x")]), Write([job], INTENT)])
    assert rows.jobs() == {"x": a_job("x"), "z": a_job("z")}
    assert rows.used() == (0, 0, 0)


def test_only_jobs_without_a_worker_are_released_renamed_or_resolved_by_others(rows: Rows) -> None:
    rows.add_account("")
    rows.add_worker("a")
    rows.add_worker("b")
    rows.add_jobs("x", owner="a")
    rows.release("b", "x")
    assert not rows.run(rename, "x", "x~1")
    changed = attrs.evolve(a_job("x"), index=7)
    assert rows.run(save_free, [changed], JobStatus.PLANNED) == [changed]
    assert (rows.owners(), rows.jobs()) == ({"x": "a"}, {"x": a_job("x")})
    rows.release("a", "x")
    assert rows.run(save_free, [changed], JobStatus.UNKNOWN) == [changed]
    assert rows.run(save_free, [changed], JobStatus.PLANNED) == []
    assert rows.run(rename, "x", "x~1")
    assert (rows.owners(), rows.jobs()) == ({"x~1": None}, {"x~1": attrs.evolve(changed, key="x~1")})


def test_a_released_job_is_not_written_any_more(rows: Rows) -> None:
    rows.add_account("")
    rows.add_worker("a")
    rows.add_jobs("x", owner="a")
    rows.release("a", "x")
    assert rows.save("a", accepted("x")) == [accepted("x")]
    assert rows.run(beat, "a")
    stored = rows.run(lambda connection: connection.execute(sa.select(tables.jobs.c.status)).scalar_one())
    assert stored == "planned"
