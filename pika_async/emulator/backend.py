"""Shared parts of all pages of the gateway: refusals, acceptance, polls, faults. Builds no answers of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from pika_async.emulator import replies
from pika_async.emulator.callback_queue import CallbackQueue
from pika_async.emulator.fault_effects import apply_fault, unaccepted_answer
from pika_async.emulator.faults import Fault
from pika_async.emulator.feeds import FeedWriter, unknown_task_answer
from pika_async.emulator.ledger import Ledger
from pika_async.emulator.records import Answer, GenerationSpec, Polls, Refusal, Task
from pika_async.emulator.scenario import FaultTarget, ScenarioRun

__all__ = ["Backend", "BodyProblem", "Call", "Options", "ProviderTarget"]


@attrs.frozen(kw_only=True)
class Call:
    """One request to a provider. ``path`` is below the provider's base URL; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    now: float


@attrs.frozen
class BodyProblem:
    """Reason why a body was not read: the status, the field (``Content-Type`` or none) and the problem with it."""

    status: int
    field: str
    text: str


@attrs.frozen
class ProviderTarget:
    """Request that names no task: a create that is not accepted yet, an upload, a balance."""

    provider: str
    prompt: str = ""
    id: str = ""


class Options(Protocol):
    """Interface of the options of a gateway, as its pages read them."""

    @property
    def api_key(self) -> str: ...
    @property
    def time_scale(self) -> float: ...
    @property
    def in_flight(self) -> int | Mapping[str, int] | None: ...
    @property
    def retry_after(self) -> float | None: ...
    @property
    def max_body(self) -> int: ...
    @property
    def idempotency_window(self) -> float: ...
    @property
    def funds(self) -> int: ...
    @property
    def cdn_url(self) -> str: ...
    @property
    def epoch(self) -> float: ...

    def base_url(self, provider: str) -> str: ...
    def feed_writer(self) -> FeedWriter: ...


@attrs.define(kw_only=True)
class Backend:
    """State of the gateway and what each of its pages does with it."""

    options: Options
    ledger: Ledger
    scenario_run: ScenarioRun
    callbacks: CallbackQueue
    polls: Polls = attrs.field(factory=Polls)
    refusals: list[Refusal] = attrs.field(factory=list)

    def log_refusal(
        self, answer: Answer, provider: str, now: float, *, code: str, problem: str, field: str = ""
    ) -> Answer:
        """Log a refusal and return its answer unchanged."""
        self.refusals.append(Refusal(provider, answer.status, code, field, problem, now))
        return answer

    def read_json(self, headers: Mapping[str, str], body: bytes) -> tuple[BodyProblem | None, Any]:
        """Return a problem and no value, or no problem and the decoded JSON body."""
        if len(body) > self.options.max_body:
            return BodyProblem(413, "", f"the body exceeds {self.options.max_body} bytes"), None
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return BodyProblem(400, "Content-Type", "must be application/json"), None
        try:
            return None, json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return BodyProblem(400, "", "the body must be JSON in UTF-8"), None

    def capacity(self, provider: str) -> int | None:
        """Return the number of unsettled tasks that the account of *provider* may have, or ``None``: any."""
        limits = self.options.in_flight
        return limits.get(provider) if isinstance(limits, Mapping) else limits

    def is_full(self, provider: str, now: float) -> bool:
        """Return whether the account of *provider* has as many unsettled tasks as it may have."""
        limit = self.capacity(provider)
        return limit is not None and self.ledger.count_in_flight(provider, now) >= limit

    def retry_headers(self) -> dict[str, str]:
        """Return the headers of a 429."""
        if self.options.retry_after is None:
            return {}
        # The header holds whole seconds (RFC 9110, section 10.2.3).
        return {"Retry-After": str(max(1, math.ceil(self.options.retry_after * self.options.time_scale)))}

    def spoil(self, on: str, answer: Answer, target: FaultTarget, now: float) -> Answer:
        """Return *answer* with the effect of the fault that the scenario has for a request to *target*, if any."""
        fault = self.scenario_run.fault_for(on, target, now)
        return answer if fault is None else self.apply(fault, answer, target.provider, target.id)

    def apply(self, fault: Fault, answer: Answer, provider: str, task_id: str = "") -> Answer:
        """Return *answer* with the effect of *fault*."""
        scale = self.options.time_scale
        return apply_fault(answer, fault, provider=provider, time_scale=scale, task_id=task_id)

    def accept(
        self,
        provider: str,
        spec: GenerationSpec,
        raw: bytes,
        now: float,
        *,
        reply: Callable[[Task], Answer],
        slots: int | None = None,
    ) -> tuple[Answer, Task | None]:
        """Charge one task, unless a fault prevents it, and return the answer to its create and the task.

        :param slots: number of tasks that run at once; see :meth:`Ledger.accept`.
        """
        fault = self.scenario_run.fault_for("create", ProviderTarget(provider, spec.prompt), now)
        if fault is not None and not fault.charges:
            return self.apply(fault, unaccepted_answer(provider), provider), None
        task_count = len(self.ledger.tasks)
        task = self.ledger.accept(provider, spec, raw, fault, now, slots=slots)
        if len(self.ledger.tasks) > task_count:
            self.callbacks.add(task)
        answer = reply(task)
        return answer if fault is None else self.apply(fault, answer, provider, task.id), task

    def poll(self, provider: str, task: Task | None, task_id: str, now: float) -> Answer:
        """Count a poll and return its answer; *task* is ``None`` if *provider* has no such task."""
        self.polls.add(task_id)
        if task is None:
            return self.unknown_task(provider, now)
        fault = self.scenario_run.fault_for("feed", task, now)
        writer = self.options.feed_writer()
        if fault is None:
            position = self.ledger.count_ahead(task, now) if provider == "fal" and now < task.starts_at else 0
            return writer.answer(task, now, position)
        answer = writer.faulty_answer(task, self.ledger.another_task(task), fault, now)
        return self.apply(fault, answer, task.provider, task.id)

    def result(self, task: Task, now: float) -> Answer:
        """Return the answer to a request for the file of *task*."""
        fault = self.scenario_run.fault_for("result", task, now)
        answer = self.options.feed_writer().result(task, now, fault)
        return answer if fault is None else self.apply(fault, answer, task.provider, task.id)

    def unknown_task(self, provider: str, now: float) -> Answer:
        """Log and return a provider's answer for an unknown task id."""
        answer = unknown_task_answer(provider)
        return self.log_refusal(answer, provider, now, code="task_not_exist", problem="task_not_exist")

    def find(self, provider: str, task_id: str) -> Task | None:
        """Return a task of *provider* by its id."""
        task = self.ledger.tasks.get(task_id)
        return task if task is not None and task.provider == provider else None


def invalid_answer(problem: BodyProblem) -> Answer:
    """Return a gateway's answer to an invalid request."""
    message = f"{problem.field}: {problem.text}" if problem.field else problem.text
    code = "body_too_large" if problem.status == 413 else "invalid_request"
    return replies.error_answer("", problem.status, code, message, field=problem.field)


def _refuse_constant(token: str) -> float:
    raise ValueError(f"{token} must not be used in JSON")
