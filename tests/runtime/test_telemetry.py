"""Telemetry of a run: names, values and links; failures of telemetry affect no job, and no secret is exported."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from pika_async import (
    ExchangeFailed,
    FixedInterval,
    GenerationFailed,
    GenerationRequest,
    JobStatus,
    PikaClient,
    Provider,
    SubmissionInDoubt,
    find_provider,
)
from pika_async._runtime.telemetry import NullTelemetry
from pika_async._runtime.telemetry.otel import OtelTelemetry
from pika_async.emulator import Emulator, Gateway
from pika_async.providers._wire import HttpRequest
from tests.fakes import virtual_clock
from tests.fakes.callback_delivery import canary_receiver, delivering_callbacks, receiver
from tests.fakes.canary import CANARY, FAULTS, PROMPT
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, client, gateway

S = JobStatus


@attrs.define
class Exported:
    """The spans and metrics that a client has exported."""

    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    tracer_provider: TracerProvider
    meter_provider: MeterProvider

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(name)]

    def span(self, name: str) -> ReadableSpan:
        [found] = self.spans(name)
        return found

    def metrics(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str, *by: str) -> dict[Any, Any]:
        """Return the count or the sum of each point of a metric, by the values of the attributes *by*."""
        found: Counter[Any] = Counter()
        if name in self.metrics():
            for point in self.metrics()[name].data.data_points:
                found[tuple(point.attributes.get(each) for each in by)] += getattr(point, "value", None) or point.sum
        return dict(found)

    def text(self) -> str:
        """Return all spans and metrics as text."""
        spans = [span.to_json() for span in self.spans()]
        data = self.reader.get_metrics_data()
        return "\n".join([*spans, "" if data is None else data.to_json()])


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[Exported]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    export_to(monkeypatch, tracers, meters)
    random.seed(7)
    yield Exported(exporter, reader, tracers, meters)
    tracers.shutdown()
    meters.shutdown()


def export_to(monkeypatch: pytest.MonkeyPatch, tracers: Any, meters: Any) -> list[OtelTelemetry]:
    """Let every client that is opened from now on use these providers; the list gets the telemetry of each."""
    made: list[OtelTelemetry] = []

    def create(provider: Provider, base_url: str) -> NullTelemetry:
        made.append(OtelTelemetry(provider, base_url, tracer_provider=tracers, meter_provider=meters))
        return made[-1]

    monkeypatch.setattr("pika_async._runtime.session.create_telemetry", create)
    return made


def span_ids(spans: Sequence[ReadableSpan]) -> set[Any]:
    return {span.context.span_id for span in spans if span.context is not None}


def linked_ids(span: ReadableSpan) -> set[Any]:
    return {link.context.span_id for link in span.links}


def run_one(at: Gateway, request: GenerationRequest | str = "a cat", provider: str = "native", **options: Any) -> Any:
    """Run one job until it is finished, and return it."""

    async def story() -> Any:
        async with client(at, provider, polling=FixedInterval(10), **options) as pika:
            return (await pika.run([request])).jobs[0]

    return virtual_clock.run(story())


# --- spans --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "create", "feed"),
    [
        ("native", "POST /native/pika/generate", "GET /native/pika/feed/{task_id}"),
        ("cometapi", "POST /cometapi/pika/pro/generate", "POST /cometapi/pika/feed"),
    ],
)
def test_requests_follow_the_http_conventions(provider: str, create: str, feed: str, exported: Exported) -> None:
    """Submissions and polls are CLIENT spans named by method and route; no route contains a task id."""
    job = run_one(gateway(durations="constant:15"), provider=provider)
    submission, poll = exported.span(create), exported.spans(feed)[0]
    for span in (submission, poll):
        assert (span.kind, span.status.status_code, span.parent) == (SpanKind.CLIENT, StatusCode.UNSET, None)
        attributes = dict(span.attributes or {})
        assert str(attributes.pop("url.full")).startswith(f"{ORIGIN}/{provider}/pika/")
        assert attributes == {
            "http.request.method": span.name.split()[0],
            "server.address": "127.0.0.1",
            "server.port": 1,
            "url.template": span.name.split()[1],
            "http.response.status_code": 200,
        }
        assert job.task_id not in span.name
        assert span.instrumentation_scope is not None
        assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("pika_async", "0.1.0")
    assert len(exported.spans(feed)) == job.polls == 2


def test_the_span_of_a_job_is_a_child_of_the_callers_span(exported: Exported) -> None:
    """`pika.job` is a child of the span that is current where the job is requested, by `generate` or in a batch."""

    async def story() -> None:
        tracer = exported.tracer_provider.get_tracer("app")
        with tracer.start_as_current_span("opening"):
            pika = await client(gateway(durations="constant:15"), "native", polling=FixedInterval(10)).__aenter__()
        with tracer.start_as_current_span("one"):
            await pika.generate(GenerationRequest("a", key="lone"))
        with tracer.start_as_current_span("many"):
            assert [job.key async for job in pika.as_settled([GenerationRequest("b", key="many")])] == ["many"]
        await pika.aclose()

    virtual_clock.run(story())
    parents = {span.context.span_id: span.name for span in exported.spans() if span.context is not None}
    parent_of = {
        (span.attributes or {})["pika.job.key"]: span.parent and parents[span.parent.span_id]
        for span in exported.spans("pika.job")
    }
    assert parent_of == {"lone": "one", "many": "many"}
    assert {span.parent for span in exported.spans() if span.kind is SpanKind.CLIENT} == {None}


def test_the_span_of_a_job_has_its_final_state(exported: Exported) -> None:
    """It lasts from planned to finished and ends with the status, the task id and the numbers of attempts and polls."""
    job = run_one(gateway(durations="constant:15"), GenerationRequest("a cat", key="k"))
    span = exported.span("pika.job")
    assert (span.kind, span.status.status_code) == (SpanKind.INTERNAL, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "pika.job.key": "k",
        "pika.provider": "native",
        "pika.stratum": "native/-/text/plain",
        "pika.task.id": job.task_id,
        "pika.job.status": "succeeded",
        "pika.job.attempts": 1,
        "pika.job.polls": 2,
    }


def test_jobs_and_requests_are_linked_both_ways(exported: Exported) -> None:
    """The span of a job links to its own submissions and polls, and these link to it and to no other job."""

    async def story() -> None:
        at = gateway([{"on": "create", "per": "task", "first": 1, "do": "refuse"}])
        async with client(at, "native", polling=FixedInterval(25)) as pika:
            await pika.run(["a", "b", "c"])

    virtual_clock.run(story())
    jobs, requests = exported.spans("pika.job"), [span for span in exported.spans() if span.kind is SpanKind.CLIENT]
    assert len(jobs) == 3
    for job in jobs:
        own = [request for request in requests if linked_ids(request) == span_ids([job])]
        assert linked_ids(job) == span_ids(own)
        kinds = Counter((link.attributes or {})["pika.request.kind"] for link in job.links)
        attributes = job.attributes or {}
        assert kinds == {"submission": attributes["pika.job.attempts"], "poll": attributes["pika.job.polls"]}
        assert all((link.attributes or {})["pika.request.kind"] for request in own for link in request.links)
    assert sum(len(linked_ids(request)) for request in requests) == len(requests)


def test_later_attempts_have_a_resend_count(exported: Exported) -> None:
    """A refused submission is an error of its own span, and each attempt has the number of those before it."""
    run_one(gateway([{"on": "create", "first": 2, "do": "refuse"}]))
    attempts = [span.attributes or {} for span in exported.spans("POST")]
    assert [
        (attempt["http.response.status_code"], attempt.get("error.type"), attempt.get("http.request.resend_count"))
        for attempt in attempts
    ] == [(429, "429", None), (429, "429", 1), (200, None, 2)]
    assert [span.status.status_code for span in exported.spans("POST")] == [StatusCode.ERROR] * 2 + [StatusCode.UNSET]
    assert {span.status.description for span in exported.spans()} == {None}
    assert exported.points("pika.rate_limited", "pika.request.kind", "pika.provider") == {("submission", "native"): 2}


@pytest.mark.parametrize(
    ("deed", "options", "status", "error"),
    [
        ({"on": "create", "do": {"fault": "fails"}}, {}, "failed", "GenerationFailed"),
        ({"on": "create", "do": {"fault": "refuse", "as": "task"}}, {}, "rejected", "SubmissionRejected"),
        ({"on": "create", "do": {"fault": "drop"}}, {}, "unknown", "SubmissionInDoubt"),
        ({"on": "create", "do": {"fault": "takes", "seconds": 999}}, {"deadline": 60}, "timed_out", "DeadlineExceeded"),
    ],
)
def test_a_job_without_a_video_is_an_error(
    deed: dict[str, Any], options: dict[str, Any], status: str, error: str, exported: Exported
) -> None:
    """The span of a job that failed, was rejected, is in doubt or timed out has the error's type and not its text."""
    run_one(gateway([deed]), **options)
    span = exported.span("pika.job")
    attributes = span.attributes or {}
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert (attributes["pika.job.status"], attributes["error.type"]) == (status, error)
    assert exported.points("pika.jobs_finished", "pika.job.status") == {(status,): 1}


