"""Exceptions of pika_async, in one tree. Sends, waits for and logs nothing.

::

    PikaError
    ├── ConfigurationError            an argument of the client cannot work (no key, bad base URL, ...)
    │   ├── JournalInUse              another client, here or in another process, has the journal open
    │   └── JournalUnusable           no journal, a damaged one, a newer one, or one that cannot be opened
    ├── InvalidRequest                a field is out of range, or the provider cannot do it; nothing was sent
    ├── JobError                      the outcome of one job (also stored, unraised, as `Job.error`)
    │   ├── SubmissionRejected        the provider refused the request; not charged; do not send it again as it is
    │   ├── SubmissionInDoubt         it may have been accepted and charged; never sent again automatically
    │   ├── GenerationFailed          the provider says that the generation failed
    │   ├── DeadlineExceeded          the job's deadline passed; its task id is kept and can be polled again
    │   ├── TaskNotFound              the provider has denied the task for ten minutes; the id is kept
    │   ├── AcceptedElsewhere         another provider, or another address, accepted it; only that one can be polled
    │   ├── JobCanceled               withdrawn before anything was sent, or given up by a person
    │   └── ProviderBusy              refused with "retry later" until the time limit; not accepted, stays planned
    ├── SubmissionsStopped            nothing more is sent to this account; what was not sent stays planned
    │   ├── AccountStopped            credential, balance or certificate (HTTP 401, 402, 403, 407, quota)
    │   ├── ProviderUnreachable       no connection could be made, several times in a row
    │   ├── WrongBaseUrl              a redirect, a web page or an unknown wire answered where the gateway should be
    │   ├── RefusedAlike              the same refusal for different requests: its cause is not theirs
    │   ├── GatewayInTrouble          one ambiguous answer after the other, none accepted between them
    │   ├── ChargeLimitReached        the user's own limit on accepted submissions
    │   ├── JournalFailed             the journal cannot be written (disk full, ...): nothing more is sent
    │   └── ClientClosed              the client was closed while a call was waiting
    ├── ExchangeFailed                one poll got no usable answer; a later one may
    └── DownloadFailed                a result could not be fetched, or is not a whole video or picture; the job stays

Facts are attributes, the message is built from them, and every error survives pickling. No error holds an API key.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
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
    "GatewayInTrouble",
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
    "RefusedAlike",
    "SubmissionInDoubt",
    "SubmissionRejected",
    "SubmissionsStopped",
    "TaskNotFound",
    "WrongBaseUrl",
]

#: How much of a value that a user or a provider wrote is repeated in a message, in characters.
QUOTE_LIMIT = 120


def shorten(value: object) -> str:
    """Return `value` on one line, without control characters, at most `QUOTE_LIMIT` long, for a message."""
    text = value if isinstance(value, str) else repr(value[:QUOTE_LIMIT] if isinstance(value, bytes) else value)
    shown = repr(text[: QUOTE_LIMIT + 1]) if isinstance(value, str) else text[: QUOTE_LIMIT + 1]
    return shown if len(text) <= QUOTE_LIMIT else shown[:QUOTE_LIMIT] + "…"


def strip_control(text: str) -> str:
    """Return `text` without control characters or lone surrogates, so that no provider steers a terminal with it."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class PikaError(Exception):
    """Root of all errors that pika_async raises on purpose."""

    @property
    def type(self) -> str:
        """The class name, as `results.jsonl` gives it."""
        return type(self).__name__

    @property
    def message(self) -> str:
        """The problem and the way out, in one sentence or two, without control characters."""
        return strip_control(self._text())

    def _text(self) -> str:
        """Build the whole message from the facts; may hold control characters."""
        return self.type

    def copy(self) -> Self:
        """Return an equal error to raise, so that the error that is stored with a job gathers no tracebacks."""
        return type(self)(**{field.name: getattr(self, field.name) for field in attrs.fields(type(self))})

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{self.type}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **{field.name: getattr(self, field.name) for field in attrs.fields(type(self))}), ()


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ConfigurationError(PikaError):
    """An argument or option that cannot work: `setting` names it, `reason` says why and gives the way out."""

    setting: str
    reason: str

    def _text(self) -> str:
        return f"{self.setting}: {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalInUse(ConfigurationError):  # noqa: N818
    """A journal that another client has open: a second client would pay for the jobs of the first."""


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalUnusable(ConfigurationError):  # noqa: N818
    """A file that is not a journal of pika_async, is damaged, is of a newer version, or cannot be opened.

    The file is left as it is, because it may hold task ids.
    """


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class InvalidRequest(PikaError, ValueError):  # noqa: N818 - the public name by contract
    """A field that cannot be sent, found before it costs: `field`, its `value`, and `reason` with the way out."""

    field: str
    value: Any
    reason: str

    def _text(self) -> str:
        return f"{self.field}: {shorten(self.value)} {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JobError(PikaError):
    """The outcome of one job that is not a success. `task_id` is the provider's, where one was read."""

    key: str
    provider: str
    task_id: str | None = None
    reason: str = ""

    def _text(self) -> str:
        task = f" (task {self.task_id})" if self.task_id else ""
        return f"job {self.key} at {self.provider}{task}: {self._detail()}"

    def _detail(self) -> str:
        """Build the part of the message after the job's name."""
        return self.reason


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class SubmissionRejected(JobError):  # noqa: N818
    """A request that the provider, or the check just before sending, refused; `http_status` is None for the check."""

    http_status: int | None = None
    advice: str = "change the request before sending it again"

    def _detail(self) -> str:
        status = f"HTTP {self.http_status}, " if self.http_status else ""
        return f"rejected, not charged: {status}{self.reason}; {self.advice}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class SubmissionInDoubt(JobError):  # noqa: N818
    """A request that was sent and whose task id was not read: whether it was charged is unknown.

    `at` is when it was sent, `attempt` counts from 1, `http_status` is that of the answer (None without one), and
    `request_id` is the provider's name for the request, where the answer holds one.
    """

    http_status: int | None = None
    at: datetime | None = None
    attempt: int = 0
    request_id: str | None = None

    def _detail(self) -> str:
        return (
            f"in doubt: {self.reason}; it may have been accepted and charged, so it is not sent again: "
            "find it at the provider, then resolve the job with its task id, as not charged, or abandon it"
        )


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class GenerationFailed(JobError):  # noqa: N818
    """A task that the provider settled as failed; `reason` is the provider's text."""

    def _detail(self) -> str:
        return f"generation failed: {self.reason or 'no reason given'}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class DeadlineExceeded(JobError):  # noqa: N818
    """A job that did not settle within `seconds` of its acceptance. Its task id stays valid.

    `last_status` is the provider's latest status word, `last_reason` its words beside that, or what was wrong with the
    latest answer, and `last_url` the URL of a result that stood beside an unknown word.
    """

    seconds: float = 0.0
    last_status: str = ""
    last_reason: str = ""
    last_url: str | None = None

    def _detail(self) -> str:
        seen = ", ".join(filter(None, (self.last_status, self.last_reason, self.last_url))) or "no answer"
        way_out = "the task id is kept: wait for the job or poll it again"
        return f"not settled within {self.seconds:g} s (last seen: {seen}); {way_out}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class TaskNotFound(JobError):  # noqa: N818
    """A task that the provider denies although it gave out the task id. The id is kept."""

    def _detail(self) -> str:
        return f"the provider no longer finds the task: {self.reason}; its id is kept: poll it again later"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class AcceptedElsewhere(JobError):  # noqa: N818
    """A job that `provider` accepted at `base_url`, which is not this client's: it is neither polled nor paid here."""

    base_url: str

    def _detail(self) -> str:
        return f"accepted at {self.base_url}, which is not this client's base URL; resume it there"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JobCanceled(JobError):  # noqa: N818
    """A job that was withdrawn before it was sent, or abandoned by a person while in doubt; `reason` says which."""

    reason: str = "canceled before anything was sent"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ProviderBusy(JobError):  # noqa: N818
    """A job of which every attempt was refused with "retry later" for `seconds`. Not accepted; it stays planned."""

    seconds: float = 0.0

    def _detail(self) -> str:
        return f"refused for {self.seconds:g} s ({self.reason}); nothing was accepted, run it again later"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class SubmissionsStopped(PikaError):  # noqa: N818
    """A stop of all submissions to one account in this run; every job that was not sent stays planned."""

    provider: str
    reason: str = ""

    def _text(self) -> str:
        return f"{self.provider}: submitting stopped: {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class AccountStopped(SubmissionsStopped):
    """A stop because the credential, the balance or the certificate was refused; no job fails because of it."""

    http_status: int | None = None

    def _text(self) -> str:
        status = f"HTTP {self.http_status}: " if self.http_status else ""
        way_out = "mend the key or the balance, then run the same again"
        return f"{self.provider}: the account is stopped: {status}{self.reason}; {way_out}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ProviderUnreachable(SubmissionsStopped):
    """A stop because no connection could be made `attempts` times in a row; nothing was sent."""

    attempts: int = 0

    def _text(self) -> str:
        tries = f" ({self.attempts} attempts)" if self.attempts else ""
        way_out = "nothing was sent: check the network and the base URL, then run the same again"
        return f"{self.provider}: cannot be reached{tries}: {self.reason}; {way_out}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class WrongBaseUrl(SubmissionsStopped):
    """A stop because a redirect, a page or an unreadable answer came instead of the API. Redirects are not followed."""

    base_url: str

    def _text(self) -> str:
        return f"{self.provider}: {self.base_url} must be the URL of this API: {self.reason}; check the base URL"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class RefusedAlike(SubmissionsStopped):
    """A stop because `count` different requests were refused alike: the cause is not theirs, and they stay planned."""

    http_status: int | None = None
    count: int = 0

    def _text(self) -> str:
        status = f"HTTP {self.http_status}: " if self.http_status else ""
        return (
            f"{self.provider}: {self.count} different requests were refused alike, not charged: {status}{self.reason}; "
            "mend the cause (base URL, balance, model or the requests themselves), then run the same again"
        )


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class GatewayInTrouble(SubmissionsStopped):
    """A stop because `count` answers in a row, the last to single submissions, left it open whether they cost."""

    count: int = 0

    def _text(self) -> str:
        return (
            f"{self.provider}: the gateway is in trouble: {self.count} answers in a row leave it open whether they are "
            f"charged, the last one: {self.reason}; wait until it has recovered, then run the same again"
        )


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ChargeLimitReached(SubmissionsStopped):
    """A stop because `limit` submissions are accepted or in doubt; one in doubt counts as charged."""

    limit: int

    def _text(self) -> str:
        return f"{self.provider}: the limit of {self.limit} charges is reached; raise it to send the rest"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalFailed(SubmissionsStopped):
    """A stop because the journal at `path` cannot be written, so that the next task id might be lost.

    Writes that the journal lacks are in `fallback_file`, which the next opening of the journal reads in; None if there
    were none, or if that file could not be written either: then they were only logged.
    """

    path: str
    fallback_file: str | None = None

    def _text(self) -> str:
        fallback = f"; what it lacks is in {self.fallback_file}" if self.fallback_file else ""
        way_out = f"nothing more is sent{fallback}; mend it, then run the same again"
        return f"{self.provider}: the journal {self.path} cannot be written: {self.reason}; {way_out}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ClientClosed(SubmissionsStopped):
    """A stop because the client was closed. Accepted jobs keep their task ids, see `PikaClient.jobs`."""

    def _text(self) -> str:
        return f"{self.provider}: the client was closed{self.reason and ': '}{self.reason}; jobs() has every record"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ExchangeFailed(PikaError):  # noqa: N818
    """A poll without a usable answer; `http_status` is None when none was read."""

    provider: str
    reason: str
    http_status: int | None = None

    def _text(self) -> str:
        status = f"HTTP {self.http_status}: " if self.http_status else ""
        return f"{self.provider}: no usable answer: {status}{self.reason}; polling again is free"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class DownloadFailed(PikaError):  # noqa: N818
    """A result that was not fetched whole. The generation stands: download it again, never pay again.

    `expired` means that the host does not serve the URL (401, 403, 404, 410, a page): a poll brings a fresh one.
    """

    url: str
    reason: str
    expired: bool = False

    def _text(self) -> str:
        return f"download of {self.url} failed: {self.reason}; the video stays paid, fetch it again"
