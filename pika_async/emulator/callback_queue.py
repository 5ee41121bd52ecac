"""Queue of callbacks, ordered by due time. Sends nothing."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import attrs

from pika_async.emulator.faults import Fault
from pika_async.emulator.records import Callback, Task
from pika_async.emulator.scenario import ScenarioRun

__all__ = ["CallbackQueue"]

#: Host names that never resolve (RFC 2606, RFC 6761): a client that does not want callbacks passes one of them.
_RESERVED_HOSTS = ("invalid", "example", "test", "example.com", "example.net", "example.org")


@attrs.define(kw_only=True)
class CallbackQueue:
    """Pending callbacks of CometAPI's tasks. Each is due when its task settles, unless the scenario changes that.

    ``feed_data(task, now)`` returns the ``data`` object of the feed of *task*, which is the callback's body.
    """

    scenario_run: ScenarioRun
    time_scale: float
    feed_data: Callable[[Task, float], dict[str, Any]]
    _pending: list[tuple[float, int, Task, bytes | None]] = attrs.field(init=False, factory=list, repr=False)
    _order: itertools.count[int] = attrs.field(init=False, factory=itertools.count, repr=False)

    def add(self, task: Task) -> None:
        """Schedule the callback of *task*, unless its URL names a reserved host."""
        if not _is_callable(task.callback_url):
            return
        fault = self.scenario_run.fault_for("callback", task, task.settles_at)
        for due_at, body in [(task.settles_at, None)] if fault is None else self._apply_fault(task, fault):
            heapq.heappush(self._pending, (due_at, next(self._order), task, body))

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
            due_at, _, task, body = heapq.heappop(self._pending)
            if body is None:
                body = json.dumps(self.feed_data(task, now)).encode()
            callbacks.append(Callback(task.id, task.callback_url or "", body, due_at))
        return callbacks


def _is_callable(url: str | None) -> bool:
    host = (urlsplit(url).hostname or "") if url else ""
    return bool(host) and not any(host == name or host.endswith(f".{name}") for name in _RESERVED_HOSTS)


def _forged_body(task: Task, body: object) -> bytes:
    if body is not None:
        return json.dumps(body).encode()
    unused_id = str(UUID(int=Random(f"forged:{task.id}").getrandbits(128), version=4))
    forged = {"task_id": unused_id, "state": "succeeded", "status": "3", "video_url": "http://169.254.169.254/x.mp4"}
    return json.dumps(forged).encode()