def test_a_request_without_a_response_is_an_error(exported: Exported) -> None:
    """The kind of the transport failure is the error's type; the duration is measured as well."""
    run_one(gateway([{"on": "create", "do": {"fault": "drop"}}]))
    attributes = exported.span("POST").attributes or {}
    assert attributes["error.type"] == "disconnected"
    assert "http.response.status_code" not in attributes
    assert exported.points("pika.submissions_in_doubt", "pika.stratum") == {("native/-/text/plain",): 1}
    assert exported.points("pika.charges") == {}
    assert exported.points("http.client.request.duration", "error.type").keys() == {("disconnected",)}


def test_a_truncated_response_is_an_error(exported: Exported) -> None:
    """A response with status 200 and a truncated body has the error type `cut`."""
    run_one(gateway([{"on": "feed", "first": 1, "do": {"fault": "cut"}}]))
    cut = exported.spans("GET")[0].attributes or {}
    assert (cut["http.response.status_code"], cut["error.type"]) == (200, "cut")


def test_a_cancelled_request_is_ended(exported: Exported) -> None:
    """The span of a submission that a closing client gives up ends as canceled, and its job is in doubt."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "stall"}}])
        async with client(at, "native") as pika:
            asking = asyncio.create_task(pika.submit("a cat"))
            await asyncio.sleep(1)
        with pytest.raises(SubmissionInDoubt):
            await asking

    virtual_clock.run(story())
    assert (exported.span("POST").attributes or {})["error.type"] == "canceled"
    assert (exported.span("pika.job").attributes or {})["pika.job.status"] == "unknown"
    assert exported.points("pika.submissions_in_doubt") == {(): 1}


def test_a_closing_client_ends_every_span(exported: Exported) -> None:
    """The spans of jobs in flight end with their current status and without an error."""

    async def story() -> None:
        async with client(gateway(), "native", polling=FixedInterval(10)) as pika:
            await pika.submit("a cat")

    virtual_clock.run(story())
    span = exported.span("pika.job")
    assert (span.status.status_code, (span.attributes or {})["pika.job.status"]) == (StatusCode.UNSET, "queued")
    assert exported.points("pika.jobs_finished") == {}


@pytest.mark.parametrize("way", ["a callback", "a person", "a person, not charged"])
def test_a_job_that_was_in_doubt_has_one_span(way: str, exported: Exported) -> None:
    """The span lasts from planned to finished, the time in doubt included."""
    started: list[Any] = []

    class Starts(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            started.append(span)

    exported.tracer_provider.add_span_processor(Starts())

    async def story() -> None:
        at, callbacks = gateway([{"on": "create", "first": 1, "do": "drop"}]), receiver()
        async with client(at, callbacks=callbacks) as pika:
            asking = asyncio.create_task(pika.generate("a cat", key="cat"))
            if way == "a callback":
                async with delivering_callbacks(at, callbacks):
                    await asking
            else:
                await asyncio.sleep(100)
                [charge] = at.ledger
                resolution: dict[str, Any] = {"task_id": charge.task_id} if way == "a person" else {"charged": False}
                await pika.resolve("cat", **resolution)
                await asking

    virtual_clock.run(story())
    assert [span.name for span in started if span.end_time is None] == []
    assert (exported.span("pika.job").attributes or {})["pika.job.status"] == "succeeded"


def test_a_withdrawn_job_is_ended(exported: Exported) -> None:
    """The span of a job that is canceled before it is sent ends with the status canceled."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": "refuse"}])
        async with client(at, "native") as pika:
            asking = asyncio.create_task(pika.generate("a cat"))
            await asyncio.sleep(1)
            asking.cancel()
            await asyncio.wait([asking])

    virtual_clock.run(story())
    assert (exported.span("pika.job").attributes or {})["pika.job.status"] == "canceled"
    assert exported.points("pika.jobs_finished", "pika.job.status") == {("canceled",): 1}


