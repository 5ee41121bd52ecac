"""Feed answers, regular or faulty. Pure: does not count polls and does not choose faults."""

from __future__ import annotations

import json
from typing import Any

import attrs

from pika_async.emulator import cdn, fal_replies, pika_replies, replies
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import Answer, Task

__all__ = ["FeedWriter", "unknown_task_answer"]

# Share of a generation after which progress with the mode "late" begins to grow.
_LATE_SHARE = 0.9


@attrs.frozen(kw_only=True)
class FeedWriter:
    """Writer of feed answers and of their ``data`` objects. Times are seconds of the gateway's clock."""

    epoch: float
    duration: float
    time_scale: float
    url_lifetime: float | None
    cdn_url: str
    envelope: replies.Envelope
    #: Origin of the addresses in fal's answers.
    fal_url: str

    def view(self, task: Task, now: float) -> replies.FeedView:
        """Return the view of *task* without any fault."""
        share = task.age_share(now)
        files = self._files(task, now) if share >= 1.0 and task.failure is None else {}
        return replies.FeedView(now=now, epoch=self.epoch, share=share, duration=self.duration, files=files)

    def _files(self, task: Task, now: float, name: str | None = None) -> dict[str, str]:
        expires = None if self.url_lifetime is None else now + self.url_lifetime * self.time_scale
        return cdn.media_files(self.cdn_url, task, expires, name)

    def answer(self, task: Task, now: float, position: int = 0) -> Answer:
        """Return the regular answer to a poll of *task*.

        :param position: number of requests before it in fal's queue; default 0.
        """
        return self._answer(task, attrs.evolve(self.view(task, now), queue_position=position), self.envelope)

    def _answer(self, task: Task, view: replies.FeedView, envelope: replies.Envelope) -> Answer:
        if task.provider == "pika":
            return pika_replies.job_answer(task, view)
        if task.provider == "fal":
            return fal_replies.status_answer(task, view, self.fal_url)
        return replies.feed_answer(task, view, envelope)

    def result(self, task: Task, now: float, fault: Fault | None) -> Answer:
        """Return the answer to a request for the file of *task*, at Pika's own API and at fal."""
        view = self.view(task, now) if fault is None else self._faulty_view(task, fault, now)
        return (pika_replies.content_answer if task.provider == "pika" else fal_replies.result_answer)(task, view)

    def data(self, task: Task, now: float) -> dict[str, Any]:
        """Return the ``data`` object of CometAPI's feed, which is also the body of its callbacks."""
        return replies.feed_data(task, self.view(task, now))

    def faulty_answer(self, task: Task, other: Task, fault: Fault, now: float) -> Answer:
        """Return the answer to a poll of *task* with *fault*; *other* is the task that ``other-task`` reports."""
        if fault.name == "vanish":
            return unknown_task_answer(task.provider)
        if fault.name == "other-task":
            return self.answer(other, now)
        if fault.name in {"wrap", "other-id", "echo"}:
            return _reshaped(self.answer(task, now), task, fault)
        envelope = fault["shape"] if fault.name == "envelope" else self.envelope
        return self._answer(task, self._faulty_view(task, fault, now), envelope)

    def _faulty_view(self, task: Task, fault: Fault, now: float) -> replies.FeedView:
        view = self.view(task, now)
        match fault.name:
            case "word":
                return attrs.evolve(view, word=fault["word"] or "")
            case "no-url":
                return attrs.evolve(view, urls=False)
            case "output":
                return attrs.evolve(view, output=fault["shape"])
            case "unfinish" if view.share >= 1.0:
                return attrs.evolve(view, share=0.5)
            case "progress":
                return attrs.evolve(view, progress=self._progress(task, view, fault))
            case "hostile-name" | "link" if view.files:
                return attrs.evolve(view, files=self._other_files(task, fault, now))
            case _:
                return view

    def _other_files(self, task: Task, fault: Fault, now: float) -> dict[str, str]:
        if fault.name == "hostile-name":
            return self._files(task, now, fault["name"])
        return {**self._files(task, now), "video": fault["url"]}

    def _progress(self, task: Task, view: replies.FeedView, fault: Fault) -> Any:
        match fault["mode"]:
            case "value":
                return fault["value"]
            case _ if view.share >= 1.0:
                return None
            case "stuck":
                return fault["value"]
            case "late":
                return max(0, int((view.share - _LATE_SHARE) / (1 - _LATE_SHARE) * 100))
            case _:
                return min(99, int((view.now - task.created_at) / (fault["seconds"] * self.time_scale) * 100))


def _reshaped(answer: Answer, task: Task, fault: Fault) -> Answer:
    """Return an answer that holds the same facts in another shape."""
    body = json.loads(answer.body)
    match fault.name:
        case "wrap":
            for _ in range(fault["times"]):
                body = {"code": 200, "msg": "success", "data": body}
        case "other-id":
            body = json.loads(answer.body.replace(f'"{task.id}"'.encode(), f'"upstream-{task.id}"'.encode()))
        case _:
            body = {
                **body,
                "request": {"image": ("iVBORw0KGgoAAAANSUhEUgAA" * (fault["size"] // 24 + 1))[: fault["size"]]},
            }
    return replies.json_answer(answer.status, body)


def unknown_task_answer(provider: str) -> Answer:
    """Return a provider's answer for an unknown task id."""
    if provider == "pika":
        return pika_replies.unknown_job()
    if provider == "fal":
        return fal_replies.unknown_request()
    status = 400 if provider == "cometapi" else 404
    return replies.error_answer(provider, status, "task_not_exist", "task_not_exist")
