"""One contract for every provider and transport: in memory, over loopback sockets, and on recorded answers."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, ParamSpec

import pytest

from pika_async import (
    AccountStopped,
    AdaptivePolling,
    FixedInterval,
    GenerationFailed,
    GenerationRequest,
    JobStatus,
    PikaClient,
    SubmissionInDoubt,
    SubmissionRejected,
    TaskState,
)
from pika_async._planning.backoff import backoff_delay
from pika_async.emulator import EMULATED_PROVIDERS, Emulator, Gateway, Scenario
from pika_async.providers._wire import HttpRequest, HttpResponse
from tests import samples
from tests.fakes import virtual_clock
from tests.fakes.family import GATEWAYS
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport

#: Over sockets a task of 60 s takes 0.3 s; in memory time is virtual.
SCALE = {"memory": 1.0, "loopback": 0.005}


class World:
    """Gateway and a client of it."""

    def __init__(self, client: PikaClient, gateway: Gateway | Emulator) -> None:
        self.client = client
        self.gateway = gateway

    def charges(self) -> int:
        return len(self.gateway.ledger)


@asynccontextmanager
async def world(
    provider: str, transport: str, scenario: list[dict[str, Any]] | None = None, **options: Any
) -> AsyncIterator[World]:
    """Open a client and its gateway; `options` are those of the emulator."""
    rules = Scenario.of(scenario) if scenario else None
    polling = AdaptivePolling(expected_seconds=60 * SCALE[transport])
    settings: dict[str, Any] = {
        "durations": "constant:60",
        "time_scale": SCALE[transport],
        "retry_after": None,
    } | options
    if transport == "memory":
        gateway = Gateway(scenario=rules, **settings)
        carrier = MemoryTransport(gateway)
        async with PikaClient(provider, base_url=f"{ORIGIN}/{provider}", transport=carrier, polling=polling) as client:
            yield World(client, gateway)
        return
    with pytest.MonkeyPatch.context() as patch:
        # What is in doubt is sent again where the provider knows idempotency keys, 88 s long.
        delay = lambda step, u, *, cap: SCALE[transport] * backoff_delay(step, u, cap=cap)  # noqa: E731
        patch.setattr("pika_async._planning.repeats.backoff_delay", delay)
        async with (
            Emulator(scenario=rules, render=False, **settings) as emulator,
            PikaClient(
                provider, api_key=emulator.api_key, base_url=emulator.base_url(provider), polling=polling
            ) as client,
        ):
            yield World(client, emulator)


WORLDS = [(provider, transport) for provider in EMULATED_PROVIDERS for transport in ("memory", "loopback")]
P = ParamSpec("P")


def drive(transport: str, story: Coroutine[Any, Any, None]) -> None:
    """Run a story: in virtual time over the memory transport, in real time over sockets."""
    (virtual_clock.run if transport == "memory" else asyncio.run)(story)


def everywhere(
    story: Callable[P, Coroutine[Any, Any, None]], worlds: Sequence[tuple[str, str]] = WORLDS
) -> Callable[P, None]:
    """Run `story` for every provider over every transport.

    :param worlds: the providers and transports; default all.
    """

    @functools.wraps(story)
    def run_story(*args: P.args, **kwargs: P.kwargs) -> None:
        drive(str(kwargs["transport"]), story(*args, **kwargs))

    parametrized: Callable[P, None] = pytest.mark.parametrize(("provider", "transport"), worlds)(run_story)
    return parametrized


@everywhere
async def test_generate_returns_a_video(provider: str, transport: str) -> None:
    """One awaited generation is charged once and returns the URL of its video."""
    async with world(provider, transport) as w:
        video = await w.client.generate("a cat", image="https://pictures.example.com/a.png", effect="Inflate", seed=7)
        assert video.url.endswith(".mp4")
        assert (video.poster is not None) == (provider in GATEWAYS)
        assert w.charges() == 1


@everywhere
async def test_submit_then_wait_then_poll(provider: str, transport: str) -> None:
    """A submitted job is accepted with its task id, settles during `wait`, and can be polled again for free."""
    async with world(provider, transport) as w:
        job = await w.client.submit(GenerationRequest("a dog", key="order-17"))
        assert (job.key, job.task_id is not None, job.attempts) == ("order-17", True, 1)
        assert job.status in {JobStatus.QUEUED, JobStatus.RUNNING}
        done = await w.client.wait(job)
        assert (done.status, done.task_id) == (JobStatus.SUCCEEDED, job.task_id)
        assert done.polls >= 1
        snapshot = await w.client.poll(done)
        assert (snapshot.state, snapshot.task_id) == (TaskState.SUCCEEDED, job.task_id)
        assert w.charges() == 1


@everywhere
async def test_a_batch_is_charged_once_for_each_prompt(provider: str, transport: str) -> None:
    """Twenty prompts give twenty successes in the order of the input, and twenty charges."""
    async with world(provider, transport, in_flight=7) as w:
        report = await w.client.run([f"prompt {number}" for number in range(20)])
        assert [job.request.prompt for job in report.jobs] == [f"prompt {number}" for number in range(20)]
        assert report.counts == {JobStatus.SUCCEEDED: 20}
        assert sorted(charge.prompt for charge in w.gateway.ledger) == sorted(f"prompt {n}" for n in range(20))


@everywhere
async def test_a_failed_generation_is_that_jobs_failure(provider: str, transport: str) -> None:
    """A generation that fails raises with the provider's reason when awaited, and stops no sibling in a batch."""
    rules = [{"on": "create", "prompt": "doomed", "do": {"fault": "fails", "reason": "moderated away"}}]
    async with world(provider, transport, rules) as w:
        with pytest.raises(GenerationFailed, match="moderated away"):
            await w.client.generate("doomed one")
        report = await w.client.run(["fine 1", "doomed two", "fine 2"])
        assert [job.status.value for job in report.jobs] == ["succeeded", "failed", "succeeded"]
        assert "moderated away" in str(report.jobs[1].error)


