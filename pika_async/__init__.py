"""An asyncio-native SDK, with concurrent job orchestration, for Pika video generation through four gateways."""

from pika_async.callbacks import CallbackReceiver
from pika_async.client import PikaClient
from pika_async.errors import (
    AcceptedElsewhere,
    AccountStopped,
    ChargeLimitReached,
    ClientClosed,
    ConfigurationError,
    DeadlineExceeded,
    DownloadFailed,
    ExchangeFailed,
    GenerationFailed,
    InvalidRequest,
    JobCanceled,
    JobError,
    JournalFailed,
    JournalInUse,
    JournalUnusable,
    PikaError,
    ProviderBusy,
    ProviderUnreachable,
    SubmissionInDoubt,
    SubmissionRejected,
    SubmissionsStopped,
    TaskNotFound,
    WrongBaseUrl,
)
from pika_async.events import JobAccepted, JobEvent, JobParked, JobRunning, JobSettled
from pika_async.lifecycle import BatchReport, Job, JobStatus
from pika_async.limits import Limits
from pika_async.logs import debug_logging
from pika_async.models import EFFECTS, Camera, GenerationRequest, Snapshot, TaskState, Video
from pika_async.polling import AdaptivePolling, Belief, FixedInterval, Observation, PollingPolicy, Waiting
from pika_async.providers import Capability, Provider, find_provider, provider_names
from pika_async.stats import Stats

__all__ = [
    "EFFECTS",
    "AcceptedElsewhere",
    "AccountStopped",
    "AdaptivePolling",
    "BatchReport",
    "Belief",
    "CallbackReceiver",
    "Camera",
    "Capability",
    "ChargeLimitReached",
    "ClientClosed",
    "ConfigurationError",
    "DeadlineExceeded",
    "DownloadFailed",
    "ExchangeFailed",
    "FixedInterval",
    "GenerationFailed",
    "GenerationRequest",
    "InvalidRequest",
    "Job",
    "JobAccepted",
    "JobCanceled",
    "JobError",
    "JobEvent",
    "JobParked",
    "JobRunning",
    "JobSettled",
    "JobStatus",
    "JournalFailed",
    "JournalInUse",
    "JournalUnusable",
    "Limits",
    "Observation",
    "PikaClient",
    "PikaError",
    "PollingPolicy",
    "Provider",
    "ProviderBusy",
    "ProviderUnreachable",
    "Snapshot",
    "Stats",
    "SubmissionInDoubt",
    "SubmissionRejected",
    "SubmissionsStopped",
    "TaskNotFound",
    "TaskState",
    "Video",
    "Waiting",
    "WrongBaseUrl",
    "debug_logging",
    "find_provider",
    "provider_names",
]
__version__ = "0.1.0"
