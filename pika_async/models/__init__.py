"""Requests, poll snapshots and videos, as frozen records. A record holds no client and does no I/O."""

from pika_async.models.request import Camera, GenerationRequest, RequestFields, evolve_unchecked
from pika_async.models.results import LastSeen, Receipt, Snapshot, TaskState, Video

__all__ = [
    "Camera",
    "GenerationRequest",
    "LastSeen",
    "Receipt",
    "RequestFields",
    "Snapshot",
    "TaskState",
    "Video",
    "evolve_unchecked",
]
