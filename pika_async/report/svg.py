"""Parts of a figure as HTML and SVG text: escaped words, numbers, paths, axes. Knows nothing of jobs.

A drawing is as wide as its place. Words keep their size, because they stand in the outer coordinates, where x is in
percent; curves are in an inner drawing of `UNITS` x `UNITS` that is stretched, and their strokes are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final
from xml.sax.saxutils import escape

from pika_async.errors import strip_control

__all__ = [
    "AXIS_HEIGHT", "UNITS", "area", "bars", "clock", "count_ticks", "cut", "dots", "figure", "grid_line", "line",
    "number", "plot", "round_down", "seconds", "simplified", "text", "tick", "ticks", "time_ticks", "words",
]  # fmt: skip

#: Width and height of an inner drawing.
UNITS: Final = 1000.0
#: Most labels of an axis of time: at 320 px each has 60.
TIME_LABELS: Final = 5
#: Most grid lines of an axis of counts.
COUNT_LINES: Final = 4
#: Height of the labels of an axis of time in px.
AXIS_HEIGHT: Final = 24.0
#: Share of the distance of two bars that a bar is wide.
BAR_SHARE: Final = 0.8
#: Length of a tick of an axis in px.
TICK_HEIGHT: Final = 4.0
#: Distances of labels in seconds; longer ones are round numbers of days.
_STEPS: Final = (
    0.2, 0.5, 1, 2, 5, 10, 15, 30,
    *(60 * step for step in (1, 2, 5, 10, 15, 30)),
    *(3600 * step for step in (1, 2, 3, 6, 12)),
)  # fmt: skip
_DAY_S: Final = 86400.0
#: Units of an axis: the name, its seconds, and the longest span that it is used for.
_TIME_UNITS: Final = (("s", 1.0, 180.0), ("min", 60.0, 180 * 60.0), ("h", 3600.0, 72 * 3600.0), ("d", _DAY_S, math.inf))


def words(value: object) -> str:
    """Return a text of anybody's for the content or an attribute of an element: no markup, no control characters."""
    return escape(strip_control(str(value)), {'"': "&quot;", "'": "&#39;"})


def number(value: float) -> str:
    """Return a coordinate with one decimal at most; 0 for what is not finite, which no drawing survives."""
    return f"{value:.1f}".removesuffix(".0") if math.isfinite(value) else "0"


def seconds(value: float) -> str:
    """Return a duration with two or three digits, in the unit that a person would use."""
    unit, size, _ = next((each for each in _TIME_UNITS if value < each[2]), _TIME_UNITS[-1])
    count = value / size
    return f"{count:.2g} {unit}" if count < 9.95 else f"{count:,.0f} {unit}"


def clock(at: float, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time in UTC; the year 1970 stands for a time that no calendar has."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime(pattern)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC).strftime(pattern)


def _percent(share: float) -> str:
    return f"{number(100 * min(1.0, max(0.0, share)))}%"


def text(x: float, y: float, value: object, name: str, anchor: str | None = None) -> str:
    """Return a text at a share of the width; near an end it is aligned with that.

    :param y: the base line in px.
    :param name: the class.
    :param anchor: the end at which it is aligned with `x`: "start" or "end"; default None, by its place.
    """
    anchor = anchor or ("start" if x < 0.06 else "end" if x > 0.94 else "middle")
    return f'<text class="{name}" x="{_percent(x)}" y="{number(y)}" text-anchor="{anchor}">{words(value)}</text>'


def grid_line(y: float, name: str = "chart-grid") -> str:
    """Return a line across the whole width."""
    return f'<line class="{name}" x1="0" x2="100%" y1="{number(y)}" y2="{number(y)}"/>'


def tick(x: float, y: float) -> str:
    """Return a tick below an axis, at a share of the width."""
    at = _percent(x)
    return f'<line class="chart-base" x1="{at}" x2="{at}" y1="{number(y)}" y2="{number(y + TICK_HEIGHT)}"/>'


def cut(left: float, right: float, y: float, height: float) -> str:
    """Return a band over a panel where a stretch of time is cut out, between two shares of the width."""
    size = f'y="{number(y)}" width="{_percent(right - left)}" height="{number(height)}"'
    ends = f'y1="{number(y)}" y2="{number(y + height)}"'
    edges = [f'<line class="chart-cut-edge" x1="{at}" x2="{at}" {ends}/>' for at in (_percent(left), _percent(right))]
    return f'<rect class="chart-cut" x="{_percent(left)}" {size}/>{"".join(edges)}'


def plot(y: float, height: float, content: Iterable[str]) -> str:
    """Return an inner drawing across the whole width, at `y` px from above and `height` px high."""
    size = f'y="{number(y)}" width="100%" height="{number(height)}" viewBox="0 0 {UNITS:.0f} {UNITS:.0f}"'
    return f'<svg {size} preserveAspectRatio="none">{"".join(content)}</svg>'


def _path(name: str, data: str) -> str:
    return f'<path class="{name}" vector-effect="non-scaling-stroke" d="{data}"/>' if data else ""


def _through(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) if points else ""


def line(points: Sequence[tuple[float, float]], name: str) -> str:
    """Return a line through `points`."""
    return _path(name, _through(points))


def area(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], name: str) -> str:
    """Return the area between two lines."""
    outline = _through([*upper, *reversed(lower)])
    return _path(name, f"{outline}Z" if outline else "")


