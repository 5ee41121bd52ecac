"""Jobs as a batch leaves them, for the tests of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pika_async import GenerationRequest, Job, JobStatus, RequestFields, Video
from pika_async.errors import GenerationFailed, SubmissionInDoubt, SubmissionRejected

__all__ = ["failed", "in_doubt", "made", "rejected", "succeeded"]


def made(key: str = "k", prompt: str = "a cat", *, index: int = 0, **changes: Any) -> Job:
    """Return a job; the fields of its request may be among the changes."""
    names = RequestFields.__annotations__.keys() - {"video"}  # that is the result of a job
    fields = {name: changes.pop(name) for name in names & changes.keys()}
    request = GenerationRequest(prompt, **fields)
    return Job(key=key, request=request, provider="native", base_url="http://h", index=index, **changes)


def succeeded(key: str = "k", prompt: str = "a cat", *, file: Path | None = None, **changes: Any) -> Job:
    video = Video(url="https://cdn.example/v.mp4")
    return made(key, prompt, status=JobStatus.SUCCEEDED, video=video, file=file, attempts=1, task_id="t", **changes)


def failed(key: str, reason: str, **changes: Any) -> Job:
    error = GenerationFailed(key=key, provider="native", task_id="t", reason=reason)
    return made(key, status=JobStatus.FAILED, error=error, attempts=1, task_id="t", **changes)


def rejected(key: str, reason: str, **changes: Any) -> Job:
    error = SubmissionRejected(key=key, provider="native", reason=reason, http_status=400)
    return made(key, status=JobStatus.REJECTED, error=error, attempts=1, **changes)


def in_doubt(key: str, reason: str, **changes: Any) -> Job:
    error = SubmissionInDoubt(key=key, provider="native", reason=reason, attempt=1)
    return made(key, status=JobStatus.UNKNOWN, error=error, attempts=1, **changes)
