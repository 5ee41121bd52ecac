"""Ledger of the gateway: tasks, charges and in-flight counts. Draws outcomes at random; builds no answers."""

from __future__ import annotations

import heapq
from random import Random
from uuid import UUID

import attrs

from pika_async.emulator.durations import Durations
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import EMULATED_PROVIDERS, Charge, Task
from pika_async.emulator.request_schemas import GenerationSpec

__all__ = ["Ledger"]

#: Fraction of drawn seeds that exceed 2^32, because some seeds of the real gateways do.
_LONG_SEED_SHARE = 0.125


@attrs.define(kw_only=True)
class Ledger:
    """Record of every accepted and charged task. The outcome of the n-th task depends on ``seed`` and n alone."""

    durations: Durations
    time_scale: float
    seed: int
    failure_rate: float
    failure_reason: str

    charges: list[Charge] = attrs.field(init=False, factory=list, repr=False)
    tasks: dict[str, Task] = attrs.field(init=False, factory=dict, repr=False)
    _accepted: int = attrs.field(init=False, default=0)
    _first_ids: dict[str, str] = attrs.field(init=False, factory=dict, repr=False)
    _unsettled: dict[str, list[float]] = attrs.field(
        init=False, repr=False, factory=lambda: {provider: [] for provider in EMULATED_PROVIDERS}
    )

    def accept(self, provider: str, spec: GenerationSpec, raw_body: bytes, fault: Fault | None, now: float) -> Task:
        """Charge one task and return the task whose id the create's answer carries."""
        self._accepted += 1
        task = self._draw(provider, spec, fault, now)
        reported_id = task.id
        if fault is not None and fault.name == "duplicate-id":
            reported_id = self._first_ids.get(provider, task.id)
        self.charges.append(
            Charge(
                provider=provider,
                task_id=reported_id,
                prompt=spec.prompt,
                charged_at=now,
                settles_at=task.settles_at,
                fails=task.failure is not None,
                fault=fault.name if fault else None,
                raw_body=raw_body,
            )
        )
        heapq.heappush(self._unsettled[provider], task.settles_at)
        if reported_id != task.id:
            return self.tasks[reported_id]
        self._first_ids.setdefault(provider, task.id)
        self.tasks[task.id] = task
        return task

    def _draw(self, provider: str, spec: GenerationSpec, fault: Fault | None, now: float) -> Task:
        random = Random(f"{self.seed}:{self._accepted}")
        task_id = str(UUID(int=random.getrandbits(128), version=4))
        drawn_seed = random.getrandbits(40 if random.random() < _LONG_SEED_SHARE else 32)
        failure = self.failure_reason if random.random() < self.failure_rate else None
        seconds = self.durations.draw(random)
        if fault is not None and fault.name == "fails":
            failure = str(fault["reason"])
        if fault is not None and fault.name == "takes":
            seconds = float(fault["seconds"])
        return Task(
            id=task_id,
            provider=provider,
            prompt=spec.prompt,
            seed=drawn_seed if spec.seed is None else spec.seed,
            seed_requested=spec.seed is not None,
            created_at=now,
            settles_at=now + seconds * self.time_scale,
            failure=failure,
            aspect_ratio=spec.aspect_ratio,
            frame_rate=spec.frame_rate,
            callback_url=spec.callback_url,
        )

    def count_in_flight(self, provider: str, now: float) -> int:
        """Return the number of charged tasks of a provider's account that have not settled."""
        unsettled = self._unsettled[provider]
        while unsettled and unsettled[0] <= now:
            heapq.heappop(unsettled)
        return len(unsettled)

    def another_task(self, task: Task) -> Task:
        """Return another task of the same provider, or, if there is none, *task* under an id that is not in use."""
        others = (other for other in self.tasks.values() if other.id != task.id and other.provider == task.provider)
        unused_id = str(UUID(int=Random(task.id).getrandbits(128), version=4))
        return next(others, attrs.evolve(task, id=unused_id))
