"""Repetitions of jobs that are paid for again on purpose: their records and their seeds. Pure: draws no number."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final, Protocol

from pika_async._planning.resolution import archive_keys
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest, evolve_unchecked

__all__ = ["ADOPTED_REASON", "is_archived", "is_archived_key", "latest_archived", "repetition", "with_new_seed"]

#: Number of seeds to draw from: every gateway takes those of 31 bits.
SEEDS: Final = 1 << 31
#: Why an adopted job cannot be paid for again, and the way out.
ADOPTED_REASON: Final = "it was taken on by its task id, so its prompt is not known here; submit the prompt anew"


class _Jobs(Protocol):
    """Jobs by key: a journal or a dict."""

    def __contains__(self, key: object, /) -> bool: ...
    def get(self, key: str, /) -> Job | None: ...


def is_archived(job: Job) -> bool:
    """Return whether *job* is kept as history: another job has its place."""
    return is_archived_key(job.key)


def is_archived_key(key: str) -> bool:
    """Return whether the job with `key` is kept as history; see `is_archived`."""
    return "~" in key


def latest_archived(jobs: _Jobs | Mapping[str, Job], key: str) -> Job | None:
    """Return the latest job that was archived from *key*; None if there is none."""
    latest = None
    for name in itertools.takewhile(jobs.__contains__, archive_keys(key)):
        latest = name
    return None if latest is None else jobs.get(latest)


def with_new_seed(request: GenerationRequest, u: float) -> GenerationRequest:
    """Return *request* with another seed than its own.

    :param u: a uniform random number in [0, 1).
    """
    seed = int(u * SEEDS)
    if seed == request.seed:
        seed = (seed + 1) % SEEDS
    return evolve_unchecked(request, seed=seed)


def repetition(job: Job, key: str, request: GenerationRequest) -> Job:
    """Return a planned job for *request*, the request of *job* with another seed, in the place that *job* had.

    :param key: the key that *job* had before it was archived.
    """
    return Job(
        key=key, index=job.index, request=evolve_unchecked(request, key=key), provider=job.provider,
        base_url=job.base_url, status=JobStatus.PLANNED, repeats=job.repeats or job.request.fingerprint(),
    )  # fmt: skip
