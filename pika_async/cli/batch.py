"""Jobs of one client on their way into one `results.jsonl`, a line for each as it comes to rest; and how that ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import attrs

from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.callback_options import CallbackListener
from pika_async.cli.exits import ExitCode
from pika_async.cli.gallery import write_gallery
from pika_async.cli.posters import draw_posters
from pika_async.cli.progress import CallbackCounts
from pika_async.cli.requests import InputRequest
from pika_async.cli.results import ResultsWriter, json_line, result_row
from pika_async.cli.terminal import Terminal
from pika_async.client import PikaClient
from pika_async.errors import AccountStopped, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest

__all__ = ["BatchOutcome", "ProviderBatch", "finish_gallery", "is_unfinished", "summarize"]

#: How many jobs that did not succeed are told one by one, besides every doubt; all are in the file.
MAX_LISTED_JOBS: Final = 10
#: With a larger share of settles that no callback told of, and none at all, callbacks seem to be lost.
CALLBACK_LOSS_WARNING_SHARE: Final = 0.5


@attrs.frozen(kw_only=True)
class BatchOutcome:
    """How a batch ended: the jobs, and why not all was sent, if so."""

    jobs: Sequence[Job]
    stopped: SubmissionsStopped | None = None
    interrupted: bool = False
    #: Whether every job has its line in the file, and is in the journal as it stands.
    results_complete: bool = True
    journal_complete: bool = True
    #: Known jobs that this command left as they are.
    other_jobs: Sequence[Job] = ()
    #: What is said of callbacks, a line each.
    callback_lines: Sequence[str] = ()

    @property
    def code(self) -> ExitCode:
        """The exit code."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        if isinstance(self.stopped, AccountStopped):
            return ExitCode.ACCOUNT_STOPPED
        good = all(job.status is JobStatus.SUCCEEDED and job.error is None for job in self.jobs)
        return ExitCode.OK if good and self.results_complete and self.journal_complete else ExitCode.INCOMPLETE


