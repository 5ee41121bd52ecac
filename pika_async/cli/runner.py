"""Runner of the batches of one command, one client after the other. Saves every job, even if interrupted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import anyio.lowlevel
import anyio.to_thread
import attrs

from pika_async._runtime.pacing import paced
from pika_async._runtime.tasks import wait_uncancelled
from pika_async.cli.account_sums import stopping_answers
from pika_async.cli.batch import FINISHING_TEXT, BatchOutcome, ProviderBatch, finish_gallery
from pika_async.cli.batch_folder import BatchFolder, BatchOptions
from pika_async.cli.board_control import BatchControl, controlling
from pika_async.cli.callback_options import CallbackListener
from pika_async.cli.exits import Interrupted, UsageError, stops_account
from pika_async.cli.forecast import Forecast
from pika_async.cli.pauses import short_pauses
from pika_async.cli.progress import ProgressDisplay
from pika_async.cli.provider_runs import ProviderRun
from pika_async.cli.requests import InputRequest
from pika_async.cli.results import ResultsWriter
from pika_async.cli.results_table import finish_results
from pika_async.cli.signals import interruptible
from pika_async.cli.spending import Before
from pika_async.cli.terminal import Terminal
from pika_async.engines.protocol import BatchClient
from pika_async.errors import InvalidRequest, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.polling.adaptive import EXPECTED_SECONDS
from pika_async.report.writer import GalleryWriter

__all__ = ["BatchRunner"]

#: Seconds that the second Ctrl-C leaves the journal for its pending writes.
FLUSH_TIMEOUT_S: Final = 1.0
#: Jobs to pay for again that are named one by one; more are counted.
MAX_ANNOUNCED: Final = 10


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
            expected_seconds=self.options.expected_seconds or EXPECTED_SECONDS, subject=self.folder.subject,
        )  # fmt: skip
        with ExitStack() as stack:
            stack.enter_context(short_pauses())
            outcome = await interruptible(
                self._run_all(runs, done, stack), self._on_interrupt, self._on_second_interrupt
            )
            return await interruptible(
                self._finish(outcome),
                partial(self.terminal.note, FINISHING_TEXT),
                lost="the gallery may lack posters",
            )

    async def _finish(self, outcome: BatchOutcome) -> tuple[BatchOutcome, Path | None]:
        """Write the results and the gallery; an interrupt ends the drawing of posters."""
        stopped = False
        if self._results is not None:
            writing = finish_results(self._results, self.folder.table_file, self.terminal)
            try:
                await wait_uncancelled(asyncio.get_running_loop().create_task(writing, name="pika_async results"))
            except asyncio.CancelledError:
                stopped = True
        posters = not (outcome.interrupted or stopped)
        page, cancelled = await finish_gallery(self._gallery, self.terminal, posters=posters)
        return attrs.evolve(outcome, posters_interrupted=cancelled or stopped), page

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
                raise Interrupted("interrupted: nothing was sent") from None
            interrupted = True
        jobs = [job for batch in self._batches for job in await batch.finish(stopped)]
        await anyio.lowlevel.checkpoint()
        jobs = sorted([*jobs, *done], key=lambda job: job.index)
        if not runs:  # nothing to do, and the page is written all the same
            self._before = await Before.read(self.folder.journal, self.options.price)
            async for job in paced(self.folder.journal.all()):
                self._gallery.add(job)
        keys = {job.key async for job in paced(jobs)}
        displaced = self.folder.journal.is_displaced
        known = [] if displaced else self.folder.journal.keys()  # another journal may be in its place
        other_keys = [key async for key in paced(known) if key not in keys and "~" not in key]
        return BatchOutcome(
            jobs=jobs,
            stopped=stopped,
            stopped_accounts=stopping_answers(jobs, self._started_at) | dict(self.folder.stopped_accounts),
            interrupted=interrupted,
            download=self.options.download,
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
        self._before = Before(charges=self.folder.journal.charges(), price=self.options.price)
        positions: dict[str, int] = {}
        for inputs in inputs_of_runs:
            async for one in paced(inputs):
                positions[one.key] = one.index
                self._gallery.expect((one.key,))
        known = {job.key: job.index for job in done}
        results = await self.folder.start_results(
            positions, known, self._before.add, self._gallery.add, download=self.options.download
        )
        self._results = stack.enter_context(results)
        with contextlib.suppress(OSError):  # the last write tells
            await anyio.to_thread.run_sync(self._gallery.write)
        self._batches += [
            ProviderBatch(
                run.client, inputs, self._results, self._gallery, self.terminal, self.folder.journal, echo=self.quiet
            )
            for run, inputs in zip(runs, inputs_of_runs, strict=True)
        ]
        await anyio.lowlevel.checkpoint()
        if self.listener is not None:
            self.terminal.note(self.listener.announcement)

    async def _resubmit_all(
        self, client: BatchClient, run: ProviderRun, inputs: Sequence[InputRequest]
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
        self, client: BatchClient, input_request: InputRequest, *, new_seed: bool, announce: bool
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
            return await batch.run(self.folder.target(self.options))

    def _on_interrupt(self) -> None:
        if self._display is not None:
            self._display.stop()
        shared = "stopping: the workers go on with the jobs"
        own = "stopping: nothing more is sent, pending submissions are still recorded"
        self.terminal.note(f"{shared if self.folder.is_shared else own} (Ctrl-C again exits at once)")

    def _on_second_interrupt(self) -> None:
        self.folder.journal.flush(FLUSH_TIMEOUT_S)
        current = {job.key: job for job in self.folder.journal.all()}
        for batch in self._batches:
            batch.write_remaining(current)
        with contextlib.suppress(OSError):
            self._gallery.write(is_running=False)
        self.terminal.note(f"to continue: {self.folder.command('resume')}")
