"""Concurrency limit that workers learn together: they try as many submissions, and as often, as a single client would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from pika_async._planning.concurrency import AdaptiveConcurrency
from pika_async.engines import tables
from pika_async.engines.bounds import Held, hold_of, others_of, rate_share, window_share
from pika_async.engines.cluster_stats import ClusterAccount
from pika_async.engines.job_writes import Write, write_all
from pika_async.engines.shared_concurrency import (
    SharedConcurrency,
    SlotAnswer,
    answered_text,
    concurrency_of,
    concurrency_text,
    started_text,
)
from pika_async.engines.shared_statements import count_submitting, record_answers, select_accounts, select_sharing
from tests.engines.rows import Rows, accepted, sent
from tests.journal.builders import INTENT

ROW: dict[str, Any] = {
    "name": "main", "max_in_flight": None, "in_flight": 0, "next_submit_at": 0.0, "max_charges": None, "charges": 0,
    "budget": None, "spent": 0, "concurrency": None,
}  # fmt: skip
#: Seconds by which the database's clock is ahead of that of each worker; binary fractions, so that sums are exact.
AHEAD = (1024.0, -512.0, 0.25)

steps = st.lists(
    st.tuples(
        st.sampled_from(("submit", "accepted", "rejected", "other", "settled")),
        st.integers(0, len(AHEAD) - 1),
        st.integers(0, 64),
        st.sampled_from((None, 1.0, 16.0)),
    ),
    max_size=60,
)


def answers(kind: Any, at: float, since: float, retry_after: float | None) -> SlotAnswer:
    return SlotAnswer(kind, at, since, retry_after if kind == "rejected" else None)


@given(steps)
def test_workers_do_together_what_a_single_client_would(given_steps: list[tuple[Any, int, int, float | None]]) -> None:
    """Whichever of them asks or sees an answer, and whatever its clock shows."""
    single, row, now, began = AdaptiveConcurrency(), dict(ROW), 0.0, 0.0
    taken = submitting = 0
    for kind, worker, eighths, retry_after in given_steps:
        now += eighths / 8
        held = hold_of(row | {"in_flight": taken + submitting}, None, now, submitting)
        is_allowed = single.has_capacity(taken, submitting) and single.ready_at(now) <= now
        assert (held is None) == is_allowed
        if kind == "submit":
            if is_allowed:
                single.on_submit_started(now)
                row["concurrency"] = started_text(row, now) or row["concurrency"]
                submitting, began = submitting + 1, now
            continue
        if kind in {"accepted", "rejected"} and submitting:
            submitting -= 1
            taken += kind == "accepted"
        answer = answers(kind, now, began, retry_after)
        answer.apply_to(single, taken)
        if kind == "rejected" or row["concurrency"] is not None:
            ahead = AHEAD[worker]
            seen = attrs.evolve(answer, at=answer.at - ahead, since=answer.since - ahead)
            row["concurrency"] = answered_text(row, [seen], taken, ahead)
        learned = concurrency_of(row) or AdaptiveConcurrency()
        assert learned.learned() == single.learned()


@given(steps)
def test_a_copy_is_what_the_row_has_and_what_it_does_not_have_yet(
    given_steps: list[tuple[Any, int, int, float | None]],
) -> None:
    """On the clock of its worker."""
    row, news = AdaptiveConcurrency(), list[bool]()
    row.on_rejected(3, 0.0, 0.0)
    copy = SharedConcurrency.of(AdaptiveConcurrency(), lambda: news.append(True))
    copy.adopt(row, -AHEAD[0], 3)
    assert copy.learned(AHEAD[0]) == pytest.approx(row.learned())
    calls: dict[str, Callable[[SlotAnswer], None]] = {
        "accepted": lambda it: copy.on_accepted(it.at),
        "rejected": lambda it: copy.on_rejected(5, it.since, it.at, it.retry_after),
        "other": lambda it: copy.on_other_answer(it.at),
        "settled": lambda it: copy.on_settled(it.since, it.at),
    }
    now = 0.0
    seen = [
        answers(kind, now := now + eighths / 8, now, after) for kind, _, eighths, after in given_steps if kind in calls
    ]
    for answer in seen:
        calls[answer.kind](attrs.evolve(answer, at=answer.at - AHEAD[0], since=answer.since - AHEAD[0]))
    assert (len(copy.answers), len(news)) == (len(seen), len(seen))
    before = copy.learned(AHEAD[0])
    copy.adopt(row, -AHEAD[0], 5)
    assert copy.learned(AHEAD[0]) == pytest.approx(before)
    text = answered_text({"concurrency": concurrency_text(row)}, copy.answers, 5, AHEAD[0])
    both = concurrency_of({"concurrency": text})
    assert both is not None
    assert both.learned() == pytest.approx(before)


def test_an_account_that_has_refused_nothing_has_nothing_to_learn() -> None:
    copy = SharedConcurrency.of(AdaptiveConcurrency(ceiling=7), pytest.fail)
    copy.on_accepted(1.0)
    copy.on_settled(1.0, 2.0)
    copy.on_other_answer(3.0)
    assert (copy.answers, copy.learned(), copy.ceiling) == ([], AdaptiveConcurrency().learned(), 7)


@given(st.integers(1, 50), st.integers(1, 20), st.data())
def test_workers_that_see_each_other_never_exceed_the_maximum(ceiling: int, workers: int, data: st.DataObject) -> None:
    """Each asks only for places that the others leave, but one without a job may always ask: the row decides."""
    own = [data.draw(st.tuples(st.integers(0, 9), st.integers(0, 9))) for _ in range(workers)]
    total, submitting = sum(map(sum, own)), sum(sending for _, sending in own)
    for in_flight, sending in own:
        others, others_sending = others_of(
            total, submitting, own_in_flight=in_flight, own_submitting=sending, ceiling=ceiling
        )
        concurrency = AdaptiveConcurrency(ceiling=ceiling, others=others, others_submitting=others_sending)
        may_ask = concurrency.has_capacity(in_flight, sending)
        assert may_ask == (total < ceiling or not in_flight + sending)


@given(st.integers(1, 64), st.integers(1, 100), st.floats(0.001, 1000))
def test_the_shares_of_all_workers_add_up_to_the_whole_at_most(window: int, workers: int, rate: float) -> None:
    share = window_share(window, workers)
    assert share == 1 if workers > window else workers * share <= window < workers * (share + 1)
    assert rate_share(rate, workers) == pytest.approx(rate / workers)
    assert rate_share(None, workers) is None


@pytest.fixture
def full(rows: Rows) -> Rows:
    """A database in which the account has refused one of two jobs beside the one that it runs, a while ago."""
    rows.add_account("")
    rows.add_account("main")
    for worker, key in (("w", "a"), ("v", "b")):
        rows.add_worker(worker)
        rows.add_jobs(key, f"{key}2", f"{key}3", owner=worker)
    rows.intend("w", sent("a"))
    rows.save("w", accepted("a"))
    learned = AdaptiveConcurrency()
    learned.on_rejected(1, 1.0, 1.0)
    update = sa.update(tables.accounts).where(tables.accounts.c.name == "main")
    rows.execute(update.values(concurrency=concurrency_text(learned)))
    return rows


def test_one_worker_alone_tries_an_account_that_is_full(full: Rows) -> None:
    """The next try, of any worker, is later by the interval that was learned."""
    assert full.intend("w", sent("a2")) is None
    held = full.intend("v", sent("b"))
    assert held is not None
    assert (held.is_full, held.stop, 0 < held.seconds <= 0.5) == (True, None, True)
    assert held.reason == "main has refused more than 1 jobs at a time"
    assert full.run(count_submitting) == {"main": 1}
    assert full.job("b").status.value == "planned"


def test_what_one_worker_learns_holds_for_the_others(full: Rows) -> None:
    assert full.intend("w", sent("a2")) is None
    full.save("w", accepted("a2"))
    before = full.run(select_sharing)
    at = 5000.0 - before.ahead
    full.run(record_answers, "main", [SlotAnswer("accepted", at)])
    learned = concurrency_of(full.run(select_accounts)["main"])
    assert learned is not None
    assert learned._window == 2.0
    assert learned._next_at == pytest.approx(5000.0, abs=1.0)
    assert full.intend("v", sent("b")) is None, "the next may follow an acceptance at once, from any worker"
    soon = SlotAnswer("other", 1.0 - before.ahead)
    full.run(record_answers, "main", [soon])
    assert full.intend("w", sent("a3")) is None, "two may be under way"
    full.run(record_answers, "main", [soon])
    assert full.run(count_submitting) == {"main": 2}
    held = full.intend("v", sent("b2"))
    assert held is not None
    assert (held.is_full, held.seconds) == (True, 0.5)
    full.save("v", accepted("b"))
    forever = SlotAnswer("rejected", before.rows["main"]["next_submit_at"] - before.ahead, 0.0, 1e12)
    full.run(record_answers, "main", [forever])
    for key in ("b2", "b3"):
        held = full.intend("v", sent(key))
        assert held is not None
        assert held.is_full
    row = full.run(select_accounts)["main"]
    assert ClusterAccount.of(row).estimated_limit == pytest.approx(1.2), "three were accepted"
    full.run(record_answers, "unknown", [forever])


def test_what_is_saved_in_one_piece_counts_at_once(full: Rows) -> None:
    """A submission that begins, and one whose answer is there: no place is counted twice, and none left out."""
    soon = SlotAnswer("other", 1.0 - full.run(select_sharing).ahead)
    assert full.intend("w", sent("a2")) is None
    full.run(record_answers, "main", [soon])
    writes = [Write([accepted("a2")]), Write([sent("a3")], INTENT)]
    assert full.run(write_all, "w", writes) == [[], None]
    full.run(record_answers, "main", [soon])
    (held,) = full.run(write_all, "v", [Write([sent("b")], INTENT)])
    assert isinstance(held, Held)
    full.save("w", accepted("a3"))
    first, second = full.run(write_all, "v", [Write([sent(key)], INTENT) for key in ("b", "b2")])
    assert first is None
    assert isinstance(second, Held)


def test_an_account_without_a_refusal_is_not_asked_about(rows: Rows) -> None:
    rows.add_account("main")
    row = rows.run(select_accounts)["main"]
    assert (started_text(row, 1.0), ClusterAccount.of(row).estimated_limit) == (None, None)
    sharing = rows.run(select_sharing)
    assert (sharing.live, sharing.submitting, list(sharing.rows)) == (1, {}, ["main"])
