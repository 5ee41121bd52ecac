"""Mutants of polls: what an answer says about a task."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

_FEEDS: Final = ("tests/providers/test_feeds.py",)

MUTANTS: Final = (
    Mutant(
        "new-word-fails",
        "providers/_feeds.py",
        "return TaskState.SUCCEEDED if word in _SUCCESS_WORDS and has_url else TaskState.RUNNING",
        "return TaskState.SUCCEEDED if word in _SUCCESS_WORDS and has_url else TaskState.FAILED",
        "a new status word fails a paid task",
        ("tests/providers/test_decoders.py",),
        "new_word",
    ),
    Mutant(
        "success-without-address",
        "providers/_feeds.py",
        "        state = state if url else TaskState.SUCCEEDED_WITHOUT_URL\n",
        "",
        "a task settles without a URL of its video",
        ("tests/contracts/test_samples.py",),
    ),
    Mutant(
        "family-success-without-url",
        "providers/_feeds.py",
        "word in _SUCCESS_WORDS and has_url",
        "word in _SUCCESS_WORDS",
        "a word that no page of the gateway lists settles a task without a URL",
        _FEEDS,
        "without_a_url",
    ),
    Mutant(
        "family-failures-unread",
        "providers/_feeds.py",
        "    if word in _FAILURE_WORDS:\n",
        "    if False:\n",
        "a failed task is polled until its deadline",
        _FEEDS,
        "failure_word",
    ),
    Mutant(
        "one-wrapper-only",
        "providers/_feeds.py",
        "MAX_LEVELS: Final = 6",
        "MAX_LEVELS: Final = 4",
        "a feed in three wrappers is not read",
        _FEEDS,
        "three_wrappers",
    ),
    Mutant(
        "wrappers-without-end",
        "providers/_feeds.py",
        "MAX_LEVELS: Final = 6",
        "MAX_LEVELS: Final = 600",
        "a hostile answer is opened to any depth",
        _FEEDS,
        "bounded_depth",
    ),
    Mutant(
        "nothing-means-queued",
        "providers/_feeds.py",
        "unrecognised = Snapshot(task_id=requested_id, state=TaskState.RUNNING, known_word=False, raw=body)",
        "unrecognised = Snapshot(task_id=requested_id, state=TaskState.QUEUED, raw=body)",
        "an answer that cannot be read counts as queued, silently",
        _FEEDS,
        "nothing_is_recognised",
    ),
    Mutant(
        "id-in-one-case-only",
        "providers/_feeds.py",
        "return task_id.casefold() in (value.casefold() for value in _ids(level).values())",
        "return task_id in _ids(level).values()",
        "a task whose id comes in another letter case is never read",
        _FEEDS,
        "in_another_case",
    ),
    Mutant(
        "any-task-of-a-list",
        "providers/_feeds.py",
        "if named is None and len({_id_of(item) for item in found}) == 1:",
        "if named is None and found:",
        "the first task of a list is taken for the one that was polled",
        _FEEDS,
        "another_tasks_id",
    ),
    Mutant(
        "bare-status-believed",
        "providers/_feeds.py",
        '        if depth == 0 and not rows and as_text(task.get("task_id")) is None:\n',
        "        if False:\n",
        "the status of an error fails the task that was polled",
        _FEEDS,
        "beside_no_task",
    ),
    Mutant(
        "status-of-a-failed-answer",
        "providers/_feeds.py",
        "        if read_failure(body).code is not None:  # the status may be that of the failure\n",
        "        if False:\n",
        "a gateway that fails fails the task",
        _FEEDS,
        "beside_no_task",
    ),
    Mutant(
        "status-of-the-wrapper",
        "providers/_feeds.py",
        "    return depths[1] if is_of_answer else depths[0]\n",
        "    return depths[0]\n",
        "the status of a wrapper counts as that of the task in it",
        _FEEDS,
        "recorded_feed or status_of_the_answer",
    ),
    Mutant(
        "address-beside-a-word-lost",
        "providers/_feeds.py",
        "        url=url if video or not known_word else None,\n",
        "        url=url if video else None,\n",
        "the URL beside an unknown word is forgotten",
        _FEEDS,
        "another_word or without_any_status",
    ),
)
