"""When more tasks are due than may be looked at, the look goes where most delay is expected."""

from __future__ import annotations

import pytest
from budgets import delay_ratio
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import SHAPES, lognormal

from pika_async._planning.due_queue import DueQueue
from pika_async.polling import Distribution

TRUTH = Distribution.lognormal(60, 0.5)
Task = tuple[float, float]  # accepted at, last looked at


def undetected(task: Task, now: float) -> float:
    return TRUTH.expected_delay(task[1] - task[0], now - task[0])


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-300, 0), st.floats(0, 1)), min_size=1, max_size=40), st.floats(0, 50))
def test_the_task_with_the_most_expected_delay_is_first(drawn: list[tuple[float, float]], later: float) -> None:
    """However long ago they were pushed: within a twentieth of the best of all."""
    tasks = [(accepted, accepted * share) for accepted, share in drawn]
    budget = DueQueue(undetected)
    for task in tasks:
        budget.push(task, 0.0)
    left = list(tasks)
    while left:
        best = max(undetected(task, later) for task in left)
        chosen = budget.pop(later)
        assert undetected(chosen, later) * 1.05 >= best - 2e-3
        left.remove(chosen)
    assert len(budget) == 0


def test_an_empty_budget_has_nothing_to_give() -> None:
    """Nothing is due."""
    with pytest.raises(IndexError):
        DueQueue(undetected).pop(0.0)


@pytest.mark.slow
def test_three_models_mixed_wait_half_as_long_as_in_turn() -> None:
    """At ten looks a second for 200 tasks of 20, 60 and 240 s, all learned while they run."""
    three = {"quick": lognormal(20, 0.3), "usual": lognormal(60, 0.3), "slow": lognormal(240, 0.3)}
    assert delay_ratio(three, rate=10) <= 0.5


@pytest.mark.slow
def test_tasks_that_all_began_at_once_wait_no_longer_than_in_turn() -> None:
    """Where the index can tell nothing apart it costs nothing."""
    assert delay_ratio({"a": SHAPES["lognormal 0.5"]}, rate=10, at_once=True) <= 1.05
