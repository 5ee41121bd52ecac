"""What a feed says of a task, honestly or as a script has it; pure, and counts nothing."""

from __future__ import annotations

from typing import Any

import attrs

from pika_async.emulator import cdn, replies
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import Answer, Task

__all__ = ["Feeds", "unknown_task"]

# How much of a generation passes before a "late" progress begins to move.
_LATE = 0.9


@attrs.frozen(kw_only=True)
class Feeds:
    """The settings that feeds are written by; seconds are those of the gateway's clock."""

    epoch: float
    duration: float
    time_scale: float
    url_lifetime: float | None
    cdn_url: str
    envelope: replies.Envelope

    def view(self, task: Task, now: float) -> replies.View:
        """What an honest feed says of a task."""
        share = task.age_share(now)
        files = self._files(task, now) if share >= 1.0 and task.failure is None else {}
        return replies.View(now=now, epoch=self.epoch, share=share, duration=self.duration, files=files)

    def _files(self, task: Task, now: float, name: str | None = None) -> dict[str, str]:
        expires = None if self.url_lifetime is None else now + self.url_lifetime * self.time_scale
        return cdn.media_files(self.cdn_url, task, expires, name)

    def honest(self, task: Task, now: float) -> Answer:
        """The feed as it is."""
        return replies.feed_answer(task, self.view(task, now), self.envelope)

    def data(self, task: Task, now: float) -> dict[str, Any]:
        """The bare ``data`` object of CometAPI's feed, as its callbacks carry it."""
        return replies.feed_data(task, self.view(task, now))

    def struck(self, task: Task, other: Task, deed: Fault, now: float) -> Answer:
        """The feed as a script has it; ``other`` is the task it may be mistaken for."""
        if deed.fault == "vanish":
            return unknown_task(task.provider)
        if deed.fault == "other-task":
            return self.honest(other, now)
        envelope = deed["shape"] if deed.fault == "envelope" else self.envelope
        return replies.feed_answer(task, self._bent(task, deed, now), envelope)

    def _bent(self, task: Task, deed: Fault, now: float) -> replies.View:
        view = self.view(task, now)
        match deed.fault:
            case "word":
                return attrs.evolve(view, word=deed["word"] or "")
            case "no-url":
                return attrs.evolve(view, urls=False)
            case "unfinish" if view.share >= 1.0:
                return attrs.evolve(view, share=0.5)
            case "progress":
                return attrs.evolve(view, progress=self._progress(task, view, deed))
            case "hostile-name" | "link" if view.files:
                return attrs.evolve(view, files=self._other_files(task, deed, now))
            case _:
                return view

    def _other_files(self, task: Task, deed: Fault, now: float) -> dict[str, str]:
        if deed.fault == "hostile-name":
            return self._files(task, now, deed["name"])
        return {**self._files(task, now), "video": deed["url"]}

    def _progress(self, task: Task, view: replies.View, deed: Fault) -> Any:
        match deed["mode"]:
            case "value":
                return deed["value"]
            case _ if view.share >= 1.0:
                return None
            case "stuck":
                return deed["value"]
            case "late":
                return max(0, int((view.share - _LATE) / (1 - _LATE) * 100))
            case _:
                return min(99, int((view.now - task.created_at) / (deed["seconds"] * self.time_scale) * 100))


def unknown_task(provider: str) -> Answer:
    """What a provider says of a task id that it does not know."""
    status = 400 if provider == "cometapi" else 404
    return replies.error_answer(provider, status, "task_not_exist", "task_not_exist")
