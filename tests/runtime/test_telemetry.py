"""What OpenTelemetry is told of a run: names, values, links; and that telemetry never costs a job, nor a secret."""

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
from tests.fakes.callback_delivery import listening, notifying, receiver
from tests.fakes.canary import CANARY, FAULTS, PROMPT
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, client, gateway

S = JobStatus


@attrs.define
class Heard:
    """What was exported, and what was counted."""

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
        """The count or the sum of each point of a metric, by the values of some attributes."""
        found: Counter[Any] = Counter()
        if name in self.metrics():
            for point in self.metrics()[name].data.data_points:
                found[tuple(point.attributes.get(each) for each in by)] += getattr(point, "value", None) or point.sum
        return dict(found)

    def text(self) -> str:
        """All that was told, as text."""
        told = [span.to_json() for span in self.spans()]
        data = self.reader.get_metrics_data()
        return "\n".join([*told, "" if data is None else data.to_json()])


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    tell(monkeypatch, tracers, meters)
    random.seed(7)
    yield Heard(exporter, reader, tracers, meters)
    tracers.shutdown()
    meters.shutdown()


def tell(monkeypatch: pytest.MonkeyPatch, tracers: Any, meters: Any) -> list[OtelTelemetry]:
    """Every client that is opened from now on tells these providers; and is in the list."""
    made: list[OtelTelemetry] = []

    def watching(provider: Provider, base_url: str) -> NullTelemetry:
        made.append(OtelTelemetry(provider, base_url, tracer_provider=tracers, meter_provider=meters))
        return made[-1]

    monkeypatch.setattr("pika_async._runtime.session.create_telemetry", watching)
    return made


def contexts(spans: Sequence[ReadableSpan]) -> set[Any]:
    return {span.context.span_id for span in spans if span.context is not None}


def linked(span: ReadableSpan) -> set[Any]:
    return {link.context.span_id for link in span.links}


def one(at: Gateway, request: GenerationRequest | str = "a cat", provider: str = "native", **options: Any) -> Any:
    """A story: one job to its rest."""

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
def test_calls_follow_the_http_conventions(provider: str, create: str, feed: str, heard: Heard) -> None:
    """A submission and a look are CLIENT spans named by method and route; no route holds a task id."""
    job = one(gateway(durations="constant:15"), provider=provider)
    submission, look = heard.span(create), heard.spans(feed)[0]
    for span in (submission, look):
        assert (span.kind, span.status.status_code, span.parent) == (SpanKind.CLIENT, StatusCode.UNSET, None)
        told = dict(span.attributes or {})
        assert str(told.pop("url.full")).startswith(f"{ORIGIN}/{provider}/pika/")
        assert told == {
            "http.request.method": span.name.split()[0],
            "server.address": "127.0.0.1",
            "server.port": 1,
            "url.template": span.name.split()[1],
            "http.response.status_code": 200,
        }
        assert job.task_id not in span.name
        assert span.instrumentation_scope is not None
        assert (span.instrumentation_scope.name, span.instrumentation_scope.version) == ("pika_async", "0.1.0")
    assert len(heard.spans(feed)) == job.polls == 2


def test_a_job_has_a_span_under_the_callers(heard: Heard) -> None:
    """`pika.job` is a child of the span that is current where the job is asked for, by whichever way."""

    async def story() -> None:
        tracer = heard.tracer_provider.get_tracer("app")
        with tracer.start_as_current_span("opening"):
            pika = await client(gateway(durations="constant:15"), "native", polling=FixedInterval(10)).__aenter__()
        with tracer.start_as_current_span("one"):
            await pika.generate(GenerationRequest("a", key="lone"))
        with tracer.start_as_current_span("many"):
            assert [job.key async for job in pika.as_settled([GenerationRequest("b", key="many")])] == ["many"]
        await pika.aclose()

    virtual_clock.run(story())
    parents = {span.context.span_id: span.name for span in heard.spans() if span.context is not None}
    under = {
        (span.attributes or {})["pika.job.key"]: span.parent and parents[span.parent.span_id]
        for span in heard.spans("pika.job")
    }
    assert under == {"lone": "one", "many": "many"}
    assert {span.parent for span in heard.spans() if span.kind is SpanKind.CLIENT} == {None}


