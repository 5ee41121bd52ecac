"""`PikaClient`: one account or several, for single videos, for batches and for services."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from functools import partial
from typing import Any, Literal, Self, TypeVar, Unpack

import aiohttp

from pika_async._http.callbacks import CallbackReceiver
from pika_async._http.transport import Transport
from pika_async._journal.protocol import Journal
from pika_async._planning.estimate import Estimate
from pika_async._planning.limits import Limits
from pika_async._runtime.batch_report import collect_report
from pika_async._runtime.control import SubmissionControl
from pika_async._runtime.event_stream import Hook
from pika_async._runtime.job_files import find_job, key_of
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.journal_views import JobViews, unfinished_requests
from pika_async._runtime.lifetime import ClientLifetime
from pika_async._runtime.request_checks import request_of
from pika_async._runtime.request_source import Requests
from pika_async._runtime.resolution import JobResolution
from pika_async._runtime.results import ResultCalls
from pika_async._runtime.session import Session, build_stats
from pika_async._runtime.single_job import submit_job, wait_finished
from pika_async._runtime.stats import Stats
from pika_async._runtime.tasks import require_loop
from pika_async.config.accounts import Account, Routing
from pika_async.config.client import ClientConfig
from pika_async.config.journals import create_journal
from pika_async.errors import ConfigurationError
from pika_async.jobs import BatchReport, Job, JobEvent, JobStatus
from pika_async.models import GenerationRequest, RequestFields, Snapshot, Video
from pika_async.models.media import Uploader
from pika_async.polling.policy import PollingPolicy
from pika_async.providers import Provider, ProviderName
from pika_async.report.client_board import BoardView

__all__ = ["PikaClient"]

H = TypeVar("H", bound=Hook)


class PikaClient(JobViews, SubmissionControl, JobResolution, ResultCalls, BoardView):
    """A client of one account, or of several accounts of any providers.

    Open it with `async with`, or with `open()` and `aclose()`. It may be opened again later, also in another event
    loop, and keeps its jobs. While it is open, every task of its event loop may use it.

    :param provider: a `Provider`, or a name or title in any case: `cometapi`, `yescale`, `gptge`, `native`...; or
        several `Account`s, to one of which each job is sent. They have their own keys, base URLs and prices.
    :param api_key: the key; default: from `api_key_file`, else from the provider's environment variable.
    :param api_key_file: a text file that holds the key; default: none.
    :param base_url: an http or https URL; default: the provider's own (`native` has none).
    :param journal: the file that remembers jobs, created with mode 0600 if missing; default: in memory only.
    :param polling: the polling policy; default: `AdaptivePolling()`.
    :param limits: bounds of concurrency, rates, charges and patience; default: `Limits()`.
    :param callbacks: a `CallbackReceiver`, for a provider that sends callbacks; default: none.
    :param deadline: seconds from acceptance, or from when a job is resumed, to settling, above 0; default: 1800.
    :param ambiguous: "lenient" counts a bare 503 as a refusal and sends again, which most gateways mean by it but none
        documents; "strict" leaves the job in doubt; default: "strict".
    :param session: your own `aiohttp.ClientSession`, which stays open; default: the client's own.
    :param proxy: `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT` of a proxy, for calls and downloads. Default:
        `HTTPS_PROXY` or `HTTP_PROXY`, else `ALL_PROXY`, of the environment, without the hosts in `NO_PROXY`.
    :param allow_results: "http" downloads also from http addresses, "tunnel" also from those that a TUN proxy (Clash,
        sing-box) on this machine resolves names to; default: neither.
    :param transport: replaces the network, for tests; default: none.
    :param uploader: an async function of (bytes, name, content type) that returns an http(s) URL; called once for each
        local file that does not fit into a request. Default: none; such a file is refused before it costs.
    :param upload_lifetime: seconds for which the URL of an uploaded file is used again, above 0; default: 86,400.
    :param price: the price of one charge, in a unit of your own, above 0, or a table as in `Account`; default: unknown.
    :param budget: money for all charges of the journal, those in doubt included, above 0; default: no limit. It is
        reserved before a job is sent; every account needs its price.
    :param routing: how an account is chosen for a job that several can take and have room for; default: `Routing()`.
    :raises ConfigurationError: names the argument that cannot work and the way out.
    """

    def __init__(
        self,
        provider: ProviderName | str | Provider | Iterable[Account],
        *,
        api_key: str | None = None,
        api_key_file: str | os.PathLike[str] | None = None,
        base_url: str | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
        polling: PollingPolicy | None = None,
        limits: Limits | None = None,
        callbacks: CallbackReceiver | None = None,
        deadline: float | None = None,
        ambiguous: Literal["strict", "lenient"] = "strict",
        session: aiohttp.ClientSession | None = None,
        allow_results: Collection[Literal["http", "tunnel"]] = (),
        proxy: str | None = None,
        transport: Transport | None = None,
        uploader: Uploader | None = None,
        upload_lifetime: float | None = None,
        price: float | Sequence[Mapping[str, Any]] | None = None,
        budget: float | None = None,
        routing: Routing | None = None,
    ) -> None:
        self._config = ClientConfig.create(
            provider, api_key=api_key, api_key_file=api_key_file, base_url=base_url, polling=polling, limits=limits,
            callbacks=callbacks, deadline=deadline, ambiguous=ambiguous, session=session, allow_results=allow_results,
            proxy=proxy, transport=transport, uploader=uploader, upload_lifetime=upload_lifetime, price=price,
            budget=budget, routing=routing, new_journal=partial(create_journal, journal),
        )  # fmt: skip
        self._journal = self._config.journal
        #: The provider and the base URL of the first account.
        self.provider = self._config.accounts[0].provider
        self.base_url = self._config.accounts[0].base_url
        #: The provider and the base URL of each account, by its name, and the choice between them.
        self.accounts = {each.name: (each.provider, each.base_url) for each in self._config.accounts}
        self.routing = self._config.routing
        self._hooks: list[Hook] = []
        self._lifetime = ClientLifetime[Session]()

    def __repr__(self) -> str:
        places = ", ".join(f"{account.name} at {account.base_url}" for account in self._config.accounts)
        return f"<PikaClient {places}>"

    # --- opening and closing ----------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Open the client, as `async with` does; for notebooks. Return the client.

        :raises JournalInUse: while another client has the journal open.
        :raises JournalUnusable: if the file is not a journal, is damaged, or is from a newer version.
        :raises JournalFailed: if the journal cannot be written.
        :raises ConfigurationError: if the given `aiohttp.ClientSession` cannot be used, or the callback server cannot
            listen.
        :raises RuntimeError: if the client is open already; `WrongEventLoop`: in no event loop of asyncio.
        """
        await self._lifetime.open(lambda load: Session.open(self._config, hooks=self._hooks, load_history=load))
        return self

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self, drain: bool | float = False) -> None:
        """Submit nothing more, wait for the responses of submissions (at most 6 s), close every connection.

        A job that was accepted and has not settled keeps its task id in `jobs()` and in the journal. Jobs that have
        settled by then are given to the hooks, which have the rest of that time, at least 1 s. `Limits(grace=...)` is
        another time. A drain ends early when `aclose` is called again or this call is cancelled.

        :param drain: seconds to wait first until every accepted job is finished, >= 0; True: until each has settled or
            reached its deadline; default: False. Meanwhile batches and waiting calls continue; queued jobs stay planned
            and get `ClientClosed` as their error at once.
        :raises ConfigurationError: if `drain` is neither a bool nor a number of seconds >= 0.
        :raises RuntimeError: from a hook or the iterable of a batch; `WrongEventLoop`: in another event loop.
        """
        await self._lifetime.close(drain)

    @property
    def _session(self) -> Session | None:
        return self._lifetime.session

    @property
    def _table(self) -> JobTable | None:
        return None if self._session is None else self._session.table

    def _require_session(self, *, accepting: bool = False) -> Session:
        return self._lifetime.require_session(accepting=accepting)

    # --- single jobs ------------------------------------------------------------------------------------------------

    async def generate(self, request: GenerationRequest | str, **fields: Unpack[RequestFields]) -> Video:
        """Submit one request and wait for its video.

        Cancellation withdraws the request if it was not sent; a job that was sent continues until the client is closed.

        :param request: a request, or a prompt.
        :param fields: fields of the request, as in `GenerationRequest`.
        :raises InvalidRequest: the request cannot be sent as it is; nothing was sent.
        :raises SubmissionRejected: the provider refused it; it is not charged.
        :raises SubmissionInDoubt: it may have been accepted; it is not sent again.
        :raises GenerationFailed: the provider settled it as failed.
        :raises DeadlineExceeded: not settled in time; the error holds the task id.
        :raises TaskNotFound: the provider denies the task; the error holds the task id.
        :raises ProviderBusy: refused with "wait" for too long; nothing was accepted.
        :raises SubmissionsStopped: the account or the address is at fault (`AccountStopped`, `ProviderUnreachable`,
            `WrongBaseUrl`, `ChargeLimitReached`); nothing was accepted, or an accepted task could not be polled.
        """
        session = self._require_session(accepting=True)
        job = await submit_job(session.table, session.admission, request_of(request, fields))
        if job.task_id is not None or job.status is JobStatus.UNKNOWN:
            job = await wait_finished(session.table, session.admission, job.key)
        if job.status is JobStatus.SUCCEEDED and job.video is not None:
            return job.video
        raise job.to_exception()

    async def submit(self, request: GenerationRequest | str, **fields: Unpack[RequestFields]) -> Job:
        """Submit one request; return its job once it is accepted and its task id is saved.

        A request whose key and content are in the journal already is not paid again. A job in doubt raises at once;
        where a callback may still bring its task id, `wait` waits for the callback.

        :param request: a request, or a prompt.
        :param fields: fields of the request, as in `GenerationRequest`.
        :raises InvalidRequest: also if its key belongs to another content already.
        :raises SubmissionRejected: and the other errors of `generate` up to acceptance.
        """
        session = self._require_session(accepting=True)
        job = await submit_job(session.table, session.admission, request_of(request, fields))
        if job.task_id is None:
            raise job.to_exception()
        return job

    async def adopt(self, task_id: str, *, key: str | None = None, account: str | None = None) -> Job:
        """Take on a task that was submitted elsewhere, by its id alone; return its job, which is polled from now on.

        Charges nothing, and does not count for `Limits.max_charges`. `wait` and `download` bring its video. A task that
        has a job already keeps that job. The prompt is not known, so the job cannot be paid for again.

        :param task_id: the provider's id of the task.
        :param key: the key of a new job; default: the task id itself, where that can be a key.
        :param account: the name of the account that has the task; default: the only one.
        :raises TaskNotFound: if the provider denies the task; nothing is saved.
        :raises InvalidRequest: if `task_id` cannot be an id, or `key` belongs to another job.
        :raises ExchangeFailed: if no usable answer came; nothing is saved, try again.
        :raises AccountStopped: if the credential was refused.
        :raises JournalFailed: if the job could not be saved.
        """
        return await self._require_session(accepting=True).adoption.adopt(task_id, key, account)

    async def wait(self, job: Job | str, *, timeout: float | None = None) -> Job:  # noqa: ASYNC109 - the contract's name
        """Wait until `job` is finished: settled or parked. A job that timed out gets a new deadline.

        :param job: a job of this client, or its key.
        :param timeout: seconds; default: no limit.
        :raises TimeoutError: after `timeout` seconds; this ends the waiting, not the job.
        :raises UnknownJob: if this client has no such job; also a `KeyError`.
        """
        session = self._require_session()
        async with asyncio.timeout(timeout):
            return await wait_finished(session.table, session.admission, key_of(job))

    async def poll(self, job: Job | str) -> Snapshot:
        """Ask the provider for the state of `job` once, now; free.

        :param job: a job with a task id, or its key.
        :raises ExchangeFailed: no usable answer came; ask again.
        :raises TaskNotFound: the provider says that the task does not exist (also right after a submission).
        :raises AccountStopped: the credential was refused.
        :raises InvalidRequest: if the job has no task id.
        :raises UnknownJob: if no job has that key.
        """
        session = self._require_session()
        found = find_job(self._journal, job)
        return await session.accounts.of(found).gateway.poller.poll_job(found)

    # --- batches ----------------------------------------------------------------------------------------------------

    async def as_settled(
        self, requests: Requests, *, download_to: str | os.PathLike[str] | None = None
    ) -> AsyncGenerator[Job, None]:
        """Yield each job when it is finished, and downloaded if `download_to` is given.

        One job's failure raises nothing: the job has it as `status` and `error`. A request whose key and content are in
        the journal already is not paid again. A request without a key gets one from its position and content.

        :param requests: an iterable or async iterable of requests or prompts, pulled only as room allows.
        :param download_to: the folder or `s3://BUCKET/PREFIX` for KEY.mp4; default: nothing is downloaded.
        :raises ConfigurationError: before anything is sent, if results cannot be stored at `download_to`.
        :raises SubmissionsStopped: after the last job, if not everything could be sent.
        :raises InvalidRequest: after the last job, if an item is not a request, or two share a key and differ.
        """
        batch, _ = await self._require_session(accepting=True).start_batch(requests, download_to)
        try:
            async with aclosing(batch.results()) as results:
                async for job in results:
                    yield job
        finally:
            await batch.aclose()

    async def run(self, requests: Requests, *, download_to: str | os.PathLike[str] | None = None) -> BatchReport:
        """Run a batch to its end. After a stop, the rest of `requests` is read and reported as planned.

        :param requests: an iterable or async iterable of requests or prompts, pulled only as room allows.
        :param download_to: the folder or `s3://BUCKET/PREFIX` for KEY.mp4; default: nothing is downloaded.
        :raises ClientClosed: if the client is closed meanwhile.
        :raises ConfigurationError: before anything is sent, if results cannot be stored at `download_to`.
        :raises InvalidRequest: after the last job, if an item is not a request, or two share a key and differ.
        """
        session = self._require_session(accepting=True)
        batch, admission = await session.start_batch(requests, download_to, keep_rest=True)
        return await collect_report(batch, admission)

    async def quote(
        self, request: GenerationRequest | str, *, account: str | None = None, **fields: Unpack[RequestFields]
    ) -> float | None:
        """Ask a provider for the price of a request, and return it in US dollars; free. None where it gives none.

        :param request: a request, or a prompt; see `fields`.
        :param account: the name of the account; default: the only one.
        :param fields: fields of the request, as in `GenerationRequest`.
        :raises InvalidRequest: if the request has a field that cannot be sent anywhere, or there is no such account.
        """
        accounts = self._require_session().accounts
        return await accounts.named(account).gateway.free.quote(request_of(request, fields))

    async def estimate(self, requests: Requests, *, again: Collection[str] = (), quotes: bool = False) -> Estimate:
        """Return what `run(requests)` would be charged now, and how long it would take. Sends and writes nothing.

        The client need not be open, and batches may run meanwhile, also of another process with the same journal.

        :param requests: an iterable or async iterable of requests or prompts; read to its end.
        :param again: keys of jobs that are to be paid for once more; see `resubmit`. Default: none.
        :param quotes: whether to ask the providers for prices, where no account was given one; free, at most 10 s. A
            client that is not open must not be opened meanwhile. Default: False, nothing is sent.
        :raises InvalidRequest: if `requests` cannot be iterated. A request that cannot be sent is in `refused`.
        """
        from pika_async._runtime.estimation import estimate  # noqa: PLC0415 - most clients estimate nothing
        from pika_async._runtime.quotes import open_quotes  # noqa: PLC0415

        accounts = None if self._session is None else self._session.accounts
        quoted = open_quotes(self._config, accounts) if quotes else nullcontext()
        return await estimate(self._config, self._table, requests, again, quoted)

    async def resume(self, *, download_to: str | os.PathLike[str] | None = None) -> BatchReport:
        """Run every job of the client's accounts that is not final; jobs in doubt stay so and are reported.

        A client of several accounts also sends jobs that were planned for an account which it does not have.

        :param download_to: the folder or `s3://BUCKET/PREFIX` for KEY.mp4, also for jobs that succeeded and whose file
            is missing; default: nothing is downloaded.
        :raises ConfigurationError: if results cannot be stored there.
        """
        session = self._require_session(accepting=True)
        requests = unfinished_requests(self._config, with_downloads=download_to is not None)
        batch, admission = await session.start_batch(requests, download_to, keep_rest=True, is_known=True)
        return await collect_report(batch, admission)

    # --- events -----------------------------------------------------------------------------------------------------

    def events(self, after: int | None = None) -> AsyncGenerator[JobEvent, None]:
        """Yield what happens to the jobs: `JobAccepted`, `JobRunning`, `JobSettled`, `JobParked`, in order.

        Events are read from the journal, so a slow consumer needs no buffer. Intermediate changes of a job may be
        coalesced; each `JobSettled` is delivered exactly once, unless a client without a journal file has forgotten the
        job before (`Limits.settled`). The generator ends after the last event of the client's closing, and when its
        waiting is cancelled (`asyncio.timeout`, `wait_for`): continue behind the last number.

        :param after: the number of an event, also one of an earlier process with the same journal; 0: all jobs in the
            journal; default: only what happens from now on.
        :raises InvalidRequest: if `after` is not a number that this journal has given.
        :raises ClientNotOpen: before the client is opened and after it is closed.
        """
        return self._require_session().events.stream(after)

    def on_settled(self, hook: H) -> H:
        """Call `hook(job)` for each job that settles from now on, also in later sessions; a decorator.

        Calls are made one at a time, in the order of settling; a slow hook delays no job, but one that blocks the event
        loop does. An exception is logged (`pika_async.event_stream`) and stops nothing.

        :param hook: a function or coroutine function of one `Job`; an awaitable result is awaited.
        :raises ConfigurationError: if `hook` cannot be called.
        :raises WrongEventLoop: in another event loop than the one in which the client is open.
        """
        if not callable(hook):
            raise ConfigurationError(setting="on_settled", reason=f"{hook!r} cannot be called; give a function")
        if self._session is not None:
            require_loop(self._session.loop)
            self._session.events.add_hook(hook)
        self._hooks.append(hook)
        return hook

    # --- views ------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return the state of this client for a health check; open or not, from any thread, without waiting."""
        return build_stats(self._config, self._session)
