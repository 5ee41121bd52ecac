"""Batches whose results are refused at download: nothing more is paid for, and one good file shows otherwise."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from pika_async import BatchReport, DownloadFailed, Job, JobStatus, Limits, SubmissionsStopped
from pika_async._http.addresses import forbidden_reason
from pika_async._runtime.results import ResultDownloader
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway, requests

TUNNEL = f"198.18.0.9 {forbidden_reason('198.18.0.9', loopback=False)}"
PRIVATE = f"10.0.0.9 {forbidden_reason('10.0.0.9', loopback=False)}"


def run_batch(monkeypatch: pytest.MonkeyPatch, folder: Path, refused: set[str], reason: str) -> tuple[BatchReport, int]:
    """Run 20 requests, two at a time, of which some results are refused; return the report and the charges."""

    async def collect(self: ResultDownloader, job: Job, target: Path) -> Job:
        await asyncio.sleep(0.5)
        if job.key in refused:
            return job.with_download_error(DownloadFailed(url="https://h/v", reason=reason))
        return job.with_file(target, "0" * 64)

    monkeypatch.setattr(ResultDownloader, "collect", collect)
    at = gateway(durations="constant:10")

    async def story() -> BatchReport:
        async with client(at, limits=Limits(max_in_flight=2)) as pika:
            return await pika.run(requests(20), download_to=folder)

    return virtual_clock.run(story()), len(at.ledger)


def test_the_first_refused_result_stops_the_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 20 jobs at most those under way are paid; the rest stays planned, with the reason and the way out."""
    report, paid = run_batch(monkeypatch, tmp_path, {f"k{n}" for n in range(20)}, TUNNEL)
    assert paid <= 6
    assert Counter(job.status for job in report.jobs) == {JobStatus.SUCCEEDED: paid, JobStatus.PLANNED: 20 - paid}
    assert isinstance(report.stopped, SubmissionsStopped)
    assert "nothing more is paid for: 198.18.0.9 is the address of a tunnel" in report.stopped.message
    assert 'allow_results=["tunnel"]' in report.stopped.message


@pytest.mark.parametrize(
    "refused, reason",
    [({"k7", "k8"}, TUNNEL), ({f"k{n}" for n in range(20)}, PRIVATE), ({f"k{n}" for n in range(20)}, "HTTP 410")],
)
def test_other_failures_stop_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refused: set[str], reason: str
) -> None:
    """A refusal after a file has arrived, one that nothing can allow, and a failed download are those of their jobs."""
    report, paid = run_batch(monkeypatch, tmp_path, refused, reason)
    assert (paid, report.stopped) == (20, None)
    assert sum(job.error is not None for job in report.jobs) == len(refused)
