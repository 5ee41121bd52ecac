"""Other ids in the answers to polls: taken as those of a task only where nothing else can be meant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pika_async._planning.task_aliases import MAX_TASKS, MIN_ANSWERS, TaskAliases


def aliases(*task_ids: str) -> TaskAliases:
    """Return empty aliases of a client with jobs of these task ids."""
    return TaskAliases(task_ids.__contains__)


def taken(state: TaskAliases, task_id: str, *other_ids: str) -> list[bool]:
    """Record answers under these ids; return for each whether its id is taken."""
    return [state.record(task_id, other) for other in other_ids]


def test_the_only_other_id_is_taken_at_the_fifth_answer() -> None:
    """The same other id counts from its fifth answer on, and then for good."""
    state = aliases("a")
    assert MIN_ANSWERS == 5
    assert taken(state, "a", *["x"] * 7) == [False] * 4 + [True] * 3
    assert state.is_alias("a", "x")
    assert not state.is_alias("a", "y")
    assert not state.is_alias("b", "x")


def test_a_second_other_id_ends_it() -> None:
    """Where two other ids come for one task, neither is ever taken."""
    state = aliases("a")
    assert not any(taken(state, "a", "x", "x", "y", *["x"] * 20))
    assert not any(taken(state, "a", *["y"] * 20))


def test_an_answer_under_the_right_id_ends_it() -> None:
    """Where an answer names the task itself, another id is never taken for it, even one that was taken."""
    state = aliases("a")
    taken(state, "a", *["x"] * 5)
    state.confirm("a")
    assert not state.is_alias("a", "x")
    assert not any(taken(state, "a", *["x"] * 20))


def test_one_id_for_two_tasks_is_neithers() -> None:
    """An id that comes for two tasks, as from a cache between, is taken for neither of them."""
    state = aliases("a", "b")
    assert taken(state, "a", *["x"] * 5)[-1]
    assert not any(taken(state, "b", *["x"] * 20))
    assert not state.is_alias("a", "x")
    assert not any(taken(state, "a", *["x"] * 20))


def test_the_task_id_of_another_job_is_never_taken() -> None:
    """The answer of another job's task is that job's, however often it comes."""
    assert not any(taken(aliases("a", "b"), "a", *["b"] * 50))


def test_memory_is_bounded() -> None:
    """Of very many tasks only the latest are remembered."""
    state = aliases()
    for number in range(MAX_TASKS + 50):
        taken(state, f"t{number}", f"x{number}")
    assert len(state._answers) == MAX_TASKS
    assert len(state._owners) == MAX_TASKS
    assert taken(state, f"t{MAX_TASKS}", *[f"x{MAX_TASKS}"] * 4)[-1]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcxyz")), max_size=80))
def test_an_id_stands_for_at_most_one_task(answers: list[tuple[str, str]]) -> None:
    """Whatever comes in whatever order: a taken id stands for one task, and never for another job's."""
    state = aliases("a", "b", "c")
    for task_id, other_id in answers:
        if task_id == other_id:
            state.confirm(task_id)
        else:
            state.record(task_id, other_id)
        for other in "abcxyz":
            owners = [task for task in "abc" if state.is_alias(task, other)]
            assert len(owners) <= (other not in "abc")
