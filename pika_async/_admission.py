"""Takes requests in: each becomes a planned job, or is found to be one that is known, so that none is paid twice."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any

import attrs

from pika_async._exchange import with_bytes
from pika_async._journal import Journal
from pika_async._scheduler import Scheduler
from pika_async.agenda import Watcher
from pika_async.errors import InvalidRequest, PikaError, SubmissionInDoubt
from pika_async.lifecycle import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.providers import Provider

__all__ = ["Admission", "key_of", "request_of"]


def request_of(request: GenerationRequest | str, fields: Mapping[str, Any]) -> GenerationRequest:
    """A request, or a prompt with fields, as a request.

    :raises InvalidRequest: if it is neither, or a field has no such name or range.
    """
    known = {field.name for field in attrs.fields(GenerationRequest)}
    for name in fields:
        if name not in known:
            raise InvalidRequest(field=name, value=fields[name], reason="is no field of a request")
    if isinstance(request, str):
        return GenerationRequest(request, **fields)
    if not isinstance(request, GenerationRequest):
        raise InvalidRequest(field="request", value=request, reason="is neither a GenerationRequest nor a prompt")
    return attrs.evolve(request, **fields) if fields else request


def key_of(request: GenerationRequest, index: int | None) -> str:
    """The request's own key, else one from its position and content, else (it came alone) a random one."""
    if request.key is not None:
        return request.key
    if index is None:
        return f"job-{uuid.uuid4().hex[:16]}"
    return f"{index + 1:05d}-{request.fingerprint()[:8]}"


class Admission:
    """The way in, for one provider at one address."""

    def __init__(self, provider: Provider, base_url: str, scheduler: Scheduler, journal: Journal) -> None:
        self._provider = provider
        self._base_url = base_url
        self._scheduler = scheduler
        self._journal = journal

    async def admit(self, request: GenerationRequest | str, index: int | None, watcher: Watcher) -> Job:
        """Plan a request, or find the job that it is already; `watcher` hears of the job from now on.

        `index` is its position in a batch, None for a request that came alone. In a batch, a request that the provider
        cannot do is that job's rejection.

        :raises InvalidRequest: if it came alone and cannot be sent, or if its key belongs to another content.
        """
        asked = request_of(request, {})
        job = self._job(asked, index)
        known = self._known(job.key)
        if known is not None:
            return await self._adopt(known, asked, watcher)
        try:
            await self._check(asked)
        except InvalidRequest as error:
            if index is None:
                raise
            job = job.rejected(error, time.time())
            await self._journal.keep(job)
            watcher(job, True)
            return job
        known = self._known(job.key)
        if known is not None:  # the same request came in while the files were looked at
            return await self._adopt(known, asked, watcher)
        await self._scheduler.plan(job, watcher)
        return job

    async def _check(self, asked: GenerationRequest) -> None:
        try:
            self._provider.check(asked)
            await with_bytes(self._provider, asked)
        except InvalidRequest:
            raise
        except Exception as error:  # a third party's provider may fail as it likes
            reason = f"could not be checked: {error!r}"
            raise InvalidRequest(field="request", value=asked.prompt, reason=reason) from error

    def refused(self, request: GenerationRequest | str, index: int, error: PikaError) -> Job:
        """The job of a request that is not taken in any more; a known one is what it is."""
        job = self._job(request_of(request, {}), index)
        known = self._known(job.key)
        return attrs.evolve(job, error=error) if known is None or known.status is JobStatus.PLANNED else known

    def _known(self, key: str) -> Job | None:
        entry = self._scheduler.active.get(key)
        return self._journal.get(key) if entry is None else entry.job

    def _job(self, request: GenerationRequest, index: int | None) -> Job:
        return Job(
            key=key_of(request, index),
            index=index or 0,
            request=request,
            provider=self._provider.name,
            base_url=self._base_url,
        )

    async def _adopt(self, known: Job, asked: GenerationRequest, watcher: Watcher) -> Job:
        if known.request.fingerprint() != asked.fingerprint():
            raise InvalidRequest(
                field="key", value=known.key, reason="belongs to a job with another content; give this one its own key"
            )
        if self._scheduler.watch(known.key, watcher):
            entry = self._scheduler.active.get(known.key)
            if entry is not None and entry.job.task_id is not None:
                watcher(entry.job, False)
        elif known.status is JobStatus.CANCELED and known.submitted_at is None:  # withdrawn, nothing accepted: anew
            planned = attrs.evolve(known, status=JobStatus.PLANNED, error=None, settled_at=None)
            await self._scheduler.plan(planned, watcher)
        elif known.status is JobStatus.SUBMITTING:  # an intent without a verdict
            reason = "its submission was interrupted"
            error = SubmissionInDoubt(key=known.key, provider=known.provider, reason=reason)
            known = known.doubted(error, time.time())
            await self._journal.keep(known)
            watcher(known, True)
        elif known.is_final or known.status is JobStatus.UNKNOWN:
            watcher(known, True)
        else:
            await self._scheduler.plan(attrs.evolve(known, error=None), watcher)
        return known
