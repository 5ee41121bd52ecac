"""The `fetch` command for a task id, as a person may copy it. Sends nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

from pika_async.cli.options import CredentialOptions
from pika_async.errors import ConfigurationError
from pika_async.jobs import Job
from pika_async.providers import find_provider

__all__ = ["fetch_command"]


def fetch_command(
    job: Job,
    out: Path | None,
    credentials: CredentialOptions = CredentialOptions(),  # noqa: B008 - frozen
) -> str:
    """Return the shell command that follows the task of `job` to its end, quoted so that it can be copied.

    :param out: the file or folder for the video; None: no file.
    :param credentials: options of the command that submitted the job.
    """
    try:
        default_url = find_provider(job.provider).base_url
    except ConfigurationError:  # of a package that is not installed here
        default_url = None
    task_id = job.task_id or ""
    words = ["pika-async", "fetch", *([] if task_id.startswith("-") else [task_id]), "--provider", job.provider]
    if job.base_url != default_url:
        words += ["--base-url", job.base_url]
    if credentials.api_key_file is not None:
        words += ["--api-key-file", str(credentials.api_key_file)]
    for kind in credentials.allow_results:
        words += ["--allow-results", kind]
    if credentials.proxy is not None:
        words += ["--proxy", credentials.proxy]
    if out is not None:
        words += [f"--out={out}"] if str(out).startswith("-") else ["--out", str(out)]
    return shlex.join([*words, "--", task_id] if task_id.startswith("-") else words)