def test_a_job_says_how_it_ended(heard: Heard) -> None:
    """Its span lasts from planned to at rest, with what is known then."""
    job = one(gateway(durations="constant:15"), GenerationRequest("a cat", key="k"))
    span = heard.span("pika.job")
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


def test_jobs_and_calls_are_linked_both_ways(heard: Heard) -> None:
    """A job's span links to its submissions and looks, these link to it, and to no other job's."""

    async def story() -> None:
        at = gateway([{"on": "create", "per": "task", "first": 1, "do": "refuse"}])
        async with client(at, "native", polling=FixedInterval(25)) as pika:
            await pika.run(["a", "b", "c"])

    virtual_clock.run(story())
    jobs, calls = heard.spans("pika.job"), [span for span in heard.spans() if span.kind is SpanKind.CLIENT]
    assert len(jobs) == 3
    for job in jobs:
        mine = [call for call in calls if linked(call) == contexts([job])]
        assert linked(job) == contexts(mine)
        kinds = Counter((link.attributes or {})["pika.call"] for link in job.links)
        told = job.attributes or {}
        assert kinds == {"submission": told["pika.job.attempts"], "poll": told["pika.job.polls"]}
        assert all((link.attributes or {})["pika.call"] for call in mine for link in call.links)
    assert sum(len(linked(call)) for call in calls) == len(calls)


def test_later_attempts_are_told_apart(heard: Heard) -> None:
    """A refusal is an error of its own call, and the next attempt says how many came before it."""
    one(gateway([{"on": "create", "first": 2, "do": "refuse"}]))
    calls = [span.attributes or {} for span in heard.spans("POST")]
    assert [
        (call["http.response.status_code"], call.get("error.type"), call.get("http.request.resend_count"))
        for call in calls
    ] == [(429, "429", None), (429, "429", 1), (200, None, 2)]
    assert [span.status.status_code for span in heard.spans("POST")] == [StatusCode.ERROR] * 2 + [StatusCode.UNSET]
    assert {span.status.description for span in heard.spans()} == {None}
    assert heard.points("pika.refusals", "pika.call", "pika.provider") == {("submission", "native"): 2}


@pytest.mark.parametrize(
    ("deed", "options", "status", "error"),
    [
        ({"on": "create", "do": {"fault": "fails"}}, {}, "failed", "GenerationFailed"),
        ({"on": "create", "do": {"fault": "refuse", "as": "task"}}, {}, "rejected", "SubmissionRejected"),
        ({"on": "create", "do": {"fault": "drop"}}, {}, "unknown", "SubmissionInDoubt"),
        ({"on": "create", "do": {"fault": "takes", "seconds": 999}}, {"deadline": 60}, "timed_out", "DeadlineExceeded"),
    ],
)
def test_a_job_that_is_no_success_is_an_error(
    deed: dict[str, Any], options: dict[str, Any], status: str, error: str, heard: Heard
) -> None:
    """Failed, rejected, in doubt, timed out: ERROR, with the error's type and none of its words."""
    one(gateway([deed]), **options)
    span = heard.span("pika.job")
    told = span.attributes or {}
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert (told["pika.job.status"], told["error.type"]) == (status, error)
    assert heard.points("pika.jobs", "pika.job.status") == {(status,): 1}


def test_a_call_without_an_answer_is_an_error(heard: Heard) -> None:
    """The family of the failure is the error's type; the time until it is measured too."""
    one(gateway([{"on": "create", "do": {"fault": "drop"}}]))
    told = heard.span("POST").attributes or {}
    assert told["error.type"] == "disconnected"
    assert "http.response.status_code" not in told
    assert heard.points("pika.doubts", "pika.stratum") == {("native/-/text/plain",): 1}
    assert heard.points("pika.charges") == {}
    assert heard.points("http.client.request.duration", "error.type").keys() == {("disconnected",)}