def test_a_poll_by_the_caller_is_a_child_of_the_callers_span(exported: Exported) -> None:
    """`PikaClient.poll` is counted, and its span is not linked to a job."""

    async def story() -> None:
        tracer = exported.tracer_provider.get_tracer("app")
        async with client(gateway(), "native", polling=FixedInterval(999)) as pika:
            job = await pika.submit("a cat")
            with tracer.start_as_current_span("by hand") as mine:
                await pika.poll(job)
                assert trace.get_current_span() is mine

    virtual_clock.run(story())
    poll = exported.span("GET")
    assert (poll.parent and poll.parent.span_id, list(poll.links)) == (
        next(iter(span_ids(exported.spans("by hand")))),
        [],
    )
    assert exported.points("pika.polls", "pika.provider") == {("native",): 1}


def test_spans_inside_a_request_are_its_children(exported: Exported) -> None:
    """The spans of an instrumented transport are children of the request's span."""

    class Instrumented(MemoryTransport):
        async def send(self, request: Any) -> Any:
            with exported.tracer_provider.get_tracer("aiohttp").start_as_current_span("inner"):
                return await super().send(request)

    at = gateway()
    run_one(at, transport=Instrumented(at))
    outer = [span for span in exported.spans() if span.kind is SpanKind.CLIENT]
    assert {span.parent.span_id for span in exported.spans("inner") if span.parent} == span_ids(outer)
    assert len(exported.spans("inner")) == len(outer)


