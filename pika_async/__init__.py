"""An asyncio-native SDK, with concurrent job orchestration, for Pika video generation through four gateways."""

from pika_async.client import PikaClient
from pika_async.errors import (
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
    PikaError,
    ProviderBusy,
    ProviderUnreachable,
    SubmissionInDoubt,
    SubmissionRejected,
    SubmissionsStopped,
    TaskNotFound,
    WrongBaseUrl,
)
from pika_async.lifecycle import BatchReport, Job, JobStatus
from pika_async.limits import Limits
from pika_async.models import EFFECTS, Camera, GenerationRequest, Snapshot, TaskState, Video
from pika_async.polling import AdaptivePolling, FixedInterval, PollingPolicy
from pika_async.providers import Capability, Provider, find_provider, provider_names

__all__ = [
    "EFFECTS",
    "AccountStopped",
    "AdaptivePolling",
    "BatchReport",
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
    "JobCanceled",
    "JobError",
    "JobStatus",
    "Limits",
    "PikaClient",
    "PikaError",
    "PollingPolicy",
    "Provider",
    "ProviderBusy",
    "ProviderUnreachable",
    "Snapshot",
    "SubmissionInDoubt",
    "SubmissionRejected",
    "SubmissionsStopped",
    "TaskNotFound",
    "TaskState",
    "Video",
    "WrongBaseUrl",
    "find_provider",
    "provider_names",
]
__version__ = "0.1.0"
