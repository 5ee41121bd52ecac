"""Telemetry through OpenTelemetry's API. Its exceptions never reach a job.

The span of a job is a child of the span that is current where the job was requested. The spans of its submissions and
polls are roots of their own, linked to it in both directions: a job lasts longer than most backends accept for one
trace, and a batch of 10,000 jobs would be one trace of 100,000 spans, sampled or dropped as a whole. A poll through
`PikaClient.poll` is a child of the caller's span. No span contains an API key, a prompt, a body, a callback URL or a
provider's message.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
from collections.abc import Callable
from contextvars import Token
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import attrs
from opentelemetry import context, metrics, trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode

from pika_async import __version__
from pika_async._planning.actions import ActiveJob
from pika_async._runtime.telemetry.null import NullTelemetry, RequestKind
from pika_async.errors import strip_control
from pika_async.jobs import FINAL, Job, JobStatus
from pika_async.logs import SHOWN_CHARS
from pika_async.polling.durations import DurationSample
from pika_async.providers._provider import Provider
from pika_async.providers._wire import HttpRequest, HttpResponse, TransportFailure

__all__ = ["OtelTelemetry"]

_log = logging.getLogger("pika_async.telemetry")

SCOPE: Final = "pika_async"
#: Read once, at import: the metadata is a file.
PACKAGE_VERSION: Final = __version__
#: Bucket boundaries in seconds, as OpenTelemetry's HTTP conventions advise.
HTTP_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
#: Bucket boundaries in seconds for the durations of jobs.
JOB_BUCKETS_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)
#: The methods that the HTTP conventions list; any other is recorded as `_OTHER`.
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
FAILED: Final = frozenset({JobStatus.FAILED, JobStatus.REJECTED, JobStatus.UNKNOWN, JobStatus.TIMED_OUT})
#: Replaces the task id in a route.
TASK_ID: Final = "{task_id}"

P = ParamSpec("P")
R = TypeVar("R")


@attrs.frozen
class _Request:
    """A request without a response yet."""

    kind: RequestKind
    span: Span
    token: Token[context.Context]
    started_at: float
    #: Attributes of the HTTP metric.
    http: dict[str, Any]
    #: Attributes of the metrics of this package.
    own: dict[str, Any]


def _never_raises(
    method: Callable[Concatenate[OtelTelemetry, P], R],
) -> Callable[Concatenate[OtelTelemetry, P], R | None]:
    """Wrap *method* so that the exceptions of providers and exporters are logged once and never raised."""

    @functools.wraps(method)
    def guarded(self: OtelTelemetry, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            self.log_once(error)
            return None

    return guarded


class OtelTelemetry(NullTelemetry):
    """Telemetry of one client. Keeps a job only while its span is recording.

    :param provider: names the routes of the gateway.
    :param base_url: the gateway's URL.
    :param tracer_provider: default: the global one.
    :param meter_provider: default: the global one.
    """

    def __init__(
        self,
        provider: Provider,
        base_url: str,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self.set_gateway(provider, base_url)
        self._spans: dict[ActiveJob, Span] = {}
        #: The first failure, which was logged; shared with the telemetry of other gateways.
        self._failures: list[str] = []
        self._tracer = trace.get_tracer(SCOPE, PACKAGE_VERSION, tracer_provider)
        meter = metrics.get_meter(SCOPE, PACKAGE_VERSION, meter_provider)
        self._duration = meter.create_histogram(
            "http.client.request.duration", "s", "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=HTTP_BUCKETS_S,
        )  # fmt: skip
        self._charges = meter.create_counter("pika.charges", "{charge}", "Submissions that were accepted.")
        self._cost = meter.create_counter(
            "pika.cost", "{money}", "Price of the submissions that were accepted, in the unit of the prices."
        )
        self._in_doubt = meter.create_counter(
            "pika.submissions_in_doubt", "{submission}", "Submissions that may have been accepted."
        )
        self._polls = meter.create_counter("pika.polls", "{poll}", "Polls that were sent.")
        self._rate_limited = meter.create_counter("pika.rate_limited", "{response}", "Responses of HTTP 429.")
        self._jobs_finished = meter.create_counter(
            "pika.jobs_finished", "{job}", "Jobs that settled, are in doubt or timed out."
        )
        self._queue_time, self._generation_time, self._detection_delay = (
            meter.create_histogram(name, "s", what, explicit_bucket_boundaries_advisory=JOB_BUCKETS_S)
            for name, what in (
                ("pika.job.queue_time", "From planned to accepted."),
                ("pika.job.generation_time", "From accepted to settled: the middle of the known interval."),
                ("pika.job.detection_delay", "From that middle to the poll that found the task settled."),
            )
        )

    def set_gateway(self, provider: Provider, base_url: str) -> None:
        """Record requests as those to this gateway from now on."""
        self._provider = provider.name
        self._routes = _routes(provider, base_url)
        url = urlsplit(base_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        self._server = {"server.address": url.hostname or "", "server.port": port}

    def for_gateway(self, provider: Provider, base_url: str) -> OtelTelemetry:
        other = copy.copy(self)  # with the same instruments and spans
        other.set_gateway(provider, base_url)
        return other

    def log_once(self, error: Exception) -> None:
        """Log the first exception of a provider or an exporter."""
        if not self._failures:
            self._failures.append(repr(error))
            _log.warning("telemetry failed; jobs are not affected: %s", strip_control(repr(error)))

    def _attributes(self, stratum: str) -> dict[str, Any]:
        return {"pika.provider": stratum.partition("/")[0], "pika.stratum": stratum}

    # --- jobs -------------------------------------------------------------------------------------------------------

    @_never_raises
    def job_started(self, active: ActiveJob) -> None:
        if active in self._spans:  # the job was in doubt and continues
            return
        attributes = {"pika.job.key": strip_control(active.job.key), **self._attributes(active.stratum)}
        span = self._tracer.start_span("pika.job", kind=SpanKind.INTERNAL, attributes=attributes)
        if span.is_recording():
            self._spans[active] = span

    @_never_raises
    def job_finished(self, active: ActiveJob) -> None:
        job, span = active.job, self._spans.pop(active, None)
        if span is not None:
            span.set_attributes({
                "pika.job.status": job.status.value,
                "pika.job.attempts": job.attempts,
                "pika.job.polls": job.polls,
            })  # fmt: skip
            if job.task_id is not None:
                span.set_attribute("pika.task.id", strip_control(job.task_id[:SHOWN_CHARS]))
            if job.status in FAILED:
                span.set_attribute("error.type", "_OTHER" if job.error is None else job.error.type)
                span.set_status(StatusCode.ERROR)
            span.end()
        if job.status in FINAL | FAILED:
            self._jobs_finished.add(1, {**self._attributes(active.stratum), "pika.job.status": job.status.value})

    @_never_raises
    def submission_finished(self, job: Job, queue_time: float | None = None) -> None:
        if job.status is JobStatus.UNKNOWN:
            self._in_doubt.add(1, self._attributes(job.stratum))
        elif job.status is JobStatus.QUEUED:
            attributes = {**self._attributes(job.stratum), "pika.account": job.account or job.provider}
            self._charges.add(1, attributes)
            if job.cost is not None:
                self._cost.add(job.cost, attributes)
            if queue_time is not None:
                self._queue_time.record(queue_time, self._attributes(job.stratum))

    @_never_raises
    def duration_observed(self, sample: DurationSample, age: float) -> None:
        middle = (sample.lower + sample.upper) / 2
        self._generation_time.record(middle, self._attributes(sample.stratum))
        self._detection_delay.record(max(0.0, age - middle), self._attributes(sample.stratum))

    # --- requests ---------------------------------------------------------------------------------------------------

    @_never_raises
    def request_started(self, kind: RequestKind, request: HttpRequest, active: ActiveJob | None) -> _Request:
        route = self._routes[kind]
        method = request.method if request.method in METHODS else "_OTHER"
        http = {"http.request.method": method, **self._server, "url.template": route}
        attributes: dict[str, Any] = {**http, "url.full": _redacted(request.url)}
        if active is not None and kind is RequestKind.SUBMISSION and active.job.attempts > 1:
            attributes["http.request.resend_count"] = active.job.attempts - 1
        job = None if active is None else self._spans.get(active)
        link = {"pika.request.kind": kind.value}
        parent = context.Context() if active is not None else context.get_current()
        span = self._tracer.start_span(
            f"{'HTTP' if method == '_OTHER' else method} {route}",
            parent,
            SpanKind.CLIENT,
            attributes,
            None if job is None else [Link(job.get_span_context(), link)],
        )
        if job is not None and span.is_recording():
            job.add_link(span.get_span_context(), link)
        own = {"pika.provider": self._provider} if active is None else self._attributes(active.stratum)
        started_at = asyncio.get_running_loop().time()
        token = context.attach(trace.set_span_in_context(span, parent))
        return _Request(kind, span, token, started_at, http, own)

    @_never_raises
    def request_finished(self, started: object, response: HttpResponse | TransportFailure | None) -> None:
        if not isinstance(started, _Request):
            return
        context.detach(started.token)
        seconds = asyncio.get_running_loop().time() - started.started_at
        result: dict[str, Any] = {}
        if isinstance(response, HttpResponse):
            result["http.response.status_code"] = response.status
        error = _error_type(response)
        if error is not None:
            result["error.type"] = error
            started.span.set_status(StatusCode.ERROR)
        started.span.set_attributes(result)
        started.span.end()
        self._duration.record(seconds, {**started.http, **result})
        if started.kind is RequestKind.POLL:
            self._polls.add(1, started.own)
        if isinstance(response, HttpResponse) and response.status == 429:
            self._rate_limited.add(1, {**started.own, "pika.request.kind": started.kind.value})


def _error_type(response: HttpResponse | TransportFailure | None) -> str | None:
    match response:
        case None:
            return "canceled"
        case TransportFailure():
            return response.kind
        case HttpResponse(status=status) if status >= 400:
            return str(status)
        case HttpResponse(complete=False):
            return "cut"
    return None


def _routes(provider: Provider, base_url: str) -> dict[RequestKind, str]:
    """Return the path of each kind of request, with a placeholder for the task id."""
    path = provider.dialect.create_path
    create = base_url + path if isinstance(path, str) else base_url
    try:
        poll = provider.encode_poll(TASK_ID, base_url).url
    except Exception:  # a third-party provider may reject the placeholder
        poll = base_url
    paths = {RequestKind.SUBMISSION: create, RequestKind.POLL: poll, RequestKind.FREE: base_url}
    return {kind: unquote(urlsplit(url).path) or "/" for kind, url in paths.items()}


def _redacted(url: str) -> str:
    """Return *url* without user, fragment and the values of its query."""
    if not any(mark in url for mark in "@?#"):
        return url
    parts = urlsplit(url)
    query = urlencode([(name, "REDACTED") for name, _ in parse_qsl(parts.query, keep_blank_values=True)])
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
