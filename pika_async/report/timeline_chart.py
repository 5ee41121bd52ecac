"""Timeline of a batch as a figure for its page. Counts nothing and has no style: `timeline.css` gives the colours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from pika_async.report import svg
from pika_async.report.time_axis import CLOCK_WIDTH, Cut, TimeAxis, long_waits
from pika_async.report.timeline import TimelineSeries

__all__ = ["timeline_figure"]

#: Heights of the panels in px, and of the title above each.
JOBS_HEIGHT: Final = 150.0
IN_FLIGHT_HEIGHT: Final = 64.0
DELAYS_HEIGHT: Final = 48.0
TITLE_HEIGHT: Final = 38.0
#: Space between two panels.
PANEL_GAP: Final = 10.0
#: Height of the ticks of refused jobs below their panel.
REFUSALS_HEIGHT: Final = 9.0
#: The room at a gateway is drawn up to this many times the most jobs that were in flight, and named beyond that.
MAX_ROOM_FACTOR: Final = 3.0

_Point = tuple[float, float]


def timeline_figure(series: TimelineSeries, *, room: float | None = None) -> str:
    """Return the figure as HTML: a key with the latest counts, and an SVG with a title and a description.

    :param series: the counts over time.
    :param room: most tasks that the gateways have at once, as learned; default None, for not known.
    """
    if not series.times:
        words = "The timeline begins when a job is accepted." if series.total else "No job yet."
        return f'<figure class="chart"><p class="chart-note">{words}</p></figure>'
    states = list(zip(series.planned, series.in_flight, series.succeeded, series.downloaded, strict=True))
    waits = long_waits(series.times, series.in_flight, states)
    drawing = _Drawing(TimeAxis.of(series.times[0], series.times[-1], waits))
    _draw_jobs(drawing, series)
    _draw_in_flight(drawing, series, room)
    _draw_delays(drawing, series)
    drawing.end()
    cuts = drawing.axis.cuts
    return svg.figure(
        "Timeline of the batch",
        _description(series, cuts),
        drawing.y,
        drawing.parts,
        key=_key(series),
        note=_note(series, cuts),
    )


@attrs.define
class _Drawing:
    """Panels one below the other over one axis of time."""

    axis: TimeAxis
    y: float = 0.0
    parts: list[str] = attrs.field(factory=list)

    def points(self, times: Sequence[float], values: Iterable[float], top: float) -> list[_Point]:
        """Return the points of a curve in a panel whose upper edge is `top`."""
        return svg.simplified([
            (self.x(at) * svg.UNITS, svg.UNITS * (1 - value / top)) for at, value in zip(times, values, strict=True)
        ])  # fmt: skip

    def x(self, at: float) -> float:
        """Return a time as a share of the width."""
        return self.axis.x(at)

    def add_panel(
        self, title: str, height: float, content: Iterable[str], ticks: Iterable[tuple[float, str]], detail: str = ""
    ) -> None:
        """Add a panel below the others.

        :param ticks: the height of each grid line as a share of the panel's, and its text.
        :param detail: text at the right of the title.
        """
        self.y += PANEL_GAP if self.parts else 0
        self.parts.append(svg.text(0, self.y + 14, title, "chart-title"))
        if detail:
            self.parts.append(svg.text(1, self.y + 14, detail, "chart-label chart-detail"))
        self.y += TITLE_HEIGHT
        self.parts.append(svg.plot(self.y, height, content))
        self.parts += [svg.cut(cut.left, cut.right, self.y, height) for cut in self.axis.cuts]
        for share, label in ticks:
            self.parts.append(svg.grid_line(self.y + height * (1 - share)))
            self.parts.append(svg.text(0, self.y + height * (1 - share) - 4, label, "chart-label chart-over"))
        self.y += height
        self.parts.append(svg.grid_line(self.y, "chart-base"))

    def end(self) -> None:
        """Add the axis of time below all panels."""
        for x, label in self.axis.ticks():
            self.parts.append(svg.tick(x, self.y))
            anchor = "start" if ":" in label else None  # a clock time stands where a part begins
            if anchor and x > 1 - CLOCK_WIDTH:
                x, anchor = 1.0, "end"  # noqa: PLW2901 - there is no room for it to the right
            self.parts.append(svg.text(x, self.y + 18, label, "chart-label", anchor))
        self.y += svg.AXIS_HEIGHT


def _draw_jobs(drawing: _Drawing, series: TimelineSeries) -> None:
    """Add the states of all jobs, stacked from what is done to what is not."""
    on_disk, good, done = series.downloaded, series.succeeded, series.settled
    begun = [count + waiting for count, waiting in zip(done, series.in_flight, strict=True)]
    levels = [[0] * len(begun), on_disk, good, done, begun, [series.total] * len(begun)]
    names = ["s-downloaded", "s-succeeded", "s-problem", "s-flight", "s-planned"]
    lines = [_whole(drawing, series.times, level, series.total) for level in levels]
    content = [
        svg.area(upper, lower, name)
        for name, lower, upper, under, over in zip(names, lines, lines[1:], levels, levels[1:], strict=False)
        if list(under) != list(over)
    ]
    content += [svg.line(upper, "chart-edge") for upper in lines[1:-1]]
    top = max(1, series.total)
    drawing.add_panel("Jobs", JOBS_HEIGHT, content, [(count / top, f"{count:,}") for count in svg.count_ticks(top)])


def _whole(drawing: _Drawing, times: Sequence[float], level: Sequence[int], total: int) -> list[_Point]:
    return drawing.points(times, level, max(1, total))


def _draw_in_flight(drawing: _Drawing, series: TimelineSeries, room: float | None) -> None:
    """Add the jobs in flight, the room at the gateways and a tick for each time at which a job was refused."""
    most = max(1, *series.in_flight)
    is_drawn = room is not None and 0 < room <= MAX_ROOM_FACTOR * most
    top = 1.15 * max(most, room if is_drawn and room is not None else 0)
    upper = drawing.points(series.times, series.in_flight, top)
    lower = [(x, svg.UNITS) for x, _ in upper]
    content = [svg.area(upper, lower, "s-flight chart-soft"), svg.line(upper, "l-flight")]
    ticks = [(count / top, f"{count:,}") for count in svg.count_ticks(top)[-1:]]
    detail = f"at most {max(series.in_flight):,}"
    if room is not None and room > 0:
        detail += f", room for about {room:,.0f}"
    if is_drawn and room is not None:
        height = svg.UNITS * (1 - room / top)
        content.append(svg.line([(0, height), (svg.UNITS, height)], "l-room"))
    drawing.add_panel("In flight", IN_FLIGHT_HEIGHT, content, ticks, detail)
    if series.refusals:
        marks = svg.ticks([drawing.x(at) for at, _ in series.refusals], "l-problem")
        drawing.parts.append(svg.plot(drawing.y + 2, REFUSALS_HEIGHT, [marks]))
        drawing.y += REFUSALS_HEIGHT + 4


def _draw_delays(drawing: _Drawing, series: TimelineSeries) -> None:
    """Add a dot for the detection delays of each bin, if any is known."""
    if not series.delays or series.delay_median is None:
        return
    top = 1.15 * max(0.01, *(delay for _, delay in series.delays))
    spots = [(drawing.x(at) * svg.UNITS, svg.UNITS * (1 - delay / top)) for at, delay in series.delays]
    step = svg.round_down(top)
    drawing.add_panel(
        "Detection delay", DELAYS_HEIGHT, [svg.dots(spots, "l-delay")], [(step / top, svg.seconds(step))],
        f"median {svg.seconds(series.delay_median)}, {series.delay_count:,} measured",
    )  # fmt: skip


def _key(series: TimelineSeries) -> list[tuple[str, str, int]]:
    """Return class, name and latest count of each state that is drawn, in the order of the areas from above."""
    waiting = [good - there for good, there in zip(series.succeeded, series.downloaded, strict=True)]
    states: list[tuple[str, str, Sequence[int]]] = [
        ("s-planned", "not accepted yet", series.planned),
        ("s-flight", "in flight", series.in_flight),
        ("s-problem", "without a video", series.ended_badly),
        ("s-succeeded", "succeeded, not downloaded", waiting),
        ("s-downloaded", "downloaded", series.downloaded),
    ]
    return [(name, label, counts[-1]) for name, label, counts in states if any(counts)]


def _description(series: TimelineSeries, cuts: Sequence[Cut]) -> str:
    states = ", ".join(f"{count:,} {name}" for _, name, count in reversed(_key(series)) if count)
    refused = sum(count for _, count in series.refusals)
    noun = "job" if series.total == 1 else "jobs"
    sentences = [
        f"{series.total:,} {noun} from {svg.clock(series.times[0])} to {svg.clock(series.times[-1])} UTC.",
        f"At the end: {states}.",
        f"At most {max(series.in_flight):,} in flight at once.",
    ]
    if refused:
        sentences.append(f"Refused by the gateway: {refused:,}.")
    if series.delay_median is not None:
        sentences.append(f"A task that had settled was found after a median of {svg.seconds(series.delay_median)}.")
    sentences += _left_out(cuts)
    return " ".join(sentences)


def _left_out(cuts: Sequence[Cut]) -> list[str]:
    lengths = ", ".join(svg.seconds(cut.seconds) for cut in cuts)
    return [f"Left out, at the dashed lines: {lengths} without any change."] if cuts else []


def _note(series: TimelineSeries, cuts: Sequence[Cut]) -> str:
    sentences = [f"From {svg.clock(series.times[0])} UTC, when the first job was accepted or settled."]
    sentences += _left_out(cuts)
    if series.refusals:
        sentences.append("Red ticks: jobs that the gateway refused.")
    if series.delays:
        sentences.append("Dots: time until a poll found a task that had settled, for the latest tasks of each kind.")
    return " ".join(sentences)
