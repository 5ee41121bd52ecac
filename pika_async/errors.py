"""Every error that pika_async raises on purpose, in one tree; nothing here sends, waits or logs.

::

    PikaError
    ├── ConfigurationError            an argument of the client cannot work (no key, bad base URL, ...)
    │   ├── JournalInUse              another client, here or in another process, has the journal open
    │   └── JournalUnusable           no journal, a damaged one, a newer one, or one that cannot be opened
    ├── InvalidRequest                a field is out of range, or the provider cannot do it; nothing was sent
    ├── JobError                      what became of one job (also found, unraised, as `Job.error`)
    │   ├── SubmissionRejected        the provider refused the request; not charged; do not send it again as it is
    │   ├── SubmissionInDoubt         it may have been accepted and charged; never re-sent by itself
    │   ├── GenerationFailed          the provider says that the generation failed
    │   ├── DeadlineExceeded          the job's deadline passed; its task id is kept and can be asked again
    │   ├── TaskNotFound              the provider has denied the task for ten minutes; the id is kept
    │   ├── AcceptedElsewhere         another provider, or another address, accepted it; only that one can be asked
    │   ├── JobCanceled               withdrawn before anything was sent, or given up by a person
    │   └── ProviderBusy              refused for now ("wait") until patience ended; proven not sent, stays planned
    ├── SubmissionsStopped            nothing more is sent to this account; what was not sent stays planned
    │   ├── AccountStopped            credential, balance or certificate (HTTP 401, 402, 403, 407, quota)
    │   ├── ProviderUnreachable       no connection could be made, several times in a row
    │   ├── WrongBaseUrl              a redirect or a web page answered where the gateway should be
    │   ├── ChargeLimitReached        the user's own limit on accepted submissions
    │   ├── JournalFailed             the journal cannot be written (disk full, ...): nothing more is sent
    │   └── ClientClosed              the client was closed under a call that still waited
    ├── ExchangeFailed                one poll got no usable answer; a later one may
    └── DownloadFailed                a result could not be fetched or is no playable MP4; the job stays succeeded

Facts are attributes, the message is built from them, and every error survives pickling. No error holds a key.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

import attrs

__all__ = [
    "AcceptedElsewhere",
    "AccountStopped",
    "ChargeLimitReached",
    "ClientClosed",
    "ConfigurationError",
    "DeadlineExceeded",
    "DownloadFailed",
    "ExchangeFailed",
    "GenerationFailed",
    "InvalidRequest",
    "JobCanceled",
    "JobError",
    "JournalFailed",
    "JournalInUse",
    "JournalUnusable",
    "PikaError",
    "ProviderBusy",
    "ProviderUnreachable",
    "SubmissionInDoubt",
    "SubmissionRejected",
    "SubmissionsStopped",
    "TaskNotFound",
    "WrongBaseUrl",
]

#: How much of a value that a user or a provider wrote is repeated in a message, in characters.
QUOTE_LIMIT = 120


def shorten(value: object) -> str:
    """`value` as a message may show it: on one line, without control characters, at most `QUOTE_LIMIT` long."""
    text = value if isinstance(value, str) else repr(value[:QUOTE_LIMIT] if isinstance(value, bytes) else value)
    shown = repr(text[: QUOTE_LIMIT + 1]) if isinstance(value, str) else text[: QUOTE_LIMIT + 1]
    return shown if len(text) <= QUOTE_LIMIT else shown[:QUOTE_LIMIT] + "…"


def strip_control(text: str) -> str:
    """`text` without control characters or lone surrogates, so that no provider steers a terminal with it."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def _restore(kind: type[PikaError], facts: dict[str, Any]) -> PikaError:
    return kind(**facts)


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class PikaError(Exception):
    """The root: `except PikaError` catches whatever pika_async raises on purpose."""

    @property
    def type(self) -> str:
        """The class name, as `results.jsonl` gives it."""
        return type(self).__name__

    @property
    def message(self) -> str:
        """What happened and what to do next, in one sentence or two; printable whatever the facts hold."""
        return strip_control(self.sentence)

    @property
    def sentence(self) -> str:
        """The message of this kind of error, built from its facts."""
        return self.type

    def copy(self) -> Self:
        """An equal error to raise: one that is kept with a job never gathers tracebacks."""
        return type(self)(**{field.name: getattr(self, field.name) for field in attrs.fields(type(self))})

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{self.type}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        names = [field.name for field in attrs.fields(type(self))]
        return _restore, (type(self), {name: getattr(self, name) for name in names})


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ConfigurationError(PikaError):
    """An argument of the client or an option cannot work. `setting` names it, `reason` says why and the way out."""

    setting: str
    reason: str

    @property
    def sentence(self) -> str:
        return f"{self.setting}: {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalInUse(ConfigurationError):  # noqa: N818
    """One journal, one client: a second one would pay for what the first has under way."""


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalUnusable(ConfigurationError):  # noqa: N818
    """The file is no journal of pika_async, is damaged, was written by a newer version, or cannot be opened.

    It is left as it is: it may hold receipts, and is never made anew.
    """


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class InvalidRequest(PikaError, ValueError):  # noqa: N818 - the public name by contract
    """A field of a request cannot be sent. Raised before anything costs; `reason` holds the range and the way out."""

    field: str
    value: Any
    reason: str

    @property
    def sentence(self) -> str:
        return f"{self.field}: {shorten(self.value)} {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JobError(PikaError):
    """What became of one job. `task_id` is the provider's receipt, where one was read."""

    key: str
    provider: str
    task_id: str | None = None
    reason: str = ""

    @property
    def sentence(self) -> str:
        task = f" (task {self.task_id})" if self.task_id else ""
        return f"job {self.key} at {self.provider}{task}: {self.says}"

    @property
    def says(self) -> str:
        """The sentence of this kind of error, without the job's name."""
        return self.reason


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class SubmissionRejected(JobError):  # noqa: N818
    """The provider (or the local check at sending time) refused the request. `http_status` is None for a local one."""

    http_status: int | None = None
    advice: str = "change the request before sending it again"

    @property
    def says(self) -> str:
        status = f"HTTP {self.http_status}, " if self.http_status else ""
        return f"rejected, not charged: {status}{self.reason}; {self.advice}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class SubmissionInDoubt(JobError):  # noqa: N818
    """The request left this machine and no receipt came back: charged or not is not known.

    What is known: `at`, when it was sent; `attempt`, counted from 1; `http_status` of what came
    back, None if nothing did; `request_id`, what the provider calls the request, where it said.
    """

    http_status: int | None = None
    at: datetime | None = None
    attempt: int = 0
    request_id: str | None = None

    @property
    def says(self) -> str:
        return (
            f"in doubt: {self.reason}; it may have been accepted and charged, so it is not sent again: "
            "look it up at the provider, then resolve the job with its task id, as not charged, or abandon it"
        )


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class GenerationFailed(JobError):  # noqa: N818
    """The provider settled the task as failed; `reason` is its own text."""

    @property
    def says(self) -> str:
        return f"generation failed: {self.reason or 'no reason given'}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class DeadlineExceeded(JobError):  # noqa: N818
    """Not settled `seconds` after it was accepted. The task id stays good: poll or wait again."""

    seconds: float = 0.0

    @property
    def says(self) -> str:
        return f"not settled within {self.seconds:g} s; the task id is kept and may still be asked"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class TaskNotFound(JobError):  # noqa: N818
    """The provider kept denying a task id that it had given out. The id is kept."""

    @property
    def says(self) -> str:
        return f"the provider no longer knows the task: {self.reason}; its id is kept and may still be asked"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class AcceptedElsewhere(JobError):  # noqa: N818
    """The job was accepted by `provider` at `base_url`, not this client's: it is neither asked nor paid here."""

    base_url: str

    @property
    def says(self) -> str:
        return f"accepted at {self.base_url}, which this client does not speak to; resume it there"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JobCanceled(JobError):  # noqa: N818
    """Withdrawn while still planned, or a doubt that a person gave up; `reason` says which."""

    reason: str = "canceled before anything was sent"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ProviderBusy(JobError):  # noqa: N818
    """Every attempt was refused with "wait" for `seconds`. Proven not accepted; the job stays planned."""

    seconds: float = 0.0

    @property
    def says(self) -> str:
        return f"refused for {self.seconds:g} s ({self.reason}); nothing was accepted, run it again later"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class SubmissionsStopped(PikaError):  # noqa: N818
    """No more is sent to this account in this run; every job that was not sent stays planned."""

    provider: str
    reason: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.provider}: submitting stopped: {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class AccountStopped(SubmissionsStopped):
    """The credential, the balance or the connection's certificate was refused; no job is failed for it."""

    http_status: int | None = None

    @property
    def sentence(self) -> str:
        status = f"HTTP {self.http_status}: " if self.http_status else ""
        return (
            f"{self.provider}: the account is stopped: {status}{self.reason}; "
            "mend the key or the balance, then run the same again"
        )


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ProviderUnreachable(SubmissionsStopped):
    """No connection could be made `attempts` times in a row; proven not sent."""

    attempts: int = 0

    @property
    def sentence(self) -> str:
        tries = f" ({self.attempts} attempts)" if self.attempts else ""
        return f"{self.provider}: cannot be reached{tries}: {self.reason}; nothing was sent"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class WrongBaseUrl(SubmissionsStopped):
    """A redirect or an HTML 404 came where the gateway's API should be. Redirects are never followed."""

    base_url: str

    @property
    def sentence(self) -> str:
        return (
            f"{self.provider}: {self.base_url} does not look like this gateway's API: {self.reason}; check the base URL"
        )


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ChargeLimitReached(SubmissionsStopped):
    """As many submissions as the user allows are accepted, or in doubt; one in doubt counts as charged."""

    limit: int

    @property
    def sentence(self) -> str:
        return f"{self.provider}: the limit of {self.limit} charges is reached; raise it to send the rest"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalFailed(SubmissionsStopped):
    """The journal could not be written: nothing more is sent, for its receipt might be lost.

    `path` is the journal. Records that could not be saved are in `fallback_file`, which is read when the journal is
    opened again; None if there were none, or if that file could not be written either: then they were only logged.
    """

    path: str
    fallback_file: str | None = None

    @property
    def sentence(self) -> str:
        fallback = f"; what it lacks is in {self.fallback_file}" if self.fallback_file else ""
        return (
            f"{self.provider}: the journal {self.path} cannot be written: {self.reason}; "
            f"nothing more is sent{fallback}; mend it, then run the same again"
        )


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ClientClosed(SubmissionsStopped):
    """The client was closed. What was not sent stays planned, what was accepted keeps its task id in `jobs()`."""

    @property
    def sentence(self) -> str:
        return f"{self.provider}: the client was closed{self.reason and ': '}{self.reason}; jobs() has every record"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ExchangeFailed(PikaError):  # noqa: N818
    """One poll brought no usable answer. `http_status` is None when none was read. Asking again is free."""

    provider: str
    reason: str
    http_status: int | None = None

    @property
    def sentence(self) -> str:
        status = f"HTTP {self.http_status}: " if self.http_status else ""
        return f"{self.provider}: no usable answer: {status}{self.reason}; asking again is free"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class DownloadFailed(PikaError):  # noqa: N818
    """A result was not fetched whole. The generation stands: download it again, never pay again.

    `expired` says that the host no longer serves the address (HTTP 401, 403, 404, 410): a poll brings a fresh one.
    """

    url: str
    reason: str
    expired: bool = False

    @property
    def sentence(self) -> str:
        return f"download of {self.url} failed: {self.reason}; the video stays paid, fetch it again"