def test_a_cut_answer_is_an_error(heard: Heard) -> None:
    """A status line that was read does not make an answer whole."""
    one(gateway([{"on": "feed", "first": 1, "do": {"fault": "cut"}}]))
    cut = heard.spans("GET")[0].attributes or {}
    assert (cut["http.response.status_code"], cut["error.type"]) == (200, "cut")


def test_a_call_that_is_given_up_is_ended(heard: Heard) -> None:
    """A submission whose answer the closing client waits for no longer: canceled, and its job is in doubt."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "stall"}}])
        async with client(at, "native") as pika:
            asking = asyncio.create_task(pika.submit("a cat"))
            await asyncio.sleep(1)
        with pytest.raises(SubmissionInDoubt):
            await asking

    virtual_clock.run(story())
    assert (heard.span("POST").attributes or {})["error.type"] == "canceled"
    assert (heard.span("pika.job").attributes or {})["pika.job.status"] == "unknown"
    assert heard.points("pika.doubts") == {(): 1}


def test_what_nobody_waits_for_is_ended(heard: Heard) -> None:
    """A client that closes ends every span: jobs in flight as they are, without an error."""

    async def story() -> None:
        async with client(gateway(), "native", polling=FixedInterval(10)) as pika:
            await pika.submit("a cat")

    virtual_clock.run(story())
    span = heard.span("pika.job")
    assert (span.status.status_code, (span.attributes or {})["pika.job.status"]) == (StatusCode.UNSET, "queued")
    assert heard.points("pika.jobs") == {}


@pytest.mark.parametrize("way", ["a callback", "a person", "a person, unpaid"])
def test_a_job_that_goes_on_after_a_doubt_has_one_span(way: str, heard: Heard) -> None:
    """From planned to at rest, with the doubt in between."""
    begun: list[Any] = []

    class Begun(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            begun.append(span)

    heard.tracer_provider.add_span_processor(Begun())

    async def story() -> None:
        at, told = gateway([{"on": "create", "first": 1, "do": "drop"}]), receiver()
        async with client(at, callbacks=told) as pika:
            asking = asyncio.create_task(pika.generate("a cat", key="cat"))
            if way == "a callback":
                async with notifying(at, told):
                    await asking
            else:
                await asyncio.sleep(100)
                [charge] = at.ledger
                said: dict[str, Any] = {"task_id": charge.task_id} if way == "a person" else {"charged": False}
                await pika.resolve("cat", **said)
                await asking

    virtual_clock.run(story())
    assert [span.name for span in begun if span.end_time is None] == []
    assert (heard.span("pika.job").attributes or {})["pika.job.status"] == "succeeded"


def test_what_is_withdrawn_is_ended(heard: Heard) -> None:
    """A job that is canceled before it is sent comes to rest as canceled."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": "refuse"}])
        async with client(at, "native") as pika:
            asking = asyncio.create_task(pika.generate("a cat"))
            await asyncio.sleep(1)
            asking.cancel()
            await asyncio.wait([asking])

    virtual_clock.run(story())
    assert (heard.span("pika.job").attributes or {})["pika.job.status"] == "canceled"
    assert heard.points("pika.jobs", "pika.job.status") == {("canceled",): 1}


def test_a_look_by_hand_is_the_callers(heard: Heard) -> None:
    """`PikaClient.poll` is counted, and a child of the caller's span, without a job's link."""

    async def story() -> None:
        tracer = heard.tracer_provider.get_tracer("app")
        async with client(gateway(), "native", polling=FixedInterval(999)) as pika:
            job = await pika.submit("a cat")
            with tracer.start_as_current_span("by hand") as mine:
                await pika.poll(job)
                assert trace.get_current_span() is mine

    virtual_clock.run(story())
    look = heard.span("GET")
    assert (look.parent and look.parent.span_id, list(look.links)) == (next(iter(contexts(heard.spans("by hand")))), [])
    assert heard.points("pika.polls", "pika.provider") == {("native",): 1}


