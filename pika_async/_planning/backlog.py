"""Backlog of planned jobs that more than one account can take. Pure: decides nothing."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator

import attrs

from pika_async._planning.actions import ActiveJob

__all__ = ["Backlog", "JobClass", "kind_of"]


def kind_of(active: ActiveJob) -> str:
    """Return the stratum of a job without its provider."""
    return active.stratum.partition("/")[2]


@attrs.define(eq=False)
class JobClass:
    """Waiting jobs that the same accounts can take and whose tasks are alike, first come, first served."""

    options: tuple[str, ...]
    jobs: OrderedDict[ActiveJob, int] = attrs.field(factory=OrderedDict)
    #: When all of them are given up: the end of the patience of one that was refused; infinity after an acceptance.
    refused_until: float = math.inf

    @property
    def expires_at(self) -> float:
        """When the first job is given up."""
        return min(self.head.deadline_at, self.refused_until)

    @property
    def head(self) -> ActiveJob:
        """The job that is sent next."""
        return next(iter(self.jobs))

    @property
    def position(self) -> int:
        """The position of that job in the whole backlog."""
        return next(iter(self.jobs.values()))


@attrs.define(eq=False)
class Backlog:
    """The waiting jobs by class, so that a job that no account takes now holds up only those like it."""

    _classes: dict[tuple[tuple[str, ...], str], JobClass] = attrs.field(factory=dict)
    _last: Iterator[int] = attrs.field(factory=itertools.count)
    _first: Iterator[int] = attrs.field(factory=lambda: itertools.count(-1, -1))
    #: The class of each job; a job keeps its class while it waits, whatever becomes of its record.
    _class_of: dict[ActiveJob, tuple[tuple[str, ...], str]] = attrs.field(factory=dict)

    def __len__(self) -> int:
        return len(self._class_of)

    def __iter__(self) -> Iterator[ActiveJob]:
        return iter(self._class_of)

    def append(self, active: ActiveJob) -> None:
        """Add a job as the last one."""
        self._class_for(active).jobs[active] = next(self._last)

    def appendleft(self, active: ActiveJob) -> None:
        """Add a job as the first one: it was refused, or returned by an account that has stopped."""
        each = self._class_for(active)
        each.jobs[active] = next(self._first)
        each.jobs.move_to_end(active, last=False)
        each.refused_until = min(each.refused_until, active.deadline_at) if active.deadline_at < math.inf else math.inf

    def on_accepted(self, active: ActiveJob) -> None:
        """Record the acceptance of a job: those like it have their full patience again."""
        each = self._classes.get((active.options, kind_of(active)))
        if each is not None:
            each.refused_until = math.inf

    def _class_for(self, active: ActiveJob) -> JobClass:
        kind = self._class_of[active] = (active.options, kind_of(active))
        return self._classes.setdefault(kind, JobClass(active.options))

    def by_position(self) -> list[JobClass]:
        """Return the classes in the order of their first jobs."""
        return sorted(self._classes.values(), key=lambda each: each.position)

    def waiting_for(self, accounts: Iterable[str]) -> dict[str, int]:
        """Return the number of jobs that each account can take."""
        counts = dict.fromkeys(accounts, 0)
        for each in self._classes.values():
            for name in each.options:
                counts[name] = counts.get(name, 0) + len(each.jobs)
        return counts

    @property
    def expires_at(self) -> float:
        """When the next job is given up; infinity if none will be."""
        return min((each.expires_at for each in self._classes.values()), default=math.inf)

    def pop_expired(self, now: float) -> ActiveJob | None:
        """Remove and return a job that is given up at `now`; None if there is none."""
        expired = next((each.head for each in self._classes.values() if now >= each.expires_at), None)
        if expired is not None:
            self.remove(expired)
        return expired

    def postpone(self, seconds: float) -> None:
        """Give every job so many seconds more until it is given up."""
        for active in self:
            active.deadline_at += seconds
        for each in self._classes.values():
            each.refused_until += seconds

    def remove(self, active: ActiveJob) -> bool:
        """Remove a job and return True; False if it does not wait here."""
        kind = self._class_of.pop(active, None)
        if kind is None:
            return False
        jobs = self._classes[kind].jobs
        del jobs[active]
        if not jobs:
            del self._classes[kind]
        return True

    def clear(self) -> list[ActiveJob]:
        """Remove and return every job, in the order of their positions."""
        positions = {active: at for each in self._classes.values() for active, at in each.jobs.items()}
        self._classes.clear()
        self._class_of.clear()
        return sorted(positions, key=lambda active: positions[active])
