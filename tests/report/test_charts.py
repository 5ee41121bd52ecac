"""Tests of the figures: valid markup for any input, axes in sensible units, and what they say in words."""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pika_async.report
from pika_async.polling.durations import DurationSample
from pika_async.report import durations_chart, svg
from pika_async.report.durations_chart import MAX_STRATA, DurationCharts
from pika_async.report.timeline import TimelineSeries
from pika_async.report.timeline_chart import timeline_figure

SVG = "{http://www.w3.org/2000/svg}"
CSS = (Path(pika_async.report.__file__).parent / "templates" / "timeline.css").read_text(encoding="utf-8")
EMPTY = TimelineSeries(
    times=[], planned=[], in_flight=[], succeeded=[], ended_badly=[], downloaded=[], refusals=[], delays=[],
    delay_median=None, delay_count=0, total=0,
)  # fmt: skip
BATCH = TimelineSeries(
    times=[1e9, 1e9 + 60, 1e9 + 120], planned=[4, 1, 0], in_flight=[0, 2, 1], succeeded=[0, 1, 2],
    ended_badly=[0, 0, 1], downloaded=[0, 0, 1], refusals=[(1e9 + 90, 1)], delays=[(1e9 + 60, 1.5)],
    delay_median=1.5, delay_count=1, total=4,
)  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)>\"'&]]></title><script>\u202e\x00\x1b[31m\ud800\ufffe"


def parsed(markup: str) -> ET.Element:
    """Return the root of a figure; the markup must be XML as well as HTML."""
    root = ET.fromstring(f"<div>{markup}</div>")  # noqa: S314 - our own markup
    for element in root.iter():
        for name, value in element.attrib.items():
            assert name == "class" or not re.search("nan|inf", value.lower())
    return root


def words_of(root: ET.Element) -> str:
    return " ".join(root.itertext())


@st.composite
def batches(draw: st.DrawFn) -> TimelineSeries:
    """Return a series whose counts add up."""
    states = draw(st.lists(st.lists(st.integers(0, 20_000), min_size=4, max_size=4), min_size=1, max_size=8))
    total = max(map(sum, states))
    start, gaps = draw(st.floats(0, 2e9)), draw(st.lists(st.floats(1e-3, 1e8), min_size=8, max_size=8))
    times = [start + sum(gaps[:index]) for index in range(len(states))]
    delays = draw(st.lists(st.floats(0, 1e9), max_size=3))
    return TimelineSeries(
        times=times, planned=[total - sum(state) for state in states], in_flight=[state[0] for state in states],
        succeeded=[state[1] + state[2] for state in states], downloaded=[state[1] for state in states],
        ended_badly=[state[3] for state in states], refusals=[(times[-1], 1)] * draw(st.integers(0, 1)),
        delays=list(zip(times, delays, strict=False)), delay_median=delays[0] if delays else None,
        delay_count=len(delays), total=total,
    )  # fmt: skip


@given(batches(), st.none() | st.floats(allow_nan=False, min_value=-1, max_value=1e9))
def test_any_batch_is_valid_markup(series: TimelineSeries, room: float | None) -> None:
    """The figure can be parsed, holds no NaN, and no coordinate is outside of its drawing."""
    root = parsed(timeline_figure(series, room=room))
    for drawing in root.iter(f"{SVG}svg"):
        for path in drawing.iter(f"{SVG}path"):
            found = re.findall(r"[ML](\S+?) ([-\d.]+)", path.get("d", ""))
            assert all(-0.1 <= float(value) <= svg.UNITS + 0.1 for point in found for value in point)


