"""Batches of one client and the outcome of a command: writes a `results.jsonl` line for each job as it finishes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import attrs
from rich.text import Text

from pika_async._journal.protocol import Journal
from pika_async._runtime.job_files import needs_download
from pika_async._runtime.pacing import paced
from pika_async.cli.account_sums import stop_lines, sum_lines
from pika_async.cli.active_jobs import active_jobs
from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.callback_options import CallbackListener
from pika_async.cli.doubts import doubt_lines
from pika_async.cli.exits import ExitCode, stops_account
from pika_async.cli.fetch_hint import fetch_command
from pika_async.cli.job_counts import CurrentJobs
from pika_async.cli.progress import CallbackCounts
from pika_async.cli.requests import InputRequest
from pika_async.cli.results import ResultsWriter, json_line, result_row
from pika_async.cli.retries import failure_lines, rejection_lines, trouble_lines
from pika_async.cli.spending import Before, limit_lines, spending_line
from pika_async.cli.terminal import Terminal, linked
from pika_async.cli.words import counted
from pika_async.engines.protocol import BatchClient
from pika_async.errors import NoAccountLeft, PikaError, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.report.writer import GalleryWriter

__all__ = [
    "FINISHING_TEXT", "BatchOutcome", "ProviderBatch", "finish_gallery", "has_more_to_do", "is_unfinished", "summarize",
]  # fmt: skip

#: Note at the first Ctrl-C while the page is finished.
FINISHING_TEXT: Final = "stopping: no further posters are drawn (Ctrl-C again exits at once)"
#: Callbacks seem to be lost if none was received and a larger share of completions than this came without one.
CALLBACK_LOSS_WARNING_SHARE: Final = 0.5


@attrs.frozen(kw_only=True)
class BatchOutcome:
    """Outcome of a command: its jobs, and what kept it from finishing, if anything did."""

    jobs: Sequence[Job]
    #: Why not every job was sent.
    stopped: SubmissionsStopped | None = None
    interrupted: bool = False
    #: The reasons of accounts that an answer stopped in this run, by their names.
    stopped_accounts: Mapping[str, str] = attrs.field(factory=dict)
    #: Whether the command wants the videos on disk.
    download: bool = True
    #: Whether an interrupt ended the drawing of the gallery's posters.
    posters_interrupted: bool = False
    #: Whether `results.jsonl` has a line for every job.
    results_complete: bool = True
    #: Whether the journal holds every change.
    journal_complete: bool = True
    #: Whether the journal was moved, removed or replaced while it was open.
    journal_displaced: bool = False
    #: Number of jobs in the journal that are not in the input of this command.
    other_jobs: int = 0
    #: Lines of the summary about callbacks.
    callback_lines: Sequence[str] = ()
    #: The journal before this command sent anything.
    before: Before = attrs.field(factory=Before)

    @property
    def code(self) -> ExitCode:
        """Exit code of the command."""
        if self.interrupted or self.posters_interrupted:
            return ExitCode.INTERRUPTED
        has_stopped = isinstance(self.stopped, NoAccountLeft) and self.stopped_accounts.keys() & self.stopped.reasons
        if stops_account(self.stopped) or has_stopped:
            return ExitCode.ACCOUNT_STOPPED
        good = all(job.status is JobStatus.SUCCEEDED and job.error is None for job in self.jobs)
        return ExitCode.OK if good and self.results_complete and self.journal_complete else ExitCode.INCOMPLETE


@attrs.define
class ProviderBatch:
    """One client's share of a batch, with a line in `results.jsonl` for each of its jobs.

    :param client: must be open while the batch runs.
    :param inputs: requests to run, each with its key.
    :param results: file that several batches may share.
    :param gallery: page that several batches may share.
    :param journal: that of the client.
    :param echo: write each line to standard output too; default False.
    :param ended: gets each job that has its line; batches beside each other may share it. Default: a list of its own.
    """

    client: BatchClient
    inputs: Sequence[InputRequest]
    results: ResultsWriter
    gallery: GalleryWriter
    terminal: Terminal
    journal: Journal
    echo: bool = False
    ended: list[Job] = attrs.field(factory=list)
    jobs: dict[str, Job] = attrs.field(factory=dict, init=False)
    #: Why `results.jsonl` could not be written; nothing more is sent after that.
    write_error: OSError | None = attrs.field(default=None, init=False)
    #: Jobs parked in doubt. Their lines are written last, because a callback may still resolve them.
    _in_doubt: dict[str, Job] = attrs.field(factory=dict, init=False)
    #: Latest state of each job without a line: one that is being downloaded is neither active nor written yet.
    _latest: dict[str, Job] = attrs.field(factory=dict, init=False)
    _positions: dict[str, int] = attrs.field(init=False)
    _skipped: frozenset[str] = attrs.field(default=frozenset(), init=False)

    def __attrs_post_init__(self) -> None:
        self._positions = {one.key: one.index for one in self.inputs}

    async def skip_canceled(self) -> None:
        """Cancel what is planned, and leave out what is canceled; these jobs get their lines at the end."""
        await self.client.cancel_planned()
        self._skipped = frozenset([job.key async for job in paced(self.journal.all(JobStatus.CANCELED))])

    async def run(self, download_to: Path | str | None) -> SubmissionsStopped | None:
        """Run every request and write each job's line as it finishes; return what stopped the submissions, if anything.

        :param download_to: folder or `s3://BUCKET/PREFIX` for the videos; None downloads nothing.
        """
        requests = [one.request for one in self.inputs if one.key not in self._skipped]
        try:
            while requests:
                async with aclosing(self.client.as_settled(requests, download_to=download_to)) as jobs:
                    async for job in jobs:
                        if job.status is JobStatus.UNKNOWN:
                            self._in_doubt[job.key] = job
                        else:
                            self._write(job)
                        if self.write_error is not None:
                            return None
                requests = await self._pop_resolved()
        except SubmissionsStopped as error:
            return error
        finally:
            self.update_gallery()
        return None

    def update_gallery(self) -> None:
        """Put the active jobs on the page, and what was learned of durations and room."""
        with contextlib.suppress(PikaError):  # a journal that fails has its own report
            self.gallery.add_active(self.client.active_jobs())
            samples, accounts = list(self.journal.samples()), self.client.stats().accounts.values()
            for name in {account.provider for account in accounts}:
                own = [sample for sample in samples if sample.stratum.startswith(f"{name}/")]
                limits = [account.estimated_limit for account in accounts if account.provider == name]
                known = [limit for limit in limits if limit is not None]
                self.gallery.set_learned(name, own, sum(known) if len(known) == len(limits) else None)

    async def _pop_resolved(self) -> list[GenerationRequest]:
        """Remove the jobs that are not in doubt any more from `_in_doubt`; return their requests."""
        resolved = set()
        async for key in paced(list(self._in_doubt)):
            current = await self.client.job(key)
            if current is None or current.status is not JobStatus.UNKNOWN:
                del self._in_doubt[key]
                if current is not None and current.status is JobStatus.CANCELED:  # given up, or canceled since
                    self._write(current)
                else:
                    resolved.add(key)
        return [one.request for one in self.inputs if one.key in resolved] if resolved else []

    async def current_jobs(self) -> CurrentJobs:
        """Return every job that was taken in, those without a line in their latest state."""
        self._latest.update(self._in_doubt)
        for job in active_jobs(self.client):
            if job.key not in self.jobs:
                self._latest[job.key] = job
        return CurrentJobs(self.ended, list(self._latest.values()))

    def callback_counts(self, listener: CallbackListener) -> CallbackCounts:
        """Count the callbacks that `listener` received and the jobs that wait for one."""
        awaiting = sum(job.status is JobStatus.UNKNOWN for job in self.client.active_jobs())
        received = listener.receiver.received
        lost = not received and (self.client.stats().callback_loss_rate or 0.0) > CALLBACK_LOSS_WARNING_SHARE
        return CallbackCounts(
            received=received, awaiting=awaiting, unreached_address=listener.address if lost else None
        )

    async def finish(self, stopped: SubmissionsStopped | None) -> list[Job]:
        """Write the remaining lines; return all jobs in the order of the input.

        :param stopped: the error of jobs that were never taken in.
        """
        if len(self.jobs) < len(self._positions):
            current = {job.key: job async for job in self.client.jobs() if job.key not in self.jobs}
            async for one in paced(self.inputs):
                if one.key not in self.jobs:
                    self._write(current.get(one.key) or self._unsent_job(one, stopped))
        return [self.jobs[one.key] async for one in paced(self.inputs)]

    def write_remaining(self, current: Mapping[str, Job]) -> None:
        """Write a line for every job without one, without waiting.

        :param current: the jobs in the journal, by key.
        """
        for one in self.inputs:
            if one.key not in self.jobs:
                self._write(current.get(one.key) or self._unsent_job(one, None))

    def _unsent_job(self, one: InputRequest, stopped: SubmissionsStopped | None) -> Job:
        return Job(
            key=one.key, request=one.request, provider=self.client.provider.name, base_url=self.client.base_url,
            error=stopped,
        )  # fmt: skip

    def _write(self, job: Job) -> None:
        placed = self.jobs[job.key] = attrs.evolve(job, index=self._positions[job.key])
        self.ended.append(placed)
        self._latest.pop(job.key, None)
        self.gallery.add(placed)
        record: Mapping[str, Any] = result_row(placed, self.results.root)
        if self.write_error is None:
            try:
                self.results.write(placed)
            except OSError as error:
                self.write_error = error
                self.terminal.error(f"results.jsonl cannot be written ({error.strerror}); the missing lines follow")
        if self.write_error is not None:
            self.terminal.note_whole(json_line(record).rstrip())
        if self.echo:
            self.terminal.write(json_line(record, ascii_only=True))


async def finish_gallery(
    gallery: GalleryWriter, terminal: Terminal, *, posters: bool = True
) -> tuple[Path | None, bool]:
    """Write the page of a command that has ended; print an error if that fails.

    If it is cancelled, it draws no further poster, and returns once the page has those that were drawn.

    :param posters: whether to draw the poster frames that are missing; default True.
    :return: the page, None if it could not be written; and whether posters are missing because it was cancelled.
    """
    finishing = asyncio.get_running_loop().create_task(
        asyncio.to_thread(gallery.finish, posters=posters), name="pika_async gallery"
    )
    cancelled = False
    try:
        try:
            page = await asyncio.shield(finishing)
        except asyncio.CancelledError:
            gallery.stop_drawing()
            cancelled, page = True, await finishing
    except OSError as error:
        terminal.error(f"{gallery.root / 'index.html'} cannot be written: {error.strerror}")
        return None, cancelled
    return page, cancelled


def summarize(outcome: BatchOutcome, folder: BatchFolder, page: Path | None) -> Iterator[str | Text]:
    """Yield the lines of the summary at the end of a command."""
    counts = Counter(job.status for job in outcome.jobs)
    by_status = ", ".join(f"{count} {status.label}" for status, count in counts.most_common())
    files = sum(job.file is not None for job in outcome.jobs)
    stored = sum(job.object_url is not None for job in outcome.jobs)
    places = f"{files} on disk" if files or not stored else ""
    places = ", ".join(filter(None, [places, f"{stored} stored" if stored else ""]))
    yield f"{counted(len(outcome.jobs), 'job')}: {by_status or 'nothing to do'}; {places}"
    yield spending_line(outcome.before, outcome.jobs)
    yield from sum_lines(outcome.jobs)
    yield from trouble_lines(outcome.jobs)
    yield from outcome.callback_lines
    yield from stop_lines(outcome.stopped, outcome.stopped_accounts)
    beyond_limit = list(limit_lines(outcome.jobs, outcome.stopped, folder))
    yield from beyond_limit
    yield from rejection_lines(folder, outcome.jobs)
    yield from failure_lines(folder, outcome.jobs)
    if outcome.interrupted and folder.is_shared:
        yield f"interrupted: the workers go on with {counted(sum(not job.is_final for job in outcome.jobs), 'job')}"
    elif outcome.interrupted:
        in_flight = sum(job.is_in_flight for job in outcome.jobs)
        missing = sum(outcome.download and needs_download(job) for job in outcome.jobs)
        not_downloaded = f", {missing} not downloaded" if missing else ""
        not_sent = counts[JobStatus.PLANNED]
        yield f"interrupted: {in_flight} still in flight, {not_sent} not sent{not_downloaded}; nothing is lost"
        first = next((job for job in outcome.jobs if job.is_in_flight), None)
        if first is not None:
            accounts = folder.options().accounts
            command = fetch_command(first, folder.root, accounts=accounts, remembered=True)
            yield f"to follow one task alone: {command}"
    elif outcome.posters_interrupted:
        yield "interrupted while posters were drawn: the gallery is whole, and the same command again draws the rest"
    yield from doubt_lines(folder, outcome.jobs)
    if outcome.journal_displaced:
        yield "the journal was moved, removed or replaced while it was open: put it back first (see above for a copy)"
    elif not outcome.journal_complete:
        yield "the journal could not be written; the next command here reads the missing changes from a file beside it"
    more_to_do = has_more_to_do(outcome.jobs, download=outcome.download, at_limit=bool(beyond_limit))
    if more_to_do or not outcome.journal_complete:
        yield _way_on(folder)
    if outcome.other_jobs:
        are_left = (
            "is not in this one and was left as it is"
            if outcome.other_jobs == 1
            else "are not in this one and were left as they are"
        )
        yield f"{counted(outcome.other_jobs, 'job')} of an earlier input {are_left}: {folder.command('status')}"
    yield linked(folder.results_file, "results: ")
    if page is not None:
        yield linked(page, "gallery: ")


def _way_on(folder: BatchFolder) -> str:
    """Return how to go on with the unfinished jobs of a command."""
    if folder.is_shared:
        return f"to follow them: the same command again, or {folder.command('status')}"
    return f"to continue: {folder.command('resume')}"


def is_unfinished(job: Job, *, download: bool) -> bool:
    """Return whether `resume` has something to do for `job`.

    :param download: whether it downloads the videos.
    """
    not_downloaded = job.status is JobStatus.SUCCEEDED and job.error is not None
    return not_downloaded or (download and needs_download(job)) or not (job.is_final or job.status is JobStatus.UNKNOWN)


def has_more_to_do(jobs: Sequence[Job], *, download: bool, at_limit: bool) -> bool:
    """Return whether `resume` has something to do with the limits that the folder has now.

    :param download: whether it downloads the videos.
    :param at_limit: whether a limit of the user's own is reached, so that `resume` sends nothing new.
    """
    return any(
        is_unfinished(job, download=download) and not (at_limit and job.status is JobStatus.PLANNED) for job in jobs
    )
