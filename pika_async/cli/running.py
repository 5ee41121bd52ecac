"""Runs the jobs of a folder to their end, one client after the other; interrupted, it puts everything away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs

from pika_async.cli.batch import Batch, Ending, leave_gallery
from pika_async.cli.folder import Folder, Terms
from pika_async.cli.options import Account, Credentials, open_client
from pika_async.cli.progress import Follower
from pika_async.cli.requests import Planned
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal
from pika_async.client import PikaClient
from pika_async.errors import InvalidRequest, SubmissionsStopped
from pika_async.report import ResultsWriter

__all__ = ["Step", "Work", "steps_of"]

#: Seconds that leaving at once gives the journal to write what it was told already.
LEAVE: float = 1.0


@attrs.frozen
class Step:
    """A client, what it is to do once it is open, and which of its jobs are to be paid for once more."""

    client: PikaClient
    plan: Callable[[], Sequence[Planned]]
    again: Sequence[str] = ()


@attrs.define
class Work:
    """The steps of one command in one folder; all their jobs share `results.jsonl`."""

    folder: Folder
    terms: Terms
    terminal: Terminal
    quiet: bool
    _batches: list[Batch] = attrs.field(factory=list, init=False)
    _results: ResultsWriter | None = attrs.field(default=None, init=False)
    _follower: Follower | None = attrs.field(default=None, init=False)
    _ending: Ending | None = attrs.field(default=None, init=False)

    async def run(self, steps: Sequence[Step], title: str) -> tuple[Ending, Path | None]:
        """Every step to its end; and the page.

        :raises UsageError: if the folder, an input or the journal cannot be used; nothing was sent.
        :raises Interrupted: if it was interrupted before anything was taken in.
        """
        with ExitStack() as stack:
            ending = await interruptible(self._work(steps, stack), self._asked, self._leaving)
            rows = list(self._results.rows.values()) if self._results is not None else []
        posters = not ending.interrupted
        return ending, leave_gallery(rows, self.folder.root, self.terminal, title=title, maker="batch", posters=posters)

    async def _work(self, steps: Sequence[Step], stack: ExitStack) -> Ending:
        stopped: SubmissionsStopped | None = None
        interrupted = False
        try:
            for step in steps:
                async with step.client:
                    batch = await self._begin(step, stack)
                    stopped = await self._settle(batch) or stopped
        except asyncio.CancelledError:
            if not self._batches:
                raise
            interrupted = True
        jobs = [job for batch in self._batches for job in await batch.finish(stopped)]
        keys = {job.key for job in jobs}
        return Ending(
            jobs=jobs,
            stopped=stopped,
            interrupted=interrupted,
            recorded=all(batch.failure is None for batch in self._batches),
            others=[job for job in self.folder.journal.all() if job.key not in keys and "~" not in job.key],
        )

    async def _begin(self, step: Step, stack: ExitStack) -> Batch:
        """The journal is ours: what is planned is known, and has its lines where it is settled already."""
        planned = step.plan()
        await self.folder.keep_terms(self.terms)
        for key in step.again:
            await self._pay_again(step.client, key)
        if self._results is None:
            positions = {one.key: one.index for one in planned}
            results = self.folder.start_results(positions, download=self.terms.download)
            self._results = stack.enter_context(results)
        batch = Batch(step.client, planned, self._results, self.terminal, echo=self.quiet)
        self._batches.append(batch)
        return batch

    async def _pay_again(self, client: PikaClient, key: str) -> None:
        if self.folder.journal.get(key) is None:
            return
        try:
            earlier = await client.pay_again(key)
            self.terminal.say(f"job {key} is paid for again; the earlier one is {earlier.key}")
        except InvalidRequest as error:
            self.terminal.say(error.message)

    async def _settle(self, batch: Batch) -> SubmissionsStopped | None:
        download = self.terms.download
        self._follower = Follower(self.terminal, batch.view, len(batch.planned), download=download, silent=self.quiet)
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


def steps_of(folder: Folder, credentials: Credentials, terms: Terms) -> list[Step]:
    """A step for each provider and address that accepted a job of `folder`, or was to be sent one.

    :raises ConfigurationError: names the option that cannot work, or the missing key.
    """
    by_gateway: dict[tuple[str, str], list[Planned]] = {}
    for number, job in enumerate(job for job in folder.journal.all() if "~" not in job.key):
        planned = Planned(attrs.evolve(job.request, key=job.key), number, "journal.db")
        by_gateway.setdefault((job.provider, job.base_url), []).append(planned)
    steps = []
    for (provider, url), these in by_gateway.items():
        account = Account(
            provider=provider, base_url=url, api_key_file=credentials.api_key_file, proxy=credentials.proxy
        )
        client = open_client(account, terms=terms, journal=folder.journal)
        steps.append(Step(client, partial(list, these)))
    return steps
