"""Whole runs against gateways whose feeds are odd: other ids, unknown words, results that stand beside them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from pika_async import DeadlineExceeded, FixedInterval, GenerationRequest, PikaClient, TaskNotFound
from pika_async._journal.memory import MemoryJournal
from pika_async.emulator import Gateway
from pika_async.jobs import JobStatus
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure
from tests.fakes import virtual_clock
from tests.fakes.family import GATEWAYS
from tests.fakes.memory_gateway import MemoryTransport, client, gateway, prompts, with_journal

#: The body of an answer to a poll and the task id of the poll, to another body.
Rewrite = Callable[[Any, str], Any]


class RewritingTransport(MemoryTransport):
    """Memory transport that changes the bodies of the answers to polls."""

    def __init__(self, gateway: Gateway, rewrite: Rewrite) -> None:
        super().__init__(gateway)
        self.rewrite = rewrite

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        response = await super().send(request)
        if request.paid or not isinstance(response, HttpResponse) or response.status != 200:
            return response
        task_id = json.loads(request.body)["task_id"] if request.body else request.url.rpartition("/")[2]
        body = self.rewrite(json.loads(response.body), task_id)
        return attrs.evolve(response, body=json.dumps(body).encode())


def odd_client(at: Gateway, rewrite: Rewrite, provider: str = "gptge", **options: Any) -> PikaClient:
    """Return a client whose polls are answered through `rewrite`, every 5 s."""
    options.setdefault("polling", FixedInterval(5))
    return client(at, provider, transport=RewritingTransport(at, rewrite), **options)


def under_another_id(body: Any, task_id: str) -> Any:
    """Replace the task id by one of the gateway's upstream, wherever it stands but in URLs."""
    return json.loads(json.dumps(body).replace(f'"{task_id}"', f'"upstream-{task_id}"'))


def messages(caplog: pytest.LogCaptureFixture, part: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if part in record.getMessage()]


