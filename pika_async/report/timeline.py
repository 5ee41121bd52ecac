"""Timeline of a batch: how many jobs were in each state at each time. Reads no clock and draws nothing.

Only recorded times count: acceptance, settling, the end of the download. A job costs O(1) when it is added or has
changed, and the series costs O(bins), so a batch can be drawn again and again while it runs.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import accumulate
from statistics import median
from typing import Final

import attrs

from pika_async.jobs import Job, JobStatus
from pika_async.polling.durations import DurationSample

__all__ = ["MAX_BINS", "BatchTimeline", "TimelineSeries"]

#: Most bins of a series; empty ones, such as those between two runs days apart, do not count.
MAX_BINS: Final = 300
#: Width of a bin at first, in seconds; it doubles whenever the times no longer fit into `MAX_BINS`.
FIRST_WIDTH_S: Final = 2.0**-10

_UNSENT: Final = frozenset({JobStatus.PLANNED, JobStatus.SUBMITTING})


class _Step(enum.Enum):
    """Step of a job that the series counts."""

    #: It was accepted, or settled without that.
    BEGUN = enum.auto()
    SUCCEEDED = enum.auto()
    #: It failed, was rejected or canceled, or is in doubt: no task id can bring a video.
    ENDED_BADLY = enum.auto()
    #: The gateway refused it; counted in `ENDED_BADLY` as well.
    REFUSED = enum.auto()
    DOWNLOADED = enum.auto()


@attrs.frozen
class _Record:
    """Times of one job, in unix seconds; `-inf` for a step that was made at an unknown time."""

    steps: tuple[tuple[_Step, float], ...]
    #: Stratum and time of acceptance of a task whose settling was seen, and the time of that.
    task: tuple[str, float] | None = None
    settled_at: float = math.inf


@attrs.frozen(kw_only=True)
class TimelineSeries:
    """Counts of the jobs of a batch at rising times. At each time planned + in flight + settled = total."""

    #: Times in unix seconds, rising; empty if nothing has a time yet.
    times: Sequence[float]
    #: Jobs that were not accepted yet.
    planned: Sequence[int]
    #: Jobs that were accepted and had not settled.
    in_flight: Sequence[int]
    #: Jobs that had succeeded, downloaded ones included.
    succeeded: Sequence[int]
    #: Jobs that had failed, were rejected or canceled, or are in doubt (from the time that they were sent).
    ended_badly: Sequence[int]
    #: Jobs whose result was on disk, or in a store.
    downloaded: Sequence[int]
    #: Refused jobs: the time of each bin with any, and how many.
    refusals: Sequence[tuple[float, int]]
    #: Detection delays: the time of each bin with any, and their median in seconds.
    delays: Sequence[tuple[float, float]]
    #: Median of all detection delays in seconds, None without any; and their number.
    delay_median: float | None
    delay_count: int
    total: int

    @property
    def settled(self) -> list[int]:
        """Jobs that had settled, well or badly."""
        return [good + bad for good, bad in zip(self.succeeded, self.ended_badly, strict=True)]


@attrs.define
class BatchTimeline:
    """Counts of the jobs of a batch over time, kept up to date job by job."""

    _records: dict[str, _Record] = attrs.field(factory=dict, init=False)
    #: Steps made in each bin, and those at an unknown time; bin n begins at n x width.
    _bins: dict[_Step, Counter[int]] = attrs.field(init=False)
    _untimed: Counter[_Step] = attrs.field(factory=Counter, init=False)
    #: Times of settling of the tasks of a stratum that were accepted in one millisecond.
    _tasks: dict[tuple[str, float], list[float]] = attrs.field(factory=dict, init=False)
    _samples: tuple[DurationSample, ...] = attrs.field(default=(), init=False)
    _width: float = attrs.field(default=FIRST_WIDTH_S, init=False)
    #: Numbers of the bins that were ever used, and of those after them: where bins begin and end.
    _edges: set[int] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._bins = {step: Counter() for step in _Step}

    def __len__(self) -> int:
        return len(self._records)

    def expect(self, keys: Iterable[str]) -> None:
        """Count a planned job for each of `keys` that is not known yet."""
        for key in keys:
            self._records.setdefault(key, _Record(()))

    def add(self, job: Job) -> None:
        """Count `job`, in place of an earlier state of the job with that key."""
        self._put(job.key, _record_of(job))

    def add_active(self, key: str, status: JobStatus, submitted_at: datetime | None) -> None:
        """Count the job `key`, which has not ended, in place of an earlier state of it.

        :param submitted_at: when it was accepted; None if it was not, or that is unknown.
        """
        self._put(key, _active_record(status, submitted_at))

    def add_download(self, key: str, at: datetime | None) -> None:
        """Count the file of the job `key`, which has succeeded and was counted without one.

        :param at: when it was on disk or in a store; None, unknown, for when the job settled.
        """
        record = self._records[key]
        downloaded = record.settled_at if at is None else max(record.settled_at, at.timestamp())
        self._put(key, attrs.evolve(record, steps=(*record.steps, (_Step.DOWNLOADED, downloaded))))

    def _put(self, key: str, record: _Record) -> None:
        earlier = self._records.get(key)
        if record == earlier:
            return
        if earlier is not None:
            self._count(earlier, -1)
        self._records[key] = record
        self._count(record, 1)

    def set_samples(self, samples: Iterable[DurationSample]) -> None:
        """Replace the duration samples; a job must have settled to have a detection delay, and have a sample."""
        self._samples = tuple(samples)

    def _count(self, record: _Record, change: int) -> None:
        for step, at in record.steps:
            if math.isinf(at):
                self._untimed[step] += change
                continue
            self._make_room(at)
            self._bins[step][self._bin(at)] += change
        if record.task is not None:
            settled = self._tasks.setdefault(record.task, [])
            if change > 0:
                settled.append(record.settled_at)
            else:
                settled.remove(record.settled_at)

    def _bin(self, at: float) -> int:
        return math.floor(at / self._width)

    def _make_room(self, at: float) -> None:
        """Widen the bins until `at` fits. Widths are powers of two, so merged bins are those of the wider width."""
        index = self._bin(at)
        self._edges |= {index, index + 1}
        while len(self._edges) > MAX_BINS + 1:
            self._width *= 2
            for step, counts in self._bins.items():
                merged: Counter[int] = Counter()
                for number, count in counts.items():
                    merged[number >> 1] += count
                self._bins[step] = merged
            used = {self._bin(at)}.union(*self._bins.values())
            self._edges = used | {number + 1 for number in used}

    def series(self, until: float | None = None) -> TimelineSeries:
        """Return the counts over time.

        :param until: the present in unix seconds, where a batch that runs is shown to go on; default: the last step.
        """
        used = {number for counts in self._bins.values() for number, count in counts.items() if count}
        edges = sorted(used | {number + 1 for number in used})
        bins = edges[:-1]  # one that was never used lies between two runs
        times = [number * self._width for number in edges]

        def cumulative(step: _Step) -> list[int]:
            counts = (self._bins[step][number] for number in bins)
            sums = accumulate(counts, initial=self._untimed[step])
            return list(sums) if used else []

        begun, good, bad = map(cumulative, (_Step.BEGUN, _Step.SUCCEEDED, _Step.ENDED_BADLY))
        downloaded = cumulative(_Step.DOWNLOADED)
        if times and until is not None and times[-1] < until < math.inf:
            times.append(until)
            for counts in (begun, good, bad, downloaded):
                counts.append(counts[-1])
        total = len(self._records)
        refused = self._bins[_Step.REFUSED]
        delays = list(self._delays())
        return TimelineSeries(
            times=times,
            planned=[total - count for count in begun],
            in_flight=[count - one - other for count, one, other in zip(begun, good, bad, strict=True)],
            succeeded=good,
            ended_badly=bad,
            downloaded=downloaded,
            refusals=[((number + 0.5) * self._width, refused[number]) for number in bins if refused[number]],
            delays=self._binned(delays),
            delay_median=median(delay for _, delay in delays) if delays else None,
            delay_count=len(delays),
            total=total,
        )

    def _delays(self) -> Iterable[tuple[float, float]]:
        """Yield when each sampled task was found settled, and the seconds since the middle of its known interval.

        A sample has no key. Where two tasks of a stratum were accepted in one millisecond, neither is counted.
        """
        for sample in self._samples:
            found = self._tasks.get((sample.stratum, sample.accepted_at), ())
            middle = (sample.lower + sample.upper) / 2
            if len(found) == 1 and math.isfinite(middle):
                yield found[0], max(0.0, found[0] - sample.accepted_at - middle)

    def _binned(self, delays: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        bins: dict[int, list[float]] = {}
        for at, delay in delays:
            bins.setdefault(self._bin(at), []).append(delay)
        return [((number + 0.5) * self._width, median(found)) for number, found in sorted(bins.items())]


def _active_record(status: JobStatus, submitted_at: datetime | None) -> _Record:
    at = -math.inf if submitted_at is None else submitted_at.timestamp()
    made = {JobStatus.UNKNOWN: (_Step.BEGUN, _Step.ENDED_BADLY)}.get(status, (_Step.BEGUN,))
    return _Record(() if status in _UNSENT else tuple((step, at) for step in made))


def _record_of(job: Job) -> _Record:
    """Return the steps of `job` in the order in which they happened, whatever its clock did meanwhile."""
    if not job.is_final:
        return _active_record(job.status, job.submitted_at)
    sent = None if job.submitted_at is None else job.submitted_at.timestamp()
    settled = None if job.settled_at is None else job.settled_at.timestamp()
    if settled is None:
        settled = -math.inf if sent is None else sent
    begun = settled if sent is None else sent
    settled = max(begun, settled)
    steps = [(_Step.BEGUN, begun)]
    if job.status is JobStatus.SUCCEEDED:
        steps.append((_Step.SUCCEEDED, settled))
        if job.is_downloaded:
            downloaded = settled if job.downloaded_at is None else job.downloaded_at.timestamp()
            steps.append((_Step.DOWNLOADED, max(settled, downloaded)))
    else:
        steps.append((_Step.ENDED_BADLY, settled))
        if job.status is JobStatus.REJECTED:
            steps.append((_Step.REFUSED, settled))
    task = None if sent is None or job.settled_at is None else (job.stratum, sent)
    return _Record(tuple(steps), task, settled)
