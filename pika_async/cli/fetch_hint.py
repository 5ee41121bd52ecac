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
    *,
    accounts: str | None = None,
    remembered: bool = False,
) -> str:
    """Return the shell command that follows the task of `job` to its end, quoted so that it can be copied.

    :param out: the file or folder for the video; None: no file.
    :param credentials: options of the command that submitted the job.
    :param accounts: file of accounts that has the job's; default None: none has.
    :param remembered: whether the folder at `out` remembers this file; default False.
    """
    task_id = job.task_id or ""
    words = ["pika-async", "fetch", *([] if task_id.startswith("-") else [task_id])]
    if accounts is not None and job.account is not None:
        words += [*([] if remembered else ["--accounts", accounts]), "--account", job.account]
    else:
        words += _gateway_words(job, credentials)
    for kind in credentials.allow_results:
        words += ["--allow-results", kind]
    if credentials.proxy is not None:
        words += ["--proxy", credentials.proxy]
    if out is not None:
        words += [f"--out={out}"] if str(out).startswith("-") else ["--out", str(out)]
    return shlex.join([*words, "--", task_id] if task_id.startswith("-") else words)


def _gateway_words(job: Job, credentials: CredentialOptions) -> list[str]:
    """Return the options that name the provider of a job, its base URL and its key."""
    try:
        default_url = find_provider(job.provider).base_url
    except ConfigurationError:  # of a package that is not installed here
        default_url = None
    words = ["--provider", job.provider]
    if job.base_url != default_url:
        words += ["--base-url", job.base_url]
    if credentials.api_key_file is not None:
        words += ["--api-key-file", str(credentials.api_key_file)]
    return words
