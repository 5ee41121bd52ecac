"""When more tasks are due than can be polled, the one with the largest expected delay is polled first."""

from __future__ import annotations

import pytest
from budgets import delay_ratio
from hypothesis import given
from hypothesis import strategies as st
from shapes import SHAPES, lognormal

from pika_async._planning.due_queue import DueQueue
from pika_async.polling import Distribution

TRUTH = Distribution.lognormal(60, 0.5)
Task = tuple[float, float]  # times of acceptance and of the last poll


def expected_delay(task: Task, now: float) -> float:
    """Return the expected seconds since a task settled."""
    return TRUTH.expected_delay(task[1] - task[0], now - task[0])


@given(st.lists(st.tuples(st.floats(-300, 0), st.floats(0, 1)), min_size=1, max_size=40), st.floats(0, 50))
def test_the_task_with_the_largest_expected_delay_is_first(drawn: list[tuple[float, float]], later: float) -> None:
    """Within a twentieth of the largest, however long ago the tasks were pushed."""
    tasks = [(accepted, accepted * share) for accepted, share in drawn]
    queue = DueQueue(expected_delay)
    for task in tasks:
        queue.push(task, 0.0)
    left = list(tasks)
    while left:
        best = max(expected_delay(task, later) for task in left)
        chosen = queue.pop(later)
        assert expected_delay(chosen, later) * 1.05 >= best - 2e-3
        left.remove(chosen)
    assert len(queue) == 0


def test_an_empty_queue_raises() -> None:
    """When no task is due, `pop` raises IndexError."""
    with pytest.raises(IndexError):
        DueQueue(expected_delay).pop(0.0)


@pytest.mark.slow
def test_three_mixed_models_have_half_the_delay_of_polling_in_turn() -> None:
    """At ten polls a second for 200 tasks of 20, 60 and 240 s, whose durations are learned while they run."""
    three = {"quick": lognormal(20, 0.3), "usual": lognormal(60, 0.3), "slow": lognormal(240, 0.3)}
    assert delay_ratio(three, rate=10) <= 0.5


@pytest.mark.slow
def test_tasks_accepted_at_once_have_no_more_delay_than_polling_in_turn() -> None:
    """Where the priority cannot distinguish the tasks, it does no harm."""
    assert delay_ratio({"a": SHAPES["lognormal 0.5"]}, rate=10, at_once=True) <= 1.05
