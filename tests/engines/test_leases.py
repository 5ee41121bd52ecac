"""Leases: extended while they hold, ended for good, and never ended while their worker may still write."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from pika_async.engines import leases
from pika_async.engines.leases import Lease
from pika_async.engines.shared_statements import (
    LeaseEndedError,
    beat,
    count_live,
    delete_ended,
    end_expired,
    end_lease,
    live_workers,
    require_lease,
    select_workers,
)
from tests.engines.postgres import PostgresServer, new_database
from tests.engines.rows import Rows


def test_a_lease_is_extended_until_it_has_ended(rows: Rows) -> None:
    """Once it has ended nothing extends it, and the reason stays the first one."""
    rows.add_worker("w", ttl=50.0)
    rows.expire("w")
    assert rows.run(beat, "w")
    (row,) = rows.run(select_workers)
    assert 0 < row["expires_at"] - row["now"] <= 50.0
    rows.run(require_lease, "w")
    rows.run(end_lease, "w", "closed")
    assert not rows.run(beat, "w")
    rows.run(end_lease, "w", "again")
    (row,) = rows.run(select_workers)
    assert (row["reason"], rows.run(count_live)) == ("closed", 0)
    with pytest.raises(LeaseEndedError):
        rows.run(require_lease, "w")


def test_only_leases_that_have_expired_are_ended_and_for_good(rows: Rows) -> None:
    for name in ("a", "b", "c"):
        rows.add_worker(name)
    rows.expire("a")
    rows.expire("b")
    assert rows.run(beat, "b")
    assert rows.run(end_expired) == ["a"]
    assert rows.run(end_expired) == []
    assert [rows.run(beat, name) for name in ("a", "b", "c", "unknown")] == [False, True, True, False]
    assert {row["id"]: row["reason"] for row in rows.run(select_workers)} == {"a": "expired", "b": None, "c": None}


def test_an_ended_worker_is_kept_while_it_owns_jobs(rows: Rows) -> None:
    """And as long as it may be of interest to people."""
    for name in ("a", "b", "c"):
        rows.add_worker(name)
    rows.add_jobs("x", owner="a")
    for name in ("a", "b"):
        rows.run(end_lease, name, "closed")
    rows.run(delete_ended, 60.0)
    assert [row["id"] for row in rows.run(select_workers)] == ["a", "b", "c"]
    assert rows.run(live_workers) == {"c"}
    rows.run(delete_ended, -60.0)
    assert [row["id"] for row in rows.run(select_workers)] == ["a", "c"]
    assert rows.claim("c", "x") is not None
    rows.run(delete_ended, -60.0)
    assert [row["id"] for row in rows.run(select_workers)] == ["c"]


def test_an_extension_under_way_is_waited_for(postgres: PostgresServer) -> None:
    """A lease that is extended at the moment of its expiry holds."""
    rows = Rows.create(new_database(postgres))
    rows.add_worker("w")
    rows.expire("w")
    with ThreadPoolExecutor(1) as threads:
        with rows.engine.begin() as connection:
            assert beat(connection, "w")
            ending = threads.submit(rows.run, end_expired)
            assert rows.waits_for_lock(ending)
        assert ending.result(60) == []
    rows.engine.dispose()


def test_a_lease_is_not_ended_in_the_middle_of_a_write(postgres: PostgresServer) -> None:
    """So that a worker's last write is either before the end or refused."""
    rows = Rows.create(new_database(postgres))
    rows.add_worker("w")
    rows.expire("w")
    with ThreadPoolExecutor(1) as threads:
        with rows.engine.begin() as connection:
            require_lease(connection, "w")
            ending = threads.submit(rows.run, end_expired)
            assert rows.waits_for_lock(ending)
        assert ending.result(60) == ["w"]
    rows.engine.dispose()


def test_after_an_outage_no_worker_is_ended_before_a_whole_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every lease has expired by then, and each worker first has the time to extend its own."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def state() -> tuple[bool, bool]:
        return lease.is_valid, lease.may_end_others

    lease = Lease("w", 30.0)
    assert (state(), lease.interval) == ((False, False), 10.0)
    for at, may in ((100.0, False), (110.0, False), (120.0, False), (130.0, True), (145.0, True)):
        clock.now = at
        lease.on_extended(at)
        assert state() == (True, may)
    clock.now = 175.0
    assert state() == (False, False)
    for at, may in ((200.0, False), (229.0, False), (230.0, True)):  # the database is back
        clock.now = at
        lease.on_extended(at)
        assert state() == (True, may)
    clock.now = 259.9
    assert state() == (True, True)
    clock.now = 260.0
    assert state() == (False, False)


def test_an_ended_lease_is_never_valid_again() -> None:
    lease = Lease("w", 30.0)
    lease.end("first")
    lease.end("second")
    lease.on_extended(time.monotonic())
    assert (lease.is_valid, lease.may_end_others, lease.ended) == (False, False, "first")