def test_what_runs_inside_a_call_is_its_child(heard: Heard) -> None:
    """Spans of an instrumented transport are children of ours; afterwards nothing of it is current."""

    class Instrumented(MemoryTransport):
        async def send(self, request: Any) -> Any:
            with heard.tracer_provider.get_tracer("aiohttp").start_as_current_span("inner"):
                return await super().send(request)

    at = gateway()
    one(at, transport=Instrumented(at))
    outer = [span for span in heard.spans() if span.kind is SpanKind.CLIENT]
    assert {span.parent.span_id for span in heard.spans("inner") if span.parent} == contexts(outer)
    assert len(heard.spans("inner")) == len(outer)


def test_query_and_user_are_not_shown(heard: Heard) -> None:
    """The address of a call is told without what may be a credential; a route is never a stranger's."""

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
    told = heard.spans("HTTP /native/x")[0].attributes or {}
    assert told["url.full"] == "http://127.0.0.1:1/native/x?key=REDACTED&id=REDACTED"
    assert told["http.request.method"] == "_OTHER"
    assert CANARY not in heard.text()


# --- metrics ------------------------------------------------------------------------------------------------------------


def test_times_are_measured(heard: Heard) -> None:
    """Queue, generation and detection, in seconds of the loop: their sum is what a job took, but for its submission."""
    one(gateway(durations="constant:33"))  # accepted after 0.05 s; looks every 10 s, each 0.05 s on its way
    stratum = ("native/-/text/plain",)
    queue = heard.points("pika.job.queue_time", "pika.stratum")
    generation = heard.points("pika.job.generation_time", "pika.stratum")
    delay = heard.points("pika.job.detection_delay", "pika.stratum")
    assert queue == {stratum: pytest.approx(0.05)}
    assert generation[stratum] == pytest.approx((30.15 + 40.2) / 2, abs=0.1)  # seen unsettled, then settled
    assert generation[stratum] + delay[stratum] == pytest.approx(40.2, abs=0.1)
    assert heard.points("http.client.request.duration", "url.template") == {
        ("/native/pika/generate",): pytest.approx(0.05), ("/native/pika/feed/{task_id}",): pytest.approx(0.2),
    }  # fmt: skip
    found = heard.metrics()
    assert {
        name: found[name].unit for name in found if found[name].data.data_points[0].__class__.__name__[0] == "H"
    } == dict.fromkeys(
        ("http.client.request.duration", "pika.job.queue_time", "pika.job.generation_time", "pika.job.detection_delay"),
        "s",
    )
    assert found["http.client.request.duration"].data.data_points[0].explicit_bounds == (
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
    )  # fmt: skip


def test_waiting_counts_as_queueing(heard: Heard) -> None:
    """The time until acceptance holds every attempt that was refused."""
    one(gateway([{"on": "create", "first": 1, "do": {"fault": "refuse", "retry_after": "20"}}]))
    [waited] = heard.points("pika.job.queue_time").values()
    assert 20 < waited < 60


def test_counts(heard: Heard) -> None:
    """Charges, polls and jobs are what the gateway's ledger and the jobs say; nothing is counted as a doubt."""

    async def story() -> list[Any]:
        at = gateway(durations="lognormal:30,0.3", seed=3)
        async with client(at, "native", polling=FixedInterval(10)) as pika:
            jobs = (await pika.run([f"prompt {n}" for n in range(20)])).jobs
        assert len(at.ledger) == 20
        return jobs

    jobs = virtual_clock.run(story())
    assert heard.points("pika.charges", "pika.provider", "pika.stratum") == {("native", "native/-/text/plain"): 20}
    assert heard.points("pika.polls") == {(): sum(job.polls for job in jobs)}
    assert heard.points("pika.jobs", "pika.job.status") == {("succeeded",): 20}
    assert heard.points("pika.doubts") == heard.points("pika.refusals") == {}
    assert {
        metric.data.data_points[0].count for name, metric in heard.metrics().items() if name.startswith("pika.job.")
    } == {20}