def test_query_and_user_are_redacted(exported: Exported) -> None:
    """`url.full` contains no user and no query values, and an unknown HTTP method becomes `_OTHER`."""

    def poll(url: str, task_id: str) -> Any:
        return HttpRequest(
            method="BREW",
            url=f"http://user:{CANARY}@127.0.0.1:1{url[len(ORIGIN) :]}/x?key={CANARY}&id={task_id}#{CANARY}",
        )

    native = find_provider("native")
    odd = attrs.evolve(native, dialect=attrs.evolve(native.dialect, poll=poll))

    async def story() -> None:
        at = gateway()
        transport = MemoryTransport(at)
        async with PikaClient(odd, base_url=f"{ORIGIN}/native", transport=transport, polling=FixedInterval(5)) as pika:
            job = await pika.submit("a cat")
            with pytest.raises(ExchangeFailed):
                await pika.poll(job)

    virtual_clock.run(story())
    attributes = exported.spans("HTTP /native/x")[0].attributes or {}
    assert attributes["url.full"] == "http://127.0.0.1:1/native/x?key=REDACTED&id=REDACTED"
    assert attributes["http.request.method"] == "_OTHER"
    assert CANARY not in exported.text()


# --- metrics ------------------------------------------------------------------------------------------------------------


def test_durations_are_measured(exported: Exported) -> None:
    """Queue time, generation time and detection delay add up to the duration of a job, in seconds of the loop."""
    run_one(gateway(durations="constant:33"))  # accepted after 0.05 s; a poll near every 10 s
    stratum = ("native/-/text/plain",)
    queue = exported.points("pika.job.queue_time", "pika.stratum")
    generation = exported.points("pika.job.generation_time", "pika.stratum")
    delay = exported.points("pika.job.detection_delay", "pika.stratum")
    assert queue == {stratum: pytest.approx(0.05)}
    # Seen unsettled, then settled. A poll leaves at the nearest tick of 0.25 s.
    assert generation[stratum] == pytest.approx((30.15 + 40.2) / 2, abs=0.2)
    assert generation[stratum] + delay[stratum] == pytest.approx(40.2, abs=0.25)
    assert exported.points("http.client.request.duration", "url.template") == {
        ("/native/pika/generate",): pytest.approx(0.05), ("/native/pika/feed/{task_id}",): pytest.approx(0.2),
    }  # fmt: skip
    metrics = exported.metrics()
    assert {
        name: metrics[name].unit for name in metrics if metrics[name].data.data_points[0].__class__.__name__[0] == "H"
    } == dict.fromkeys(
        ("http.client.request.duration", "pika.job.queue_time", "pika.job.generation_time", "pika.job.detection_delay"),
        "s",
    )
    assert metrics["http.client.request.duration"].data.data_points[0].explicit_bounds == (
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
    )  # fmt: skip


def test_queue_time_includes_refused_attempts(exported: Exported) -> None:
    """The queue time of a job ends with its acceptance, not with its first attempt."""
    run_one(gateway([{"on": "create", "first": 1, "do": {"fault": "refuse", "retry_after": "20"}}]))
    [queue_time] = exported.points("pika.job.queue_time").values()
    assert 20 < queue_time < 60


