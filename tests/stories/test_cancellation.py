"""Cancellation of one job: withdrawn before it is sent, asked of the provider after that, and never paid twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pika_async import (
    ExchangeFailed,
    FixedInterval,
    GenerationFailed,
    GenerationRequest,
    InvalidRequest,
    Job,
    JobCanceled,
    JobStatus,
    Limits,
    PikaClient,
    SubmissionInDoubt,
    TaskNotFound,
    UnknownJob,
)
from pika_async.emulator import Gateway
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway, until
from tests.http.media_files import made

S = JobStatus


def calls(at: Gateway, ending: str) -> int:
    """Return the number of requests whose path ends so."""
    return sum(request.path.endswith(ending) for request in at.requests)


def pika_at(at: Gateway, provider: str = "fal", **options: Any) -> PikaClient:
    return client(at, provider, polling=options.pop("polling", FixedInterval(20)), **options)


def test_a_job_that_was_not_sent_is_withdrawn() -> None:
    """Those who wait for it get `JobCanceled`; nothing is sent, by any provider."""

    async def story() -> None:
        for provider in ("fal", "cometapi"):
            at = gateway(durations="constant:60")
            async with pika_at(at, provider, limits=Limits(max_in_flight=1)) as pika:
                run = asyncio.create_task(pika.run([GenerationRequest(name, key=name) for name in ("a", "b", "c")]))
                await until(lambda: pika.stats().in_flight == 1)
                canceled = await pika.cancel("b")
                assert (canceled.status, type(canceled.error), canceled.attempts) == (S.CANCELED, JobCanceled, 0)
                assert await pika.cancel(canceled) == canceled
                report = await run
                assert report.counts == {S.SUCCEEDED: 2, S.CANCELED: 1}
            assert [charge.prompt for charge in at.ledger] == ["a", "c"]
            assert calls(at, "/cancel") == 0

    virtual_clock.run(story())


def test_a_planned_job_of_an_earlier_run_is_withdrawn(tmp_path: Path) -> None:
    """It is not active; `resume` does not send it."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        path = tmp_path / "jobs.db"
        async with pika_at(at, journal=path, limits=Limits(max_in_flight=1), polling=FixedInterval(0.05)) as pika:
            run = asyncio.create_task(pika.run([GenerationRequest(name, key=name) for name in ("a", "b")]))
            await until(lambda: len(at.ledger) == 1, 0.01)
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
        async with pika_at(at, journal=path) as pika:
            assert (await pika.cancel("b")).status is S.CANCELED
            job = await pika.job("b")
            assert job is not None
            assert job.status is S.CANCELED
        assert [charge.prompt for charge in at.ledger] == ["a"]

    asyncio.run(story())


def test_a_task_is_canceled_at_its_provider() -> None:
    """It is polled at once, and ends as the provider says: failed, and not paid."""

    async def story() -> None:
        at = gateway(durations="constant:600")
        async with pika_at(at, polling=FixedInterval(500)) as pika:
            job = await pika.submit("a cat")
            now = asyncio.get_running_loop().time()
            asked = await pika.cancel(job)
            assert (asked.key, asked.task_id, asked.is_final) == (job.key, job.task_id, False)
            done = await pika.wait(job)
            assert asyncio.get_running_loop().time() - now < 60
            assert done.status is S.FAILED
            assert isinstance(done.error, GenerationFailed)
            assert "cancelled" in done.error.message
            assert done.attempts == 1
        assert (calls(at, "/cancel"), [charge.fails for charge in at.ledger]) == (1, [True])

    virtual_clock.run(story())


def test_a_task_that_cannot_be_stopped_goes_on() -> None:
    """The provider agreed, and the task succeeded all the same: its video is there."""

    async def story() -> None:
        at = gateway([{"on": "cancel", "do": "too-late"}], durations="constant:60")
        async with pika_at(at) as pika:
            job = await pika.submit("a cat")
            assert not (await pika.cancel(job.key)).is_final
            done = await pika.wait(job)
            assert (done.status, done.video is not None) == (S.SUCCEEDED, True)
        assert len(at.ledger) == 1

    virtual_clock.run(story())


