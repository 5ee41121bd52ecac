"""Ledger of the gateway: tasks, charges and in-flight counts. Draws outcomes at random; builds no answers."""

from __future__ import annotations

import heapq
from random import Random
from uuid import UUID

import attrs

from pika_async.emulator.durations import Durations
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import EMULATED_PROVIDERS, Charge, GenerationSpec, Task

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
    _indices: dict[str, int] = attrs.field(init=False, factory=dict, repr=False)
    _slots: list[float] = attrs.field(init=False, factory=list, repr=False)
    _taken: dict[str, int] = attrs.field(init=False, factory=lambda: dict.fromkeys(EMULATED_PROVIDERS, 0), repr=False)
    _refunds: list[tuple[float, str, int]] = attrs.field(init=False, factory=list, repr=False)
    _first_ids: dict[str, str] = attrs.field(init=False, factory=dict, repr=False)
    _unsettled: dict[str, list[float]] = attrs.field(
        init=False, repr=False, factory=lambda: {provider: [] for provider in EMULATED_PROVIDERS}
    )

    def accept(
        self,
        provider: str,
        spec: GenerationSpec,
        raw_body: bytes,
        fault: Fault | None,
        now: float,
        *,
        slots: int | None = None,
    ) -> Task:
        """Charge one task and return the task whose id the create's answer carries.

        :param slots: number of tasks that run at once, beyond which a task waits for a slot; default unlimited.
        """
        self._accepted += 1
        task = self._draw(provider, spec, fault, now)
        if slots is not None:
            task = self._enqueue(task, slots)
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
                micro_usd=spec.micro_usd,
            )
        )
        self._taken[provider] += spec.micro_usd
        if task.failure is not None:
            heapq.heappush(self._refunds, (task.settles_at, provider, spec.micro_usd))
        heapq.heappush(self._unsettled[provider], task.settles_at)
        if reported_id != task.id:
            return self.tasks[reported_id]
        self._first_ids.setdefault(provider, task.id)
        self.tasks[task.id] = task
        self._indices[task.id] = len(self.charges) - 1
        return task

    def _enqueue(self, task: Task, slots: int) -> Task:
        """Return *task* with the times at which it gets a slot and settles."""
        starts_at = task.created_at
        if len(self._slots) >= slots:
            starts_at = max(starts_at, heapq.heappop(self._slots))
        settles_at = starts_at + task.settles_at - task.created_at
        heapq.heappush(self._slots, settles_at)
        return attrs.evolve(task, starts_at=starts_at, settles_at=settles_at)

    def cancel(self, task: Task, now: float) -> Task:
        """Settle *task* now as failed, give its price back and return it. The slots of other tasks stay as planned."""
        unsettled = self._unsettled[task.provider]
        unsettled.remove(task.settles_at)
        heapq.heapify(unsettled)
        if task.failure is None:
            heapq.heappush(self._refunds, (now, task.provider, task.micro_usd))
        failure = "the request was cancelled"
        canceled = attrs.evolve(task, settles_at=now, failure=failure, failure_code="client_cancelled")
        index = self._indices[task.id]
        self.charges[index] = attrs.evolve(self.charges[index], settles_at=now, fails=True)
        self.tasks[task.id] = canceled
        return canceled

    def count_ahead(self, task: Task, now: float) -> int:
        """Return the number of tasks that wait for a slot before *task*."""
        return sum(
            other.provider == task.provider and now < other.starts_at < task.starts_at for other in self.tasks.values()
        )

    def spent(self, provider: str, now: float) -> int:
        """Return what a provider's account has paid, in millionths of a dollar.

        A task is paid when it is accepted; the price of one that fails is given back when it settles.
        """
        while self._refunds and self._refunds[0][0] <= now:
            _, refunded, amount = heapq.heappop(self._refunds)
            self._taken[refunded] -= amount
        return self._taken[provider]

    def _draw(self, provider: str, spec: GenerationSpec, fault: Fault | None, now: float) -> Task:
        random = Random(f"{self.seed}:{self._accepted}")
        task_id = str(UUID(int=random.getrandbits(128), version=4))
        drawn_seed = random.getrandbits(40 if random.random() < _LONG_SEED_SHARE else 32)
        failure = self.failure_reason if random.random() < self.failure_rate else None
        seconds = self.durations.draw(random)
        code = "provider_error"
        if fault is not None and fault.name == "fails":
            failure, code = str(fault["reason"]), str(fault["code"])
            seconds = 0.0 if fault["at_once"] else seconds
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
            operation=spec.operation,
            failure_code="" if failure is None else code,
            micro_usd=spec.micro_usd,
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