def test_charges_polls_and_jobs_are_counted(exported: Exported) -> None:
    """The counters equal the gateway's ledger and the counts in the jobs; no submission is counted as in doubt."""

    async def story() -> Sequence[Any]:
        at = gateway(durations="lognormal:30,0.3", seed=3)
        async with client(at, "native", polling=FixedInterval(10)) as pika:
            jobs = (await pika.run([f"prompt {n}" for n in range(20)])).jobs
        assert len(at.ledger) == 20
        return jobs

    jobs = virtual_clock.run(story())
    assert exported.points("pika.charges", "pika.provider", "pika.stratum") == {("native", "native/-/text/plain"): 20}
    assert exported.points("pika.polls") == {(): sum(job.polls for job in jobs)}
    assert exported.points("pika.jobs_finished", "pika.job.status") == {("succeeded",): 20}
    assert exported.points("pika.submissions_in_doubt") == exported.points("pika.rate_limited") == {}
    assert {
        metric.data.data_points[0].count for name, metric in exported.metrics().items() if name.startswith("pika.job.")
    } == {20}


def test_a_resumed_job_has_no_durations(exported: Exported) -> None:
    """A job that an earlier opening submitted has a span and is polled; its duration is not known."""

    async def story() -> None:
        pika = client(gateway(), "native", polling=FixedInterval(10))
        async with pika:
            await pika.submit("a cat")
        async with pika:
            assert (await pika.resume()).ok

    virtual_clock.run(story())
    assert [(span.attributes or {})["pika.job.status"] for span in exported.spans("pika.job")] == [
        "queued",
        "succeeded",
    ]
    assert exported.points("pika.charges") == {(): 1}
    assert {"pika.job.generation_time", "pika.job.detection_delay"} & exported.metrics().keys() == set()


def test_rate_limited_polls_are_counted_as_polls(exported: Exported) -> None:
    """The kind of a request that got HTTP 429 is an attribute of the counter."""
    run_one(gateway([{"on": "feed", "first": 1, "do": "refuse"}]))
    assert exported.points("pika.rate_limited", "pika.request.kind") == {("poll",): 1}


# --- failures -----------------------------------------------------------------------------------------------------------


class Broken:
    """An object whose every method raises, except those that are passed to it."""

    def __init__(self, **methods: Any) -> None:
        self.__dict__.update(methods)

    def __getattr__(self, name: str) -> Any:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError(name)

        return fail


def _broken(where: str) -> tuple[Any, Any]:
    real = TracerProvider(shutdown_on_exit=False)
    match where:
        case "tracer":
            return Broken(get_tracer=lambda *_, **__: Broken()), NoOpMeters
        case "span":
            span = Broken(is_recording=lambda: True)
            return Broken(get_tracer=lambda *_, **__: Broken(start_span=lambda *_, **__: span)), NoOpMeters
        case "exporter":

            class Failing(SpanProcessor):
                def on_end(self, span: ReadableSpan) -> None:
                    raise ZeroDivisionError("exporter")

            real.add_span_processor(Failing())
            return real, NoOpMeters
        case _:
            return real, Broken(get_meter=lambda *_, **__: Broken(
                create_counter=lambda *_, **__: Broken(), create_histogram=lambda *_, **__: Broken()
            ))  # fmt: skip


NoOpMeters = MeterProvider(shutdown_on_exit=False)


