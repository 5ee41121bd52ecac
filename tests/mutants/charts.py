"""Mutants of the timeline and the charts of durations."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_TIMELINE: Final = ("tests/report/test_timeline.py",)
_CHARTS: Final = ("tests/report/test_charts.py",)

MUTANTS: Final = (
    Mutant(
        "timeline-doubts-in-flight",
        "report/timeline.py",
        "(_Step.BEGUN, _Step.ENDED_BADLY)",
        "(_Step.BEGUN,)",
        "jobs in doubt count as in flight, more than the limit allows",
        _TIMELINE,
    ),
    Mutant(
        "timeline-counts-states-twice",
        "report/timeline.py",
        "            self._count(earlier, -1)\n",
        "            self._count(earlier, 0)\n",
        "each change of a job adds another job to the timeline",
        _TIMELINE,
    ),
    Mutant(
        "timeline-trusts-a-clock",
        "report/timeline.py",
        "    settled = max(begun, settled)\n",
        "",
        "a clock that was set back makes the number of jobs in flight negative",
        _TIMELINE,
    ),
    Mutant(
        "timeline-downloads-before-the-end",
        "report/timeline.py",
        "(_Step.DOWNLOADED, max(settled, downloaded))",
        "(_Step.DOWNLOADED, downloaded)",
        "more jobs are on disk than have succeeded",
        _TIMELINE,
        "clock",
    ),
    Mutant(
        "timeline-merges-wrong-bins",
        "report/timeline.py",
        "merged[number >> 1] += count",
        "merged[number >> 1] = count",
        "a long batch loses half of its jobs whenever its bins become wider",
        _TIMELINE,
    ),
    Mutant(
        "timeline-forgets-the-untimed",
        "report/timeline.py",
        "initial=self._untimed[step]",
        "initial=0",
        "a job without a time of acceptance settles without having begun",
        _TIMELINE,
    ),
    Mutant(
        "timeline-guesses-the-job-of-a-sample",
        "report/timeline.py",
        "if len(found) == 1 and",
        "if found and",
        "the delay of one task is measured from the settling of another",
        _TIMELINE,
    ),
    Mutant(
        "timeline-ends-before-the-present",
        "report/timeline.py",
        "            times.append(until)\n",
        "            times.append(times[-1])\n",
        "a batch in which nothing settles seems to stand where it stood",
        _TIMELINE,
    ),
    Mutant(
        "chart-escapes-nothing",
        "report/svg.py",
        """    return escape(strip_control(str(value)), {'"': "&quot;", "'": "&#39;"})""",
        "    return str(value)",
        "the name of a model is markup of the page",
        _CHARTS,
    ),
    Mutant(
        "chart-draws-any-room",
        "report/timeline_chart.py",
        "0 < room <= MAX_ROOM_FACTOR * most",
        "0 < room",
        "room for 1,000 presses the curve of 2 jobs flat",
        _CHARTS,
    ),
    Mutant(
        "chart-draws-every-stratum-again",
        "report/durations_chart.py",
        "if known is None or known[0] != given:",
        "if True:",
        "each redraw while a batch runs estimates every distribution again",
        _CHARTS,
    ),
    Mutant(
        "chart-draws-tasks-that-never-settled",
        "report/durations_chart.py",
        "if math.isfinite(sample.upper) and sample.upper >= 0:",
        "if True:",
        "one censored sample makes an axis without an end",
        _CHARTS,
    ),
    Mutant(
        "chart-axis-in-seconds-alone",
        "report/svg.py",
        "unit, size, _ = next(each for each in _TIME_UNITS if span <= each[2])",
        "unit, size = 's', 1.0",
        "a batch of five hours has an axis of thousands of seconds",
        _CHARTS,
    ),
    Mutant(
        "chart-adds-room-of-some",
        "report/timeline_section.py",
        "if known and len(known) == len(self._rooms) else None",
        "if known else None",
        "the room of one account stands for that of two",
        ("tests/report/test_timeline_section.py",),
    ),
    Mutant(
        "timeline-leaves-out-active-jobs",
        "report/writer.py",
        "            if self._jobs.get(job.key) is not job:\n",
        "            if self._jobs.get(job.key) is job:\n",
        "no job is in flight on the page of a batch that runs",
        ("tests/report/test_timeline_section.py",),
    ),
    Mutant(
        "download-time-is-not-kept",
        "jobs.py",
        "downloaded_at=self.downloaded_at or at",
        "downloaded_at=at",
        "a file that is found again was downloaded just now",
        ("tests/test_jobs.py",),
        "time_of_download",
    ),
)