@everywhere
async def test_a_rejected_submission_is_not_repeated(provider: str, transport: str) -> None:
    """A submission that the provider refuses is rejected, was sent once and is not charged."""
    rules = [{"on": "create", "do": {"fault": "refuse", "as": "invalid"}}]
    async with world(provider, transport, rules) as w:
        with pytest.raises(SubmissionRejected):
            await w.client.generate("a cat")
        (job,) = await w.client.jobs()
        assert (job.status, job.attempts, w.charges()) == (JobStatus.REJECTED, 1, 0)


@everywhere
async def test_a_refused_key_stops_the_account_and_fails_no_job(provider: str, transport: str) -> None:
    """A 401 on submissions stops a batch with that reason, and leaves every job planned."""
    rules = [{"on": "create", "do": {"fault": "refuse", "as": "key"}}]
    async with world(provider, transport, rules) as w:
        report = await w.client.run([f"prompt {number}" for number in range(30)])
        assert isinstance(report.stopped, AccountStopped)
        assert report.counts == {JobStatus.PLANNED: 30}
        assert len(w.gateway.requests) <= 8
        assert w.charges() == 0


@everywhere
async def test_a_saturated_gateway_is_retried_later(provider: str, transport: str) -> None:
    """Submissions that were answered 429 are sent again later: every job succeeds and is charged once."""
    rules = [{"on": "create", "first": 6, "do": {"fault": "refuse", "as": "rate"}}]
    async with world(provider, transport, rules) as w:
        report = await w.client.run([f"prompt {number}" for number in range(6)])
        assert report.counts == {JobStatus.SUCCEEDED: 6}
        assert w.charges() == 6


@everywhere
async def test_a_lost_answer_is_in_doubt_and_never_sent_again(provider: str, transport: str) -> None:
    """A submission that was charged and whose answer was lost is in doubt: one charge and one attempt."""
    rules = [{"on": "create", "prompt": "lost", "do": "drop"}]
    async with world(provider, transport, rules) as w:
        with pytest.raises(SubmissionInDoubt, match="may have been accepted"):
            await w.client.generate("lost one")
        report = await w.client.run(["fine", "lost two"])
        assert [job.status.value for job in report.jobs] == ["succeeded", "unknown"]
        assert w.charges() == 3


@everywhere
async def test_a_task_id_in_a_torn_answer_is_used(provider: str, transport: str) -> None:
    """An answer that is cut after its task id is accepted: the id is read from the part that came."""
    rules = [{"on": "create", "do": {"fault": "cut", "at": "body", "fraction": 0.99}}]
    async with world(provider, transport, rules) as w:
        job = await w.client.submit("a cat")
        assert job.task_id == w.gateway.ledger[0].task_id


ODD = ["html", "empty", "bom", "nan", "infinity", "huge-int", "deep", "lone-surrogate", "not-utf8", "gzip-bomb", "list"]


