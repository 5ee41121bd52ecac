"""Takes requests in: each becomes a planned job, or is found to be one that is known, so that none is paid twice."""

from __future__ import annotations

import time
from collections.abc import Sequence

import attrs

from pika_async._planning.actions import JobObserver
from pika_async._planning.keys import KeyAssigner
from pika_async._runtime.gateway import load_image
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.results import needs_download
from pika_async.errors import AcceptedElsewhere, InvalidRequest, JournalFailed, PikaError, did_you_mean
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest, RequestFields
from pika_async.providers._provider import Provider

__all__ = ["BatchAdmission", "JobAdmission", "request_of"]


def request_of(request: GenerationRequest | str, fields: RequestFields) -> GenerationRequest:
    """Return a request, or a prompt with fields, as a request; fields replace those of a request.

    :raises InvalidRequest: if `request` is neither, or a field has an unknown name or an invalid value.
    """
    names = [field.name for field in attrs.fields(GenerationRequest)]
    for name, value in fields.items():
        if name not in names:
            reason = f"must be given by the name of a field of GenerationRequest{did_you_mean(name, names)}"
            raise InvalidRequest(field=name, value=value, reason=reason)
    if isinstance(request, str):
        if "prompt" in fields:
            raise InvalidRequest(field="prompt", value=request, reason="must be given once; leave prompt=... out")
        return GenerationRequest(request, **fields)
    if not isinstance(request, GenerationRequest):
        raise InvalidRequest(field="request", value=request, reason="must be a GenerationRequest or a prompt (text)")
    return attrs.evolve(request, **fields) if fields else request


class JobAdmission:
    """The way in, for one provider at one address."""

    def __init__(self, provider: Provider, base_url: str, table: JobTable) -> None:
        self._provider = provider
        self._base_url = base_url
        self._table = table
        self._journal = table.journal

    async def admit(self, asked: GenerationRequest, key: str, index: int | None, observer: JobObserver) -> Job:
        """Plan a request, or find the job that it is already; `watcher` hears of the job from now on.

        `index` is its position in a batch, None for a request that came alone. In a batch, a request that the provider
        cannot do is that job's rejection.

        :raises InvalidRequest: if it came alone and cannot be sent, or if its key belongs to another content.
        :raises JournalFailed: if it could not be kept; it is not sent.
        """
        known = self._same(key, asked)
        if known is not None and known.status is not JobStatus.PLANNED:
            return await self.adopt(known, observer)
        try:
            await self._check(asked)
        except InvalidRequest as error:
            if index is None:
                raise
            job = (known or self.job(asked, key, index)).rejected(error, time.time())
            await self._journal.save(job)
            observer(job, True)
            return job
        known = self._same(key, asked)
        if known is not None:  # perhaps it came in while the files were looked at
            return await self.adopt(known, observer)
        job = self.job(asked, key, index)
        await self._table.add(job, observer)
        return job

    async def _check(self, asked: GenerationRequest) -> None:
        try:
            self._provider.check(asked)
            await load_image(self._provider, asked)
        except InvalidRequest:
            raise
        except Exception as error:  # a third party's provider may fail as it likes
            reason = f"could not be checked: {error!r}"
            raise InvalidRequest(field="request", value=asked.prompt, reason=reason) from error

    def known(self, key: str) -> Job | None:
        """The job of that key as it now stands, at rest or not."""
        active = self._table.jobs.get(key)
        return self._journal.get(key) if active is None else active.job

    def job(self, request: GenerationRequest, key: str, index: int | None) -> Job:
        """A new job of this client."""
        return Job(key=key, index=index or 0, request=request, provider=self._provider.name, base_url=self._base_url)

    def _same(self, key: str, asked: GenerationRequest) -> Job | None:
        """The job of that key, which asks for the same.

        :raises InvalidRequest: if it asks for something else.
        """
        known = self.known(key)
        if known is not None and known.request.fingerprint() != asked.fingerprint():
            raise InvalidRequest(
                field="key", value=known.key, reason="belongs to a job with another content; give this one its own key"
            )
        return known

    async def adopt(self, known: Job, observer: JobObserver) -> Job:
        """Go on with a job that is known; `watcher` hears of it from now on."""
        if self._table.subscribe(known.key, observer):
            active = self._table.jobs.get(known.key)
            if active is not None and active.job.task_id is not None:
                observer(active.job, False)
            return known
        job = self._continued(known)
        if job.is_final or job.status is JobStatus.UNKNOWN or isinstance(job.error, AcceptedElsewhere):
            observer(job, True)
        else:
            await self._table.add(job, observer, saved=job == attrs.evolve(known, error=None))
        return job

    def _continued(self, known: Job) -> Job:
        """How a job that is at rest goes on with this client."""
        here = known.provider == self._provider.name and known.base_url == self._base_url
        withdrawn = known.status is JobStatus.CANCELED and not known.may_be_charged
        if known.status is JobStatus.PLANNED or withdrawn:  # nothing was accepted anywhere
            return attrs.evolve(
                known, status=JobStatus.PLANNED, error=None, settled_at=None, provider=self._provider.name,
                base_url=self._base_url,
            )  # fmt: skip
        if needs_download(known) and here:
            return attrs.evolve(known, file=None, error=None)
        if (known.is_final and not needs_download(known)) or known.status is JobStatus.UNKNOWN:
            return known
        if here:
            return attrs.evolve(known, error=None)
        error = AcceptedElsewhere(
            key=known.key, provider=known.provider, task_id=known.task_id, base_url=known.base_url
        )
        return attrs.evolve(known, error=error)


