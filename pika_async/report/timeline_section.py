"""Section of the page with the timeline and the learned durations. Reads no clock and no journal."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from pika_async.polling.durations import DurationSample
from pika_async.report.durations_chart import DurationCharts
from pika_async.report.timeline import BatchTimeline
from pika_async.report.timeline_chart import timeline_figure

__all__ = ["TimelineSection"]


@attrs.define
class TimelineSection:
    """What the section is drawn from, kept up to date by the writer of the page.

    :param expected_seconds: how long a task takes before any has settled, in seconds, above 0; default 60.
    """

    expected_seconds: float = 60.0
    #: The counts of the batch.
    timeline: BatchTimeline = attrs.field(factory=BatchTimeline, init=False)
    _charts: DurationCharts = attrs.field(init=False)
    #: Duration samples and learned room by account.
    _samples: dict[str, tuple[DurationSample, ...]] = attrs.field(factory=dict, init=False)
    _rooms: dict[str, float | None] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._charts = DurationCharts(self.expected_seconds)

    def set_learned(self, account: str, samples: Iterable[DurationSample], room: float | None) -> None:
        """Replace what was learned of an account.

        :param account: the name of its provider.
        :param samples: duration samples of its tasks, of the strata of no other account.
        :param room: most tasks that it has at once; None while that is not known.
        """
        self._samples = {**self._samples, account: tuple(samples)}  # another thread may be drawing
        self._rooms = {**self._rooms, account: room}

    def set_all_samples(self, samples: Iterable[DurationSample]) -> None:
        """Replace the duration samples of all accounts."""
        self._samples = {"": tuple(samples)}

    def figures(self, now: float | None) -> tuple[str | None, str | None]:
        """Return the timeline and the learned durations as HTML, each None as long as there is nothing to draw.

        :param now: the present in unix seconds while the batch runs; None after its end.
        """
        samples = [sample for each in self._samples.values() for sample in each]
        self.timeline.set_samples(samples)
        series = self.timeline.series(now)
        figure = timeline_figure(series, room=self._room()) if series.times else None
        return figure, self._charts.draw(samples) or None

    def _room(self) -> float | None:
        """Return the room at all accounts together; None unless it is known of each."""
        known = [room for room in self._rooms.values() if room is not None]
        return sum(known) if known and len(known) == len(self._rooms) else None
