"""Index of each job of a folder, unique over its inputs and gateways. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pika_async._planning.repetition import is_archived
from pika_async.jobs import Job

__all__ = ["folder_indices"]


def folder_indices(jobs: Iterable[Job], fixed: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the index of each of `jobs` by its key; jobs that are added to a folder later change none of them.

    A job keeps the index of its own input, unless an earlier job of the folder has it; then it gets the lowest free
    one. A job that is kept as history has the index of the job that replaced it.

    :param jobs: the jobs of a folder in its order.
    :param fixed: indices that are given by key; default none.
    """
    indices = dict(fixed or {})
    places: dict[str, int | None] = {}
    archived = []
    for job in jobs:
        if is_archived(job):
            archived.append(job.key)
            places.setdefault(job.key.rpartition("~")[0], None)  # the place of its row, whose job may come later
        else:
            places[job.key] = job.index
    taken = set(indices.values())
    free = _free_numbers(taken)
    for key, own in places.items():
        if own is not None and key not in indices:
            indices[key] = own if own not in taken else next(free)
            taken.add(indices[key])
    for key in archived:
        row = indices.get(key.rpartition("~")[0])
        if key not in indices:
            indices[key] = next(free) if row is None else row
            taken.add(indices[key])
    return indices


def _free_numbers(taken: set[int]) -> Iterator[int]:
    number = 0
    while True:
        if number not in taken:
            yield number
        number += 1
