"""`batch`: a file of requests through one provider, each job's line in `results.jsonl` as it comes to rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import attrs

from pika_async.cli.exits import Exit, UsageError
from pika_async.cli.progress import Follower
from pika_async.cli.requests import Planned
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal
from pika_async.client import PikaClient
from pika_async.errors import AccountStopped, SubmissionsStopped
from pika_async.lifecycle import Job, JobStatus
from pika_async.report import ResultsWriter, as_line, row, write_gallery
from pika_async.report.posters import draw_posters

__all__ = ["Batch", "Ending", "leave_gallery", "prepare", "run_batch", "summarize"]

#: How many jobs that did not succeed are told one by one; all are in the file.
SHOWN: Final = 10


@attrs.frozen(kw_only=True)
class Ending:
    """How a batch ended: the jobs, and why not all was sent, if so."""

    jobs: Sequence[Job]
    stopped: SubmissionsStopped | None = None
    interrupted: bool = False
    #: Whether every job has its line in the file.
    recorded: bool = True

    @property
    def code(self) -> Exit:
        """The exit code."""
        if self.interrupted:
            return Exit.INTERRUPTED
        if isinstance(self.stopped, AccountStopped):
            return Exit.ACCOUNT
        good = all(job.status is JobStatus.SUCCEEDED and job.error is None for job in self.jobs)
        return Exit.OK if good and self.recorded else Exit.SOME


def prepare(out: Path, planned: Sequence[Planned], *, download: bool) -> ResultsWriter:
    """Make the folder and its `results.jsonl`.

    :raises UsageError: if the folder cannot be used, or holds an earlier batch or a file that would be in the way.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        in_the_way = [out / "index.html"]
        if download:
            in_the_way += [out / "videos" / f"{one.key}.mp4" for one in planned]
        if not (out / "results.jsonl").exists():
            _refuse(next((path for path in in_the_way if path.exists() or path.is_symlink()), None))
        return ResultsWriter(out / "results.jsonl")
    except FileExistsError:
        what = "holds an earlier batch (results.jsonl)" if out.is_dir() else "is no folder"
        raise UsageError(f"--out: {out} {what}; choose another --out; nothing was sent") from None
    except OSError as error:
        raise UsageError(f"--out: {out} cannot be used: {error.strerror}; nothing was sent") from None


def _refuse(path: Path | None) -> None:
    if path is not None:
        raise UsageError(f"--out: {path} is there already and is not overwritten; choose another --out")


@attrs.define
class Batch:
    """One client's jobs on their way into one `results.jsonl`, which other batches may share.

    `echo`: write each line to standard output too.
    """

    client: PikaClient
    planned: Sequence[Planned]
    results: ResultsWriter
    terminal: Terminal
    echo: bool = False
    jobs: dict[str, Job] = attrs.field(factory=dict, init=False)
    #: Why the file could not be written, if so: the rest is not sent.
    failure: OSError | None = attrs.field(default=None, init=False)
    _positions: dict[str, int] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._positions = {one.key: one.index for one in self.planned}

    async def settle(self, download_to: Path | None) -> SubmissionsStopped | None:
        """Run every request; each job's line is written as it comes to rest. What stopped it, if something did.

        The client must be open.
        """
        requests = [one.request for one in self.planned]
        try:
            async with aclosing(self.client.as_settled(requests, download_to=download_to)) as jobs:
                async for job in jobs:
                    self._keep(job)
                    if self.failure is not None:
                        return None
        except SubmissionsStopped as error:
            return error
        return None

    async def finish(self, stopped: SubmissionsStopped | None) -> list[Job]:
        """A line for every job that has none yet, as it now stands; all jobs in the order of the input."""
        self.put_down({job.key: job for job in await self.client.jobs()}, stopped)
        return [self.jobs[one.key] for one in self.planned]

    def put_down(self, known: Mapping[str, Job], stopped: SubmissionsStopped | None = None) -> None:
        """A line for every job that has none yet; waits for nothing."""
        for one in self.planned:
            if one.key not in self.jobs:
                self._keep(known.get(one.key) or self._unsent(one, stopped))

    def _unsent(self, one: Planned, stopped: SubmissionsStopped | None) -> Job:
        return Job(
            key=one.key, request=one.request, provider=self.client.provider.name, base_url=self.client.base_url,
            error=stopped,
        )  # fmt: skip

    def _keep(self, job: Job) -> None:
        placed = self.jobs[job.key] = attrs.evolve(job, index=self._positions[job.key])
        record: Mapping[str, Any] | None = row(placed, self.results.root)
        try:
            record = record if self.failure is not None else self.results.write(placed)
        except OSError as error:
            self.failure = error
            self.terminal.error(f"results.jsonl cannot be written ({error.strerror}); what it lacks follows here")
        if record is not None and self.failure is not None:
            self.terminal.say(as_line(record).rstrip())
        if record is not None and self.echo:
            self.terminal.write(as_line(record, ascii_only=True))


