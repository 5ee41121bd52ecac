"""Emulated gateway: takes a request and the current time, returns an answer. Has no clock, sockets or event loop."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, TypedDict

import attrs

from pika_async.emulator import cdn, replies, request_schemas
from pika_async.emulator.callback_queue import CallbackQueue
from pika_async.emulator.durations import Durations
from pika_async.emulator.fault_effects import apply_fault
from pika_async.emulator.feeds import FeedWriter, unknown_task_answer
from pika_async.emulator.ledger import Ledger
from pika_async.emulator.records import (
    Answer,
    Callback,
    CdnRequest,
    Charge,
    FaultEffect,
    Polls,
    Refusal,
    RequestLogEntry,
    Task,
)
from pika_async.emulator.routes import Route, find_route
from pika_async.emulator.scenario import Scenario, ScenarioRun

__all__ = ["Gateway", "GatewayOptions"]

#: Number of API requests that the log keeps; the oldest entries are dropped first.
REQUEST_LOG_SIZE = 200_000


class GatewayOptions(TypedDict, total=False):
    """The keyword arguments of :class:`Gateway`."""

    durations: str
    time_scale: float
    in_flight: int | Mapping[str, int] | None
    seed: int
    scenario: Scenario | Iterable[Mapping[str, Any]] | None
    api_key: str
    envelope: replies.Envelope
    failure_rate: float
    failure_reason: str
    retry_after: float | None
    url_lifetime: float | None
    max_body: int
    video_seconds: float
    cdn_url: str
    epoch: float


def _check_share(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, not {value!r}")


def _check_positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{attribute.name} must be a finite number above 0, not {value!r}")


def _check_envelope(_: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if value not in replies.ENVELOPES:
        raise ValueError(f"envelope must be one of {', '.join(replies.ENVELOPES)}, not {value!r}")


def _to_durations(durations: str | Durations) -> Durations:
    return durations if isinstance(durations, Durations) else Durations.parse(durations)


def _to_scenario(rules: Scenario | Iterable[Mapping[str, Any]] | None) -> Scenario:
    return rules if isinstance(rules, Scenario) else Scenario.of(rules or ())


@attrs.define(kw_only=True, eq=False)
class Gateway:
    """Emulation of the four gateways, as their pages document them: accepts, charges, settles and reports tasks.

    :param durations: how long generations take, in seconds (see :class:`Durations`); default ``lognormal:60,0.5``.
    :param time_scale: factor of every duration given here or in a scenario; default 1.0.
    :param in_flight: maximum number of unsettled tasks of each account, or of each by provider; default unlimited.
        There is one account per provider. Creates beyond the maximum are answered with 429.
    :param seed: seed of durations, failures and task ids, which depend on it and on the number of the accepted create;
        default 0.
    :param scenario: a :class:`Scenario`, or the rules of one; default no faults.
    :param api_key: the key that every account accepts; default ``emulator-key``.
    :param envelope: shape of CometAPI's feed (see :data:`~pika_async.emulator.replies.Envelope`); default ``a``.
    :param failure_rate: probability that a task fails, 0 to 1; default 0.
    :param failure_reason: error text of a failed task.
    :param retry_after: seconds of the ``Retry-After`` header of a 429, rounded up to at least 1; default 5.
        ``None`` sends no header.
    :param url_lifetime: seconds after a poll until the result URLs in its answer expire; default never.
    :param max_body: maximum size of a request body in bytes; default 1,000,000. Larger bodies are answered with 413.
    :param video_seconds: duration of the rendered videos in seconds; default 5.
    :param cdn_url: origin of the result URLs. :class:`Emulator` sets it to its own.
    :param epoch: unix time at which ``now`` is 0. :class:`Emulator` sets it to the time of its start.
    :raises ValueError: if a value is invalid. :class:`ScenarioError` is a ``ValueError``.
    """

    durations: Durations = attrs.field(default=Durations.parse("lognormal:60,0.5"), converter=_to_durations)
    time_scale: float = attrs.field(default=1.0, validator=_check_positive)
    in_flight: int | Mapping[str, int] | None = None
    seed: int = 0
    scenario: Scenario = attrs.field(default=Scenario(), converter=_to_scenario)
    api_key: str = attrs.field(default="emulator-key", repr=False)
    envelope: replies.Envelope = attrs.field(default="a", validator=_check_envelope)
    failure_rate: float = attrs.field(default=0.0, validator=_check_share)
    failure_reason: str = "generation failed: the upstream model returned an error"
    retry_after: float | None = 5.0
    url_lifetime: float | None = None
    max_body: int = 1_000_000
    video_seconds: float = attrs.field(default=5.0, validator=_check_positive)
    cdn_url: str = "https://cdn.invalid"
    epoch: float = 1_741_587_817.0

    polls: Polls = attrs.field(init=False, factory=Polls)
    refusals: list[Refusal] = attrs.field(init=False, factory=list, repr=False)
    #: The API requests, the newest 200,000 of them.
    requests: deque[RequestLogEntry] = attrs.field(
        init=False, repr=False, factory=lambda: deque(maxlen=REQUEST_LOG_SIZE)
    )
    cdn_requests: list[CdnRequest] = attrs.field(init=False, factory=list, repr=False)

    _scenario_run: ScenarioRun = attrs.field(init=False, repr=False)
    _ledger: Ledger = attrs.field(init=False, repr=False)
    _callback_queue: CallbackQueue = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        limits = self.in_flight.values() if isinstance(self.in_flight, Mapping) else [self.in_flight]
        if any(limit is not None and limit < 0 for limit in limits):
            raise ValueError(f"in_flight must be >= 0, not {self.in_flight!r}")
        self._scenario_run = ScenarioRun(self.scenario, Random(f"{self.seed}:script"), self.time_scale)
        self._ledger = Ledger(
            durations=self.durations,
            time_scale=self.time_scale,
            seed=self.seed,
            failure_rate=self.failure_rate,
            failure_reason=self.failure_reason,
        )
        self._callback_queue = CallbackQueue(
            scenario_run=self._scenario_run,
            time_scale=self.time_scale,
            feed_data=lambda task, now: self._feed_writer().data(task, now),
        )

    @property
    def ledger(self) -> list[Charge]:
        """The charges, one for each accepted create, recorded before the answer is returned."""
        return self._ledger.charges

    @property
    def tasks(self) -> dict[str, Task]:
        """The accepted tasks by their ids."""
        return self._ledger.tasks

    @property
    def cdn_credentials(self) -> list[CdnRequest]:
        """The CDN requests that carried a credential. A correct client sends none."""
        return [request for request in self.cdn_requests if request.credentials]

    def count_in_flight(self, provider: str, now: float) -> int:
        """Return the number of charged tasks of a provider's account that have not settled."""
        return self._ledger.count_in_flight(provider, now)

    def _feed_writer(self) -> FeedWriter:
        # Not cached, because the server sets `cdn_url` and `epoch` when it starts.
        return FeedWriter(
            epoch=self.epoch,
            duration=self.video_seconds,
            time_scale=self.time_scale,
            url_lifetime=self.url_lifetime,
            cdn_url=self.cdn_url,
            envelope=self.envelope,
        )

    # -- the API origin ------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        """Answer one API request.

        :param path: path of the URL, with the query if there is one.
        :param headers: headers of the request, with names in any case.
        :param now: time in seconds, not earlier than that of any previous request.
        """
        if self._scenario_run.started is None:
            self._scenario_run.started = now
        answer = self._answer(method, path, _lowered(headers), body, now)
        fault = answer.effect.name if answer.effect else None
        self.requests.append(RequestLogEntry(method, path, answer.status, now, fault))
        return answer

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        route = find_route(method, path)
        if isinstance(route, Answer):
            return route
        provider = route.provider or "native"
        if headers.get("authorization") != f"Bearer {self.api_key}":
            message = 'Authorization must be "Bearer" and the key'
            return self._log_refusal(replies.error_answer(provider, 401, "invalid_api_key", message), provider, now)
        if route.task_id is not None:
            return self._feed(route.provider, route.task_id, now)
        problem, value = self._read_json(headers, body)
        if problem is not None:
            return self._log_refusal(problem, provider, now)
        return self._post_feed(value, now) if route.feeds else self._post_create(route, value, body, now)

    def _read_json(self, headers: Mapping[str, str], body: bytes) -> tuple[Answer | None, Any]:
        """Return an error answer and no value, or no error and the decoded JSON body."""
        if len(body) > self.max_body:
            message = f"the body exceeds {self.max_body} bytes"
            return replies.error_answer("", 413, "body_too_large", message), None
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _invalid("Content-Type", "must be application/json"), None
        try:
            return None, json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return _invalid("", "the body must be JSON in UTF-8"), None

    def _log_refusal(self, answer: Answer, provider: str, now: float) -> Answer:
        """Log a refusal and return its answer unchanged."""
        reply = answer.json()
        error = reply.get("error", reply)
        field = error.get("param") or ""
        self.refusals.append(Refusal(provider, answer.status, error["code"], field, error["message"], now))
        return answer

    def _post_create(self, route: Route, body: Any, raw: bytes, now: float) -> Answer:
        provider = route.provider or _provider_for(body)
        problem = request_schemas.check_create(provider, body)
        if problem is not None:
            return self._log_refusal(_invalid(problem.field, problem.text), provider, now)
        limit = self.in_flight.get(provider) if isinstance(self.in_flight, Mapping) else self.in_flight
        if limit is not None and self.count_in_flight(provider, now) >= limit:
            return self._log_refusal(self._saturated(provider, limit), provider, now)
        return self._accept(provider, request_schemas.parse_create(provider, body), raw, now)

    def _saturated(self, provider: str, limit: int) -> Answer:
        headers = {}
        if self.retry_after is not None:
            # The header holds whole seconds (RFC 9110, section 10.2.3).
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after * self.time_scale)))
        message = f"the current group is saturated: {limit} tasks in flight, please try again later"
        return replies.error_answer(provider, 429, "rate_limit_exceeded", message, headers=headers)

    def _accept(self, provider: str, spec: request_schemas.GenerationSpec, raw: bytes, now: float) -> Answer:
        fault = self._scenario_run.fault_for("create", _CreateTarget("", provider, spec.prompt), now)
        if fault is not None and not fault.charges:
            # The task is not accepted, so the answer must not contain a task id.
            answer = replies.error_answer(provider, 502, "upstream_error", "the upstream did not accept the task")
            return apply_fault(answer, fault, provider=provider, time_scale=self.time_scale)
        task_count = len(self.tasks)
        task = self._ledger.accept(provider, spec, raw, fault, now)
        if len(self.tasks) > task_count:
            self._callback_queue.add(task)
        answer = replies.create_answer(provider, task.id)
        if fault is None:
            return answer
        return apply_fault(answer, fault, provider=provider, time_scale=self.time_scale, task_id=task.id)

    def _post_feed(self, body: object, now: float) -> Answer:
        match body:
            case {"task_id": str(task_id), **others} if not others:
                return self._feed("cometapi", task_id, now)
            case {"task_id": str(), **others}:
                problem = _invalid(str(next(iter(others))), "must not be given: this page has no such field")
            case {"task_id": _}:
                problem = _invalid("task_id", "must be a string")
            case _:
                problem = _invalid("task_id", "is required")
        return self._log_refusal(problem, "cometapi", now)

    def _feed(self, provider: str | None, task_id: str, now: float) -> Answer:
        self.polls.add(task_id)
        task = self.tasks.get(task_id)
        if task is None or not _is_visible(provider, task):
            return self._log_refusal(unknown_task_answer(provider or "native"), provider or "native", now)
        fault = self._scenario_run.fault_for("feed", task, now)
        if fault is None:
            return self._feed_writer().answer(task, now)
        answer = self._feed_writer().faulty_answer(task, self._ledger.another_task(task), fault, now)
        return apply_fault(answer, fault, provider=task.provider, time_scale=self.time_scale, task_id=task.id)

    # -- the CDN origin ------------------------------------------------------------------------------------------

    def locate(self, method: str, path: str, headers: Mapping[str, str], now: float) -> cdn.Media | Answer:
        """Return the file that a CDN request names, to be passed to :meth:`serve`, or an error answer."""
        media = self._find_media(method, path, now)
        return self._log_cdn_request(method, path, headers, media, now) if isinstance(media, Answer) else media

    def _find_media(self, method: str, path: str, now: float) -> cdn.Media | Answer:
        parts = cdn.parse_media_path(path)
        task = self.tasks.get(parts[0]) if parts else None
        if parts is None or task is None or task.settles_at > now or task.failure is not None:
            return replies.not_found()
        if method not in ("GET", "HEAD"):
            return Answer(405, {"Allow": "GET, HEAD"}, b"")
        _, kind, expires_at = parts
        if expires_at is not None and now > expires_at:
            return cdn.expired_answer(403)
        fault = self._scenario_run.fault_for("cdn", task, now)
        if fault is not None and fault.name == "expired":
            return attrs.evolve(cdn.expired_answer(fault["status"]), effect=FaultEffect(name="expired"))
        return cdn.Media(task, kind, fault)

    def serve(
        self, media: cdn.Media, content: bytes, *, method: str, path: str, headers: Mapping[str, str], now: float
    ) -> Answer:
        """Return the answer for a file that :meth:`locate` returned; honours ``Range`` and ``If-Range``."""
        count = len(self.cdn_requests)
        answer = cdn.serve_media(media, content, _lowered(headers), count=count, time_scale=self.time_scale)
        return self._log_cdn_request(method, path, headers, answer, now)

    def _log_cdn_request(
        self, method: str, path: str, headers: Mapping[str, str], answer: Answer, now: float
    ) -> Answer:
        low = _lowered(headers)
        leaked = tuple(name for name in cdn.CREDENTIALS if name.lower() in low)
        if any(self.api_key in value for value in low.values()) or self.api_key in path:
            leaked = (*leaked, "the key itself")
        self.cdn_requests.append(CdnRequest(method, path, answer.status, now, low.get("range"), leaked))
        return answer

    # -- callbacks -----------------------------------------------------------------------------------------------

    def next_callback_at(self) -> float | None:
        """Return the time at which the next callback is due, or ``None`` if none is pending."""
        return self._callback_queue.next_due_at()

    def due_callbacks(self, now: float) -> list[Callback]:
        """Return the callbacks that are due at *now*. Each callback is returned once."""
        return self._callback_queue.pop_due(now)


@attrs.frozen
class _CreateTarget:
    """Create that is not accepted yet."""

    id: str
    provider: str
    prompt: str


def _invalid(field: str, problem: str) -> Answer:
    message = f"{field}: {problem}" if field else problem
    return replies.error_answer("", 400, "invalid_request", message, field=field)


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _refuse_constant(token: str) -> float:
    raise ValueError(f"{token} must not be used in JSON")


def _is_visible(provider: str | None, task: Task) -> bool:
    """Return whether *task* can be polled: at the root any task of the videos dialect, else the provider's own."""
    return task.provider == provider or (provider is None and task.provider != "cometapi")


def _provider_for(body: object) -> str:
    """Return the provider of a create at the root path: the first whose page allows *body*."""
    for provider in ("yescale", "gptge", "native"):
        if request_schemas.check_create(provider, body) is None:
            return provider
    return "gptge" if isinstance(body, dict) and "video" in body else "native"