def dots(points: Iterable[tuple[float, float]], name: str) -> str:
    """Return dots; their size is the width of the stroke, so that a stretched drawing leaves them round."""
    return _path(name, "".join(f"M{number(x)} {number(y)}h.01" for x, y in points))


def ticks(shares: Iterable[float], name: str) -> str:
    """Return lines from the bottom to the top of an inner drawing, at shares of its width."""
    return _path(name, "".join(f"M{number(UNITS * share)} 0V{UNITS:.0f}" for share in shares))


def bars(shares: Sequence[float], base: Sequence[float], name: str) -> str:
    """Return bars side by side across the whole width.

    :param shares: the upper end of each as a share of the height.
    :param base: the lower end of each; a bar without height is left out.
    """
    width = UNITS / max(1, len(shares))
    boxes = (
        f"M{number(index * width)} {number(UNITS * (1 - low))}h{number(width * BAR_SHARE)}"
        f"V{number(UNITS * (1 - high))}H{number(index * width)}Z"
        for index, (low, high) in enumerate(zip(base, shares, strict=True))
        if high > low
    )
    return _path(name, "".join(boxes))


def simplified(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return `points` without those between two of the same height."""
    kept = [
        here
        for before, here, after in zip(points, points[1:], points[2:], strict=False)
        if not before[1] == here[1] == after[1]
    ]
    return [*points[:1], *kept, *points[1:][-1:]]


def time_ticks(span: float, labels: int = TIME_LABELS) -> list[tuple[float, str]]:
    """Return the labels of an axis from 0 to `span` seconds: each age, and its text in one unit for all.

    :param span: in seconds, above 0.
    :param labels: most labels, >= 1.
    """
    step: float | None = next((step for step in _STEPS if span / step <= labels), None)
    if step is None:
        step = _DAY_S * max(1.0, _round_up(span / labels / _DAY_S))
    unit, size, _ = next(each for each in _TIME_UNITS if span <= each[2])
    ages = [index * step for index in range(math.floor(span / step) + 1)]
    return [(age, f"{age / size:.4g} {unit}" if age else "0") for age in ages]


def count_ticks(top: float) -> list[int]:
    """Return the counts of the grid lines of an axis from 0 to `top`, without 0."""
    step = max(1, round(_round_up(top / COUNT_LINES)))
    return list(range(step, math.floor(top) + 1, step))


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten; `value` is above 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((factor * power for factor in (1, 2, 5) if value <= factor * power), 10 * power)


def round_down(value: float) -> float:
    """Return the largest 1, 2 or 5 times a power of ten that is not above `value`; it is above 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((factor * power for factor in (5, 2) if value >= factor * power), power)


def figure(
    title: str, description: str, height: float, parts: Iterable[str], *,
    key: Iterable[tuple[str, str, int | None]] = (), note: str = "", heading: str = "",
) -> str:  # fmt: skip
    """Return a figure as HTML.

    :param title: the name of the drawing.
    :param description: what the drawing shows, in words.
    :param height: in px.
    :param parts: elements of the drawing.
    :param key: class, name and count of each colour; a count of None is not shown.
    :param note: text below the drawing.
    :param heading: text above the drawing.
    """
    entries = "".join(
        f'<li><span class="chart-swatch {name}" aria-hidden="true"></span>'
        f"{'' if count is None else f'<b>{count:,}</b> '}<span>{words(label)}</span></li>"
        for name, label, count in key
    )
    keys = f'<ul class="chart-key">{entries}</ul>' if entries else ""
    head = f'<p class="chart-name" dir="auto">{words(heading)}</p>' if heading else ""
    caption = f'<figcaption class="chart-note">{words(note)}</figcaption>' if note else ""
    return (
        f'<figure class="chart">{head}{keys}'
        f'<svg class="chart-drawing" role="img" width="100%" height="{number(height)}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{words(title)}</title><desc>{words(description)}</desc>'
        f"{''.join(parts)}</svg>{caption}</figure>"
    )