@given(
    st.lists(
        st.builds(
            DurationSample, st.sampled_from(["a", HOSTILE]), st.floats(0, 1e8), st.floats(0, 1e12) | st.just(math.inf),
            accepted_at=st.floats(0, 2e9),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_any_durations_are_valid_markup(samples: list[DurationSample]) -> None:
    """Samples of any ages, those that never settled included, are drawn or left out."""
    root = parsed(DurationCharts().draw(samples))
    names = {sample.stratum for sample in samples if sample.upper < math.inf}
    assert len(list(root.iter("figure"))) == len(names)


@given(st.text())
def test_no_text_becomes_markup(text: str) -> None:
    """Whatever stands in a name is text of the figure."""
    root = parsed(
        svg.figure(text, text, 10, [svg.text(0.5, 1, text, "c")], heading=text, note=text, key=[("c", text, 1)])
    )
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "div", "figure", "figcaption", "ul", "li", "b", "span", "p", "svg", "rect", "title", "desc", "text",
    }  # fmt: skip


def test_a_hostile_stratum_is_inert() -> None:
    """Markup, control characters and lone surrogates in the name of a model are shown as text or not at all."""
    markup = DurationCharts().draw([DurationSample(HOSTILE, 1.0, 2.0)])
    root = parsed(markup)
    assert "<img" not in markup
    assert "<script" not in markup
    assert "<img src=x onerror=alert(1)>" in words_of(root)
    assert not any(character in markup for character in "\x00\x1b\ud800\ufffe\u202e")


@pytest.mark.parametrize("markup", [timeline_figure(BATCH, room=2), DurationCharts().draw([DurationSample("a", 1, 2)])])
def test_a_figure_obeys_a_strict_policy_and_is_read_aloud(markup: str) -> None:
    """It has no inline style and no script, and its drawing is an image with a title and a description."""
    root = parsed(markup)
    assert not any(name == "style" or name.startswith("on") for element in root.iter() for name in element.attrib)
    drawing = next(element for element in root.iter(f"{SVG}svg") if element.get("role") == "img")
    assert [child.tag for child in drawing][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert all((child.text or "").strip() for child in list(drawing)[:2])
    assert drawing.get("width") == "100%"


@pytest.mark.parametrize("markup", [timeline_figure(BATCH, room=2), DurationCharts().draw([DurationSample("a", 1, 2)])])
def test_every_class_has_its_style(markup: str) -> None:
    """No element depends on a class that the style sheet does not have."""
    names = {name for classes in re.findall(r'class="([^"]+)"', markup) for name in classes.split()}
    assert {name for name in names if f".{name}" not in CSS} <= {"chart-plain"}


def test_the_key_has_the_latest_counts_and_the_description_the_whole() -> None:
    """A person reads the numbers; every colour that is drawn is named, and a state that no job was ever in is not."""
    root = parsed(timeline_figure(BATCH, room=2.4))
    entries = ["".join(entry.itertext()) for entry in root.iter("li")]
    assert entries == [
        "0 not accepted yet",
        "1 in flight",
        "1 without a video",
        "1 succeeded, not downloaded",
        "1 downloaded",
    ]
    assert "without a video" not in timeline_figure(attrs.evolve(BATCH, ended_badly=[0, 0, 0]))
    description = next(root.iter(f"{SVG}desc")).text or ""
    assert description.startswith("4 jobs from 2001-09-09 01:46:40 to 2001-09-09 01:48:40 UTC.")
    assert "At most 2 in flight at once. Refused by the gateway: 1." in description
    assert "at most 2, room for about 2" in words_of(root)


def test_room_far_above_what_runs_is_named_and_not_drawn() -> None:
    """A line at 1,000 would press the curve of 2 jobs flat; unknown room is not named at all."""
    assert "l-room" in timeline_figure(BATCH, room=5)
    far = timeline_figure(BATCH, room=1000)
    assert "l-room" not in far
    assert "room for about 1,000" in far
    assert "room" not in timeline_figure(BATCH)


def test_missing_facts_have_no_panel() -> None:
    """Without a measured delay there is no panel for it, and without refusals no word of them."""
    markup = timeline_figure(attrs.evolve(BATCH, delays=[], delay_median=None, delay_count=0, refusals=[]))
    assert "Detection delay" not in markup
    assert "refused" not in markup
    assert "Detection delay" in timeline_figure(BATCH)


def test_an_empty_batch_says_so() -> None:
    """Before the first recorded time there is a sentence and no drawing."""
    assert "No job yet" in timeline_figure(EMPTY)
    waiting = timeline_figure(attrs.evolve(EMPTY, total=3))
    assert "begins when a job is accepted" in waiting
    assert "<svg" not in waiting


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (1, ["0", "0.2 s", "0.4 s", "0.6 s", "0.8 s", "1 s"]),
        (58, ["0", "15 s", "30 s", "45 s"]),
        (600, ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]),
        (5 * 3600, ["0", "1 h", "2 h", "3 h", "4 h", "5 h"]),
        (10 * 86400, ["0", "2 d", "4 d", "6 d", "8 d", "10 d"]),
    ],
)
def test_axis_of_time_has_few_round_labels_of_one_unit(span: float, labels: list[str]) -> None:
    """Seconds, minutes, hours or days, whichever the span is made of."""
    assert [label for _, label in svg.time_ticks(span)] == labels


