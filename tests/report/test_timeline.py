"""Tests of `report.timeline`: the counts of a batch over time, from recorded times alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models import GenerationRequest
from pika_async.polling.durations import DurationSample
from pika_async.report.timeline import MAX_BINS, BatchTimeline, TimelineSeries

START = 1_764_000_000.0
times = st.none() | st.floats(0, 1e9).map(utc_from_timestamp) | st.floats(START, START + 600).map(utc_from_timestamp)


def a_job(key: str = "k", status: JobStatus = JobStatus.PLANNED, **facts: Any) -> Job:
    job = Job(key=key, request=GenerationRequest("a cat"), provider="cometapi", base_url="http://localhost")
    return attrs.evolve(job, status=status, **facts)


def succeeded(key: str, sent: float, settled: float, downloaded: float | None = None) -> Job:
    return a_job(
        key, JobStatus.SUCCEEDED, submitted_at=utc_from_timestamp(sent), settled_at=utc_from_timestamp(settled),
        file=None if downloaded is None else Path("a.mp4"),
        downloaded_at=None if downloaded is None else utc_from_timestamp(downloaded),
    )  # fmt: skip


jobs = st.builds(
    lambda number, **facts: a_job(f"k{number}", **facts),
    st.integers(0, 12),
    status=st.sampled_from(JobStatus),
    submitted_at=times,
    settled_at=times,
    downloaded_at=times,
    file=st.sampled_from([None, Path("a.mp4")]),
)
untils = st.none() | st.floats(0, 2e9)


def timeline_of(given_jobs: list[Job]) -> BatchTimeline:
    timeline = BatchTimeline()
    for job in given_jobs:
        timeline.add(job)
    return timeline


def at(series: TimelineSeries, time: float) -> dict[str, int]:
    """Return the counts at the first time of `series` that is not before `time`."""
    index = next(index for index, each in enumerate(series.times) if each >= time)
    return {
        name: getattr(series, name)[index]
        for name in ("planned", "in_flight", "succeeded", "ended_badly", "downloaded")
    }


@given(st.lists(jobs, max_size=30), untils)
def test_every_job_is_in_one_state_at_every_time(given_jobs: list[Job], until: float | None) -> None:
    """Planned, in flight and settled add up to the number of jobs, none is below 0, and times rise."""
    series = timeline_of(given_jobs).series(until)
    assert series.total == len({job.key for job in given_jobs})
    sums = [sum(counts) for counts in zip(series.planned, series.in_flight, series.settled, strict=True)]
    assert sums == [series.total] * len(series.times)
    every = (series.planned, series.in_flight, series.succeeded, series.ended_badly, series.downloaded)
    assert all(count >= 0 for counts in every for count in counts)
    assert all(disk <= good for disk, good in zip(series.downloaded, series.succeeded, strict=True))
    assert list(series.times) == sorted(set(series.times))
    assert len(series.times) <= MAX_BINS + 2


@given(st.lists(jobs, max_size=30))
def test_what_has_ended_stays_ended(given_jobs: list[Job]) -> None:
    """Settled and downloaded jobs only become more, and planned ones fewer."""
    series = timeline_of(given_jobs).series()
    for counts in (series.settled, series.succeeded, series.ended_badly, series.downloaded):
        assert list(counts) == sorted(counts)
    assert list(series.planned) == sorted(series.planned, reverse=True)


@given(st.lists(jobs, max_size=30, unique_by=lambda job: job.key), st.randoms())
def test_order_of_jobs_and_earlier_states_change_no_count(given_jobs: list[Job], chance: Random) -> None:
    """A timeline that was kept up to date equals one that was made at the end."""
    mixed = chance.sample(given_jobs, len(given_jobs))
    changing = BatchTimeline()
    changing.expect(job.key for job in mixed)
    for job in mixed:
        changing.add(attrs.evolve(job, status=JobStatus.PLANNED))
        changing.add(attrs.evolve(job, status=JobStatus.RUNNING))
        changing.add(job)
        changing.add(job)
    fresh = timeline_of(given_jobs)
    for counts in ("planned", "in_flight", "succeeded", "ended_badly", "downloaded"):
        assert getattr(changing.series(), counts)[-1:] == getattr(fresh.series(), counts)[-1:]
    assert len(changing) == len(fresh)


def test_a_job_passes_through_its_states_at_its_times() -> None:
    """It is planned until it is accepted, in flight until it settles, and on disk from the end of its download."""
    timeline = timeline_of([succeeded("a", START, START + 10, START + 12), a_job("b")])
    series = timeline.series(START + 20)
    none = {"planned": 1, "in_flight": 0, "succeeded": 0, "ended_badly": 0, "downloaded": 0}
    assert at(series, START + 1) == none | {"in_flight": 1}
    assert at(series, START + 11) == none | {"succeeded": 1}
    assert at(series, START + 13) == none | {"succeeded": 1, "downloaded": 1}
    assert at(series, START + 20) == none | {"succeeded": 1, "downloaded": 1}
    assert series.planned[0] == 2


def test_a_refused_job_was_never_in_flight() -> None:
    """It settles from planned, and is a refusal at that time; a failed one is not."""
    settled = utc_from_timestamp(START + 5)
    failed = a_job("f", JobStatus.FAILED, submitted_at=utc_from_timestamp(START), settled_at=settled)
    series = timeline_of([failed, a_job("r", JobStatus.REJECTED, settled_at=settled)]).series()
    assert max(series.in_flight) == 1
    assert series.ended_badly[-1] == 2
    assert [count for _, count in series.refusals] == [1]
    assert series.refusals[0][0] == pytest.approx(START + 5, abs=0.1)


def test_a_job_in_doubt_is_not_in_flight() -> None:
    """It has no task id that could be polled. So no more are in flight than the limit of the batch allows."""
    sent = utc_from_timestamp(START)
    jobs = [a_job("d", JobStatus.UNKNOWN, submitted_at=sent), a_job("q", JobStatus.QUEUED, submitted_at=sent)]
    found = at(timeline_of(jobs).series(START + 60), START + 60)
    assert (found["in_flight"], found["ended_badly"], found["planned"]) == (1, 1, 0)


@pytest.mark.parametrize("status", [JobStatus.TIMED_OUT, JobStatus.QUEUED, JobStatus.RUNNING])
def test_whatever_may_still_run_is_in_flight(status: JobStatus) -> None:
    """Timed out is not settled, so the job stays in flight from its submission on."""
    series = timeline_of([a_job("a", status, submitted_at=utc_from_timestamp(START))]).series(START + 60)
    assert at(series, START + 60)["in_flight"] == 1


def test_a_clock_that_was_set_back_moves_no_job_backwards() -> None:
    """A job that settled before it was accepted, or was on disk before that, counts as of the later time."""
    series = timeline_of([succeeded("a", START + 10, START, START - 10), succeeded("b", START, START + 30)]).series()
    assert at(series, START + 11)["downloaded"] == 1
    assert series.downloaded[series.succeeded.index(0)] == 0
    assert at(series, START + 1)["downloaded"] == 0
    assert at(series, START + 9)["succeeded"] == 0


def test_a_file_without_a_time_counts_as_of_the_settling() -> None:
    """A record of a file that has no time of download is not left out."""
    job = attrs.evolve(succeeded("a", START, START + 10), file=Path("a.mp4"))
    assert timeline_of([job]).series().downloaded[-1] == 1


def test_ten_thousand_jobs_become_few_points() -> None:
    """The number of points follows the bins, and a job that lies a year later only makes them wider."""
    timeline = timeline_of([succeeded(str(n), START + n, START + n + 60, START + n + 61) for n in range(10_000)])
    assert MAX_BINS / 2 <= len(timeline.series().times) <= MAX_BINS + 1
    timeline.add(succeeded("late", START + 3e7, START + 3e7 + 60))
    series = timeline.series()
    assert len(series.times) <= MAX_BINS + 1
    assert (series.succeeded[-1], series.in_flight[-1], series.downloaded[-1]) == (10_001, 0, 10_000)


def test_detection_delay_counts_from_the_middle_of_the_known_interval() -> None:
    """The delay is that of telemetry: from the middle between the last two polls to the one that found it settled."""
    job = succeeded("a", START, START + 64)
    timeline = timeline_of([job])
    timeline.set_samples([DurationSample(job.stratum, 60.0, 64.0, accepted_at=START)])
    series = timeline.series()
    assert series.delay_median == pytest.approx(2.0)
    assert [delay for _, delay in series.delays] == [pytest.approx(2.0)]
    assert series.delay_count == 1


def test_a_sample_that_may_be_of_two_jobs_is_left_out() -> None:
    """Two tasks of a stratum that were accepted in one millisecond are the same to a sample."""
    jobs_at_once = [succeeded("a", START, START + 60), succeeded("b", START, START + 90)]
    timeline = timeline_of(jobs_at_once)
    timeline.set_samples([DurationSample(jobs_at_once[0].stratum, 50.0, 60.0, accepted_at=START)])
    assert timeline.series().delay_median is None
    timeline.add(a_job("b"))
    assert timeline.series().delay_median == pytest.approx(5.0)


def test_nothing_has_no_times() -> None:
    """Without a recorded time there is no axis, and the jobs still count."""
    timeline = timeline_of([a_job("a"), a_job("b", JobStatus.QUEUED)])
    timeline.expect(["a", "c"])
    series = timeline.series(START)
    assert (list(series.times), series.total) == ([], 3)


def test_times_of_every_zone_are_one_axis() -> None:
    """A time with another offset is the same moment."""
    here = datetime.fromtimestamp(START, UTC)
    there = here.astimezone(datetime.now(UTC).astimezone().tzinfo) + timedelta(0)
    one, other = (timeline_of([a_job("a", JobStatus.RUNNING, submitted_at=when)]).series() for when in (here, there))
    assert one.times == other.times
