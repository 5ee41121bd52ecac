"""Runner of the batches of one command, one client after the other. Saves every job, even if interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio.to_thread
import attrs

from pika_async._planning.media_routes import local_media
from pika_async._runtime.images import check_request_blocking
from pika_async._runtime.pacing import paced
from pika_async._runtime.results import needs_download
from pika_async.cli.batch import BatchOutcome, ProviderBatch, finish_gallery, is_unfinished
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.board_control import BatchControl, controlling
from pika_async.cli.callback_options import CallbackListener
from pika_async.cli.exits import UsageError, stops_account
from pika_async.cli.folder_indices import folder_indices
from pika_async.cli.forecast import Forecast
from pika_async.cli.options import CredentialOptions, ProviderOptions, create_client
from pika_async.cli.preview import Offer
from pika_async.cli.progress import ProgressDisplay
from pika_async.cli.requests import InputRequest
from pika_async.cli.results import ResultsWriter
from pika_async.cli.results_table import finish_table
from pika_async.cli.retries import Repetitions, is_archived
from pika_async.cli.signals import interruptible
from pika_async.cli.spending import Before
from pika_async.cli.terminal import Terminal
from pika_async.client import PikaClient
from pika_async.errors import InvalidRequest, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.models import evolve_unchecked
from pika_async.polling.adaptive import EXPECTED_SECONDS
from pika_async.providers import find_provider
from pika_async.report.cards import is_shown
from pika_async.report.writer import GalleryWriter

__all__ = ["BatchRunner", "ProviderRun", "offers_of", "resume_runs", "retry_runs"]

#: Seconds that the second Ctrl-C leaves the journal for its pending writes.
FLUSH_TIMEOUT_S: Final = 1.0
#: Jobs to pay for again that are named one by one; more are counted.
MAX_ANNOUNCED: Final = 10


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


@attrs.define
class BatchRunner:
    """Runner of one command in one folder; all its jobs share `results.jsonl`.

    :param quiet: write the lines of `results.jsonl` to standard output and show no progress.
    :param listener: receives callbacks; default None.
    :param control: changes what runs, for the board; default None.
    """

    folder: BatchFolder
    options: BatchOptions
    terminal: Terminal
    quiet: bool
    listener: CallbackListener | None = None
    control: BatchControl | None = None
    _started_at: datetime = attrs.field(factory=partial(datetime.now, UTC), init=False)
    _batches: list[ProviderBatch] = attrs.field(factory=list, init=False)
    _before: Before = attrs.field(factory=Before, init=False)
    _results: ResultsWriter | None = attrs.field(default=None, init=False)
    _display: ProgressDisplay | None = attrs.field(default=None, init=False)
    _gallery: GalleryWriter = attrs.field(init=False)

    async def run(
        self, runs: Sequence[ProviderRun], title: str, done: Sequence[Job] = ()
    ) -> tuple[BatchOutcome, Path | None]:
        """Run each of `runs` in turn, then write the table and the gallery; return the outcome and the page.

        :param title: title of the gallery page.
        :param done: jobs of the command that need no client; default none.
        :raises UsageError: if the folder, an input or the journal cannot be used; nothing was sent.
        :raises Interrupted: if it was interrupted before any request was taken in.
        """
        self._gallery = GalleryWriter(
            self.folder.root, title, price=self.options.price, load_samples=self.folder.journal.samples,
            expected_seconds=self.options.expected_seconds or EXPECTED_SECONDS,
        )  # fmt: skip
        with ExitStack() as stack:
            outcome = await interruptible(
                self._run_all(runs, done, stack), self._on_interrupt, self._on_second_interrupt
            )
            rows = list(self._results.rows.values()) if self._results is not None else []
        if self._results is not None:
            finish_table(rows, self.folder.table_file, self.terminal)
        finish = partial(finish_gallery, self._gallery, self.terminal, posters=not outcome.interrupted)
        # The page is written first: an interrupt abandons no more than poster frames.
        return outcome, await anyio.to_thread.run_sync(finish, abandon_on_cancel=True)

    async def _run_all(self, runs: Sequence[ProviderRun], done: Sequence[Job], stack: ExitStack) -> BatchOutcome:
        stopped: SubmissionsStopped | None = None
        interrupted = False
        try:
            for number, run in enumerate(runs):
                async with run.client, controlling(self.control, run.client):
                    if not number:
                        await self._prepare(runs, done, stack)
                    reason = await self._run_batch(self._batches[number])
                    # A stopped account decides the exit code, whatever stops a later run.
                    stopped = stopped if reason is None or stops_account(stopped) else reason
        except asyncio.CancelledError:
            if not self._batches:
                raise
            interrupted = True
        jobs = [job for batch in self._batches for job in await batch.finish(stopped)]
        jobs += done
        if not runs:  # nothing to do, and the page is written all the same
            async for job in paced(self.folder.journal.all()):
                self._gallery.add(job)
        keys = {job.key for job in jobs}
        displaced = self.folder.journal.is_displaced
        known = [] if displaced else self.folder.journal.keys()  # another journal may be in its place
        other_keys = [key async for key in paced(known) if key not in keys and "~" not in key]
        return BatchOutcome(
            jobs=jobs,
            stopped=stopped,
            interrupted=interrupted,
            results_complete=all(batch.write_error is None for batch in self._batches),
            journal_complete=self.folder.journal.is_saved,
            journal_displaced=displaced,
            other_jobs=len(other_keys),
            before=self._before,
            callback_lines=[] if self.listener is None else self.listener.summary(jobs, self._started_at),
        )

    async def _prepare(self, runs: Sequence[ProviderRun], done: Sequence[Job], stack: ExitStack) -> None:
        """Load all inputs, save the options, resubmit what `again` names, and start `results.jsonl`.

        The first client is open, so the journal belongs to this process.
        """
        inputs_of_runs = [await run.load_inputs() for run in runs]
        await self.folder.save_options(self.options)
        inputs_of_runs = [
            await self._resubmit_all(runs[0].client, run, inputs)
            for run, inputs in zip(runs, inputs_of_runs, strict=True)
        ]
        self._before = await Before.read(self.folder.journal, self.options.price)
        positions = {one.key: one.index for inputs in inputs_of_runs for one in inputs}
        known = {job.key: job.index for job in done}
        results = await self.folder.start_results(positions, known, self._gallery.add, download=self.options.download)
        self._results = stack.enter_context(results)
        self._gallery.expect(positions)
        async for job in paced(self.folder.journal.all()):
            if job.key in positions and is_shown(
                job
            ):  # an earlier page has it, and a kill may come before the next one
                self._gallery.add(attrs.evolve(job, index=positions[job.key]))
        with contextlib.suppress(OSError):  # the last write tells
            await anyio.to_thread.run_sync(self._gallery.write)
        self._batches += [
            ProviderBatch(
                run.client, inputs, self._results, self._gallery, self.terminal, self.folder.journal, echo=self.quiet
            )
            for run, inputs in zip(runs, inputs_of_runs, strict=True)
        ]
        if self.listener is not None:
            self.terminal.note(self.listener.announcement)

    async def _resubmit_all(
        self, client: PikaClient, run: ProviderRun, inputs: Sequence[InputRequest]
    ) -> list[InputRequest]:
        """Make room for the jobs of *run* that are paid for again; return its inputs, with the new seeds if any.

        :param client: the open client, which need not be that of *run*: all share the journal.
        """
        again, kept = set(run.again), []
        async for one in paced(inputs):
            if one.key in again:
                await self._resubmit(client, one, new_seed=run.new_seed, announce=len(again) <= MAX_ANNOUNCED)
                planned = self.folder.journal.get(one.key) if run.new_seed else None
                kept.append(one if planned is None else attrs.evolve(one, request=planned.request))
            else:
                kept.append(one)
        if len(again) > MAX_ANNOUNCED:
            self.terminal.note(f"{len(again)} jobs are paid for again; the earlier ones are kept as KEY~1")
        return kept

    async def _resubmit(
        self, client: PikaClient, input_request: InputRequest, *, new_seed: bool, announce: bool
    ) -> None:
        job = self.folder.journal.get(input_request.key)
        unsent = job is not None and job.status is JobStatus.PLANNED
        is_same = unsent and job is not None and job.answers(input_request.request.fingerprint())
        if is_same or (job is None and not new_seed):
            return  # never paid for: it is sent like any other
        try:
            earlier = await client.resubmit(input_request.key, new_seed=new_seed)
            if announce:
                self.terminal.note(f"job {input_request.key} is paid for again; the earlier one is {earlier.key}")
        except InvalidRequest as error:
            if error.field == "file":
                raise UsageError(f"--again {input_request.key}: {error.message}; nothing was sent") from None
            self.terminal.note(error.message)
        except OSError as error:
            file = None if job is None else job.file
            reason = f"{file} cannot be renamed to make room for the new video: {error.strerror}; nothing was sent"
            raise UsageError(f"--again {input_request.key}: {reason}") from None

    async def _run_batch(self, batch: ProviderBatch) -> SubmissionsStopped | None:
        forecast = Forecast(
            client=batch.client, requests=[one.request for one in batch.inputs], before=self._before,
            journal=self.folder.journal, options=self.options,
        )  # fmt: skip
        self._display = ProgressDisplay(
            self.terminal, batch.current_jobs, len(batch.inputs), download=self.options.download, forecast=forecast,
            callbacks=None if self.listener is None else partial(batch.callback_counts, self.listener),
            silent=self.quiet, is_paused=lambda: self.control is not None and self.control.is_paused,
        )  # fmt: skip
        if self.control is not None and self.control.is_canceled:
            await batch.skip_canceled()
        async with self._display, self._gallery.refreshing(batch.update_gallery):
            return await batch.run(self.folder.videos if self.options.download else None)

    def _on_interrupt(self) -> None:
        if self._display is not None:
            self._display.stop()
        self.terminal.note(
            "stopping: nothing more is sent, pending submissions are still recorded (Ctrl-C again exits at once)"
        )

    def _on_second_interrupt(self) -> None:
        self.folder.journal.flush(FLUSH_TIMEOUT_S)
        current = {job.key: job for job in self.folder.journal.all()}
        for batch in self._batches:
            batch.write_remaining(current)
        with contextlib.suppress(OSError):
            self._gallery.write(is_running=False)
        self.terminal.note(f"to continue: {self.folder.command('resume')}")


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
        if is_unfinished(job) or job.status is JobStatus.SUBMITTING or (options.download and needs_download(job))
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
