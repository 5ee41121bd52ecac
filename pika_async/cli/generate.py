"""`generate`: one prompt, one video. Prints the task id as soon as the submission is accepted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile

import attrs

from pika_async._planning.estimate import Estimate
from pika_async._runtime.images import check_request_blocking
from pika_async.cli.exits import ExitCode, Interrupted, UsageError
from pika_async.cli.results import json_line, result_row
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal
from pika_async.client import PikaClient
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest

__all__ = ["check_before_cost", "check_target", "generate", "report", "save_video"]


async def check_before_cost(
    client: PikaClient,
    request: GenerationRequest,
    out: Path | None,
    find_refusal: Callable[[], Awaitable[str | None]],
    *,
    can_upload: bool,
) -> Estimate:
    """Return what `request` would be charged, once everything has been checked that can be without sending it.

    :param find_refusal: returns why no result can be fetched from here.
    :param can_upload: whether the client has an uploader.
    :raises InvalidRequest: if the provider cannot fulfil it.
    :raises UsageError: if `out` cannot be written.
    """
    await asyncio.to_thread(check_request_blocking, client.provider, request, can_upload=can_upload)
    if out is not None:
        check_target(out)
        if (reason := await find_refusal()) is not None:
            raise UsageError(f"--out: results cannot be fetched from here: {reason}; nothing was sent")
    return await client.estimate([request])


async def generate(
    client: PikaClient,
    request: GenerationRequest,
    out: Path | None,
    terminal: Terminal,
    *,
    as_json: bool,
) -> ExitCode:
    """Submit `request`, wait, and save the video.

    :param out: file to save the video to; None prints its URL instead.
    :param as_json: print the job as one line of JSON.
    :raises PikaError: whatever the client's `submit` raises.
    :raises Interrupted: names the task id if the submission was accepted.
    """
    jobs: list[Job] = []

    async def work() -> Job:
        async with client:
            job = await client.submit(request)
            jobs.append(job)
            terminal.note(f"accepted by {job.provider}: task {job.task_id}")
            job = await client.wait(job)
            if out is not None and job.status is JobStatus.SUCCEEDED:
                job = await save_video(client, job, out, terminal)
        return job

    try:
        job = await interruptible(work(), lambda: terminal.note("stopping: a pending submission is still recorded"))
    except Interrupted:
        raise Interrupted(_interrupted_text(await client.jobs())) from None
    return report(job, terminal, as_json=as_json)


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
    await client.download(job, out)
    jobs = {other.key: other for other in await client.jobs()}
    return jobs[job.key]


def _interrupted_text(jobs: Sequence[Job]) -> str:
    accepted = [
        f"task {job.task_id} is {job.status.value} and continues at {job.provider}" for job in jobs if job.task_id
    ]
    in_doubt = [job.error.message for job in jobs if job.status is JobStatus.UNKNOWN and job.error is not None]
    return "interrupted: " + "; ".join([*accepted, *in_doubt] or ["nothing was sent"])


def report(job: Job, terminal: Terminal, *, as_json: bool) -> ExitCode:
    """Print the result of a finished job, or why there is none."""
    if as_json:
        terminal.write(json_line(result_row(attrs.evolve(job, index=0), Path()), ascii_only=True))
    if job.error is not None:
        terminal.error(job.error.message)
    if job.status is not JobStatus.SUCCEEDED or job.video is None:
        return ExitCode.INCOMPLETE
    if not as_json:
        terminal.show(str(job.file or job.video.url))
    return ExitCode.OK
