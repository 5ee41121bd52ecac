"""Runs of a command on the folder of a batch: a client and its share of the jobs. Sends nothing.

With a file of accounts there is one client; else one for each provider and base URL.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import attrs

from pika_async._planning.media_routes import local_media
from pika_async._runtime.admission import may_be_sent
from pika_async._runtime.open_accounts import elsewhere
from pika_async.cli.accounts import account_of
from pika_async.cli.batch import is_unfinished
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.callback_options import CallbackListener
from pika_async.cli.doubts import can_be_asked_again
from pika_async.cli.exits import UsageError
from pika_async.cli.folder_indices import folder_indices
from pika_async.cli.options import CredentialOptions, ProviderOptions, create_accounts_client, create_client
from pika_async.cli.preview import Offer
from pika_async.cli.requests import InputRequest
from pika_async.cli.retries import Repetitions, is_archived
from pika_async.cli.row_checks import check_any
from pika_async.config.accounts import Account
from pika_async.engines.protocol import BatchClient
from pika_async.errors import InvalidRequest
from pika_async.jobs import Job, JobStatus
from pika_async.models import evolve_unchecked
from pika_async.providers import find_provider

__all__ = ["ProviderRun", "RunMaker", "offers_of", "resume_runs", "retry_runs"]


@attrs.frozen
class ProviderRun:
    """A client and its share of the command.

    :param load_inputs: returns the requests; called once the client is open.
    :param again: keys of jobs to pay for once more, each as often as it occurs; default none.
    :param new_seed: whether these jobs get another seed.
    """

    client: BatchClient
    load_inputs: Callable[[], Awaitable[Sequence[InputRequest]]]
    again: Sequence[str] = ()
    new_seed: bool = False

    @property
    def takes_callback(self) -> bool:
        """Whether one of the client's providers sends callbacks."""
        return any(provider.takes_callback for provider, _ in self.client.accounts.values())


@attrs.frozen(kw_only=True)
class RunMaker:
    """What the clients of a command have in common.

    :param options: options for every client.
    :param credentials: key file and proxy for every client.
    :param listener: receives callbacks where the provider sends them; default None.
    :param accounts: those of one client for all jobs; default none: a client for each provider and base URL.
    """

    folder: BatchFolder
    options: BatchOptions
    credentials: CredentialOptions
    listener: CallbackListener | None = None
    accounts: Sequence[Account] = ()

    def group_of(self, job: Job) -> tuple[str, ...] | None:
        """Return what the jobs of one client have in common; None if no client has the account of the job."""
        if not self.accounts:
            return job.provider, job.base_url
        is_here = may_be_sent(job) or account_of(self.accounts, job) is not None
        return () if is_here else None


def resume_runs(maker: RunMaker) -> tuple[list[ProviderRun], list[Job]]:
    """Return a run for each client with unfinished jobs in the folder, and the jobs of all others.

    A job whose account no client has is among the others, with `AcceptedElsewhere` as its error if it is unfinished.

    :raises ConfigurationError: names the option that cannot work, or the missing key.
    :raises UsageError: if one key would be sent to several providers, or an image that must be sent is missing.
    """
    jobs = _current_jobs(maker.folder)
    open_keys = {
        job.key
        for job in jobs
        if is_unfinished(job, download=maker.options.download)
        or job.status is JobStatus.SUBMITTING
        or can_be_asked_again(maker.folder, job)
    }
    unfinished = {maker.group_of(job) for job in jobs if job.key in open_keys}
    by_client: dict[tuple[str, ...], list[InputRequest]] = {}
    done = []
    for job in jobs:
        group = maker.group_of(job)
        if group is None and job.key in open_keys:
            done.append(attrs.evolve(job, error=elsewhere(job)))
        elif group is None or group not in unfinished or job.status is JobStatus.CANCELED:
            done.append(job)
        else:
            if job.status is JobStatus.PLANNED:
                _check_images(job, maker)
            input_request = InputRequest(evolve_unchecked(job.request, key=job.key), job.index, "journal.db")
            by_client.setdefault(group, []).append(input_request)
    return _runs_of(by_client, maker), done


def _current_jobs(folder: BatchFolder) -> list[Job]:
    """Return the jobs of `folder` by their order in it, without those that are only history."""
    jobs = list(folder.journal.all())
    indices = folder_indices(jobs)
    jobs = [attrs.evolve(job, index=indices[job.key]) for job in jobs]
    return [job for job in jobs if not (is_archived(job) and job.is_final and job.status is not JobStatus.SUCCEEDED)]