@attrs.define
class ProviderBatch:
    """One client's jobs on their way into one `results.jsonl`, which other batches may share.

    `echo`: write each line to standard output too.
    """

    client: PikaClient
    inputs: Sequence[InputRequest]
    results: ResultsWriter
    terminal: Terminal
    echo: bool = False
    jobs: dict[str, Job] = attrs.field(factory=dict, init=False)
    #: Why the file could not be written, if so: the rest is not sent.
    write_error: OSError | None = attrs.field(default=None, init=False)
    #: Jobs in doubt, at rest: their lines are written last, because a callback may settle them meanwhile.
    _in_doubt: dict[str, Job] = attrs.field(factory=dict, init=False)
    _positions: dict[str, int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._positions = {one.key: one.index for one in self.inputs}

    async def run(self, download_to: Path | None) -> SubmissionsStopped | None:
        """Run every request; each job's line is written as it comes to rest. What stopped it, if something did.

        The client must be open.
        """
        requests = [one.request for one in self.inputs]
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
        return None

    async def _pop_resolved(self) -> list[GenerationRequest]:
        """The requests that were in doubt when they came to rest, and are not any more."""
        known = {job.key: job for job in await self.client.jobs()} if self._in_doubt else {}
        found = [key for key in self._in_doubt if known[key].status is not JobStatus.UNKNOWN]
        for key in found:
            del self._in_doubt[key]
        return [one.request for one in self.inputs if one.key in found]

    async def current_jobs(self) -> list[Job]:
        """The jobs as they now stand; those that wait to be taken in are left out."""
        under_way = {job.key: job for job in self.client.active_jobs()}
        return list({**self._in_doubt, **under_way, **self.jobs}.values())

    def callback_counts(self, listening: CallbackListener) -> CallbackCounts:
        """What callbacks have told so far."""
        waiting = sum(job.status is JobStatus.UNKNOWN for job in self.client.active_jobs())
        received = listening.receiver.received
        lost = not received and (self.client.stats().callback_loss_rate or 0.0) > CALLBACK_LOSS_WARNING_SHARE
        return CallbackCounts(received=received, waiting=waiting, lost_to=listening.address if lost else None)

    async def finish(self, stopped: SubmissionsStopped | None) -> list[Job]:
        """A line for every job that has none yet, as it now stands; all jobs in the order of the input."""
        if len(self.jobs) < len(self._positions):
            self.write_remaining({job.key: job for job in await self.client.jobs()}, stopped)
        return [self.jobs[one.key] for one in self.inputs]

    def write_remaining(self, known: Mapping[str, Job], stopped: SubmissionsStopped | None = None) -> None:
        """A line for every job that has none yet; waits for nothing."""
        for one in self.inputs:
            if one.key not in self.jobs:
                self._write(known.get(one.key) or self._unsent_job(one, stopped))

    def _unsent_job(self, one: InputRequest, stopped: SubmissionsStopped | None) -> Job:
        return Job(
            key=one.key, request=one.request, provider=self.client.provider.name, base_url=self.client.base_url,
            error=stopped,
        )  # fmt: skip

    def _write(self, job: Job) -> None:
        placed = self.jobs[job.key] = attrs.evolve(job, index=self._positions[job.key])
        record: Mapping[str, Any] = result_row(placed, self.results.root)
        if self.write_error is None:
            try:
                self.results.write(placed)
            except OSError as error:
                self.write_error = error
                self.terminal.error(f"results.jsonl cannot be written ({error.strerror}); what it lacks follows here")
        if self.write_error is not None:
            self.terminal.note(json_line(record).rstrip())
        if self.echo:
            self.terminal.write(json_line(record, ascii_only=True))


def finish_gallery(
    rows: Sequence[Mapping[str, Any]], root: Path, terminal: Terminal, *, title: str, maker: str, posters: bool = True
) -> Path | None:
    """Poster frames, where they can be drawn, and the page; None, and said, if it cannot be written."""
    try:
        if posters:
            draw_posters((root / str(made["file"]) for made in rows if made["file"]), root / "posters")
        return write_gallery(rows, root, title=title, maker=maker)
    except OSError as error:
        terminal.error(f"{root / 'index.html'} cannot be written: {error.strerror}")
        return None


def summarize(outcome: BatchOutcome, folder: BatchFolder, page: Path | None) -> Iterator[str]:
    """What a person is told at the end, a line each."""
    counts = Counter(job.status for job in outcome.jobs)
    told = ", ".join(f"{count} {status.value.replace('_', ' ')}" for status, count in counts.most_common())
    files = sum(job.file is not None for job in outcome.jobs)
    yield f"{len(outcome.jobs)} jobs: {told or 'none to go on with'}; {files} on disk{_points_text(outcome.jobs)}"
    yield from _error_lines(outcome.jobs)
    yield from outcome.callback_lines
    if outcome.stopped is not None:
        yield outcome.stopped.message
    if outcome.interrupted:
        flying = sum(job.is_in_flight for job in outcome.jobs)
        yield f"interrupted: {flying} accepted and not settled, {counts[JobStatus.PLANNED]} not sent; nothing is lost"
    if counts[JobStatus.UNKNOWN]:
        doubts = counts[JobStatus.UNKNOWN]
        yield f"in doubt, perhaps charged: {doubts}; which, and the ways out: {folder.command('status')}"
    if not outcome.journal_complete:
        yield "the journal could not be written; what it lacks was put aside, and the next command here takes it in"
    if any(is_unfinished(job) for job in outcome.jobs) or not outcome.journal_complete:
        yield f"to go on: {folder.command('resume')}"
    if outcome.other_jobs:
        yield (
            f"{len(outcome.other_jobs)} jobs of an earlier input are not in this one and were left as they are; "
            f"{folder.command('status')}"
        )
    yield f"results: {folder.results_file}"
    if page is not None:
        yield f"gallery: {page}"


def is_unfinished(job: Job) -> bool:
    """Whether `resume` has something to do for it."""
    undone = job.status is JobStatus.SUCCEEDED and job.error is not None
    return undone or not (job.is_final or job.status is JobStatus.UNKNOWN)


def _error_lines(jobs: Sequence[Job]) -> Iterator[str]:
    told = [job for job in jobs if job.error is not None and not isinstance(job.error, SubmissionsStopped)]
    doubts = [job for job in told if job.status is JobStatus.UNKNOWN]
    others = [job for job in told if job.status is not JobStatus.UNKNOWN]
    for job in doubts + others[:MAX_LISTED_JOBS]:
        message = job.error.message if job.error is not None else ""
        yield f"  {message}" if job.key in message else f"  job {job.key}: {message}"
    if len(others) > MAX_LISTED_JOBS:
        yield f"  ... and {len(others) - MAX_LISTED_JOBS} more"


def _points_text(jobs: Sequence[Job]) -> str:
    charged = [job.points for job in jobs if job.points is not None]
    back = sum(job.refunded or 0.0 for job in jobs)
    return f"; {sum(charged):g} points charged{f', {back:g} refunded' if back else ''}" if charged else ""
