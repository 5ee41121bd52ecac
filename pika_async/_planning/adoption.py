"""Decisions about tasks that were submitted elsewhere: their keys, and when an id counts as denied. Pure: no I/O."""

from __future__ import annotations

import enum
import hashlib
import itertools
import re
from collections.abc import Container
from typing import Final

from pika_async._planning.actions import PollResult
from pika_async.errors import InvalidRequest
from pika_async.models.fields import check_key
from pika_async.providers._verdicts import PollVerdict

__all__ = ["FirstPoll", "checked_task_id", "judge_first_poll", "key_of_task"]

#: The longest task id, in characters; the documented ones have 36.
MAX_ADOPTED_ID_LENGTH: Final = 256
#: Polls of a task before its id counts as denied: a gateway may list a task some seconds after it accepted it.
MAX_DENIALS: Final = 3
#: Polls without a usable answer before adopting the task is given up for now.
MAX_FAILURES: Final = 6


class FirstPoll(enum.Enum):
    """Meaning of the answers to the first polls of a task."""

    #: The gateway has the task.
    FOUND = enum.auto()
    #: Poll it again.
    AGAIN = enum.auto()
    #: The gateway has no such task.
    DENIED = enum.auto()
    #: No usable answer came.
    UNANSWERED = enum.auto()
    #: The credential was refused.
    STOPPED = enum.auto()


def judge_first_poll(result: PollResult, denials: int, failures: int) -> FirstPoll:
    """Return the meaning of the latest of the first polls of a task.

    :param denials: number of answers that denied the task, the latest included.
    :param failures: number of polls without a usable answer, the latest included.
    """
    match result.verdict:
        case PollVerdict.STOP:
            return FirstPoll.STOPPED
        case PollVerdict.MISSING:
            return FirstPoll.DENIED if denials >= MAX_DENIALS else FirstPoll.AGAIN
        case PollVerdict.AGAIN:
            return FirstPoll.UNANSWERED if failures >= MAX_FAILURES else FirstPoll.AGAIN
        case _:  # also an answer under another id: whether that is the task's is found out by further polls
            return FirstPoll.FOUND


def checked_task_id(task_id: object) -> str:
    """Return a task id without the white space around it.

    :raises InvalidRequest: if it cannot be one.
    """
    text = task_id.strip() if isinstance(task_id, str) else ""
    if not text or len(text) > MAX_ADOPTED_ID_LENGTH or not text.isprintable() or " " in text:
        reason = f"must be a provider's task id: 1 to {MAX_ADOPTED_ID_LENGTH} printable characters without white space"
        raise InvalidRequest(field="task_id", value=task_id, reason=reason)
    return text


def key_of_task(task_id: str, taken: Container[str]) -> str:
    """Return a key for an adopted task: its id where that can be a key, else one made from it.

    :param taken: the keys of other jobs.
    """
    key = task_id
    try:
        check_key(key)
    except InvalidRequest:
        letters = re.sub(r"[^A-Za-z0-9]+", "-", task_id).strip("-")[:40]
        key = f"task-{letters}-{hashlib.sha256(task_id.encode(errors='replace')).hexdigest()[:8]}"
    others = (f"{key}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([key], others) if name not in taken)
