"""The report of a batch, from the jobs in the order in which they finish."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from pika_async import BatchReport, GenerationRequest, Job, JobStatus
from pika_async._runtime.admission import BatchAdmission
from pika_async._runtime.batch import BatchRun
from pika_async._runtime.batch_report import collect_report
from pika_async.errors import DownloadFailed
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway

pytestmark = pytest.mark.anyio
S = JobStatus


@attrs.define
class FinishedBatch:
    """A batch whose jobs are known: delivered in one order, requested in another."""

    delivered: list[Job]
    keys: list[str]
    rest: tuple[Any, ...] = ()

    async def results(self) -> AsyncGenerator[Job, None]:
        for job in self.delivered:
            yield job

    async def aclose(self) -> None:
        pass


async def report_of(*delivered: Job, keys: list[str] | None = None) -> BatchReport:
    batch = FinishedBatch(list(delivered), keys or [job.key for job in delivered])
    return await collect_report(cast("BatchRun", batch), cast("BatchAdmission", None))


def done(key: str = "k", **fields: Any) -> Job:
    job = Job(key=key, request=GenerationRequest("a cat"), provider="native", base_url="http://h")
    return attrs.evolve(job, status=S.SUCCEEDED, **({"file": Path("v.mp4")} | fields))


LOST = DownloadFailed(url="https://x.example/v.mp4", reason="r")


async def test_a_report_is_ok_only_with_every_file() -> None:
    """A success whose download failed has an error; a failure has no video; an empty batch is ok."""
    assert (await report_of(done())).ok
    assert (await report_of()).ok
    assert not (await report_of(done("a"), done("b", file=None, error=LOST), done("c"))).ok
    assert not (await report_of(done("a"), attrs.evolve(done("b"), status=S.FAILED))).ok


async def test_the_latest_state_of_a_job_counts() -> None:
    """Two rows may share a key: their job is delivered twice, and reported for each row as it was the last time."""
    lost, kept = done(file=None, error=LOST), done()
    report = await report_of(lost, kept, keys=["k", "k"])
    assert (report.ok, report.jobs, report.counts) == (True, [kept, kept], {S.SUCCEEDED: 2})
    assert not (await report_of(kept, lost, keys=["k", "k"])).ok


async def test_a_report_is_in_the_order_of_the_input() -> None:
    """In whichever order the jobs have finished."""
    a, b, c = done("a"), done("b"), attrs.evolve(done("c"), status=S.REJECTED)
    report = await report_of(c, a, b, keys=["a", "b", "c"])
    assert report.jobs == [a, b, c]
    assert report.counts == {S.SUCCEEDED: 2, S.REJECTED: 1}


def test_the_report_has_the_money_of_its_charges() -> None:
    """Three charges at 0.1 cost 0.3; a task whose points were given back costs nothing; without a price nothing is known."""
    at = gateway([{"on": "create", "nth": 3, "do": {"fault": "fails", "reason": "no"}}])

    async def story() -> None:
        async with client(at, "cometapi", price=0.1) as pika:
            report = await pika.run(["a", "b", "c", "d"])
            assert report.costs == {"cometapi": 0.3}
            assert sorted(job.cost for job in report.jobs if job.cost is not None) == [0.0, 0.1, 0.1, 0.1]
            assert pika.stats().spent == 0.3
        async with client(at, "cometapi") as pika:
            assert (await pika.run(["e"])).costs == {}

    virtual_clock.run(story())
