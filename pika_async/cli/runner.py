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
from pika_async.cli.batch import Batch, BatchOutcome, is_unfinished, leave_gallery
from pika_async.cli.batch_folder import BatchOptions, Folder
from pika_async.cli.callback_options import Listening
from pika_async.cli.exits import UsageError
from pika_async.cli.options import Credentials, ProviderOptions, open_client
from pika_async.cli.progress import ProgressDisplay
from pika_async.cli.requests import InputRequest, check_local_files
from pika_async.cli.results import ResultsWriter
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal
from pika_async.client import PikaClient
from pika_async.errors import AccountStopped, InvalidRequest, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.providers import find_provider

__all__ = ["BatchRunner", "ProviderRun", "steps_of"]

#: Seconds that leaving at once gives the journal to write what it was told already.
LEAVE: Final = 1.0


@attrs.frozen
class ProviderRun:
    """A client, what it is to do once it is open, and which of its jobs are to be paid for once more."""

    client: PikaClient
    plan: Callable[[], Sequence[InputRequest]]
    again: Sequence[str] = ()


@attrs.define
class BatchRunner:
    """The steps of one command in one folder; all their jobs share `results.jsonl`."""

    folder: Folder
    terms: BatchOptions
    terminal: Terminal
    quiet: bool
    listening: Listening | None = None
    _began: datetime = attrs.field(factory=partial(datetime.now, UTC), init=False)
    _batches: list[Batch] = attrs.field(factory=list, init=False)
    _results: ResultsWriter | None = attrs.field(default=None, init=False)
    _follower: ProgressDisplay | None = attrs.field(default=None, init=False)

    async def run(
        self, steps: Sequence[ProviderRun], title: str, done: Sequence[Job] = ()
    ) -> tuple[BatchOutcome, Path | None]:
        """Every step to its end; and the page. `done`: jobs of the command that need none.

        :raises UsageError: if the folder, an input or the journal cannot be used; nothing was sent.
        :raises Interrupted: if it was interrupted before anything was taken in.
        """
        with ExitStack() as stack:
            ending = await interruptible(self._work(steps, done, stack), self._asked, self._leaving)
            rows = list(self._results.rows.values()) if self._results is not None else []
        posters = not ending.interrupted
        return ending, leave_gallery(rows, self.folder.root, self.terminal, title=title, maker="batch", posters=posters)

    async def _work(self, steps: Sequence[ProviderRun], done: Sequence[Job], stack: ExitStack) -> BatchOutcome:
        stopped: SubmissionsStopped | None = None
        interrupted = False
        try:
            for number, step in enumerate(steps):
                async with step.client:
                    if not number:
                        await self._begin(steps, stack)
                    found = await self._settle(self._batches[number])
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
            recorded=all(batch.failure is None for batch in self._batches),
            kept=self.folder.journal.is_whole,
            others=[job for job in self.folder.journal.all() if job.key not in keys and "~" not in job.key],
            callbacks=[] if self.listening is None else self.listening.summary(jobs, self._began),
        )

    async def _begin(self, steps: Sequence[ProviderRun], stack: ExitStack) -> None:
        """The journal is ours: what is planned is known, and has its lines where it is settled already."""
        plans = [step.plan() for step in steps]
        await self.folder.keep_terms(self.terms)
        for step, planned in zip(steps, plans, strict=True):
            for one in planned:
                if one.key in step.again:
                    await self._pay_again(step.client, one)
        positions = {one.key: one.index for planned in plans for one in planned}
        results = self.folder.start_results(positions, download=self.terms.download)
        self._results = stack.enter_context(results)
        self._batches += [
            Batch(step.client, planned, self._results, self.terminal, echo=self.quiet)
            for step, planned in zip(steps, plans, strict=True)
        ]
        if self.listening is not None:
            self.terminal.say(self.listening.announcement)

    async def _pay_again(self, client: PikaClient, one: InputRequest) -> None:
        job = self.folder.journal.get(one.key)
        unsent = job is not None and job.status is JobStatus.PLANNED
        if job is None or (unsent and job.request.fingerprint() == one.request.fingerprint()):
            return  # it was never paid for, and is about to be
        try:
            earlier = await client.resubmit(one.key)
            self.terminal.say(f"job {one.key} is paid for again; the earlier one is {earlier.key}")
        except InvalidRequest as error:
            if error.field == "file":
                raise UsageError(f"--again {one.key}: {error.message}; nothing was sent") from None
            self.terminal.say(error.message)
        except OSError as error:
            reason = f"{job.file} cannot make room for a new one: {error.strerror}; nothing was sent"
            raise UsageError(f"--again {one.key}: {reason}") from None

    async def _settle(self, batch: Batch) -> SubmissionsStopped | None:
        download = self.terms.download
        self._follower = ProgressDisplay(
            self.terminal, batch.view, len(batch.planned), download=download, silent=self.quiet,
            hear=None if self.listening is None else partial(batch.hear, self.listening),
        )  # fmt: skip
        async with self._follower:
            return await batch.settle(self.folder.videos if download else None)

    def _asked(self) -> None:
        if self._follower is not None:
            self._follower.end()
        self.terminal.say(
            "stopping: nothing more is sent, receipts on their way are kept (Ctrl-C again leaves at once)"
        )

    def _leaving(self) -> None:
        self.folder.journal.flush(LEAVE)
        known = {job.key: job for job in self.folder.journal.all()}
        for batch in self._batches:
            batch.put_down(known)
        self.terminal.say(f"to go on: {self.folder.command('resume')}")


def steps_of(
    folder: Folder, credentials: Credentials, terms: BatchOptions, listening: Listening | None = None
) -> tuple[list[ProviderRun], list[Job]]:
    """A step for each provider and address with a job of `folder` to go on with; and the jobs of the others.

    :raises ConfigurationError: names the option that cannot work, or the missing key.
    :raises UsageError: if one key would be shown to several providers, or a picture that is to be sent is not there.
    """
    known = [attrs.evolve(job, index=index) for index, job in enumerate(folder.journal.all())]
    going = {
        (job.provider, job.base_url)
        for job in known
        if is_unfinished(job) or job.status is JobStatus.SUBMITTING or (terms.download and needs_download(job))
    }
    by_gateway: dict[tuple[str, str], list[InputRequest]] = {}
    done = []
    for job in known:
        if (job.provider, job.base_url) not in going:
            done.append(job)
            continue
        if job.status is JobStatus.PLANNED:
            _check_pictures(job)
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
        hears = listening is not None and find_provider(provider).takes_callback
        receiver = listening.receiver if listening is not None and hears else None
        client = open_client(account, terms=terms, journal=folder.journal, callbacks=receiver)
        steps.append(ProviderRun(client, partial(list, these)))
    return steps, done


def _check_pictures(job: Job) -> None:
    """Their paths may count from where the batch was called: a job that is sent without them is refused for good."""
    try:
        check_local_files(find_provider(job.provider), job.request)
    except InvalidRequest as error:
        way_out = "go on from where the batch was called, or run the batch again without that row; nothing was sent"
        raise UsageError(f"job {job.key}: {error.message}; {way_out}") from None
