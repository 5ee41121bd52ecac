"""The books of the gateway: tasks, charges and who has how many in flight; draws fates, answers nothing."""

from __future__ import annotations

import heapq
from random import Random
from uuid import UUID

import attrs

from pika_async.emulator.durations import Durations
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import PROVIDERS, Charge, Task
from pika_async.emulator.request_schemas import Wanted

__all__ = ["Books"]

#: The share of drawn seeds that exceed 2^32, as the gateways' own do at times.
_LONG_SEEDS = 0.125


@attrs.define(kw_only=True)
class Books:
    """Accepts paid tasks; the fate of the n-th is a function of ``seed`` and n alone."""

    durations: Durations
    time_scale: float
    seed: int
    failure_rate: float
    failure_reason: str

    ledger: list[Charge] = attrs.field(init=False, factory=list, repr=False)
    tasks: dict[str, Task] = attrs.field(init=False, factory=dict, repr=False)
    _accepted: int = attrs.field(init=False, default=0)
    _first_ids: dict[str, str] = attrs.field(init=False, factory=dict, repr=False)
    _unsettled: dict[str, list[float]] = attrs.field(
        init=False, repr=False, factory=lambda: {provider: [] for provider in PROVIDERS}
    )

    def accept(self, provider: str, wanted: Wanted, raw_body: bytes, deed: Fault | None, now: float) -> Task:
        """Books one paid task, and says it under the id that the client is to be told."""
        self._accepted += 1
        task = self._draw(provider, wanted, deed, now)
        told = task.id
        if deed is not None and deed.fault == "duplicate-id":
            told = self._first_ids.get(provider, task.id)
        self.ledger.append(
            Charge(
                provider=provider,
                task_id=told,
                prompt=wanted.prompt,
                charged_at=now,
                settles_at=task.settles_at,
                fails=task.failure is not None,
                fault=deed.fault if deed else None,
                raw_body=raw_body,
            )
        )
        heapq.heappush(self._unsettled[provider], task.settles_at)
        if told != task.id:
            return self.tasks[told]
        self._first_ids.setdefault(provider, task.id)
        self.tasks[task.id] = task
        return task

    def _draw(self, provider: str, wanted: Wanted, deed: Fault | None, now: float) -> Task:
        random = Random(f"{self.seed}:{self._accepted}")
        task_id = str(UUID(int=random.getrandbits(128), version=4))
        drawn = random.getrandbits(40 if random.random() < _LONG_SEEDS else 32)
        failure = self.failure_reason if random.random() < self.failure_rate else None
        seconds = self.durations.draw(random)
        if deed is not None and deed.fault == "fails":
            failure = str(deed["reason"])
        if deed is not None and deed.fault == "takes":
            seconds = float(deed["seconds"])
        return Task(
            id=task_id,
            provider=provider,
            prompt=wanted.prompt,
            seed=drawn if wanted.seed is None else wanted.seed,
            seed_requested=wanted.seed is not None,
            created_at=now,
            settles_at=now + seconds * self.time_scale,
            failure=failure,
            aspect_ratio=wanted.aspect_ratio,
            frame_rate=wanted.frame_rate,
            callback_url=wanted.callback_url,
        )

    def count_in_flight(self, provider: str, now: float) -> int:
        """How many paid tasks of a provider's account have not settled yet."""
        waiting = self._unsettled[provider]
        while waiting and waiting[0] <= now:
            heapq.heappop(waiting)
        return len(waiting)

    def other_than(self, task: Task) -> Task:
        """Another task of the same provider, or the same one under an id that nobody was given."""
        others = (other for other in self.tasks.values() if other.id != task.id and other.provider == task.provider)
        stranger = str(UUID(int=Random(task.id).getrandbits(128), version=4))
        return next(others, attrs.evolve(task, id=stranger))