@pytest.mark.parametrize("provider", GATEWAYS)
def test_tasks_that_are_only_named_by_other_ids_settle(provider: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where every answer names its task by one other id, each job gets its own video; both ids are logged once a job."""

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with odd_client(at, under_another_id, provider) as pika:
            batch = asyncio.create_task(pika.run(prompts(12)))
            while not batch.done():
                await asyncio.sleep(1)
                assert not pika.stats().breaker_open
            report = await batch
            assert report.counts == {JobStatus.SUCCEEDED: 12}
            for job in report.jobs:
                assert job.video is not None
                assert str(job.task_id) in job.video.url
                assert job.video.task_id == job.task_id
            again = await pika.poll(report.jobs[0])
            assert again.task_id == report.jobs[0].task_id

    with caplog.at_level(logging.WARNING, "pika_async"):
        virtual_clock.run(story())
    logged = messages(caplog, "only by the id upstream-") + messages(caplog, "only by the id 'upstream-")
    assert len(logged) == 12


def test_a_cached_answer_is_taken_for_no_task() -> None:
    """One answer for all polls, as from a cache that ignores the path, settles no job but its own."""

    async def story() -> None:
        first: dict[str, Any] = {}

        def cached(body: Any, _task_id: str) -> Any:
            if body["videos"] and body["videos"][0]["status"] == "finished":
                first.setdefault("answer", body)
            return first.get("answer", body)

        async with odd_client(gateway(durations="constant:20"), cached, deadline=400) as pika:
            report = await pika.run(prompts(5))
            assert report.counts == {JobStatus.SUCCEEDED: 1, JobStatus.TIMED_OUT: 4}
            assert pika.stats().mismatched_answers > 20

    virtual_clock.run(story())


def test_an_answer_in_which_nothing_is_recognised_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Answers without a status, an id or a row keep the jobs running; one line says so."""

    async def story() -> None:
        def empty(body: Any, _task_id: str) -> Any:
            return body if body["videos"] and body["videos"][0]["status"] == "finished" else {"code": 200, "msg": "ok"}

        async with odd_client(gateway(durations="constant:60"), empty) as pika:
            job = await pika.submit("a cat")
            assert (await pika.poll(job)).known_word is False
            report = await pika.run(prompts(4))
            assert report.counts == {JobStatus.SUCCEEDED: 4}

    with caplog.at_level(logging.WARNING, "pika_async"):
        virtual_clock.run(story())
    assert len(messages(caplog, "without a known status")) == 1


# --- the last thing seen ------------------------------------------------------------------------------------------------


def ended_as(word: str, **fields: Any) -> Rewrite:
    """Replace the status of a finished row by a word, with more fields beside it."""

    def rewrite(body: Any, _task_id: str) -> Any:
        for row in body["videos"]:
            if row["status"] == "finished":
                row.update(status=word, **fields)
        return body

    return rewrite


@pytest.mark.parametrize("word", ["cancelled", "expired", "succeed"])
def test_the_error_of_a_deadline_repeats_the_last_thing_seen(word: str) -> None:
    """The status word, the provider's words and the URL beside them are in the error, as facts and as text."""

    async def story() -> DeadlineExceeded:
        rewrite = ended_as(word, error="removed by an operator", resultUrl="https://cdn.example/kept.mp4")
        async with odd_client(gateway(), rewrite, deadline=200) as pika:
            [job] = (await pika.run(["a cat"])).jobs
            assert (job.status, job.video) == (JobStatus.TIMED_OUT, None)
            assert isinstance(job.error, DeadlineExceeded)
            with pytest.raises(DeadlineExceeded) as raised:
                await pika.generate("another cat")
            assert raised.value.last_url == "https://cdn.example/kept.mp4"
            return job.error

    error = virtual_clock.run(story())
    assert (error.last_status, error.last_reason) == (word, "removed by an operator")
    assert error.last_url == "https://cdn.example/kept.mp4"
    for part in (word, "removed by an operator", "https://cdn.example/kept.mp4", "the task id is kept"):
        assert part in error.message


def test_the_last_thing_seen_survives_a_later_run_without_answers() -> None:
    """A job that times out again while the provider is down still has the word and the URL of the run before."""

    async def story() -> None:
        at = gateway([{"on": "feed", "between": [300, 10000], "do": {"fault": "answer", "status": 502}}])
        journal = MemoryJournal()
        for reason in ("", "HTTP 502"):
            pika = odd_client(at, ended_as("archived", resultUrl="https://cdn.example/kept.mp4"), deadline=200)
            async with with_journal(pika, journal):
                [job] = (await pika.run([GenerationRequest("a cat", key="a")])).jobs
                assert job.status is JobStatus.TIMED_OUT
                assert isinstance(job.error, DeadlineExceeded)
                assert (job.error.last_status, job.error.last_url) == ("archived", "https://cdn.example/kept.mp4")
                assert job.error.last_reason == reason
                await asyncio.sleep(150)

    virtual_clock.run(story())


def test_a_deadline_without_any_answer_says_so() -> None:
    """Where no poll was answered, the error has the fault of the latest one."""

    async def story() -> DeadlineExceeded:
        at = gateway(
            [{"on": "feed", "do": {"fault": "answer", "status": 502, "body": {"message": "upstream is down"}}}]
        )
        async with client(at, "gptge", deadline=100, polling=FixedInterval(5)) as pika:
            [job] = (await pika.run(["a cat"])).jobs
            assert isinstance(job.error, DeadlineExceeded)
            return job.error

    error = virtual_clock.run(story())
    assert (error.last_status, error.last_url) == ("", None)
    assert error.last_reason == "HTTP 502: upstream is down"
    assert "(last seen: HTTP 502: upstream is down)" in error.message


def test_a_task_that_is_gone_has_the_last_thing_seen_in_its_reason() -> None:
    """A task that was seen with a result and is denied afterwards has the word and the URL in the error."""

    async def story() -> str:
        at = gateway([{"on": "feed", "between": [200, 10000], "do": "vanish"}])
        rewrite = ended_as("archived", resultUrl="https://cdn.example/kept.mp4")
        async with odd_client(
            at, lambda body, task_id: rewrite({"videos": [], **body}, task_id), deadline=2000
        ) as pika:
            [job] = (await pika.run(["a cat"])).jobs
            assert isinstance(job.error, TaskNotFound)
            return job.error.message

    message = virtual_clock.run(story())
    assert "archived, https://cdn.example/kept.mp4" in message
