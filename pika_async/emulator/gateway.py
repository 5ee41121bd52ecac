"""Emulated gateway: takes a request and the current time, returns an answer. Has no clock, sockets or event loop."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import attrs

from pika_async.emulator import cdn, replies, request_schemas
from pika_async.emulator.backend import Backend, BodyProblem, Call, invalid_answer
from pika_async.emulator.callback_queue import CallbackQueue
from pika_async.emulator.durations import Durations
from pika_async.emulator.fal_queue import FalQueue
from pika_async.emulator.fault_effects import dead_answer
from pika_async.emulator.feeds import FeedWriter
from pika_async.emulator.ledger import Ledger
from pika_async.emulator.options import (
    check_envelope,
    check_funds,
    check_not_negative,
    check_positive,
    check_share,
    to_durations,
    to_scenario,
)
from pika_async.emulator.pika_api import PikaApi
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
    UploadedFile,
)
from pika_async.emulator.routes import Route, find_route, provider_of
from pika_async.emulator.scenario import Scenario, ScenarioRun

__all__ = ["Gateway"]

#: Number of API requests that the log keeps; the oldest entries are dropped first.
REQUEST_LOG_SIZE = 200_000


@attrs.define(kw_only=True, eq=False)
class Gateway:
    """Emulation of the four gateways, Pika's own API and fal, as their pages document them.

    It accepts, charges, settles and reports tasks.

    :param durations: how long generations take, in seconds (see :class:`Durations`); default ``lognormal:60,0.5``.
    :param time_scale: factor of every duration given here or in a scenario; default 1.0.
    :param in_flight: maximum number of unsettled tasks of each account, or of each by provider; default unlimited.
        There is one account per provider. Creates beyond the maximum are answered with 429; at fal they wait in its
        queue.
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
    :param idempotency_window: seconds for which Pika's own API knows an ``Idempotency-Key``; default 86,400.
    :param funds: what the accounts at Pika's own API and at fal may spend, in millionths of a dollar each; default
        1,000 dollars. Creates that cost more than what is left are refused.
    :param max_body: maximum size of a request body in bytes; default 1,000,000. Larger bodies are answered with 413.
    :param video_seconds: duration of the rendered videos in seconds; default 5.
    :param cdn_url: origin of the result URLs. :class:`Emulator` sets it to its own.
    :param url: origin of the API, for the addresses in fal's answers. :class:`Emulator` sets it to its own.
    :param epoch: unix time at which ``now`` is 0. :class:`Emulator` sets it to the time of its start.
    :raises ValueError: if a value is invalid. :class:`ScenarioError` is a ``ValueError``.
    """

    durations: Durations = attrs.field(default=Durations.parse("lognormal:60,0.5"), converter=to_durations)
    time_scale: float = attrs.field(default=1.0, validator=check_positive)
    in_flight: int | Mapping[str, int] | None = None
    seed: int = 0
    scenario: Scenario = attrs.field(default=Scenario(), converter=to_scenario)
    api_key: str = attrs.field(default="emulator-key", repr=False)
    envelope: replies.Envelope = attrs.field(default="a", validator=check_envelope)
    failure_rate: float = attrs.field(default=0.0, validator=check_share)
    failure_reason: str = "generation failed: the upstream model returned an error"
    retry_after: float | None = 5.0
    url_lifetime: float | None = None
    idempotency_window: float = attrs.field(default=86_400.0, validator=check_not_negative)
    funds: int = attrs.field(default=1_000_000_000, validator=check_funds)
    max_body: int = 1_000_000
    video_seconds: float = attrs.field(default=5.0, validator=check_positive)
    cdn_url: str = "https://cdn.invalid"
    url: str = "https://gateway.invalid"
    epoch: float = 1_741_587_817.0

    #: Origins of providers that are not served at ``url``.
    own_urls: dict[str, str] = attrs.field(init=False, factory=dict)
    #: The API requests, the newest 200,000 of them.
    requests: deque[RequestLogEntry] = attrs.field(
        init=False, repr=False, factory=lambda: deque(maxlen=REQUEST_LOG_SIZE)
    )
    cdn_requests: list[CdnRequest] = attrs.field(init=False, factory=list, repr=False)

    _scenario_run: ScenarioRun = attrs.field(init=False, repr=False)
    _backend: Backend = attrs.field(init=False, repr=False)
    _pika: PikaApi = attrs.field(init=False, repr=False)
    _fal: FalQueue = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        limits = self.in_flight.values() if isinstance(self.in_flight, Mapping) else [self.in_flight]
        if any(limit is not None and limit < 0 for limit in limits):
            raise ValueError(f"in_flight must be >= 0, not {self.in_flight!r}")
        self._scenario_run = ScenarioRun(self.scenario, self.seed, self.time_scale)
        ledger = Ledger(
            durations=self.durations,
            time_scale=self.time_scale,
            seed=self.seed,
            failure_rate=self.failure_rate,
            failure_reason=self.failure_reason,
        )
        callbacks = CallbackQueue(
            scenario_run=self._scenario_run,
            time_scale=self.time_scale,
            write=self._write_callback,
            tasks=ledger.tasks,
        )
        self._backend = Backend(options=self, ledger=ledger, scenario_run=self._scenario_run, callbacks=callbacks)
        self._pika = PikaApi(self._backend)
        self._fal = FalQueue(self._backend, seed=self.seed)

    def _write_callback(self, task: Task, now: float, forged: bytes | None) -> tuple[bytes, dict[str, str]]:
        if task.provider == "fal":
            return self._fal.webhook(task, now, forged)
        return json.dumps(self.feed_writer().data(task, now)).encode() if forged is None else forged, {}

    @property
    def polls(self) -> Polls:
        """The number of polls, in total and by task."""
        return self._backend.polls

    @property
    def refusals(self) -> list[Refusal]:
        """The requests that were refused as invalid or over the limit; not those that a scenario refused."""
        return self._backend.refusals

    @property
    def uploads(self) -> dict[str, UploadedFile]:
        """The uploads at Pika's own API by their URLs."""
        return self._pika.uploads

    @property
    def ledger(self) -> list[Charge]:
        """The charges, one for each accepted create, recorded before the answer is returned."""
        return self._backend.ledger.charges

    @property
    def tasks(self) -> dict[str, Task]:
        """The accepted tasks by their ids."""
        return self._backend.ledger.tasks

    @property
    def cdn_credentials(self) -> list[CdnRequest]:
        """The CDN requests that carried a credential. A correct client sends none."""
        return [request for request in self.cdn_requests if request.credentials]

    def count_in_flight(self, provider: str, now: float) -> int:
        """Return the number of charged tasks of a provider's account that have not settled."""
        return self._backend.ledger.count_in_flight(provider, now)

    def base_url(self, provider: str) -> str:
        """Return the base URL of *provider*."""
        return f"{self.own_urls.get(provider, self.url)}/{provider}"

    def refuses_until(self, provider: str, now: float) -> float | None:
        """Return until when *provider* refuses connections because of the fault ``die``, or ``None`` if it does not."""
        death = self._scenario_run.death_of(provider, now)
        return death.until if death is not None and death.status is None else None

    def feed_writer(self) -> FeedWriter:
        """Return the writer of feed answers."""
        # Not cached, because the server sets `cdn_url` and `epoch` when it starts.
        return FeedWriter(
            epoch=self.epoch,
            duration=self.video_seconds,
            time_scale=self.time_scale,
            url_lifetime=self.url_lifetime,
            cdn_url=self.cdn_url,
            envelope=self.envelope,
            fal_url=self.base_url("fal"),
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
        provider = provider_of(path)
        death = self._scenario_run.death_of(provider, now) if provider else None
        if provider is not None and death is not None:
            return dead_answer(provider, death.status)
        if provider in ("pika", "fal"):
            below, _, query = path.removeprefix(f"/{provider}").partition("?")
            fields = dict(parse_qsl(query, keep_blank_values=True))
            call = Call(method=method, path=below, query=fields, headers=headers, body=body, now=now)
            return self._pika.answer(call) if provider == "pika" else self._fal.answer(call)
        return self._answer_gateway(method, path, headers, body, now)

    def _answer_gateway(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        route = find_route(method, path)
        if isinstance(route, Answer):
            return route
        provider = route.provider or "native"
        if headers.get("authorization") != f"Bearer {self.api_key}":
            message = 'Authorization must be "Bearer" and the key'
            return self._log_refusal(replies.error_answer(provider, 401, "invalid_api_key", message), provider, now)
        if route.task_id is not None:
            return self._feed(route.provider, route.task_id, now)
        problem, value = self._backend.read_json(headers, body)
        if problem is not None:
            return self._log_refusal(invalid_answer(problem), provider, now)
        return self._post_feed(value, now) if route.feeds else self._post_create(route, value, body, now)

    def _log_refusal(self, answer: Answer, provider: str, now: float) -> Answer:
        error = answer.json()["error"]
        field = error["param"] or ""
        return self._backend.log_refusal(
            answer, provider, now, code=error["code"], problem=error["message"], field=field
        )

    def _post_create(self, route: Route, body: Any, raw: bytes, now: float) -> Answer:
        provider = route.provider or _provider_for(body)
        problem = request_schemas.check_create(provider, body)
        if problem is not None:
            return self._log_refusal(_invalid(problem.field, problem.text), provider, now)
        if self._backend.is_full(provider, now):
            return self._log_refusal(self._saturated(provider), provider, now)
        spec = request_schemas.parse_create(provider, body)
        answer, _ = self._backend.accept(
            provider, spec, raw, now, reply=lambda task: replies.create_answer(provider, task.id)
        )
        return answer

    def _saturated(self, provider: str) -> Answer:
        limit = self._backend.capacity(provider)
        message = f"the current group is saturated: {limit} tasks in flight, please try again later"
        headers = self._backend.retry_headers()
        return replies.error_answer(provider, 429, "rate_limit_exceeded", message, headers=headers)

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
        task = self.tasks.get(task_id)
        visible = task if task is not None and _is_visible(provider, task) else None
        return self._backend.poll(provider or "native", visible, task_id, now)

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

    def upload(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        """Answer a request to an upload URL of Pika's own API, which is at the origin of the CDN."""
        answer = self._pika.put_upload(method, path, _lowered(headers), body, now)
        return self._log_cdn_request(method, path, headers, answer, now)

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
        return self._backend.callbacks.next_due_at()

    def due_callbacks(self, now: float) -> list[Callback]:
        """Return the callbacks that are due at *now*. Each callback is returned once."""
        return self._backend.callbacks.pop_due(now)

    def repeat_callback(self, callback: Callback, now: float) -> None:
        """Schedule a callback again that was not answered with a 2xx, if its provider repeats callbacks."""
        self._backend.callbacks.repeat(callback, now)


def _invalid(field: str, problem: str) -> Answer:
    return invalid_answer(BodyProblem(400, field, problem))


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _is_visible(provider: str | None, task: Task) -> bool:
    """Return whether *task* can be polled: at the root any task of the videos dialect, else the provider's own."""
    return task.provider == provider or (provider is None and task.provider in ("yescale", "gptge", "native"))


def _provider_for(body: object) -> str:
    """Return the provider of a create at the root path: the first whose page allows *body*."""
    for provider in ("yescale", "gptge", "native"):
        if request_schemas.check_create(provider, body) is None:
            return provider
    return "gptge" if isinstance(body, dict) and "video" in body else "native"
