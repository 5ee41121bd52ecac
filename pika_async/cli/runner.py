"""Runs the jobs of a folder to their end, one client after the other; interrupted, it puts everything away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from pika_async._runtime.results import needs_download
from pika_async.cli.batch import BatchOutcome, ProviderBatch, finish_gallery, is_unfinished
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.callback_options import CallbackListener
from pika_async.cli.exits import UsageError
from pika_async.cli.options import CredentialOptions, ProviderOptions, create_client
from pika_async.cli.progress import ProgressDisplay
from pika_async.cli.requests import InputRequest, check_local_files
from pika_async.cli.results import ResultsWriter
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal
from pika_async.client import PikaClient
from pika_async.errors import AccountStopped, InvalidRequest, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.providers import find_provider

__all__ = ["BatchRunner", "ProviderRun", "resume_runs"]

#: Seconds that leaving at once gives the journal to write what it was told already.
FLUSH_TIMEOUT_S: Final = 1.0


@attrs.frozen
class ProviderRun:
    """A client, what it is to do once it is open, and which of its jobs are to be paid for once more."""

    client: PikaClient
    load_inputs: Callable[[], Sequence[InputRequest]]
    again: Sequence[str] = ()


@attrs.define
class BatchRunner:
    """The steps of one command in one folder; all their jobs share `results.jsonl`."""

    folder: BatchFolder
    options: BatchOptions
    terminal: Terminal
    quiet: bool
    listener: CallbackListener | None = None
    _started_at: datetime = attrs.field(factory=partial(datetime.now, UTC), init=False)
    _batches: list[ProviderBatch] = attrs.field(factory=list, init=False)
    _results: ResultsWriter | None = attrs.field(default=None, init=False)
    _display: ProgressDisplay | None = attrs.field(default=None, init=False)

    async def run(
        self, runs: Sequence[ProviderRun], title: str, done: Sequence[Job] = ()
    ) -> tuple[BatchOutcome, Path | None]:
        """Every step to its end; and the page. `done`: jobs of the command that need none.

        :raises UsageError: if the folder, an input or the journal cannot be used; nothing was sent.
        :raises Interrupted: if it was interrupted before anything was taken in.
        """
        with ExitStack() as stack:
            ending = await interruptible(
                self._run_all(runs, done, stack), self._on_interrupt, self._on_second_interrupt
            )
            rows = list(self._results.rows.values()) if self._results is not None else []
        posters = not ending.interrupted
        return ending, finish_gallery(
            rows, self.folder.root, self.terminal, title=title, maker="batch", posters=posters
        )

    async def _run_all(self, runs: Sequence[ProviderRun], done: Sequence[Job], stack: ExitStack) -> BatchOutcome:
        stopped: SubmissionsStopped | None = None
        interrupted = False
        try:
            for number, step in enumerate(runs):
                async with step.client:
                    if not number:
                        await self._prepare(runs, stack)
                    found = await self._run_batch(self._batches[number])
                    stopped = stopped if found is None or isinstance(stopped, AccountStopped) else found
        except asyncio.CancelledError:
            if not self._batches:
                raise
            interrupted = True
        jobs = [job for batch in self._batches for job in await batch.finish(stopped)]
        jobs += done
        keys = {job.key for job in jobs}
        return BatchOutcome(
            jobs=jobs,
            stopped=stopped,
            interrupted=interrupted,
            results_complete=all(batch.write_error is None for batch in self._batches),
            journal_complete=self.folder.journal.is_saved,
            other_jobs=[job for job in self.folder.journal.all() if job.key not in keys and "~" not in job.key],
            callback_lines=[] if self.listener is None else self.listener.summary(jobs, self._started_at),
        )

    async def _prepare(self, runs: Sequence[ProviderRun], stack: ExitStack) -> None:
        """The journal is ours: what is planned is known, and has its lines where it is settled already."""
        plans = [step.load_inputs() for step in runs]
        await self.folder.save_options(self.options)
        for step, planned in zip(runs, plans, strict=True):
            for one in planned:
                if one.key in step.again:
                    await self._resubmit(step.client, one)
        positions = {one.key: one.index for planned in plans for one in planned}
        results = self.folder.start_results(positions, download=self.options.download)
        self._results = stack.enter_context(results)
        self._batches += [
            ProviderBatch(step.client, planned, self._results, self.terminal, echo=self.quiet)
            for step, planned in zip(runs, plans, strict=True)
        ]
        if self.listener is not None:
            self.terminal.note(self.listener.announcement)

    async def _resubmit(self, client: PikaClient, input_request: InputRequest) -> None:
        job = self.folder.journal.get(input_request.key)
        unsent = job is not None and job.status is JobStatus.PLANNED
        if job is None or (unsent and job.request.fingerprint() == input_request.request.fingerprint()):
            return  # it was never paid for, and is about to be
        try:
            earlier = await client.resubmit(input_request.key)
            self.terminal.note(f"job {input_request.key} is paid for again; the earlier one is {earlier.key}")
        except InvalidRequest as error:
            if error.field == "file":
                raise UsageError(f"--again {input_request.key}: {error.message}; nothing was sent") from None
            self.terminal.note(error.message)
        except OSError as error:
            reason = f"{job.file} cannot make room for a new one: {error.strerror}; nothing was sent"
            raise UsageError(f"--again {input_request.key}: {reason}") from None

    async def _run_batch(self, batch: ProviderBatch) -> SubmissionsStopped | None:
        download = self.options.download
        self._display = ProgressDisplay(
            self.terminal, batch.current_jobs, len(batch.inputs), download=download, silent=self.quiet,
            hear=None if self.listener is None else partial(batch.callback_counts, self.listener),
        )  # fmt: skip
        async with self._display:
            return await batch.run(self.folder.videos if download else None)

    def _on_interrupt(self) -> None:
        if self._display is not None:
            self._display.end()
        self.terminal.note(
            "stopping: nothing more is sent, receipts on their way are kept (Ctrl-C again leaves at once)"
        )

    def _on_second_interrupt(self) -> None:
        self.folder.journal.flush(FLUSH_TIMEOUT_S)
        known = {job.key: job for job in self.folder.journal.all()}
        for batch in self._batches:
            batch.write_remaining(known)
        self.terminal.note(f"to go on: {self.folder.command('resume')}")


def resume_runs(
    folder: BatchFolder, credentials: CredentialOptions, options: BatchOptions, listener: CallbackListener | None = None
) -> tuple[list[ProviderRun], list[Job]]:
    """A step for each provider and address with a job of `folder` to go on with; and the jobs of the others.

    :raises ConfigurationError: names the option that cannot work, or the missing key.
    :raises UsageError: if one key would be shown to several providers, or a picture that is to be sent is not there.
    """
    known = [attrs.evolve(job, index=index) for index, job in enumerate(folder.journal.all())]
    going = {
        (job.provider, job.base_url)
        for job in known
        if is_unfinished(job) or job.status is JobStatus.SUBMITTING or (options.download and needs_download(job))
    }
    by_gateway: dict[tuple[str, str], list[InputRequest]] = {}
    done = []
    for job in known:
        if (job.provider, job.base_url) not in going:
            done.append(job)
            continue
        if job.status is JobStatus.PLANNED:
            _check_images(job)
        planned = InputRequest(attrs.evolve(job.request, key=job.key), job.index, "journal.db")
        by_gateway.setdefault((job.provider, job.base_url), []).append(planned)
    if credentials.api_key_file is not None and len(providers := {provider: None for provider, _ in by_gateway}) > 1:
        variables = ", ".join(find_provider(provider).api_key_env for provider in providers)
        raise UsageError(f"--api-key-file: the jobs are of {len(providers)} providers; give their keys as {variables}")
    steps = []
    for (provider, url), these in by_gateway.items():
        account = ProviderOptions(
            provider=provider, base_url=url, api_key_file=credentials.api_key_file, proxy=credentials.proxy
        )
        hears = listener is not None and find_provider(provider).takes_callback
        receiver = listener.receiver if listener is not None and hears else None
        client = create_client(account, options=options, journal=folder.journal, callbacks=receiver)
        steps.append(ProviderRun(client, partial(list, these)))
    return steps, done


def _check_images(job: Job) -> None:
    """Their paths may count from where the batch was called: a job that is sent without them is refused for good."""
    try:
        check_local_files(find_provider(job.provider), job.request)
    except InvalidRequest as error:
        way_out = "go on from where the batch was called, or run the batch again without that row; nothing was sent"
        raise UsageError(f"job {job.key}: {error.message}; {way_out}") from None