def test_a_resumed_job_has_no_times(heard: Heard) -> None:
    """What an earlier opening had sent has a span, and is looked at; how long it took is not known."""

    async def story() -> None:
        pika = client(gateway(), "native", polling=FixedInterval(10))
        async with pika:
            await pika.submit("a cat")
        async with pika:
            assert (await pika.resume()).ok

    virtual_clock.run(story())
    assert [(span.attributes or {})["pika.job.status"] for span in heard.spans("pika.job")] == ["queued", "succeeded"]
    assert heard.points("pika.charges") == {(): 1}
    assert {"pika.job.generation_time", "pika.job.detection_delay"} & heard.metrics().keys() == set()


def test_refused_looks_are_told_from_refused_submissions(heard: Heard) -> None:
    """HTTP 429 on a poll counts as a poll's."""
    one(gateway([{"on": "feed", "first": 1, "do": "refuse"}]))
    assert heard.points("pika.refusals", "pika.call") == {("poll",): 1}


# --- harmlessness -------------------------------------------------------------------------------------------------------


class Broken:
    """Raises whatever is asked of it, but for what it is told to do."""

    def __init__(self, **does: Any) -> None:
        self.__dict__.update(does)

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
def test_telemetry_that_raises_harms_no_job(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of it fails, each job is paid for once and succeeds; that is said once."""
    tell(monkeypatch, *_broken(where))

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


def test_providers_that_cannot_be_used_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Global providers that raise when they are asked for a tracer leave a client without telemetry."""
    monkeypatch.setattr("opentelemetry.trace.get_tracer", Broken().get_tracer)
    assert one(gateway()).status is S.SUCCEEDED
    assert [(record.name, record.levelname) for record in caplog.records] == [("pika_async.telemetry", "WARNING")]


@pytest.mark.parametrize("tracers", [NoOpTracerProvider(), TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)])
def test_a_job_that_nobody_records_is_kept_nowhere(tracers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a tracer does not record, a waiting job has no span and no place in any dict."""
    made = tell(monkeypatch, tracers, NoOpMeters)

    async def story() -> None:
        async with client(gateway(), "native", polling=FixedInterval(10)) as pika:
            for n in range(5):
                await pika.submit(f"prompt {n}")
            assert [each._spans for each in made] == [{}]

    virtual_clock.run(story())


def test_no_span_outlives_its_job(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """When all are at rest none is held."""
    made = tell(monkeypatch, heard.tracer_provider, heard.meter_provider)
    one(gateway())
    assert [each._spans for each in made] == [{}]


def test_a_client_may_be_opened_again(heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """The same instruments are made again without a complaint."""

    async def story() -> None:
        pika = client(gateway(), "native", polling=FixedInterval(10))
        for n in range(3):
            async with pika:
                assert (await pika.run([f"prompt {n}"])).ok

    virtual_clock.run(story())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert heard.points("pika.charges") == {(): 3}


def test_silence_has_every_call() -> None:
    """The stand-in takes the same calls with the same parameters."""
    for name, method in vars(NullTelemetry).items():
        if not name.startswith("_"):
            assert inspect.signature(method) == inspect.signature(inspect.unwrap(getattr(OtelTelemetry, name))).replace(
                return_annotation=inspect.signature(method).return_annotation
            )


# --- secrets ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("provider", ["native", "cometapi"])
async def test_nothing_secret_is_told(provider: str, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no prompt and no callback's address is in any span or metric of a run with faults."""
    callbacks = listening(provider, monkeypatch)
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
    told = heard.text()
    assert "pika.job.key" in told
    assert "CANARY" not in told


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


def test_without_the_package_nothing_is_imported() -> None:
    """Where OpenTelemetry is not installed a client works the same, in silence."""
    before = (
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'opentelemetry': raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
    )
    after = "print(json.dumps([ok, kind, [n for n in sys.modules if n.startswith('opentelemetry')]]))"
    assert run_story(before, after) == [True, "NullTelemetry", []]


def test_the_global_providers_are_used() -> None:
    """What an application has set up hears of a client without being handed to it."""
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
        "pika.job.queue_time", "pika.jobs", "pika.polls",
    ]  # fmt: skip
