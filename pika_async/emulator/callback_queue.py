"""Which notifications are due, and what they say; sends none."""

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

__all__ = ["Notices"]

#: Host names that can never exist (RFC 2606, RFC 6761): a client gives one to say that it wants no notification.
_RESERVED = ("invalid", "example", "test", "example.com", "example.net", "example.org")


@attrs.define(kw_only=True)
class Notices:
    """The notifications of CometAPI's tasks, each at its task's settling unless a script says otherwise.

    ``report`` gives the feed's bare ``data`` object of a task at a time.
    """

    play: ScenarioRun
    time_scale: float
    report: Callable[[Task, float], dict[str, Any]]
    _waiting: list[tuple[float, int, Task, bytes | None]] = attrs.field(init=False, factory=list, repr=False)
    _order: itertools.count[int] = attrs.field(init=False, factory=itertools.count, repr=False)

    def plan(self, task: Task) -> None:
        """Plans the notification of a task, if its URL's host may exist."""
        if not _is_wanted(task.callback_url):
            return
        deed = self.play.fault_for("callback", task, task.settles_at)
        for due_at, body in [(task.settles_at, None)] if deed is None else self._struck(task, deed):
            heapq.heappush(self._waiting, (due_at, next(self._order), task, body))

    def _struck(self, task: Task, deed: Fault) -> list[tuple[float, bytes | None]]:
        match deed.fault:
            case "lost":
                return []
            case "repeat":
                return [(task.settles_at, None)] * int(deed["times"])
            case "late":
                return [(task.settles_at + deed["seconds"] * self.time_scale, None)]
            case "early":
                return [(task.created_at, None)]
            case _:
                return [(task.settles_at, _forged(task, deed["body"]))]

    def next_at(self) -> float | None:
        """When the next notification is due, or ``None`` when none is waiting."""
        return self._waiting[0][0] if self._waiting else None

    def due(self, now: float) -> list[Callback]:
        """The notifications that are due by now; each is handed out once."""
        due = []
        while self._waiting and self._waiting[0][0] <= now:
            at, _, task, body = heapq.heappop(self._waiting)
            if body is None:
                body = json.dumps(self.report(task, now)).encode()
            due.append(Callback(task.id, task.callback_url or "", body, at))
        return due


def _is_wanted(url: str | None) -> bool:
    host = (urlsplit(url).hostname or "") if url else ""
    return bool(host) and not any(host == name or host.endswith(f".{name}") for name in _RESERVED)


def _forged(task: Task, body: object) -> bytes:
    if body is not None:
        return json.dumps(body).encode()
    stranger = str(UUID(int=Random(f"forged:{task.id}").getrandbits(128), version=4))
    forged = {"task_id": stranger, "state": "succeeded", "status": "3", "video_url": "http://169.254.169.254/x.mp4"}
    return json.dumps(forged).encode()
