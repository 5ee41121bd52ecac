"""Exceptions of pika_async, in one tree. Sends, waits for and logs nothing.

::

    PikaError
    ├── ConfigurationError            an argument of the client cannot work (no key, bad base URL, ...)
    │   ├── ClusterUnusable           no database of a cluster, a newer one, or one that cannot be reached
    │   ├── JournalInUse              another client, here or in another process, has the journal open
    │   └── JournalUnusable           no journal, a damaged one, a newer one, or one that cannot be opened
    ├── InvalidRequest                a field is out of range, or the provider cannot do it; nothing was sent
    │   └── UnknownJob                no job has the key that was given
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
    │   ├── NoAccountLeft             of several accounts none is left that could take the job
    │   ├── BudgetReached             the user's own limit on money
    │   ├── JournalFailed             the journal cannot be written (disk full, ...): nothing more is sent
    │   ├── LeaseEnded                the lease of this worker has ended: other workers have its jobs
    │   └── ClientClosed              the client was closed while a call was waiting
    ├── ClientNotOpen                 a call before the client is opened or after it is closed; also a RuntimeError
    ├── WrongEventLoop                a call in another event loop than the client's; also a RuntimeError
    ├── ExchangeFailed                one poll got no usable answer; a later one may
    └── DownloadFailed                a result could not be fetched, or is not a whole video or picture; the job stays

Each has `charged` (True, False, or None in doubt), `retryable` and `kind`, one of `ErrorKind`. Mistakes of a program
are not in the tree (`TypeError`, `RuntimeError` from a hook, ...), but for the two that a service may want to catch.
Facts are attributes, the message is built from them, and every error survives pickling. No error holds an API key.
"""

from __future__ import annotations

from pika_async.errors.base import (
    ClusterUnusable,
    ConfigurationError,
    InvalidRequest,
    JournalInUse,
    JournalUnusable,
    PikaError,
    UnknownJob,
)
from pika_async.errors.base import ErrorKind as ErrorKind
from pika_async.errors.base import shorten as shorten
from pika_async.errors.base import strip_control as strip_control
from pika_async.errors.calls import ClientNotOpen, WrongEventLoop
from pika_async.errors.exchanges import (
    DownloadFailed,
    ExchangeFailed,
)
from pika_async.errors.jobs import (
    AcceptedElsewhere,
    DeadlineExceeded,
    GenerationFailed,
    JobCanceled,
    JobError,
    ProviderBusy,
    SubmissionInDoubt,
    SubmissionRejected,
    TaskNotFound,
)
from pika_async.errors.stops import (
    AccountStopped,
    BudgetReached,
    ChargeLimitReached,
    ClientClosed,
    GatewayInTrouble,
    JournalFailed,
    LeaseEnded,
    NoAccountLeft,
    ProviderUnreachable,
    RefusedAlike,
    SubmissionsStopped,
    WrongBaseUrl,
)

__all__ = [
    "AcceptedElsewhere",
    "AccountStopped",
    "BudgetReached",
    "ChargeLimitReached",
    "ClientClosed",
    "ClientNotOpen",
    "ClusterUnusable",
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
    "LeaseEnded",
    "NoAccountLeft",
    "PikaError",
    "ProviderBusy",
    "ProviderUnreachable",
    "RefusedAlike",
    "SubmissionInDoubt",
    "SubmissionRejected",
    "SubmissionsStopped",
    "TaskNotFound",
    "UnknownJob",
    "WrongBaseUrl",
    "WrongEventLoop",
]
