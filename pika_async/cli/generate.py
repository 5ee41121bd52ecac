"""`generate`: one prompt, one video. Prints the task id as soon as the submission is accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import attrs

from pika_async._http.partial_file import sha256_of
from pika_async._planning.estimate import Estimate
from pika_async._planning.keys import slug
from pika_async._runtime.admission import OTHER_CONTENT, may_be_sent
from pika_async._runtime.results import route_refusal
from pika_async.cli.exits import ExitCode, Interrupted, UsageError
from pika_async.cli.fetch_hint import fetch_command
from pika_async.cli.options import ProviderOptions
from pika_async.cli.results import json_line, result_row
from pika_async.cli.row_checks import can_take, check_any
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal, linked
from pika_async.cli.waiting import show_waiting
from pika_async.client import PikaClient
from pika_async.errors import InvalidRequest, SubmissionInDoubt
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from pika_async.polling.adaptive import EXPECTED_SECONDS

__all__ = ["DEFAULT_JOURNAL", "OneVideo", "check_target", "remembered", "report", "save_video"]

#: The journal of a `--key` without `--journal`, in the working directory.
DEFAULT_JOURNAL: Final = Path("pika-async.db")
#: Range of a duration before any is known, as factors of the expected one: 4 of 5 at a lognormal sigma of 0.5.
GUESSED_RANGE: Final = (0.5, 2.0)


def remembered(request: GenerationRequest, key: str | None) -> GenerationRequest:
    """Return `request` with the key under which a journal remembers it: `key`, else one made from its content.

    :raises InvalidRequest: if `key` cannot be one.
    """
    made = "-".join(filter(None, (slug(request.prompt), request.fingerprint()[:16])))
    return attrs.evolve(request, key=made if key is None else key)


@attrs.define(kw_only=True)
class OneVideo:
    """The one video of a `generate`: what it costs, then its submission, the wait and the file.

    :param client: not open; its journal remembers the job where that is a file.
    :param out: file to save the video to; None prints its URL instead.
    :param account: options of the command, repeated in the command that follows the task.
    :param file: path of the file of accounts; default None: one provider.
    :param remembers: whether the same command again is not charged.
    :param expected_seconds: median duration that is expected before any generation has settled; default 60.
    """

    client: PikaClient
    request: GenerationRequest
    out: Path | None
    account: ProviderOptions
    terminal: Terminal
    remembers: bool
    file: str | None = None
    expected_seconds: float = EXPECTED_SECONDS
    #: Names of the accounts that can take the job, or of the one that has it.
    candidates: Sequence[str] = attrs.field(default=(), init=False)
    #: Seconds that a new generation takes, low and high; None where unknown.
    _expected: tuple[float, float] | None = attrs.field(default=None, init=False)

    async def check_before_cost(self, *, quotes: bool) -> Estimate:
        """Return what the request would be charged, once everything has been checked that can be without sending it.

        :param quotes: whether to ask the provider for its price.
        :raises InvalidRequest: if the provider cannot fulfil it, or its key belongs to a job of other content.
        :raises UsageError: if `out` cannot be written.
        """
        can_upload = self.account.uploader is not None
        providers = [provider for provider, _ in self.client.accounts.values()]
        await asyncio.to_thread(check_any, providers, self.request, can_upload=can_upload)
        existing = await self._existing()
        self.candidates = await asyncio.to_thread(self._find_candidates, existing)
        if self.out is not None and not await self._is_downloaded(existing):
            check_target(self.out)
            account = self.account
            for url in {self.client.accounts[name][1]: None for name in self.candidates}:
                refusal = route_refusal(url, allow=account.allow_results, proxy=account.proxy)
                if (reason := await refusal) is not None:
                    raise UsageError(f"--out: results cannot be fetched from here: {reason}; nothing was sent")
        again = [existing.key] if existing is not None and existing.status is JobStatus.REJECTED else []
        estimated = await self.client.estimate([self.request], again=again, quotes=quotes)
        low, high = GUESSED_RANGE
        guess = (low * self.expected_seconds, high * self.expected_seconds)
        self._expected = estimated.seconds if estimated.learned_from else guess
        return attrs.evolve(estimated, seconds=self._expected) if estimated.new_charges else estimated

    def _find_candidates(self, existing: Job | None) -> list[str]:
        """Return the names of the accounts that can take the job, or of the one that has it; reads local files."""
        if existing is not None and not may_be_sent(existing):
            name = existing.account or existing.provider
            return [name] if name in self.client.accounts else list(self.client.accounts)
        can_upload = self.account.uploader is not None
        return [
            name
            for name, (provider, _) in self.client.accounts.items()
            if can_take(provider, self.request, can_upload=can_upload)
        ]

    async def _existing(self) -> Job | None:
        """Return the job that the journal has for the request.

        :raises InvalidRequest: if that has another content.
        """
        job = None if self.request.key is None else await self.client.job(self.request.key)
        if job is not None and not job.answers(self.request.fingerprint()):
            raise InvalidRequest(field="key", value=job.key, reason=OTHER_CONTENT)
        return job

    async def _is_downloaded(self, job: Job | None) -> bool:
        """Return whether the file at `out` is the video of `job`, so that nothing would be overwritten."""
        if job is None or job.sha256 is None or self.out is None:
            return False
        return await sha256_of(self.out) == job.sha256

    async def run(self, *, as_json: bool) -> ExitCode:
        """Submit the request unless it was submitted before, wait, and save the video.

        :param as_json: print the job as one line of JSON.
        :raises PikaError: whatever the client's `submit` raises.
        :raises Interrupted: says how to go on; with the task id if the submission was accepted.
        """
        note = "stopping: a pending submission is still recorded"
        try:
            job = await interruptible(self._work(), lambda: self.terminal.note(note))
        except Interrupted:
            raise Interrupted(await self._interrupted_text()) from None
        code = report(job, self.terminal, as_json=as_json)
        if job.status is JobStatus.TIMED_OUT:
            self.terminal.note(f"to go on waiting: {self._way_on(job)}")
        elif job.status is JobStatus.FAILED and self.remembers:
            self.terminal.note("it stays remembered as failed: to pay for another attempt, give another --key")
        return code

    async def _work(self) -> Job:
        async with self.client as client:
            existing = await self._existing()
            if existing is not None and existing.status is JobStatus.REJECTED:  # not charged: sent like a new one
                await client.resubmit(existing.key)
            job = await self._submit(client)
            known = existing is not None and existing.task_id == job.task_id
            words = "known already, not paid again" if known else f"accepted by {job.account or job.provider}"
            self.terminal.note(f"{words}: task {job.task_id}")
            task = job
            async with show_waiting(
                self.terminal,
                lambda: next((one for one in client.active_jobs() if one.key == task.key), task),
                self._expected,
            ):
                job = await client.wait(job)
            if self.out is not None and job.status is JobStatus.SUCCEEDED:
                job = await save_video(client, job, self.out, self.terminal)
        return job

    async def _submit(self, client: PikaClient) -> Job:
        try:
            return await client.submit(self.request)
        except SubmissionInDoubt as doubt:
            job = await client.job(doubt.key)
            if job is not None and not self.remembers:
                command = self._fetch_command(attrs.evolve(job, task_id="TASK_ID"))
                self.terminal.note(f"no journal has this job; if its task stands at the provider: {command}")
            raise

    def _way_on(self, job: Job) -> str:
        return "run the same command again" if self.remembers else self._fetch_command(job)

    def _fetch_command(self, job: Job) -> str:
        return fetch_command(job, self.out, self.account, accounts=self.file)

    async def _interrupted_text(self) -> str:
        key = self.request.key
        jobs = [job for job in await self.client.jobs() if key is None or job.key == key]
        lines = [
            f"task {job.task_id} is {job.status.label} and continues at {job.account or job.provider}\n"
            f"to go on waiting: {self._way_on(job)}"
            for job in jobs
            if job.task_id is not None
        ]
        lines += [job.error.message for job in jobs if job.status is JobStatus.UNKNOWN and job.error is not None]
        return "interrupted: " + "; ".join(lines or ["nothing was sent"])


def check_target(out: Path) -> None:
    """Check that `out` can be created.

    :raises UsageError: if it exists, or its folder is missing or cannot be written.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(f"--out: {out} exists and is never overwritten; choose another --out; nothing was sent")
    if not out.parent.is_dir():
        raise UsageError(f"--out: {out.parent} must be a folder; nothing was sent")
    try:
        with TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise UsageError(f"--out: {out.parent} cannot be written: {error.strerror}; nothing was sent") from None


async def save_video(client: PikaClient, job: Job, out: Path, terminal: Terminal) -> Job:
    """Download the video of `job` to `out`; return the job with its file."""
    terminal.note("generated; downloading")
    file = await client.download(job, out)
    return attrs.evolve(await client.job(job.key) or job, file=file)  # as it was typed: a journal has the whole path


def report(job: Job, terminal: Terminal, *, as_json: bool) -> ExitCode:
    """Print the result of a finished job, or why there is none."""
    if as_json:
        terminal.write(json_line(result_row(attrs.evolve(job, index=0), Path()), ascii_only=True))
    if job.error is not None:
        terminal.error(job.error.message)
    if job.status is not JobStatus.SUCCEEDED or job.video is None:
        return ExitCode.INCOMPLETE
    if not as_json:
        terminal.show(job.video.url if job.file is None else linked(job.file))
    return ExitCode.OK