async def run_batch(batch: Batch, out: Path, *, download: bool, quiet: bool) -> Ending:
    """Open the client and run the batch. Interrupted, it still writes every line."""
    follower = Follower(batch.terminal, batch.client.jobs, len(batch.planned), download=download, silent=quiet)

    async def work() -> Ending:
        stopped, interrupted = None, False
        try:
            async with batch.client, follower:
                stopped = await batch.settle(out / "videos" if download else None)
        except asyncio.CancelledError:
            interrupted = True
        jobs = await batch.finish(stopped)
        return Ending(jobs=jobs, stopped=stopped, interrupted=interrupted, recorded=batch.failure is None)

    def asked() -> None:
        follower.end()
        batch.terminal.say(
            "stopping: nothing more is sent, receipts on their way are kept (Ctrl-C again leaves at once)"
        )

    def leaving() -> None:
        batch.put_down({job.key: job for job in batch.client.jobs_now()})

    return await interruptible(work(), asked, leaving)


def summarize(ending: Ending, out: Path, page: Path | None) -> Iterator[str]:
    """What a person is told at the end, a line each."""
    counts = Counter(job.status for job in ending.jobs)
    told = ", ".join(f"{count} {status.value.replace('_', ' ')}" for status, count in counts.most_common())
    files = sum(job.file is not None for job in ending.jobs)
    yield f"{len(ending.jobs)} jobs: {told}; {files} on disk"
    told_of = [
        (job.key, job.error.message)
        for job in ending.jobs
        if job.error is not None and not isinstance(job.error, SubmissionsStopped)
    ]
    for key, message in told_of[:SHOWN]:
        yield f"  {message}" if key in message else f"  job {key}: {message}"
    if len(told_of) > SHOWN:
        yield f"  ... and {len(told_of) - SHOWN} more"
    if ending.stopped is not None:
        yield ending.stopped.message
    if ending.interrupted:
        flying = sum(job.is_in_flight for job in ending.jobs)
        yield f"interrupted: {flying} accepted and not settled; their task ids are in {out / 'results.jsonl'}"
        if flying:
            yield "  look them up at the provider: this version cannot take them up again"
        yield "  what is planned was not sent: run its rows again with another --out"
    yield f"results: {out / 'results.jsonl'}"
    if page is not None:
        yield f"gallery: {page}"


def leave_gallery(
    results: ResultsWriter, out: Path, terminal: Terminal, *, title: str, maker: str, posters: bool = True
) -> Path | None:
    """Poster frames, where they can be drawn, and the page; None, and said, if it cannot be written."""
    try:
        if posters:
            draw_posters((out / str(r["file"]) for r in results.rows.values() if r["file"]), out / "posters")
        rows = list(results.rows.values())
        return write_gallery(rows, out, title=title, maker=maker)
    except OSError as error:
        terminal.error(f"{out / 'index.html'} cannot be written: {error.strerror}")
        return None
