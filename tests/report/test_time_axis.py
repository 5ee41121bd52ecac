"""Axis of time: stretches in which nothing happened are cut out, and every time has its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.report.time_axis import MAX_CUTS, TimeAxis, long_waits
from pika_async.report.timeline import BatchTimeline, TimelineSeries
from pika_async.report.timeline_chart import timeline_figure
from tests.report.jobs import succeeded

START = 1_764_000_000.0
DAY = 86_400.0
sorted_times = st.lists(st.floats(0, 1e7), min_size=1, max_size=30, unique=True).map(sorted)


def runs(*beginnings: float, jobs: int = 40) -> list[float]:
    """Return the times of runs of ten minutes each, a change each 15 s."""
    return [beginning + 15 * number for beginning in beginnings for number in range(jobs)]


def idle(times: list[float]) -> list[int]:
    return [0] * len(times)


def test_days_between_two_runs_are_cut_out() -> None:
    """Each run then has its share of the width, and the cut a narrow one."""
    times = runs(START, START + 3 * DAY)
    waits = long_waits(times, idle(times), idle(times))
    assert waits == [(START + 585, START + 3 * DAY)]
    axis = TimeAxis.of(times[0], times[-1], waits)
    assert [round(right - left, 3) for left, right in axis.places] == [0.475, 0.475]
    assert [(cut.seconds, round(cut.right - cut.left, 3)) for cut in axis.cuts] == [(3 * DAY - 585, 0.05)]
    assert [label for _, label in axis.ticks()] == ["11-24 16:00", "11-27 16:00"]


def test_a_short_wait_beside_a_long_one_is_cut_out_too() -> None:
    """What counts is what is left of the axis: an hour is much of three short runs, and nothing of a week."""
    times = runs(START, START + 3600, START + 7 * DAY)
    assert len(long_waits(times, idle(times), idle(times))) == 2


@pytest.mark.parametrize(
    "times",
    [[START], [START, START + 20], runs(START), runs(START, START + 700), [START + 60 * n for n in range(10)]],
    ids=["one", "two", "one run", "a short wait", "few changes"],
)
def test_an_ordinary_batch_has_no_cut(times: list[float]) -> None:
    """Neither short waits nor evenly rare changes are cut out."""
    assert long_waits(times, idle(times), idle(times)) == []


@pytest.mark.parametrize(("wait", "cuts"), [(300.0, 0), (3000.0, 0), (2 * DAY, 1)])
def test_tasks_that_take_minutes_are_not_a_wait(wait: float, cuts: int) -> None:
    """While tasks are in flight, nothing need change for minutes; days are the time between two commands."""
    times = [START, START + 5, START + 5 + wait, START + 10 + wait]
    assert len(long_waits(times, [2, 2, 1, 0], idle(times))) == cuts


def test_a_stretch_with_a_change_is_not_a_wait() -> None:
    """A batch of two jobs has few times; what lies between them is its work."""
    assert long_waits([START, START + 100], [0, 0], [(1, 0), (0, 1)]) == []
    assert long_waits([START, START + 100], [0, 0], [(1, 0), (1, 0)]) == [(START, START + 100)]


@given(sorted_times, st.integers(0, 3))
def test_every_time_has_its_place(times: list[float], busy: int) -> None:
    """Places rise with time from 0 to 1, parts and cuts lie side by side, and a time outside is at an end."""
    waits = long_waits(times, [busy] * len(times), idle(times))
    axis = TimeAxis.of(times[0], times[-1], waits)
    places = [axis.x(time) for time in times]
    assert len(waits) <= MAX_CUTS
    assert places == sorted(places)
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places)
    assert axis.places[0][0] == 0
    assert axis.places[-1][1] == pytest.approx(1)
    assert all(before[1] < after[0] for before, after in pairwise(axis.places))
    assert axis.x(times[0] - 1) == 0
    assert axis.x(times[-1] + 2) == pytest.approx(1)
    assert all(0 <= place <= 1 for place, _ in axis.ticks())


def test_a_cut_is_marked_in_each_panel_and_written_in_words() -> None:
    """The band has two dashed edges; the text below, and the description, have the length."""
    series = TimelineSeries(
        times=[1e9, 1e9 + 60, 1e9 + 60 + 3 * DAY], planned=[1, 0, 0], in_flight=[0, 0, 0], succeeded=[2, 3, 3],
        ended_badly=[1, 1, 1], downloaded=[2, 3, 3], refusals=[], delays=[(1e9 + 60, 1.5)], delay_median=1.5,
        delay_count=1, total=4,
    )  # fmt: skip
    markup = timeline_figure(series)
    assert markup.count('class="chart-cut"') == 3
    assert markup.count("Left out, at the dashed lines: 3 d without any change.") == 2
    assert "chart-cut" not in timeline_figure(attrs.evolve(series, planned=[1, 1, 0]))


def test_a_run_keeps_its_detail_when_another_follows_days_later() -> None:
    """Empty bins do not count: the first run has as many points as before, and all counts stay."""
    timeline = BatchTimeline()
    begin = datetime.fromtimestamp(START, UTC)
    for number in range(100):
        sent = begin + timedelta(seconds=number)
        timeline.add(succeeded(f"a{number}", submitted_at=sent, settled_at=sent + timedelta(seconds=20)))
    alone = len(timeline.series().times)
    late = begin + timedelta(days=3)
    timeline.add(succeeded("late", submitted_at=late, settled_at=late + timedelta(seconds=20)))
    series = timeline.series()
    assert sum(time < START + DAY for time in series.times) >= alone / 2
    assert (series.succeeded[-1], series.in_flight[-1]) == (101, 0)
