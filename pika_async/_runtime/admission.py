"""Admission of requests: each becomes a new planned job, or is matched with an existing one and not paid again.

Sends nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from pika_async._planning.actions import JobObserver
from pika_async._planning.keys import KeyAssigner
from pika_async._planning.media_routes import local_media
from pika_async._planning.repetition import latest_archived
from pika_async._runtime.job_files import needs_download
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.open_accounts import elsewhere
from pika_async._runtime.pacing import Pace, paced
from pika_async._runtime.repeater import Repeater
from pika_async._runtime.request_checks import capable_accounts, request_of
from pika_async._runtime.request_source import Source
from pika_async.config.client import AccountConfig, ClientConfig
from pika_async.errors import (
    AcceptedElsewhere,
    InvalidRequest,
    JobCanceled,
    JournalFailed,
    PikaError,
    SubmissionRejected,
)
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest, evolve_unchecked

__all__ = ["OTHER_CONTENT", "BatchAdmission", "JobAdmission", "may_be_sent"]

#: New jobs that are saved together before the first is sent.
ENROLLED_AT_ONCE: Final = 256

#: Reason for which a request is refused whose key a job of other content has.
OTHER_CONTENT: Final = "belongs to a job with another content; give this one its own key"

#: A request of which only the prompt is set.
_TEMPLATE: Final = GenerationRequest("a prompt")


class JobAdmission:
    """Admission of single requests of one client.

    :param config: its accounts check requests before they are planned.
    :param table: gets every admitted job; existing jobs are looked up in it and in its journal.
    :param repeater: asks again for the answer to a submission in doubt.
    """

    def __init__(self, config: ClientConfig, table: JobTable, repeater: Repeater) -> None:
        self._repeater = repeater
        self._config = config
        self._accounts = {account.name: account for account in config.accounts}
        self._table = table
        self._journal = table.journal
        #: One tuple for all jobs with the same options.
        self._options: dict[tuple[str, ...], tuple[str, ...]] = {}
        if len(config.accounts) == 1:
            self._options[()] = (config.accounts[0].name,)

    async def admit(self, request: GenerationRequest, key: str, index: int | None, observer: JobObserver) -> Job:
        """Plan *request*, or return the job that exists for *key*.

        In a batch, a request that the provider cannot fulfil becomes a rejected job instead of an error.

        :param request: a validated request.
        :param key: the key of its job.
        :param index: the position in a batch, from 0; None for a request outside a batch.
        :param observer: called with every later change of the job.
        :raises InvalidRequest: outside a batch, if the request cannot be sent; always, if a job with other content has
            the same key.
        :raises JournalFailed: if the job could not be saved; it is not sent.
        """
        existing = self._existing(key, request)
        if existing is not None and self._may_be_repeated(existing):
            existing = await self._repeater.settle(existing)
        if existing is not None and not (existing.status is JobStatus.PLANNED or _was_refused_here(existing)):
            return await self.adopt(existing, observer)
        try:
            options = await capable_accounts(self._config, request)
        except InvalidRequest as error:
            if index is None:
                raise
            planned = self.new_job(request, key, index) if existing is None else self._continued(existing, ())
            job = planned.rejected(error, time.time())
            await self._journal.save(job)
            observer(job, True)
            return job
        if local_media(request):  # checked in a thread; another task may have added the job meanwhile
            existing = self._existing(key, request)
        options = self._options.setdefault(options, options)
        if existing is not None:
            return await self.adopt(existing, observer, options)
        job = self.new_job(request, key, index, options)
        await self._table.add(job, observer, options)
        return job

    def _may_be_repeated(self, existing: Job) -> bool:
        """Whether the submission of a job in doubt may be sent again now: not in a pause, nor to a stopped account."""
        if existing.status is not JobStatus.UNKNOWN or existing.key in self._table.jobs:
            return False
        planner, account = self._table.planner, self._config.account_of(existing)
        return account is not None and not planner.is_paused and not planner.has_stopped(account.name)

    async def cancel(self, request: GenerationRequest, key: str, index: int, observer: JobObserver) -> Job | None:
        """Cancel *request*, and return its job; None if there is a job that is active or that was sent.

        :raises InvalidRequest: if a job with other content has the same key.
        :raises JournalFailed: if the job could not be saved.
        """
        existing = self._existing(key, request)
        if key in self._table.jobs or not (existing is None or may_be_sent(existing)):
            return None
        job = existing or self.new_job(request, key, index)
        if job.status is JobStatus.PLANNED:
            job = job.canceled(JobCanceled(key=key, provider=job.provider), time.time())
            await self._journal.save(job)
        observer(job, True)
        return job

    def current_job(self, key: str) -> Job | None:
        """Return the latest state of the job of *key*, active or finished; None if there is no such job."""
        active = self._table.jobs.get(key)
        return self._journal.get(key) if active is None else active.job

    def has_job(self, key: str) -> bool:
        """Whether there is a job of *key*, active or finished; reads no job."""
        return key in self._table.jobs or key in self._journal

    def new_job(self, request: GenerationRequest, key: str, index: int | None, options: tuple[str, ...] = ()) -> Job:
        """Return a planned job for *request*, in the place of an archived job of *key*. It is not saved anywhere.

        :param options: the accounts that can take it; default: not known yet.
        """
        name, account = self._place(options)
        job = Job(
            key=key, index=index or 0, request=request, provider=account.provider.name, base_url=account.base_url,
            account=name,
        )  # fmt: skip
        earlier = latest_archived(self._journal, key)
        if earlier is None:
            return job
        is_same = earlier.request.fingerprint() == request.fingerprint()
        return attrs.evolve(job, index=earlier.index, repeats=earlier.repeats if is_same else None)

    def _place(self, options: tuple[str, ...]) -> tuple[str | None, AccountConfig]:
        """Return the account of a planned job: its name, None where it is chosen later, and an account that may be."""
        options = options or tuple(self._accounts)
        return (options[0] if len(options) == 1 else None), self._accounts[options[0]]

    def _existing(self, key: str, request: GenerationRequest) -> Job | None:
        """Return the job of *key*, which must have the content of *request*; None if there is no such job.

        :raises InvalidRequest: if its content differs.
        """
        existing = self.current_job(key)
        if existing is not None and not existing.answers(request.fingerprint()):
            raise InvalidRequest(
                field="key",
                value=existing.key,
                reason=OTHER_CONTENT,
            )
        return existing

    async def adopt(self, existing: Job, observer: JobObserver, options: tuple[str, ...] = ()) -> Job:
        """Continue an existing job and call *observer* with every later change of it.

        :param options: the accounts that can take it, if it is planned.
        """
        if self._table.subscribe(existing.key, observer):
            active = self._table.jobs.get(existing.key)
            if active is not None and active.job.task_id is not None:
                observer(active.job, False)
            return existing
        job = self._continued(existing, options)
        if job.is_final or job.status is JobStatus.UNKNOWN or isinstance(job.error, AcceptedElsewhere):
            observer(job, True)
        else:
            saved = job == attrs.evolve(existing, error=None)
            await self._table.add(job, observer, options, saved=saved, error=existing.error)
        return job

    def _continued(self, existing: Job, options: tuple[str, ...]) -> Job:
        """Return the state in which this client continues a finished job."""
        here = self._config.account_of(existing) is not None
        if may_be_sent(existing):
            if here and (existing.account in options or not options):
                return attrs.evolve(existing, status=JobStatus.PLANNED, error=None, settled_at=None)
            name, account = self._place(options)
            return attrs.evolve(
                existing, status=JobStatus.PLANNED, error=None, settled_at=None, provider=account.provider.name,
                base_url=account.base_url, account=name,
            )  # fmt: skip
        if needs_download(existing) and here:
            return attrs.evolve(existing, file=None, object_url=None, error=None)
        if (existing.is_final and not needs_download(existing)) or existing.status is JobStatus.UNKNOWN:
            return existing
        if here:
            return attrs.evolve(existing, error=None)
        return attrs.evolve(existing, error=elsewhere(existing))


def may_be_sent(job: Job) -> bool:
    """Return whether a request for an existing job sends it: no gateway has accepted or refused it."""
    withdrawn = job.status is JobStatus.CANCELED and not job.may_be_charged
    return job.status is JobStatus.PLANNED or withdrawn or _was_refused_here(job)


def _was_refused_here(job: Job) -> bool:
    """Return whether a job was refused on this machine, by what may have been mended since: a file that was missing."""
    match job:
        case Job(status=JobStatus.REJECTED, error=InvalidRequest() | SubmissionRejected(http_status=None)):
            return not job.may_be_charged
        case _:
            return False


class BatchAdmission:
    """Admission of the requests of one batch, by position.

    :param admission: plans each request.
    :param table: stops submitting when a job could not be saved.
    """

    def __init__(self, admission: JobAdmission, table: JobTable) -> None:
        self._admission = admission
        self._table = table
        self._keys = KeyAssigner(self._answers)
        self._keys_loaded = False
        self._loading = asyncio.Lock()
        self._is_canceled = False

    def cancel_rest(self) -> None:
        """Cancel every later request that would be sent, instead of planning it."""
        self._is_canceled = True

    def _answers(self, key: str, content: str) -> bool:
        job = self._admission.current_job(key)
        return job is not None and job.answers(content)

    async def _key_for(self, request: GenerationRequest, index: int) -> str:
        if request.key is None and not self._keys_loaded:
            async with self._loading:  # requests that are admitted side by side get their keys in their order
                if not self._keys_loaded:
                    async for key in paced(self._table.journal.keys()):
                        self._keys.add_existing(key)
                    self._keys_loaded = True
        return self._keys.key_for(request, index)

    async def enroll(self, requests: Sequence[GenerationRequest | str]) -> Source:
        """Save every new request as a planned job before any of them is sent, so that a later process can resume all.

        Nothing is sent if they cannot be saved.

        :param requests: the whole batch.
        :return: the batch with a key in every request. Items that are not requests are left for `admit` to refuse.
        """
        async for item in paced(requests):
            if isinstance(item, GenerationRequest) and item.key is not None:
                self._keys.reserve(item.key)
        items: deque[GenerationRequest | str] = deque()
        keys: deque[str | None] = deque()
        can_save = True
        for start in range(0, len(requests), ENROLLED_AT_ONCE):
            given = requests[start : start + ENROLLED_AT_ONCE]
            page = await self._with_keys(given, start)
            items += given
            keys += [item.key if isinstance(item, GenerationRequest) else None for item in page]
            if can_save:
                can_save = await self._save_new(page, start)
        return _pop_all(items, keys)

    async def _with_keys(self, items: Sequence[GenerationRequest | str], start: int) -> list[GenerationRequest | str]:
        """Return *items*, the first of which has the position *start*, with a key in every request."""
        pace = Pace()
        keyed: list[GenerationRequest | str] = []
        for index, item in enumerate(items, start):
            await pace.step()
            try:
                request = request_of(item, {})
            except InvalidRequest:
                keyed.append(item)
                continue
            key = await self._key_for(request, index)
            keyed.append(_with_key(request, key))
        return keyed

    async def _save_new(self, page: Sequence[GenerationRequest | str], start: int) -> bool:
        """Save a planned job for each request without one; return False, and stop submitting, if that failed.

        Nothing else runs between the check and the call of `save`: another caller may add a job of the same key.
        """
        planned: dict[str, Job] = {}
        for index, item in enumerate(page, start):
            key = item.key if isinstance(item, GenerationRequest) else None
            if isinstance(item, GenerationRequest) and key is not None and not self._admission.has_job(key):
                planned.setdefault(key, self._admission.new_job(item, key, index))
        try:
            if planned:
                await self._table.journal.save(*planned.values())
        except JournalFailed as error:
            self._table.intake.stop_submitting(error)
            return False
        return True

    async def admit(self, item: GenerationRequest | str, index: int, observer: JobObserver) -> Job:
        """Admit the item at *index*, see `JobAdmission.admit`. A job that could not be saved is finished unsent."""
        request = request_of(item, {})
        key = await self._key_for(request, index)
        try:
            canceled = await self._admission.cancel(request, key, index, observer) if self._is_canceled else None
            return canceled or await self._admission.admit(request, key, index, observer)
        except JournalFailed as error:
            self._table.intake.stop_submitting(error)
            job = self._unsent(request, key, index, error)
            observer(job, True)
            return job

    async def unsent_job(self, item: GenerationRequest | str, index: int, error: PikaError) -> Job:
        """Return the planned job of an item that was not admitted, with *error*, or the job that exists for it."""
        request = request_of(item, {})
        return self._unsent(request, await self._key_for(request, index), index, error)

    def _unsent(self, request: GenerationRequest, key: str, index: int, error: PikaError) -> Job:
        job = self._admission.current_job(key) or self._admission.new_job(request, key, index)
        return attrs.evolve(job, error=error) if job.status is JobStatus.PLANNED else job


def _with_key(item: GenerationRequest | str, key: str) -> GenerationRequest:
    """Return a request, or a prompt that was validated before, as a request with *key*."""
    if isinstance(item, str):
        return evolve_unchecked(_TEMPLATE, prompt=item, key=key)
    return item if item.key == key else evolve_unchecked(item, key=key)


async def _pop_all(items: deque[GenerationRequest | str], keys: deque[str | None]) -> Source:
    """Yield *items* as requests with *keys*, each made when it is asked for; keep none that was yielded."""
    while items:
        item, key = items.popleft(), keys.popleft()
        yield item if key is None else _with_key(item, key)
