"""Bounds of accounts over all workers: checked with the intent, in its transaction, exactly and once."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
import sqlalchemy as sa

from pika_async.engines import job_writes
from pika_async.engines.bounds import Held
from pika_async.engines.job_writes import Write
from pika_async.engines.shared_statements import upsert_accounts
from pika_async.engines.tables import accounts
from pika_async.errors import BudgetReached, ChargeLimitReached, JobError, SubmissionsStopped
from pika_async.jobs import Job, utc_from_timestamp
from pika_async.models.results import Snapshot, TaskState, Video
from tests.engines.rows import Rows, accepted, race, reasons, sent
from tests.journal.builders import INTENT

WORKERS = ("w1", "w2", "w3")
KEYS = [f"k{number}" for number in range(12)]


@pytest.fixture
def shared(rows: Rows) -> Rows:
    """Three workers; the first has k0, k3, ..., the second k1, k4, ... and the third the rest."""
    rows.add_account("")
    rows.add_account("main")
    rows.add_account("spare")
    for number, worker in enumerate(WORKERS):
        rows.add_worker(worker)
        rows.add_jobs(*KEYS[number::3], owner=worker)
    return rows


def owner(key: str) -> str:
    return WORKERS[KEYS.index(key) % 3]


def intend(rows: Rows, key: str, price: float | None = None, account: str = "main") -> Held | None:
    return rows.intend(owner(key), sent(key, price, account))


def doubtful(job: Job) -> Job:
    error = JobError(key=job.key, provider="p", reason="cut")
    return job.in_doubt(error, utc_from_timestamp(1.0))


def settled(job: Job, cost: float | None = None) -> Job:
    snapshot = Snapshot(task_id="t", state=TaskState.SUCCEEDED, video=Video(url="https://x.test/v.mp4"), cost=cost)
    return job.with_snapshot(snapshot, 9.0)


@pytest.mark.parametrize("bounded", ["main", ""])
def test_places_are_shared_by_all_workers_and_freed_by_every_end(shared: Rows, bounded: str) -> None:
    """Of an account, and of all together: another account does not get around the latter."""
    shared.add_account(bounded, max_in_flight=2)
    account = "main" if bounded else "spare"
    assert [intend(shared, "k0"), intend(shared, "k1", account=account)] == [None, None]
    held = intend(shared, "k2", account=account)
    assert held is not None
    assert (held.stop, held.is_full, held.seconds) == (None, bool(bounded), 0.5)
    assert "2 jobs in flight, its maximum" in held.reason
    assert shared.job("k2").attempts == 0
    for end in (doubtful(sent("k0")), sent("k0").requeued()):  # neither is in flight
        shared.save("w1", end)
        assert intend(shared, "k2", account=account) is None
        assert intend(shared, "k0") is not None
        shared.save("w3", sent("k2", account=account).requeued())
        assert shared.used()[0] == 1
        if end.submitted_at is not None:
            shared.save("w1", sent("k0").requeued())
    assert intend(shared, "k0") is None
    shared.save("w1", accepted("k0"))
    assert intend(shared, "k3") is not None
    shared.save("w1", settled(accepted("k0")))
    assert intend(shared, "k3") is None
    assert shared.used() == (2, 3, 0)


@pytest.mark.parametrize(
    "bound", [{"max_in_flight": 3}, {"max_charges": 3}, {"budget": 0.3}, {"submits_per_second": 1e-6}]
)
def test_of_workers_that_race_for_the_last_place_one_has_it(shared: Rows, bound: dict[str, float]) -> None:
    if "submits_per_second" not in bound:
        assert [intend(shared, key, 0.1) for key in ("k0", "k1")] == [None, None]
    shared.add_account("main", **bound)
    results = race(*(functools.partial(intend, shared, key, 0.1) for key in ("k3", "k4", "k5")))
    assert reasons(results) == [False, False, True]


def test_a_submission_waits_for_one_that_is_not_committed_yet(shared: Rows) -> None:
    """It reads the counts of the account after the other has changed them. SQLite has one transaction at a time."""
    if shared.is_sqlite:
        assert reasons([intend(shared, "k0"), intend(shared, "k1")]) == [True, True]
        return
    shared.add_account("main", max_in_flight=1)
    with ThreadPoolExecutor(1) as threads, shared.engine.begin() as first:
        (held,) = job_writes.write_all(first, owner("k0"), [Write([sent("k0")], INTENT)])
        assert held is None
        late = threads.submit(intend, shared, "k1")
        assert shared.waits_for_lock(late)
        first.commit()
        assert late.result(60) is not None
    assert shared.used("main")[0] == 1


def test_submissions_are_paced_over_all_workers(shared: Rows) -> None:
    """The next one waits for its turn, whichever worker has it; then the turn is that of one alone."""
    shared.add_account("main", submits_per_second=0.01)
    assert intend(shared, "k0") is None
    for key in ("k1", "k2", "k3"):
        held = intend(shared, key)
        assert held is not None
        assert (held.stop, 0 < held.seconds <= 100) == (None, True)
    assert intend(shared, "k4", account="spare") is None
    for key, late in (("k1", "k2"), ("k2", "k3")):
        turn = sa.update(accounts).where(accounts.c.name == "main").values(next_submit_at=1.0)
        shared.execute(turn)
        assert intend(shared, key) is None
        assert intend(shared, late) is not None


def test_the_time_between_two_submissions_is_that_of_the_rate(shared: Rows) -> None:
    shared.add_account("", submits_per_second=0.5)
    assert intend(shared, "k0") is None
    held = intend(shared, "k1")
    assert held is not None
    assert 1.0 < held.seconds <= 2.0


def test_charges_are_counted_until_they_are_proven_not_to_be(shared: Rows) -> None:
    """A doubt counts, a refusal does not; the limit stops the account by name."""
    shared.add_account("main", max_charges=3)
    assert [intend(shared, key) for key in ("k0", "k1", "k2")] == [None, None, None]
    shared.save("w1", settled(accepted("k0")))
    shared.save("w2", doubtful(sent("k1")))
    held = intend(shared, "k3")
    assert held is not None
    assert isinstance(held.stop, ChargeLimitReached)
    assert (held.stop.provider, held.stop.limit, held.is_full) == ("main", 3, False)
    shared.save("w3", sent("k2").requeued())
    assert intend(shared, "k3") is None
    assert intend(shared, "k4") is not None
    assert intend(shared, "k5", account="spare") is None


@pytest.mark.parametrize(
    ("price", "budget", "count"),
    [
        (0.1, 0.3, 3),
        (0.3, 0.9, 3),
        (1e-9, 3e-9, 3),
        (0.07, 0.7, 10),
        (1.1, 3.3, 3),
        (0.1, 0.29999, 2),
        (1e-12, 2e-9, 2),
    ],
)
def test_a_budget_is_exact(shared: Rows, price: float, budget: float, count: int) -> None:
    """Where binary fractions would allow one more or one less; below a billionth a price is rounded up."""
    shared.add_account("main", budget=budget)
    assert [intend(shared, key, price) for key in KEYS[:count]] == [None] * count
    held = intend(shared, KEYS[count], price)
    assert held is not None
    assert isinstance(held.stop, BudgetReached)
    assert held.stop.budget == budget
    assert shared.used("main")[1] == count


def test_a_budget_needs_prices_and_gets_the_providers_own_figure(shared: Rows) -> None:
    shared.add_account("", budget=1.0)
    held = intend(shared, "k0")
    assert held is not None
    assert isinstance(held.stop, SubmissionsStopped)
    assert "needs the price of each request" in held.reason
    assert intend(shared, "k0", 0.9) is None
    assert intend(shared, "k1", 0.2) is not None
    shared.save("w1", settled(accepted("k0", 0.9), cost=0.5))
    assert shared.used() == (0, 1, 500_000_000)
    assert intend(shared, "k1", 0.2) is None


def test_an_intent_whose_commit_was_not_answered_is_not_counted_twice(shared: Rows) -> None:
    """The same again is saved, though its place is the last one; another attempt is not the same."""
    shared.add_account("main", max_in_flight=1, max_charges=1, submits_per_second=0.01)
    for _ in range(3):
        assert intend(shared, "k0", 0.1) is None
    assert shared.used("main") == shared.used() == (1, 1, 100_000_000)
    other = attrs.evolve(INTENT, at=utc_from_timestamp(1_800_000_000.0))
    assert shared.intend("w1", sent("k0", 0.1), other) is not None


@pytest.mark.parametrize(
    "bound", [{"max_in_flight": 2}, {"max_charges": 2}, {"budget": 0.2}, {"submits_per_second": 0.01}]
)
def test_submissions_that_share_a_commit_see_each_other(shared: Rows, bound: dict[str, float]) -> None:
    """And what is saved before them in it."""
    paced = "submits_per_second" in bound
    shared.add_account("main", **bound)
    keys = ("k0", "k3", "k6", "k9")
    first = [Write([sent(key, 0.1)], INTENT) for key in keys[:3]]
    results = shared.run(job_writes.write_all, "w1", first)
    assert [result is None for result in results] == [True, not paced, False]
    ended = Write([sent("k0", 0.1).requeued()])
    results = shared.run(job_writes.write_all, "w1", [ended, *(Write([sent(key, 0.1)], INTENT) for key in keys[2:])])
    assert [result is None for result in results[1:]] == [not paced, False]
    assert shared.used("main") == ((0, 0, 0) if paced else (2, 2, 200_000_000))


def test_of_two_states_of_a_job_that_share_a_commit_the_later_one_is_saved(shared: Rows) -> None:
    sending = Write([sent("k0", 0.1)], INTENT)
    results = shared.run(job_writes.write_all, "w1", [sending, Write([accepted("k0", 0.1)]), Write((), released="k0")])
    assert results == [None, [], []]
    assert shared.job("k0") == accepted("k0", 0.1)
    assert shared.owners()["k0"] is None
    assert shared.used("main") == (1, 1, 100_000_000)
    assert shared.claim("w2", "k0") == (accepted("k0", 0.1), attrs.evolve(INTENT, repeatable=None))


def test_new_bounds_replace_the_earlier_ones_and_keep_what_is_used(shared: Rows) -> None:
    assert intend(shared, "k0", 0.1) is None
    shared.add_account("main", max_in_flight=1)
    assert intend(shared, "k1", 0.1) is not None
    shared.add_account("main", max_in_flight=2)
    assert intend(shared, "k1", 0.1) is None
    shared.run(upsert_accounts, [{"name": "main"}])
    assert shared.used("main") == (2, 2, 200_000_000)
    assert intend(shared, "k2", 0.1) is not None
