"""The effect of a submission's outcome on its job, and the errors that stop an account. Pure: decides nothing else."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pika_async._planning.fuses import Trip
from pika_async.errors import (
    AccountStopped,
    GatewayInTrouble,
    RefusedAlike,
    SubmissionInDoubt,
    SubmissionRejected,
    SubmissionsStopped,
    WrongBaseUrl,
)
from pika_async.jobs import Job, utc_from_timestamp
from pika_async.models.results import RouteStep
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict

__all__ = ["apply_verdict", "blames_account", "is_suspicious", "rejection", "stop_error"]

#: How much of a reason the record of an earlier submission keeps, in characters.
MAX_REASON: Final = 200
#: The proxy asks for credentials: no gateway has seen the request.
PROXY_AUTHENTICATION_REQUIRED: Final = 407


def is_suspicious(outcome: SubmitOutcome) -> bool:
    """Return whether a refusal came from the provider, so that its cause may be another than the request."""
    return outcome.verdict is SubmitVerdict.REJECTED and outcome.http_status is not None


def blames_account(outcome: SubmitOutcome) -> bool:
    """Return whether a gateway blames the account, which it may do for one request alone; a network does not."""
    return outcome.http_status not in {None, PROXY_AUTHENTICATION_REQUIRED}


def apply_verdict(job: Job, outcome: SubmitOutcome, at: float, sent_at: datetime | None = None) -> Job:
    """Return `job` after its submission, which was sent at `sent_at`; None: at `at`.

    A job that the provider refused is planned again: whether the refusal is the job's own is decided later.
    """
    match outcome.verdict:
        case SubmitVerdict.ACCEPTED if outcome.task_id is not None:
            return job.accepted(outcome.task_id, at, outcome.handle)
        case SubmitVerdict.REJECTED if not is_suspicious(outcome):
            return job.rejected(rejection(job, outcome), at)
        case SubmitVerdict.NOT_SENT if outcome.local:
            return job  # it was never on its way
        case (
            SubmitVerdict.REJECTED
            | SubmitVerdict.NOT_SENT
            | SubmitVerdict.WAIT
            | SubmitVerdict.STOP
            | SubmitVerdict.WRONG_URL
        ):
            account, verdict = job.account or job.provider, outcome.verdict.value
            step = RouteStep(account, verdict, utc_from_timestamp(at), outcome.reason[:MAX_REASON])
            return job.requeued(step=step)
        case _:
            sent_at = sent_at or utc_from_timestamp(at)
            error = SubmissionInDoubt(
                key=job.key, provider=job.provider, reason=outcome.reason, http_status=outcome.http_status,
                request_id=outcome.request_id, at=sent_at, attempt=job.attempts, kind=outcome.kind,
            )  # fmt: skip
            return job.in_doubt(error, sent_at)


def rejection(job: Job, outcome: SubmitOutcome) -> SubmissionRejected:
    """Return the error of a job whose refusal is its own."""
    return SubmissionRejected(
        key=job.key, provider=job.provider, reason=outcome.reason, http_status=outcome.http_status, kind=outcome.kind
    )


def stop_error(provider: str, base_url: str, outcome: SubmitOutcome, trip: Trip, count: int) -> SubmissionsStopped:
    """Return the error that stops an account after `count` answers like `outcome` have tripped a fuse."""
    match trip:
        case Trip.ACCOUNT:
            return AccountStopped(
                provider=provider, reason=outcome.reason, http_status=outcome.http_status, kind=outcome.kind
            )
        case Trip.UNREADABLE:
            reason = f"{count} answers hold no task id that can be read, the last one: {outcome.reason}"
            return WrongBaseUrl(provider=provider, reason=reason, base_url=base_url)
        case Trip.REFUSED_ALIKE:
            return RefusedAlike(
                provider=provider, reason=outcome.reason, http_status=outcome.http_status, kind=outcome.kind,
                count=count,
            )  # fmt: skip
        case Trip.TROUBLE:
            return GatewayInTrouble(provider=provider, reason=outcome.reason, count=count)