@everywhere
async def test_invalid_poll_answers_settle_nothing(provider: str, transport: str) -> None:
    """After invalid answers the tasks are polled again, and every job succeeds."""
    rules = [
        {"on": "feed", "per": "task", "nth": 1, "prompt": f"odd {kind}.", "do": {"fault": "body", "kind": kind}}
        for kind in ODD
    ]
    async with world(provider, transport, rules, durations="constant:1") as w:
        report = await w.client.run([f"odd {kind}." for kind in ODD])
        assert report.counts == {JobStatus.SUCCEEDED: len(ODD)}
        assert w.charges() == len(ODD)


@everywhere
async def test_unexpected_snapshots_settle_nothing(provider: str, transport: str) -> None:
    """After a new word, another task's answer, a success without URL or a denied young task, the task is polled again."""
    faults = ["word", "other-task", "no-url", "vanish"]
    rules = [{"on": "feed", "per": "task", "first": 2, "prompt": fault, "do": fault} for fault in faults]
    async with world(provider, transport, rules, durations="constant:30") as w:
        report = await w.client.run([*faults, *faults])
        assert report.counts == {JobStatus.SUCCEEDED: 8}
        assert w.charges() == 8


@functools.partial(everywhere, worlds=[world for world in WORLDS if world[0] in GATEWAYS])
async def test_feeds_in_other_shapes_lead_to_the_video(provider: str, transport: str) -> None:
    """Feeds in three wrappers, with an image of 2 MiB beside the task, or under another id settle with their videos."""
    faults = ["wrap", "echo", *(["other-id"] if transport == "memory" else [])]
    options: dict[str, dict[str, Any]] = {"wrap": {"times": 3}}
    rules = [{"on": "feed", "prompt": fault, "do": {"fault": fault, **options.get(fault, {})}} for fault in faults]
    async with world(provider, transport, rules) as w:
        report = await w.client.run([f"{fault} please" for fault in faults])
        assert report.counts == {JobStatus.SUCCEEDED: len(faults)}
        for job in report.jobs:
            assert job.video is not None
            assert str(job.task_id) in job.video.url
        assert w.charges() == len(faults)


@everywhere
async def test_same_key_and_content_is_adopted(provider: str, transport: str) -> None:
    """A request with the key and content of a job is not paid for again, while the job runs and after it settled."""
    async with world(provider, transport) as w:
        request = GenerationRequest("a cat", key="order-1")
        first, second = await asyncio.gather(w.client.submit(request), w.client.submit(request))
        assert first.task_id == second.task_id
        await w.client.wait(first)
        report = await w.client.run([request, GenerationRequest("a dog", key="order-2")])
        assert [job.status.value for job in report.jobs] == ["succeeded", "succeeded"]
        assert w.charges() == 2


class RecordedTransport:
    """Transport with a gateway's recorded answers: a receipt, then a fresh, a running and a finished feed."""

    def __init__(self, provider: str) -> None:
        create = next(s for s in samples.load(provider, "create") if s["name"] == "create-documented")
        feeds = {sample["name"]: sample for sample in samples.load(provider, "feed")}
        names = ["feed-fresh", "feed-running"] if provider == "cometapi" else ["feed-empty", "feed-pending"]
        self.receipt = samples.response_of(create)
        self.feeds = [samples.response_of(feeds[name]) for name in [*names, "feed-documented"]]
        self.task_id = create["means"]["task_id"]
        self.sent: list[HttpRequest] = []

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.sent.append(request)
        if request.paid:
            return self.receipt
        feed = self.feeds.pop(0)
        return HttpResponse(status=feed.status, headers=feed.headers, body=self._with_task_id(feed.body))

    def _with_task_id(self, body: bytes) -> bytes:
        """Return a recorded feed with the task id of the recorded receipt: they are of different tasks."""
        answer = json.loads(body)
        holder = answer.get("data", answer)
        for name in ("task_id", "id"):
            if name in holder:
                holder[name] = self.task_id
        return json.dumps(answer).encode()


@pytest.mark.anyio
@pytest.mark.parametrize("provider", samples.PROVIDERS)
async def test_recorded_answers_lead_from_submission_to_video(provider: str) -> None:
    """On the documented answers, word for word, one generation is sent once and ends with the documented URL."""
    recorded = RecordedTransport(provider)
    async with PikaClient(
        provider, base_url="https://gateway.example", transport=recorded, polling=FixedInterval(0.01)
    ) as client:
        job = await client.wait(await client.submit("a cat"))
    assert (job.status, job.task_id, job.polls) == (JobStatus.SUCCEEDED, recorded.task_id, 3)
    assert [request.paid for request in recorded.sent] == [True, False, False, False]
    documented = next(s for s in samples.load(provider, "feed") if s["name"] == "feed-documented")
    assert job.video is not None
    assert job.video.url == documented["means"]["url"]