class BatchAdmission:
    """The way in for one batch: its requests by position."""

    def __init__(self, admission: JobAdmission, table: JobTable) -> None:
        self._admission = admission
        self._table = table
        self._keys = KeyAssigner(table.journal.keys(), self._fingerprint_of)

    def _fingerprint_of(self, key: str) -> str | None:
        job = self._admission.known(key)
        return None if job is None else job.request.fingerprint()

    async def enroll(self, requests: Sequence[GenerationRequest | str]) -> Sequence[GenerationRequest | str]:
        """Keep every new one of `requests` as planned before any is sent, so that a later process can go on with them.

        Gives them back with their keys; what is no request is left for `admit` to refuse. If they cannot be kept,
        nothing is sent.
        """
        named: list[GenerationRequest | str] = []
        planned: dict[str, Job] = {}
        for request in requests:
            if isinstance(request, GenerationRequest) and request.key is not None:
                self._keys.take(request.key)
        for index, request in enumerate(requests):
            try:
                asked = request_of(request, {})
            except InvalidRequest:
                named.append(request)
                continue
            key = self._keys.of(asked, index)
            asked = asked if asked.key == key else attrs.evolve(asked, key=key)
            named.append(asked)
            if self._admission.known(key) is None:
                planned.setdefault(key, self._admission.job(asked, key, index))
        try:
            await self._table.journal.save(*planned.values())
        except JournalFailed as error:
            self._table.intake.stop_submitting(error)
        return named

    async def admit(self, request: GenerationRequest | str, index: int, observer: JobObserver) -> Job:
        """See `Admission.admit`. What cannot be kept is not sent, and comes to rest as it is."""
        asked = request_of(request, {})
        key = self._keys.of(asked, index)
        try:
            return await self._admission.admit(asked, key, index, observer)
        except JournalFailed as error:
            self._table.intake.stop_submitting(error)
            job = self._refused(asked, key, index, error)
            observer(job, True)
            return job

    def refused(self, request: GenerationRequest | str, index: int, error: PikaError) -> Job:
        """The job of a request that is not taken in any more; a known one is what it is."""
        asked = request_of(request, {})
        return self._refused(asked, self._keys.of(asked, index), index, error)

    def _refused(self, asked: GenerationRequest, key: str, index: int, error: PikaError) -> Job:
        job = self._admission.known(key) or self._admission.job(asked, key, index)
        return attrs.evolve(job, error=error) if job.status is JobStatus.PLANNED else job