def test_a_settled_job_stays_as_it_is() -> None:
    """Nothing is asked."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with pika_at(at) as pika:
            done = await pika.wait(await pika.submit("a cat"))
            assert (await pika.cancel(done)).status is S.SUCCEEDED
        assert calls(at, "/cancel") == 0

    virtual_clock.run(story())


@pytest.mark.parametrize("provider", ["cometapi", "yescale", "gptge", "native", "pika"])
def test_a_provider_that_cannot_cancel_is_named(provider: str) -> None:
    """The job goes on."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with pika_at(at, provider) as pika:
            job = await pika.submit("a cat")
            with pytest.raises(InvalidRequest, match="cannot cancel a task; abandon it or let it run") as caught:
                await pika.cancel(job)
            assert caught.value.field == "job"
            assert (await pika.wait(job)).status is S.SUCCEEDED

    virtual_clock.run(story())


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ({"fault": "answer", "status": 404, "body": "{}"}, TaskNotFound, "it is not there to cancel"),
        ({"fault": "answer", "status": 500}, ExchangeFailed, "no usable answer to the cancellation came"),
        ("drop", ExchangeFailed, "no usable answer to the cancellation came"),
        ({"fault": "answer", "status": 403, "body": "{}"}, InvalidRequest, "must be left to end: fal refused"),
    ],
)
def test_a_cancellation_that_fails_is_an_error(fault: Any, error: type[Exception], words: str) -> None:
    """The task is followed on."""

    async def story() -> None:
        at = gateway([{"on": "cancel", "do": fault}], durations="constant:60")
        async with pika_at(at) as pika:
            job = await pika.submit("a cat")
            with pytest.raises(error, match=words):
                await pika.cancel(job)
            assert (await pika.wait(job)).is_final

    virtual_clock.run(story())


def test_a_doubt_cannot_be_canceled() -> None:
    """There is no task to name; it is resolved."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": "drop"}], durations="constant:60")
        async with pika_at(at) as pika:
            with pytest.raises(SubmissionInDoubt):
                await pika.submit(GenerationRequest("a cat", key="k"))
            with pytest.raises(InvalidRequest, match="must have a task id, and is in doubt; resolve it first"):
                await pika.cancel("k")
            with pytest.raises(UnknownJob):
                await pika.cancel("another")

    virtual_clock.run(story())


def test_a_job_that_is_being_sent_is_canceled_after_its_answer() -> None:
    """Its receipt is kept, and its task is canceled by it."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "delay", "seconds": 30}}], durations="constant:600")
        async with pika_at(at) as pika:
            submitting = asyncio.create_task(pika.submit(GenerationRequest("a cat", key="k")))
            await until(lambda: any(job.status is S.SUBMITTING for job in pika.active_jobs()))
            asked = await pika.cancel("k")
            assert asked.task_id == (await submitting).task_id is not None
            assert (await pika.wait("k")).status is S.FAILED
        assert (calls(at, "/cancel"), len(at.ledger)) == (1, 1)

    virtual_clock.run(story())


def test_a_job_whose_file_is_uploaded_is_canceled_before_it_is_sent(tmp_path: Path) -> None:
    """The upload ends, and nothing is paid."""
    picture = tmp_path / "cat.png"
    picture.write_bytes(made("png"))

    async def story() -> None:
        at = gateway(durations="constant:0.1")
        uploading, uploaded = asyncio.Event(), asyncio.Event()

        async def upload(_data: bytes, name: str, _content_type: str) -> str:
            uploading.set()
            await uploaded.wait()
            return f"https://pictures.example.com/{name}"

        async with pika_at(at, uploader=upload) as pika:
            run = asyncio.create_task(pika.run([GenerationRequest("a cat", key="k", image=picture)]))
            await uploading.wait()
            canceling: asyncio.Task[Job] = asyncio.create_task(pika.cancel("k"))
            await asyncio.sleep(0)
            uploaded.set()
            assert (await canceling).status is S.CANCELED
            assert (await run).counts == {S.CANCELED: 1}
        assert len(at.ledger) == 0

    asyncio.run(story())
