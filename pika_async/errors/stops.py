"""Errors that stop all submissions to one account; what was not sent stays planned."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from pika_async.errors.base import ErrorKind, PikaError


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class SubmissionsStopped(PikaError):  # noqa: N818
    """A stop of all submissions to one account in this run; every job that was not sent stays planned."""

    provider: str
    reason: str = ""

    def _text(self) -> str:
        return f"{self.provider}: submitting stopped: {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class AccountStopped(SubmissionsStopped):
    """A stop because the credential, the balance or the certificate was refused; no job fails because of it.

    :param task_id: the accepted task whose poll was refused; default None: a submission was.
    """

    http_status: int | None = None
    task_id: str | None = None

    @property
    def charged(self) -> bool | None:
        return self.task_id is not None

    def _text(self) -> str:
        status = f"HTTP {self.http_status}: " if self.http_status else ""
        way_out = "mend the key or the balance, then run the same again"
        return f"{self.provider}: the account is stopped: {status}{self.reason}; {way_out}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ProviderUnreachable(SubmissionsStopped):
    """A stop because no connection could be made `attempts` times in a row; nothing was sent."""

    attempts: int = 0
    kind: ErrorKind = "network"

    @property
    def retryable(self) -> bool:
        return True

    def _text(self) -> str:
        tries = f" ({self.attempts} attempts)" if self.attempts else ""
        way_out = "nothing was sent: check the network and the base URL, then run the same again"
        return f"{self.provider}: cannot be reached{tries}: {self.reason}; {way_out}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class WrongBaseUrl(SubmissionsStopped):
    """A stop because a redirect, a page or an unreadable answer came instead of the API. Redirects are not followed."""

    base_url: str
    kind: ErrorKind = "invalid"

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
    kind: ErrorKind = "provider"

    @property
    def retryable(self) -> bool:
        return True

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
class BudgetReached(SubmissionsStopped):
    """A stop because the next charge would exceed `budget`, all in the unit of the price; one in doubt counts too.

    `spent` is the price of all charges so far, `needed` the least budget that pays for one more.
    """

    budget: float
    spent: float
    needed: float

    def _text(self) -> str:
        return (
            f"{self.provider}: the budget of {self.budget} is reached: {self.spent} of it are used; raise it "
            f"to at least {self.needed} to send the next one"
        )


def _without_names(reasons: Mapping[str, str]) -> dict[str, str]:
    """Return the reasons without the name of their account at their beginning."""
    return {name: reason.removeprefix(f"{name}: ") for name, reason in reasons.items()}


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class NoAccountLeft(SubmissionsStopped):
    """A stop because no account that could take the job is left; why, by account. It was accepted by none.

    :param reasons: the reason of each account, by its name.
    """

    reasons: Mapping[str, str] = attrs.field(factory=dict, converter=_without_names)

    def _text(self) -> str:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())
        return f"no account is left that can take this: {reasons}; mend one of them, then run the same again"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalFailed(SubmissionsStopped):
    """A stop because the journal at `path` cannot be written, so that the next task id might be lost.

    Writes that the journal lacks are in `fallback_file`, which the next opening of the journal reads in; None if there
    were none, or if that file could not be written either: then they were only logged.
    """

    path: str
    fallback_file: str | None = None

    @property
    def charged(self) -> bool | None:
        return None

    def _text(self) -> str:
        fallback = f"; what it lacks is in {self.fallback_file}" if self.fallback_file else ""
        way_out = f"nothing more is sent{fallback}; mend it, then run the same again"
        subject = f"{self.provider}: the journal" if self.provider else "the journal"
        return f"{subject} {self.path} cannot be written: {self.reason}; {way_out}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class LeaseEnded(SubmissionsStopped):
    """A stop because the lease of this worker has ended: others have its jobs by now, and it may write nothing more."""

    kind: ErrorKind = "other"

    @property
    def charged(self) -> bool | None:
        return None

    def _text(self) -> str:
        return f"the lease of this worker has ended ({self.reason}): other workers have its jobs; start it again"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ClientClosed(SubmissionsStopped):
    """A stop because the client was closed. Accepted jobs keep their task ids, see `PikaClient.jobs`.

    :param task_id: the accepted task that was waited for; default None: none, or not known.
    """

    task_id: str | None = None

    @property
    def charged(self) -> bool | None:
        return True if self.task_id else None

    def _text(self) -> str:
        return f"{self.provider}: the client was closed{self.reason and ': '}{self.reason}; jobs() has every record"