@given(st.floats(1e-3, 1e12))
def test_axis_of_time_fits_any_span(span: float) -> None:
    """At most six labels, all of them inside, and no label twice."""
    ticks = svg.time_ticks(span)
    assert 1 <= len(ticks) <= svg.TIME_LABELS + 1
    assert all(0 <= age <= span for age, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks)


@given(st.integers(1, 10**9))
def test_axis_of_counts_has_few_lines(top: int) -> None:
    """One to four grid lines, at whole counts that are not above the highest."""
    lines = svg.count_ticks(top)
    assert 1 <= len(lines) <= svg.COUNT_LINES
    assert lines[-1] <= top


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.04, "0.04 s"), (1.94, "1.9 s"), (71.2, "71 s"), (199, "3.3 min"), (3 * 3600.5, "3 h"), (1e6, "12 d")],
)
def test_a_duration_reads_as_a_person_would_say_it(value: float, words: str) -> None:
    """Two digits, and the unit that keeps the number short."""
    assert svg.seconds(value) == words


def test_points_on_a_level_are_left_out() -> None:
    """A curve that stands still for long is two points."""
    assert svg.simplified([(0, 1), (1, 1), (2, 1), (3, 2)]) == [(0, 1), (2, 1), (3, 2)]
    assert svg.simplified([(0, 1)]) == [(0, 1)]
    assert svg.simplified([]) == []


def test_only_strata_that_learned_more_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redraw of a page costs nothing for the kinds of tasks of which nothing has settled since."""
    drawn: list[str] = []
    original = durations_chart.learned

    def counted(name: str, *rest: object) -> durations_chart.StratumDurations:
        drawn.append(name)
        return original(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(durations_chart, "learned", counted)
    charts = DurationCharts()
    samples = [DurationSample("a", 1, 2, accepted_at=1), DurationSample("b", 2, 3, accepted_at=1)]
    first = charts.draw(samples)
    assert charts.draw(samples) == first
    charts.draw([*samples, DurationSample("b", 2, 4, accepted_at=2)])
    assert drawn == ["a", "b", "b"]


def test_strata_beyond_the_most_are_counted() -> None:
    """A batch with many models does not end in a page of charts: the rest is a number."""
    markup = DurationCharts().draw([DurationSample(f"s{n}", 1, 2) for n in range(MAX_STRATA + 3)])
    assert markup.count("<figure") == MAX_STRATA
    assert "3 more kinds" in markup


def test_polls_are_where_they_were_made() -> None:
    """The figure counts the polls that found tasks settled, and the last ones before; an exact duration has none."""
    markup = DurationCharts().draw([DurationSample("a", 5.0, 6.0), DurationSample("a", 7.0, 7.0)])
    entries = ["".join(entry.itertext()) for entry in parsed(markup).iter("li")]
    assert entries[:2] == ["2 polls that found a task settled", "1 the last ones before these"]