def retry_runs(maker: RunMaker, chosen: Repetitions, *, new_seed: bool = False) -> tuple[list[ProviderRun], list[Job]]:
    """Return a run for each client of `chosen`, which pays for them again, and all other jobs.

    :param new_seed: whether each job that is paid for again gets another seed.
    :raises ConfigurationError: names the option that cannot work, or the missing key.
    :raises UsageError: if one key would be sent to several providers, or an image that must be sent is missing.
    """
    folder = maker.folder
    by_client: dict[tuple[str, ...], list[InputRequest]] = {}
    again = {job.key: job for job in chosen.again}
    current = _current_jobs(folder)
    indices = {job.key: job.index for job in current}
    for job in (*chosen.again, *chosen.begun):
        # Any account can take a job that is paid for again.
        group = () if maker.accounts and job.key in again else maker.group_of(job)
        if group is None:
            continue
        if job.key in again or job.status is JobStatus.PLANNED:
            _check_images(job, maker)
        input_request = InputRequest(
            evolve_unchecked(job.request, key=job.key), indices.get(job.key, job.index), "journal.db"
        )
        by_client.setdefault(group, []).append(input_request)
    runs = _runs_of(by_client, maker)
    runs = [
        attrs.evolve(
            run,
            again=[one.key for one in inputs if one.key in again],
            load_inputs=partial(_unchanged, inputs, again, folder),
            new_seed=new_seed,
        )
        for run, inputs in zip(runs, by_client.values(), strict=True)
    ]
    keys = {one.key for inputs in by_client.values() for one in inputs}
    return runs, [job for job in current if job.key not in keys]


async def _unchanged(
    inputs: Sequence[InputRequest], chosen: Mapping[str, Job], folder: BatchFolder
) -> Sequence[InputRequest]:
    """Return `inputs`, if no other command has changed the chosen jobs since they were shown to a person."""
    for one in inputs:
        job = folder.journal.get(one.key)
        if one.key in chosen and job is not None and job.status is not chosen[one.key].status:
            reason = f"is {job.status.label} now: another command ran here meanwhile; run this one again"
            raise UsageError(f"retry: {one.key} {reason}; nothing was sent")
    return inputs


async def offers_of(runs: Sequence[ProviderRun], *, quotes: bool) -> list[Offer]:
    """Return the estimate of each run, for a preview; the clients need not be open.

    :param quotes: whether to ask the providers for their prices.
    """
    offers: list[Offer] = []
    for run in runs:
        inputs = await run.load_inputs()
        estimated = await run.client.estimate([one.request for one in inputs], again=run.again, quotes=quotes)
        estimated = estimated.after(sum(offer.estimate.new_charges for offer in offers))
        offers.append(Offer(client=run.client, estimate=estimated, places=[f"job {one.key}" for one in inputs]))
    return offers


def _runs_of(by_client: Mapping[tuple[str, ...], Sequence[InputRequest]], maker: RunMaker) -> list[ProviderRun]:
    credentials, listener = maker.credentials, maker.listener
    if maker.accounts:
        receiver = None if listener is None else listener.receiver
        takes_callback = any(account.provider.takes_callback for account in maker.accounts)
        return [
            ProviderRun(
                create_accounts_client(
                    maker.accounts, credentials, options=maker.options, journal=maker.folder.journal,
                    callbacks=receiver if takes_callback else None,
                ),
                partial(_return, inputs),
            )
            for inputs in by_client.values()
        ]  # fmt: skip
    by_gateway = {(provider, url): inputs for (provider, url), inputs in by_client.items()}
    if credentials.api_key_file is not None and len(providers := {provider: None for provider, _ in by_gateway}) > 1:
        variables = ", ".join(find_provider(provider).api_key_env for provider in providers)
        raise UsageError(
            f"--api-key-file: must belong to one provider, but the jobs have {len(providers)}; set {variables}"
        )
    runs = []
    for (provider, url), inputs in by_gateway.items():
        account = ProviderOptions(
            given_provider=provider, base_url=url, api_key_file=credentials.api_key_file, proxy=credentials.proxy,
            allow_results=credentials.allow_results, uploader=credentials.uploader,
            upload_lifetime=credentials.upload_lifetime,
        )  # fmt: skip
        takes_callback = find_provider(provider).takes_callback
        receiver = listener.receiver if listener is not None and takes_callback else None
        client = create_client(account, options=maker.options, journal=maker.folder.journal, callbacks=receiver)
        runs.append(ProviderRun(client, partial(_return, inputs)))
    return runs


async def _return(inputs: Sequence[InputRequest]) -> Sequence[InputRequest]:
    return inputs


def _check_images(job: Job, maker: RunMaker) -> None:
    """Check the local images of an unsent job.

    Their paths may be relative to another working directory, and a job sent without its image is rejected for good.
    """
    try:
        if local_media(job.request):
            providers = [account.provider for account in maker.accounts] or [find_provider(job.provider)]
            check_any(providers, job.request, can_upload=maker.credentials.uploader is not None)
    except InvalidRequest as error:
        way_out = "resume from the directory where the batch ran, or run the batch without that row; nothing was sent"
        raise UsageError(f"job {job.key}: {error.message}; {way_out}") from None
