"""Runs of a command on the folder of a batch: a client for each gateway, and its share of the jobs. Sends nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import attrs

from pika_async._planning.media_routes import local_media
from pika_async._runtime.images import check_request_blocking
from pika_async.cli.batch import is_unfinished
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.callback_options import CallbackListener
from pika_async.cli.exits import UsageError
from pika_async.cli.folder_indices import folder_indices
from pika_async.cli.options import CredentialOptions, ProviderOptions, create_client
from pika_async.cli.preview import Offer
from pika_async.cli.requests import InputRequest
from pika_async.cli.retries import Repetitions, is_archived
from pika_async.client import PikaClient
from pika_async.errors import InvalidRequest
from pika_async.jobs import Job, JobStatus
from pika_async.models import evolve_unchecked
from pika_async.providers import find_provider

__all__ = ["ProviderRun", "offers_of", "resume_runs", "retry_runs"]


@attrs.frozen
class ProviderRun:
    """A client and its share of the command.

    :param load_inputs: returns the requests; called once the client is open.
    :param again: keys of jobs to pay for once more, each as often as it occurs; default none.
    :param new_seed: whether these jobs get another seed.
    """

    client: PikaClient
    load_inputs: Callable[[], Awaitable[Sequence[InputRequest]]]
    again: Sequence[str] = ()
    new_seed: bool = False


def resume_runs(
    folder: BatchFolder, credentials: CredentialOptions, options: BatchOptions, listener: CallbackListener | None = None
) -> tuple[list[ProviderRun], list[Job]]:
    """Return a run for each provider and base URL with unfinished jobs in `folder`, and the jobs of all others.

    :param credentials: key file and proxy for every client.
    :param options: options for every client.
    :param listener: receives callbacks where the provider sends them; default None.
    :raises ConfigurationError: names the option that cannot work, or the missing key.
    :raises UsageError: if one key would be sent to several providers, or an image that must be sent is missing.
    """
    jobs = _current_jobs(folder)
    unfinished = {
        (job.provider, job.base_url)
        for job in jobs
        if is_unfinished(job, download=options.download) or job.status is JobStatus.SUBMITTING
    }
    by_gateway: dict[tuple[str, str], list[InputRequest]] = {}
    done = []
    for job in jobs:
        if (job.provider, job.base_url) not in unfinished or job.status is JobStatus.CANCELED:
            done.append(job)
            continue
        if job.status is JobStatus.PLANNED:
            _check_images(job, credentials)
        input_request = InputRequest(evolve_unchecked(job.request, key=job.key), job.index, "journal.db")
        by_gateway.setdefault((job.provider, job.base_url), []).append(input_request)
    return _runs_of(by_gateway, folder, credentials, options, listener), done


def _current_jobs(folder: BatchFolder) -> list[Job]:
    """Return the jobs of `folder` by their order in it, without those that are only history."""
    jobs = list(folder.journal.all())
    indices = folder_indices(jobs)
    jobs = [attrs.evolve(job, index=indices[job.key]) for job in jobs]
    return [job for job in jobs if not (is_archived(job) and job.is_final and job.status is not JobStatus.SUCCEEDED)]


def retry_runs(
    folder: BatchFolder,
    credentials: CredentialOptions,
    options: BatchOptions,
    listener: CallbackListener | None,
    chosen: Repetitions,
    *,
    new_seed: bool = False,
) -> tuple[list[ProviderRun], list[Job]]:
    """Return a run for each provider and base URL of `chosen`, which pays for them again, and all other jobs.

    :param new_seed: whether each job that is paid for again gets another seed.
    :raises ConfigurationError: names the option that cannot work, or the missing key.
    :raises UsageError: if one key would be sent to several providers, or an image that must be sent is missing.
    """
    by_gateway: dict[tuple[str, str], list[InputRequest]] = {}
    again = {job.key: job for job in chosen.again}
    current = _current_jobs(folder)
    indices = {job.key: job.index for job in current}
    for job in (*chosen.again, *chosen.begun):
        if job.key in again or job.status is JobStatus.PLANNED:
            _check_images(job, credentials)
        input_request = InputRequest(
            evolve_unchecked(job.request, key=job.key), indices.get(job.key, job.index), "journal.db"
        )
        by_gateway.setdefault((job.provider, job.base_url), []).append(input_request)
    runs = _runs_of(by_gateway, folder, credentials, options, listener)
    runs = [
        attrs.evolve(
            run,
            again=[one.key for one in inputs if one.key in again],
            load_inputs=partial(_unchanged, inputs, again, folder),
            new_seed=new_seed,
        )
        for run, inputs in zip(runs, by_gateway.values(), strict=True)
    ]
    keys = {one.key for inputs in by_gateway.values() for one in inputs}
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


async def offers_of(runs: Sequence[ProviderRun]) -> list[Offer]:
    """Return the estimate of each run, for a preview; the clients need not be open."""
    offers: list[Offer] = []
    for run in runs:
        inputs = await run.load_inputs()
        estimated = await run.client.estimate([one.request for one in inputs], again=run.again)
        estimated = estimated.after(sum(offer.estimate.new_charges for offer in offers))
        offers.append(Offer(client=run.client, estimate=estimated, places=[f"job {one.key}" for one in inputs]))
    return offers


def _runs_of(
    by_gateway: Mapping[tuple[str, str], Sequence[InputRequest]],
    folder: BatchFolder,
    credentials: CredentialOptions,
    options: BatchOptions,
    listener: CallbackListener | None,
) -> list[ProviderRun]:
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
        client = create_client(account, options=options, journal=folder.journal, callbacks=receiver)
        runs.append(ProviderRun(client, partial(_return, inputs)))
    return runs


async def _return(inputs: Sequence[InputRequest]) -> Sequence[InputRequest]:
    return inputs


def _check_images(job: Job, credentials: CredentialOptions) -> None:
    """Check the local images of an unsent job.

    Their paths may be relative to another working directory, and a job sent without its image is rejected for good.
    """
    try:
        if local_media(job.request):
            can_upload = credentials.uploader is not None
            check_request_blocking(find_provider(job.provider), job.request, can_upload=can_upload)
    except InvalidRequest as error:
        way_out = "resume from the directory where the batch ran, or run the batch without that row; nothing was sent"
        raise UsageError(f"job {job.key}: {error.message}; {way_out}") from None
