"""Telemetry through OpenTelemetry's API: the only file that knows it. Nothing that it raises reaches a job.

A job's span is a child of whatever span is current where the job was asked for. The spans of its submissions and looks
are roots of their own, linked to it and it to them: a job outlives what most backends take for one trace, and a batch
of 10,000 would be one trace of 100,000 spans, kept or dropped as a whole. A look that somebody asked for by hand is a
child of the caller's span. No span holds a key, a prompt, a body, a callback's address or a provider's words.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from contextvars import Token
from importlib.metadata import version
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import attrs
from opentelemetry import context, metrics, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from pika_async._planning.actions import ActiveJob
from pika_async._runtime.telemetry.null import NullTelemetry, RequestKind
from pika_async.errors import strip_control
from pika_async.jobs import FINAL, Job, JobStatus
from pika_async.logs import SHOWN
from pika_async.polling.durations import DurationSample
from pika_async.providers._provider import Provider
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure

__all__ = ["OtelTelemetry"]

_log = logging.getLogger("pika_async.telemetry")

SCOPE: Final = "pika_async"
#: Read once, at import: the metadata is a file.
VERSION: Final = version(SCOPE)
#: Seconds, as the HTTP conventions advise.
HTTP_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
#: Seconds that jobs and looks take.
JOB_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
#: Any other method is one that a backend need not know.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
FAILED: Final = frozenset({JobStatus.FAILED, JobStatus.REJECTED, JobStatus.UNKNOWN, JobStatus.TIMED_OUT})
#: Stands for a task id in a route.
TASK_ID: Final = "{task_id}"

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class _Sending:
    """A call that is on its way."""

    call: RequestKind
    span: Span
    token: Token[context.Context]
    began: float
    #: Of the HTTP metric, and of ours.
    http: dict[str, Any]
    ours: dict[str, Any]


def _never_raises(
    method: Callable[Concatenate[OtelTelemetry, P], R],
) -> Callable[Concatenate[OtelTelemetry, P], R | None]:
    """`method`, which calls somebody else's providers and exporters: what they raise is said once."""

    @functools.wraps(method)
    def guarded(self: OtelTelemetry, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.complain(error)
            return None

    return guarded


class OtelTelemetry(NullTelemetry):
    """Tells the providers of one application of one client. Providers are the global ones unless given.

    A job has a place here only while its span records.
    """

    def __init__(
        self,
        provider: Provider,
        base_url: str,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._provider = provider.name
        self._spans: dict[ActiveJob, Span] = {}
        self._complained = False
        self._routes = _routes(provider, base_url)
        at = urlsplit(base_url)
        port = at.port or (443 if at.scheme == "https" else 80)
        self._server = {"server.address": at.hostname or "", "server.port": port}
        self._tracer = trace.get_tracer(SCOPE, VERSION, tracer_provider)
        meter = metrics.get_meter(SCOPE, VERSION, meter_provider)
        self._duration = meter.create_histogram(
            "http.client.request.duration", "s", "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=HTTP_SECONDS,
        )  # fmt: skip
        self._charges = meter.create_counter("pika.charges", "{charge}", "Submissions that were accepted.")
        self._doubts = meter.create_counter("pika.doubts", "{submission}", "Submissions that may have been accepted.")
        self._polls = meter.create_counter("pika.polls", "{poll}", "Looks that were sent.")
        self._refusals = meter.create_counter("pika.refusals", "{answer}", "Answers of HTTP 429.")
        self._jobs = meter.create_counter("pika.jobs", "{job}", "Jobs that were settled, or parked as unsettled.")
        self._queue_time, self._generation_time, self._detection_delay = (
            meter.create_histogram(name, "s", what, explicit_bucket_boundaries_advisory=JOB_SECONDS)
            for name, what in (
                ("pika.job.queue_time", "From planned to accepted."),
                ("pika.job.generation_time", "From accepted to settled: the middle of the interval that is known."),
                ("pika.job.detection_delay", "From that middle to the look that found it."),
            )
        )

    def complain(self, error: Exception) -> None:
        """Say what a provider or an exporter raised, once."""
        if not self._complained:
            self._complained = True
            _log.warning("telemetry failed, no job is harmed: %s", strip_control(repr(error)))

    def _alike(self, stratum: str) -> dict[str, Any]:
        return {"pika.provider": self._provider, "pika.stratum": stratum}

    # --- jobs -------------------------------------------------------------------------------------------------------

    @_never_raises
    def job_started(self, entry: ActiveJob) -> None:
        if entry in self._spans:  # it was in doubt, and goes on
            return
        told = {"pika.job.key": strip_control(entry.job.key), **self._alike(entry.stratum)}
        span = self._tracer.start_span("pika.job", kind=SpanKind.INTERNAL, attributes=told)
        if span.is_recording():
            self._spans[entry] = span

    @_never_raises
    def job_finished(self, entry: ActiveJob) -> None:
        job, span = entry.job, self._spans.pop(entry, None)
        if span is not None:
            span.set_attributes({
                "pika.job.status": job.status.value,
                "pika.job.attempts": job.attempts,
                "pika.job.polls": job.polls,
            })  # fmt: skip
            if job.task_id is not None:
                span.set_attribute("pika.task.id", strip_control(job.task_id[:SHOWN]))
            if job.status in FAILED:
                span.set_attribute("error.type", "_OTHER" if job.error is None else job.error.type)
                span.set_status(StatusCode.ERROR)
            span.end()
        if job.status in FINAL | FAILED:
            self._jobs.add(1, {**self._alike(entry.stratum), "pika.job.status": job.status.value})

    @_never_raises
    def submission_finished(self, job: Job, waited: float | None = None) -> None:
        if job.status is JobStatus.UNKNOWN:
            self._doubts.add(1, self._alike(job.stratum))
        elif job.status is JobStatus.QUEUED:
            self._charges.add(1, self._alike(job.stratum))
            if waited is not None:
                self._queue_time.record(waited, self._alike(job.stratum))

    @_never_raises
    def duration_observed(self, seen: DurationSample, age: float) -> None:
        middle = (seen.lower + seen.upper) / 2
        self._generation_time.record(middle, self._alike(seen.stratum))
        self._detection_delay.record(max(0.0, age - middle), self._alike(seen.stratum))

    # --- calls ------------------------------------------------------------------------------------------------------

    @_never_raises
    def request_started(self, call: RequestKind, request: HttpRequest, entry: ActiveJob | None) -> _Sending:
        route = self._routes[call]
        method = request.method if request.method in METHODS else "_OTHER"
        http = {"http.request.method": method, **self._server, "url.template": route}
        told: dict[str, Any] = {**http, "url.full": _shown(request.url)}
        if entry is not None and call is RequestKind.SUBMISSION and entry.job.attempts > 1:
            told["http.request.resend_count"] = entry.job.attempts - 1
        job = None if entry is None else self._spans.get(entry)
        kind = {"pika.call": call.value}
        around = context.Context() if entry is not None else context.get_current()
        span = self._tracer.start_span(
            f"{'HTTP' if method == '_OTHER' else method} {route}",
            around,
            SpanKind.CLIENT,
            told,
            None if job is None else [Link(job.get_span_context(), kind)],
        )
        if job is not None and span.is_recording():
            job.add_link(span.get_span_context(), kind)
        ours = {"pika.provider": self._provider} if entry is None else self._alike(entry.stratum)
        began = asyncio.get_running_loop().time()
        token = context.attach(trace.set_span_in_context(span, around))
        return _Sending(call, span, token, began, http, ours)

    @_never_raises
    def request_finished(self, sending: object, answer: HttpResponse | TransportFailure | None) -> None:
        if not isinstance(sending, _Sending):
            return
        context.detach(sending.token)
        seconds = asyncio.get_running_loop().time() - sending.began
        told: dict[str, Any] = {}
        if isinstance(answer, HttpResponse):
            told["http.response.status_code"] = answer.status
        error = _error_type(answer)
        if error is not None:
            told["error.type"] = error
            sending.span.set_status(StatusCode.ERROR)
        sending.span.set_attributes(told)
        sending.span.end()
        self._duration.record(seconds, {**sending.http, **told})
        if sending.call is RequestKind.POLL:
            self._polls.add(1, sending.ours)
        if isinstance(answer, HttpResponse) and answer.status == 429:
            self._refusals.add(1, {**sending.ours, "pika.call": sending.call.value})


def _error_type(answer: HttpResponse | TransportFailure | None) -> str | None:
    match answer:
        case None:
            return "canceled"
        case TransportFailure():
            return answer.kind
        case HttpResponse(status=status) if status >= 400:
            return str(status)
        case HttpResponse(complete=False):
            return "cut"
    return None


def _routes(provider: Provider, base_url: str) -> dict[RequestKind, str]:
    """The path of each call, with a word where the task id stands."""
    create = base_url + provider.dialect.create_path
    try:
        poll = provider.encode_poll(TASK_ID, base_url).url
    except Exception:  # a third party's may take no id but its own
        poll = base_url
    return {RequestKind.SUBMISSION: urlsplit(create).path or "/", RequestKind.POLL: unquote(urlsplit(poll).path) or "/"}


def _shown(url: str) -> str:
    """`url` without a user, and without the values of its query."""
    parts = urlsplit(url)
    query = urlencode([(name, "REDACTED") for name, _ in parse_qsl(parts.query, keep_blank_values=True)])
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
