"""Queue of callbacks, ordered by due time. Sends nothing."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable
from random import Random
from urllib.parse import urlsplit
from uuid import UUID

import attrs

from pika_async.emulator.fal_webhooks import RETRY_SECONDS
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import Callback, Task
from pika_async.emulator.scenario import ScenarioRun

__all__ = ["CallbackQueue"]

#: Host names that never resolve (RFC 2606, RFC 6761): a client that does not want callbacks passes one of them.
_RESERVED_HOSTS = ("invalid", "example", "test", "example.com", "example.net", "example.org")


@attrs.frozen
class _Pending:
    task: Task
    #: Body of a forged callback, ``None`` of any other.
    forged: bytes | None = None
    attempt: int = 0


@attrs.define(kw_only=True)
class CallbackQueue:
    """Pending callbacks of CometAPI's and fal's tasks. Each is due when its task settles, unless a fault changes that.

    ``write(task, now, forged)`` returns the body of a callback and its headers beside the content type; *forged* is the
    body of a forged one. ``tasks`` are the accepted tasks by their ids.
    """

    scenario_run: ScenarioRun
    time_scale: float
    write: Callable[[Task, float, bytes | None], tuple[bytes, dict[str, str]]]
    tasks: dict[str, Task]
    _pending: list[tuple[float, int, _Pending]] = attrs.field(init=False, factory=list, repr=False)
    _order: itertools.count[int] = attrs.field(init=False, factory=itertools.count, repr=False)

    def add(self, task: Task) -> None:
        """Schedule the callback of *task*, unless its URL names a reserved host."""
        if not _is_callable(task.callback_url):
            return
        fault = self.scenario_run.fault_for("callback", task, task.settles_at)
        for due_at, forged in [(task.settles_at, None)] if fault is None else self._apply_fault(task, fault):
            self._push(due_at, _Pending(task, forged))

    def _push(self, due_at: float, pending: _Pending) -> None:
        heapq.heappush(self._pending, (due_at, next(self._order), pending))

    def _apply_fault(self, task: Task, fault: Fault) -> list[tuple[float, bytes | None]]:
        match fault.name:
            case "lost":
                return []
            case "repeat":
                return [(task.settles_at, None)] * int(fault["times"])
            case "late":
                return [(task.settles_at + fault["seconds"] * self.time_scale, None)]
            case "early":
                return [(task.created_at, None)]
            case _:
                return [(task.settles_at, _forged_body(task, fault["body"]))]

    def next_due_at(self) -> float | None:
        """Return the time at which the next callback is due, or ``None`` if none is pending."""
        return self._pending[0][0] if self._pending else None

    def pop_due(self, now: float) -> list[Callback]:
        """Remove and return the callbacks that are due at *now*."""
        callbacks = []
        while self._pending and self._pending[0][0] <= now:
            due_at, _, pending = heapq.heappop(self._pending)
            task = self.tasks.get(pending.task.id, pending.task)
            if task.settles_at != pending.task.settles_at:  # canceled meanwhile; its own callback was added then
                continue
            body, headers = self.write(task, now, pending.forged)
            callbacks.append(Callback(task.id, task.callback_url or "", body, due_at, headers, pending.attempt))
        return callbacks

    def repeat(self, callback: Callback, now: float) -> None:
        """Schedule *callback* again if fal would: it repeats what was not answered with a 2xx."""
        task = self.tasks[callback.task_id]
        if task.provider == "fal" and callback.attempt < len(RETRY_SECONDS):
            due_at = now + RETRY_SECONDS[callback.attempt] * self.time_scale
            self._push(due_at, _Pending(task, attempt=callback.attempt + 1))


def _is_callable(url: str | None) -> bool:
    host = (urlsplit(url).hostname or "") if url else ""
    return bool(host) and not any(host == name or host.endswith(f".{name}") for name in _RESERVED_HOSTS)


def _forged_body(task: Task, body: object) -> bytes:
    if body is not None:
        return json.dumps(body).encode()
    unused_id = str(UUID(int=Random(f"forged:{task.id}").getrandbits(128), version=4))
    forged = {"task_id": unused_id, "state": "succeeded", "status": "3", "video_url": "http://169.254.169.254/x.mp4"}
    if task.provider == "fal":
        payload = {"video": {"url": forged["video_url"]}}
        return json.dumps({"request_id": task.id, "status": "OK", "payload": payload, "error": None}).encode()
    return json.dumps(forged).encode()
