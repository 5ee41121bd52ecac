"""Errors that are the outcome of one job, raised or stored as `Job.error`."""

from __future__ import annotations

from datetime import datetime

import attrs

from pika_async.errors.base import ErrorKind, PikaError


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JobError(PikaError):
    """The outcome of one job that is not a success. `task_id` is the provider's, where one was read."""

    key: str
    provider: str
    task_id: str | None = None
    reason: str = ""

    @property
    def charged(self) -> bool | None:
        return None

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

    @property
    def charged(self) -> bool | None:
        return False

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
    """A task that the provider settled as failed; `reason` is the provider's text.

    :param refunded: whether the provider gave the points back; default None: unknown.
    """

    refunded: bool | None = None

    @property
    def charged(self) -> bool | None:
        return None if self.refunded is None else not self.refunded

    @property
    def retryable(self) -> bool:
        """Whether a new generation of the same request may succeed. It is paid anew, see `PikaClient.resubmit`."""
        return self.kind in {"provider", "timeout"}

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
    kind: ErrorKind = "timeout"

    @property
    def charged(self) -> bool | None:
        return True

    def _detail(self) -> str:
        seen = ", ".join(filter(None, (self.last_status, self.last_reason, self.last_url))) or "no answer"
        way_out = "the task id is kept: wait for the job or poll it again"
        return f"not settled within {self.seconds:g} s (last seen: {seen}); {way_out}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class TaskNotFound(JobError):  # noqa: N818
    """A task that the provider denies although it gave out the task id. The id is kept.

    For a task that was to be adopted and is not found, `key` is empty, and nothing is kept.
    """

    def _text(self) -> str:
        if self.key:
            return super()._text()
        return (
            f"task {self.task_id} is not found at {self.provider}: {self.reason}; check the id and the provider, "
            "or try again in a minute if it was submitted just now"
        )

    kind: ErrorKind = "provider"

    def _detail(self) -> str:
        return f"the provider no longer finds the task: {self.reason}; its id is kept: poll it again later"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class AcceptedElsewhere(JobError):  # noqa: N818
    """A job that `provider` accepted at `base_url`, where this client has no such account: not polled or paid here.

    :param account: the name of the account that accepted it; default None: it has none.
    """

    base_url: str
    account: str | None = None

    @property
    def charged(self) -> bool | None:
        return True

    def _detail(self) -> str:
        account = f"accepted by the account {self.account or self.provider} at {self.base_url}"
        return f"{account}, which this client does not have; resume it there, or give that account"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JobCanceled(JobError):  # noqa: N818
    """A job that was withdrawn before it was sent, or abandoned by a person while in doubt; `reason` says which.

    :param in_doubt: whether it was in doubt; default False.
    """

    reason: str = "canceled before anything was sent"
    in_doubt: bool = False

    @property
    def charged(self) -> bool | None:
        return None if self.in_doubt else False


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ProviderBusy(JobError):  # noqa: N818
    """A job of which every attempt was refused with "retry later" for `seconds`. Not accepted; it stays planned."""

    seconds: float = 0.0
    kind: ErrorKind = "provider"

    @property
    def charged(self) -> bool | None:
        return False

    @property
    def retryable(self) -> bool:
        return True

    def _detail(self) -> str:
        return f"refused for {self.seconds:g} s ({self.reason}); nothing was accepted, run it again later"