@pytest.mark.parametrize("where", ["tracer", "span", "exporter", "meter"])
def test_failing_telemetry_affects_no_job(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each job is charged once and succeeds, and the failure is logged once."""
    export_to(monkeypatch, *_broken(where))

    async def story() -> None:
        at = gateway([{"on": "create", "per": "task", "first": 1, "do": "refuse"}])
        async with client(at, "native", polling=FixedInterval(10)) as pika:
            assert (await pika.run(["a", "b", "c"])).ok
        assert len(at.ledger) == 3
        assert not trace.get_current_span().is_recording()

    virtual_clock.run(story())
    assert [record.name for record in caplog.records if "telemetry failed" in record.getMessage()] == [
        "pika_async.telemetry"
    ]


def test_unusable_providers_are_logged_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A client whose global tracer provider raises has no telemetry and logs one warning."""
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr("opentelemetry.trace.get_tracer", Broken().get_tracer)
    assert run_one(gateway()).status is S.SUCCEEDED
    assert [(record.name, record.levelname) for record in caplog.records] == [("pika_async.telemetry", "WARNING")]


@pytest.mark.parametrize("tracers", [NoOpTracerProvider(), TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)])
def test_an_unrecorded_job_is_not_kept(tracers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry keeps no span of a job whose tracer does not record."""
    made = export_to(monkeypatch, tracers, NoOpMeters)

    async def story() -> None:
        async with client(gateway(), "native", polling=FixedInterval(10)) as pika:
            for n in range(5):
                await pika.submit(f"prompt {n}")
            assert [each._spans for each in made] == [{}]

    virtual_clock.run(story())


def test_no_span_outlives_its_job(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry keeps no span once all jobs are finished."""
    made = export_to(monkeypatch, exported.tracer_provider, exported.meter_provider)
    run_one(gateway())
    assert [each._spans for each in made] == [{}]


def test_a_client_may_be_opened_again(exported: Exported, caplog: pytest.LogCaptureFixture) -> None:
    """Creating the same instruments again logs no warning and continues the counters."""

    async def story() -> None:
        pika = client(gateway(), "native", polling=FixedInterval(10))
        for n in range(3):
            async with pika:
                assert (await pika.run([f"prompt {n}"])).ok

    virtual_clock.run(story())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert exported.points("pika.charges") == {(): 3}


def test_null_telemetry_has_every_method() -> None:
    """`NullTelemetry` and `OtelTelemetry` have the same methods with the same parameters."""
    for name, method in vars(NullTelemetry).items():
        if not name.startswith("_"):
            assert inspect.signature(method) == inspect.signature(inspect.unwrap(getattr(OtelTelemetry, name))).replace(
                return_annotation=inspect.signature(method).return_annotation
            )


# --- secrets ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("provider", ["native", "cometapi"])
async def test_no_secret_is_exported(provider: str, exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """No API key, prompt or callback URL is in any span or metric of a run with faults."""
    callbacks = canary_receiver(provider, monkeypatch)
    async with Emulator(durations="constant:0.2", scenario=FAULTS, api_key=CANARY) as emulator:
        url = emulator.base_url(provider)
        async with PikaClient(
            provider, api_key=CANARY, base_url=url, polling=FixedInterval(0.1), callbacks=callbacks
        ) as pika:
            report = await pika.run([GenerationRequest(f"{PROMPT} {n}", key=f"k{n}") for n in range(8)])
    assert report.counts[S.UNKNOWN] >= (2 if callbacks is None else 0)
    assert report.counts[S.SUCCEEDED] >= 2
    assert callbacks is None or callbacks.received
    assert any(isinstance(job.error, SubmissionInDoubt | GenerationFailed) for job in report.jobs)
    text = exported.text()
    assert "pika.job.key" in text
    assert "CANARY" not in text


# --- the package itself -------------------------------------------------------------------------------------------------

STORY = """
import json, sys
{before}
import logging
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
from pika_async import FixedInterval
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import client, gateway

async def story():
    async with client(gateway(), "native", polling=FixedInterval(10)) as pika:
        return (await pika.run(["a cat"])).ok, type(pika._session.table.telemetry).__name__

ok, kind = virtual_clock.run(story())
{after}
"""


def run_story(before: str = "", after: str = "") -> Any:
    done = subprocess.run(
        [sys.executable, "-c", STORY.format(before=before, after=after)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_a_client_works_without_opentelemetry() -> None:
    """Without the package a client uses `NullTelemetry`, logs nothing and imports nothing of OpenTelemetry."""
    before = (
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'opentelemetry': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    after = "print(json.dumps([ok, kind, [n for n in sys.modules if n.startswith('opentelemetry')]]))"
    assert run_story(before, after) == [True, "NullTelemetry", []]


def test_the_global_providers_are_used() -> None:
    """A client exports to the providers that the application has set, without being passed them."""
    before = (
        "from opentelemetry import metrics, trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
        "exporter, reader, tracers = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()\n"
        "tracers.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "trace.set_tracer_provider(tracers); metrics.set_meter_provider(MeterProvider([reader]))\n"
    )
    after = (
        "names = sorted({s.name for s in exporter.get_finished_spans()})\n"
        "data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0]\n"
        "print(json.dumps([ok, kind, names, data.scope.name, sorted(m.name for m in data.metrics)]))"
    )
    ok, kind, names, scope, metrics = run_story(before, after)
    assert (ok, kind, scope) == (True, "OtelTelemetry", "pika_async")
    assert names == ["GET /native/pika/feed/{task_id}", "POST /native/pika/generate", "pika.job"]
    assert metrics == [
        "http.client.request.duration", "pika.charges", "pika.job.detection_delay", "pika.job.generation_time",
        "pika.job.queue_time", "pika.jobs_finished", "pika.polls",
    ]  # fmt: skip
