"""An asyncio-native SDK, with concurrent job orchestration, for Pika video generation through four gateways.

Each public name is imported when it is first used: `import pika_async` alone loads nothing else.
"""

TYPE_CHECKING = False  # a type checker takes it for True; to import `typing` takes longer than all that follows
if TYPE_CHECKING:
    from pika_async._http.callbacks import CallbackReceiver
    from pika_async._planning.estimate import Estimate
    from pika_async._planning.limits import Limits
    from pika_async._runtime.stats import Stats
    from pika_async.client import PikaClient
    from pika_async.config.accounts import Account, Routing, load_accounts
    from pika_async.engines.cluster import Cluster as Cluster
    from pika_async.engines.cluster_stats import ClusterAccount, ClusterOrphan, ClusterStats, ClusterWorker
    from pika_async.errors import (
        AcceptedElsewhere,
        AccountStopped,
        BudgetReached,
        ChargeLimitReached,
        ClientClosed,
        ClientNotOpen,
        ClusterUnusable,
        ConfigurationError,
        DeadlineExceeded,
        DownloadFailed,
        ErrorKind,
        ExchangeFailed,
        GatewayInTrouble,
        GenerationFailed,
        InvalidRequest,
        JobCanceled,
        JobError,
        JournalFailed,
        JournalInUse,
        JournalUnusable,
        LeaseEnded,
        NoAccountLeft,
        PikaError,
        ProviderBusy,
        ProviderUnreachable,
        RefusedAlike,
        SubmissionInDoubt,
        SubmissionRejected,
        SubmissionsStopped,
        TaskNotFound,
        UnknownJob,
        WrongBaseUrl,
        WrongEventLoop,
    )
    from pika_async.jobs import BatchReport, Job, JobAccepted, JobEvent, JobParked, JobRunning, JobSettled, JobStatus
    from pika_async.logs import debug_logging
    from pika_async.models import Camera, GenerationRequest, LastSeen, RequestFields, Snapshot, TaskState, Video
    from pika_async.models.fields import EFFECTS
    from pika_async.models.sweep import sweep
    from pika_async.polling import (
        AdaptivePolling,
        DurationForecast,
        DurationSample,
        FixedInterval,
        PollContext,
        PollingPolicy,
    )
    from pika_async.providers import Capability, Provider, find_provider, provider_names

__all__ = [
    "EFFECTS",
    "AcceptedElsewhere",
    "Account",
    "AccountStopped",
    "AdaptivePolling",
    "BatchReport",
    "BudgetReached",
    "CallbackReceiver",
    "Camera",
    "Capability",
    "ChargeLimitReached",
    "ClientClosed",
    "ClientNotOpen",
    "ClusterAccount",
    "ClusterOrphan",
    "ClusterStats",
    "ClusterUnusable",
    "ClusterWorker",
    "ConfigurationError",
    "DeadlineExceeded",
    "DownloadFailed",
    "DurationForecast",
    "DurationSample",
    "ErrorKind",
    "Estimate",
    "ExchangeFailed",
    "FixedInterval",
    "GatewayInTrouble",
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
    "LastSeen",
    "LeaseEnded",
    "Limits",
    "NoAccountLeft",
    "PikaClient",
    "PikaError",
    "PollContext",
    "PollingPolicy",
    "Provider",
    "ProviderBusy",
    "ProviderUnreachable",
    "RefusedAlike",
    "RequestFields",
    "Routing",
    "Snapshot",
    "Stats",
    "SubmissionInDoubt",
    "SubmissionRejected",
    "SubmissionsStopped",
    "TaskNotFound",
    "TaskState",
    "UnknownJob",
    "Video",
    "WrongBaseUrl",
    "WrongEventLoop",
    "debug_logging",
    "find_provider",
    "load_accounts",
    "provider_names",
    "sweep",
]
__version__ = "0.1.0"

#: The module of each public name.
_NAMES = {
    "_planning.estimate": ("Estimate",),
    "_planning.limits": ("Limits",),
    "_runtime.stats": ("Stats",),
    "config.accounts": ("Account", "Routing", "load_accounts"),
    "_http.callbacks": ("CallbackReceiver",),
    "client": ("PikaClient",),
    "engines.cluster": ("Cluster",),
    "engines.cluster_stats": ("ClusterAccount", "ClusterOrphan", "ClusterStats", "ClusterWorker"),
    "errors": (
        "AcceptedElsewhere", "AccountStopped", "BudgetReached", "ChargeLimitReached", "ClientClosed", "ClientNotOpen",
        "ClusterUnusable", "ConfigurationError", "DeadlineExceeded", "DownloadFailed", "ErrorKind", "ExchangeFailed",
        "GatewayInTrouble", "GenerationFailed", "InvalidRequest", "JobCanceled", "JobError", "JournalFailed",
        "JournalInUse", "JournalUnusable", "LeaseEnded", "NoAccountLeft", "PikaError", "ProviderBusy",
        "ProviderUnreachable", "RefusedAlike",
        "SubmissionInDoubt", "SubmissionRejected", "SubmissionsStopped", "TaskNotFound", "UnknownJob", "WrongBaseUrl",
        "WrongEventLoop",
    ),
    "jobs": ("BatchReport", "Job", "JobAccepted", "JobEvent", "JobParked", "JobRunning", "JobSettled", "JobStatus"),
    "logs": ("debug_logging",),
    "models": ("Camera", "GenerationRequest", "LastSeen", "RequestFields", "Snapshot", "TaskState", "Video"),
    "models.fields": ("EFFECTS",),
    "models.sweep": ("sweep",),
    "polling": (
        "AdaptivePolling", "DurationForecast", "DurationSample", "FixedInterval", "PollContext", "PollingPolicy",
    ),
    "providers": ("Capability", "Provider", "find_provider", "provider_names"),
}  # fmt: skip
_MODULES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}
#: The extra that a name needs, which `from pika_async import *` leaves out.
_EXTRAS = {"Cluster": "dbos"}
#: Modules and folders that are attributes of the package without an import of their own.
_PARTS = frozenset({
    "client", "config", "engines", "errors", "jobs", "logs", "models", "polling", "providers",
})  # fmt: skip

if not TYPE_CHECKING:  # a type checker would take any misspelt name for an attribute

    def __getattr__(name: str) -> object:
        """Import the module of a public name, and keep the name here for the next use."""
        from importlib import import_module  # noqa: PLC0415 - not before the first use

        if name in _PARTS:
            return import_module(f"{__name__}.{name}")
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            value: object = getattr(import_module(_MODULES[name]), name)
        except ModuleNotFoundError as error:
            if name not in _EXTRAS:
                raise
            extra = _EXTRAS[name]
            raise ImportError(f'{name} needs the extra {extra}: pip install "pika_async[{extra}]"') from error
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_EXTRAS, *_PARTS})
