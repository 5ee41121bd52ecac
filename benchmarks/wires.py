"""Bodies of the lean gateway, in the words of each service that a peer's SDK is made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

__all__ = ["TaskState", "wire_of"]

CREATED_AT: Final = "2026-01-01T00:00:00.000Z"


@attrs.frozen
class TaskState:
    """A task as a poll shows it."""

    name: str
    base_url: str
    progress: int
    is_settled: bool

    @property
    def video_url(self) -> str:
        """Where the result is."""
        return f"{self.base_url}/video/{self.name}.mp4"

    def word(self, running: str, settled: str) -> str:
        """Return the word of the task's state."""
        return settled if self.is_settled else running


def _native(task: TaskState) -> dict[str, Any]:
    video = {
        "id": f"video-{task.name}", "status": task.word("queued", "finished"), "progress": task.progress,
        "resultUrl": task.video_url if task.is_settled else None,
    }  # fmt: skip
    return {"id": task.name, "videos": [video]}


def _openai(task: TaskState) -> dict[str, Any]:
    return {
        "id": task.name, "object": "video", "model": "sora-2", "status": task.word("in_progress", "completed"),
        "progress": task.progress, "created_at": 1767225600, "seconds": "4", "size": "720x1280", "prompt": "a cat",
        "completed_at": 1767225700 if task.is_settled else None, "error": None, "expires_at": None,
    }  # fmt: skip


def _replicate(task: TaskState) -> dict[str, Any]:
    address = f"{task.base_url}/v1/predictions/{task.name}"
    return {
        "id": task.name, "model": "bench/video", "version": "hidden", "input": {"prompt": "a cat"}, "error": None,
        "status": task.word("processing", "succeeded"), "output": task.video_url if task.is_settled else None,
        "logs": "", "metrics": None, "created_at": CREATED_AT, "started_at": CREATED_AT,
        "completed_at": CREATED_AT if task.is_settled else None,
        "urls": {"get": address, "cancel": f"{address}/cancel"},
    }  # fmt: skip


def _runway(task: TaskState) -> dict[str, Any]:
    fields = {"id": task.name, "createdAt": CREATED_AT, "status": task.word("RUNNING", "SUCCEEDED")}
    if task.is_settled:
        return fields | {"output": [task.video_url], "cost": {"credits": 5}}
    return fields | {"progress": task.progress / 100, "estimatedCost": {"credits": 5}}


def _fal(task: TaskState) -> dict[str, Any]:
    address = f"{task.base_url}/bench/video/requests/{task.name}"
    return {
        "request_id": task.name, "status": task.word("IN_PROGRESS", "COMPLETED"), "logs": None, "metrics": {},
        "response_url": address, "status_url": f"{address}/status", "cancel_url": f"{address}/cancel",
    }  # fmt: skip


#: The beginnings of paths, and the bodies behind them. Submissions are answered like polls.
_WIRES: Final[tuple[tuple[bytes, Callable[[TaskState], dict[str, Any]]], ...]] = (
    (b"/v1/videos", _openai),
    (b"/v1/models/", _replicate),
    (b"/v1/predictions", _replicate),
    (b"/v1/text_to_video", _runway),
    (b"/v1/tasks/", _runway),
    (b"/bench/video", _fal),
)


def wire_of(path: bytes) -> Callable[[TaskState], dict[str, Any]]:
    """Return what makes the body of an answer under a path; native Pika's for every other one."""
    return next((body for beginning, body in _WIRES if path.startswith(beginning)), _native)
