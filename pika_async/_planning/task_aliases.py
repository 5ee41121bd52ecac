"""Other ids under which a gateway answers the polls of its tasks. Pure: decides by counting answers.

An answer about another task is discarded. But a gateway may name a task by an id of its upstream in every answer, and a
paid result would never be seen. Such an id is taken as that of the task after several answers, if it is the only one
that ever came for the task, came for no other, and is not the id of another job.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

__all__ = ["TaskAliases"]

#: Answers with the same other id, and no other answer between them, after which that id is taken.
MIN_ANSWERS: Final = 5
#: Tasks with other ids that are remembered, the latest ones.
MAX_TASKS: Final = 10_000


@attrs.define
class TaskAliases:
    """Other ids of the tasks of one gateway.

    :param is_task_id: whether an id is the task id of a job.
    """

    is_task_id: Callable[[str], bool]
    #: The other id of each polled task id, and how often it came; None if it is not to be taken.
    _answers: dict[str, tuple[str, int] | None] = attrs.field(factory=dict, init=False)
    #: The polled task id of each other id; None if it came for several.
    _owners: dict[str, str | None] = attrs.field(factory=dict, init=False)

    def confirm(self, task_id: str) -> None:
        """Record that an answer named the polled task id itself, or no id: another id is not to be taken for it."""
        if task_id in self._answers:
            self._answers[task_id] = None

    def record(self, task_id: str, other_id: str) -> bool:
        """Record that an answer named another id than the polled one; return True when that id is to be taken now."""
        if task_id not in self._answers and len(self._answers) >= MAX_TASKS:
            self._forget(next(iter(self._answers)))
        owner = self._owners.setdefault(other_id, task_id)
        if len(self._owners) > 2 * MAX_TASKS:  # a gateway that names another id in each answer
            del self._owners[next(iter(self._owners))]
        earlier = self._answers.setdefault(task_id, (other_id, 0))
        if owner != task_id or earlier is None or earlier[0] != other_id:
            self._owners[other_id] = self._answers[task_id] = None
            return False
        self._answers[task_id] = other_id, earlier[1] + 1
        if earlier[1] + 1 == MIN_ANSWERS and self.is_task_id(other_id):
            self._answers[task_id] = None
        return self.is_alias(task_id, other_id)

    def is_alias(self, task_id: str, other_id: str) -> bool:
        """Whether `other_id` has been taken as another id of the task."""
        answers = self._answers.get(task_id)
        return answers is not None and answers[0] == other_id and answers[1] >= MIN_ANSWERS and (
            self._owners.get(other_id) == task_id
        )  # fmt: skip

    def _forget(self, task_id: str) -> None:
        answers = self._answers.pop(task_id, None)
        if answers is not None and self._owners.get(answers[0]) == task_id:
            del self._owners[answers[0]]
