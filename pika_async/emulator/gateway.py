"""The gateway that stands in for all four: requests and a time in, answers out; no clock, socket or loop of its own."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, TypedDict

import attrs

from pika_async.emulator import cdn, replies, request_schemas
from pika_async.emulator.callback_queue import Notices
from pika_async.emulator.durations import Durations
from pika_async.emulator.fault_effects import damaged
from pika_async.emulator.feeds import Feeds, unknown_task
from pika_async.emulator.ledger import Books
from pika_async.emulator.records import (
    Answer,
    Callback,
    CdnRequest,
    Charge,
    Disruption,
    Polls,
    Refusal,
    RequestLogEntry,
    Task,
)
from pika_async.emulator.routes import Route, find_route
from pika_async.emulator.scenario import Scenario, ScenarioRun

__all__ = ["Gateway", "GatewayOptions"]

#: How many API requests are remembered one by one; the oldest are forgotten first.
REMEMBERED = 200_000


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


def _share(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must lie between 0 and 1, not {value!r}")


def _positive(_: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{attribute.name} must be above 0, not {value!r}")


def _known_envelope(_: object, _attribute: attrs.Attribute[str], value: str) -> None:
    if value not in replies.ENVELOPES:
        raise ValueError(f"envelope must be one of {', '.join(replies.ENVELOPES)}, not {value!r}")


def _parsed(durations: str | Durations) -> Durations:
    return durations if isinstance(durations, Durations) else Durations.parse(durations)


def _script(rules: Scenario | Iterable[Mapping[str, Any]] | None) -> Scenario:
    return rules if isinstance(rules, Scenario) else Scenario.of(rules or ())


@attrs.define(kw_only=True, eq=False)
class Gateway:
    """Accepts, charges, settles and reports generations on the four wires, as their pages say.

    Times are seconds; every duration given here or in a script is multiplied by ``time_scale``. ``in_flight``
    limits the unsettled tasks of each account (one per provider); creates beyond it are answered 429 with
    ``retry_after`` (whole seconds, at least 1; ``None`` sends no header). Chance is drawn from ``seed`` and the
    number of the accepted create, so the same requests meet the same fate. ``scenario`` is a script of faults, or
    its rules. Result URLs expire ``url_lifetime`` seconds after the poll that handed them out (``None``: never).
    ``epoch`` is the unix time at which ``now`` is 0.

    Raises ``ValueError`` for settings that make no sense, :class:`ScenarioError` among them.
    """

    durations: Durations = attrs.field(default=Durations.parse("lognormal:60,0.5"), converter=_parsed)
    time_scale: float = attrs.field(default=1.0, validator=_positive)
    in_flight: int | Mapping[str, int] | None = None
    seed: int = 0
    scenario: Scenario = attrs.field(default=Scenario(), converter=_script)
    api_key: str = attrs.field(default="emulator-key", repr=False)
    envelope: replies.Envelope = attrs.field(default="a", validator=_known_envelope)
    failure_rate: float = attrs.field(default=0.0, validator=_share)
    failure_reason: str = "generation failed: the upstream model returned an error"
    retry_after: float | None = 5.0
    url_lifetime: float | None = None
    max_body: int = 1_000_000
    video_seconds: float = attrs.field(default=5.0, validator=_positive)
    cdn_url: str = "http://cdn.invalid"
    epoch: float = 1_741_587_817.0

    polls: Polls = attrs.field(init=False, factory=Polls)
    refusals: list[Refusal] = attrs.field(init=False, factory=list, repr=False)
    #: The API requests, the newest 200,000 of them.
    requests: deque[RequestLogEntry] = attrs.field(init=False, repr=False, factory=lambda: deque(maxlen=REMEMBERED))
    cdn_requests: list[CdnRequest] = attrs.field(init=False, factory=list, repr=False)

    _play: ScenarioRun = attrs.field(init=False, repr=False)
    _books: Books = attrs.field(init=False, repr=False)
    _notices: Notices = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        limits = self.in_flight.values() if isinstance(self.in_flight, Mapping) else [self.in_flight]
        if any(limit is not None and limit < 0 for limit in limits):
            raise ValueError(f"in_flight must not be below 0, but is {self.in_flight!r}")
        self._play = ScenarioRun(self.scenario, Random(f"{self.seed}:script"), self.time_scale)
        self._books = Books(
            durations=self.durations,
            time_scale=self.time_scale,
            seed=self.seed,
            failure_rate=self.failure_rate,
            failure_reason=self.failure_reason,
        )
        self._notices = Notices(
            play=self._play, time_scale=self.time_scale, report=lambda task, now: self._feeds().data(task, now)
        )

    @property
    def ledger(self) -> list[Charge]:
        """One entry per paid acceptance, written before the answer is given."""
        return self._books.ledger

    @property
    def tasks(self) -> dict[str, Task]:
        """The accepted tasks by id."""
        return self._books.tasks

    @property
    def cdn_credentials(self) -> list[CdnRequest]:
        """The CDN requests that carried a credential; must stay empty."""
        return [request for request in self.cdn_requests if request.credentials]

    def count_in_flight(self, provider: str, now: float) -> int:
        """How many paid tasks of a provider's account have not settled yet."""
        return self._books.count_in_flight(provider, now)

    def _feeds(self) -> Feeds:
        # Built anew each time, because the CDN's address is known only once it serves.
        return Feeds(
            epoch=self.epoch,
            duration=self.video_seconds,
            time_scale=self.time_scale,
            url_lifetime=self.url_lifetime,
            cdn_url=self.cdn_url,
            envelope=self.envelope,
        )

    # -- the API origin ------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        """Answers one API request; header names in any case, ``now`` never less than the time before."""
        if self._play.started is None:
            self._play.started = now
        answer = self._answer(method, path, _lowered(headers), body, now)
        fault = answer.fault.name if answer.fault else None
        self.requests.append(RequestLogEntry(method, path, answer.status, now, fault))
        return answer

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        route = find_route(method, path)
        if isinstance(route, Answer):
            return route
        provider = route.provider or "native"
        if headers.get("authorization") != f"Bearer {self.api_key}":
            message = 'Authorization must be "Bearer" and the key'
            return self._refused(replies.error_answer(provider, 401, "invalid_api_key", message), provider, now)
        if route.task_id is not None:
            return self._feed(route.provider, route.task_id, now)
        problem, value = self._read(headers, body)
        if problem is not None:
            return self._refused(problem, provider, now)
        return self._post_feed(value, now) if route.feeds else self._post_create(route, value, body, now)

    def _read(self, headers: Mapping[str, str], body: bytes) -> tuple[Answer | None, Any]:
        """The JSON of a body, or the refusal of one that is none."""
        if len(body) > self.max_body:
            message = f"the body exceeds {self.max_body} bytes"
            return replies.error_answer("", 413, "body_too_large", message), None
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _invalid("Content-Type", "must be application/json"), None
        try:
            return None, json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return _invalid("", "the body is not JSON in UTF-8"), None

    def _refused(self, answer: Answer, provider: str, now: float) -> Answer:
        """Notes a refusal and hands it on."""
        reply = answer.json()
        error = reply.get("error", reply)
        field = error.get("param") or ""
        self.refusals.append(Refusal(provider, answer.status, error["code"], field, error["message"], now))
        return answer

    def _post_create(self, route: Route, body: Any, raw: bytes, now: float) -> Answer:
        provider = route.provider or _page_for(body)
        problem = request_schemas.check_create(provider, body)
        if problem is not None:
            return self._refused(_invalid(problem.field, problem.what), provider, now)
        limit = self.in_flight.get(provider) if isinstance(self.in_flight, Mapping) else self.in_flight
        if limit is not None and self.count_in_flight(provider, now) >= limit:
            return self._refused(self._saturated(provider, limit), provider, now)
        return self._create(provider, request_schemas.read_create(provider, body), raw, now)

    def _saturated(self, provider: str, limit: int) -> Answer:
        headers = {}
        if self.retry_after is not None:
            # Whole seconds are all that the header can say (RFC 9110, section 10.2.3).
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after * self.time_scale)))
        message = f"the current group is saturated: {limit} tasks in flight, please try again later"
        return replies.error_answer(provider, 429, "rate_limit_exceeded", message, headers=headers)

    def _create(self, provider: str, wanted: request_schemas.Wanted, raw: bytes, now: float) -> Answer:
        deed = self._play.fault_for("create", _Create("", provider, wanted.prompt), now)
        if deed is not None and not deed.charges:
            # Nothing is accepted, so what is left of the answer must carry no task id.
            answer = replies.error_answer(provider, 502, "upstream_error", "the upstream did not accept the task")
            return damaged(answer, deed, provider=provider, time_scale=self.time_scale)
        booked = len(self.tasks)
        task = self._books.accept(provider, wanted, raw, deed, now)
        if len(self.tasks) > booked:
            self._notices.plan(task)
        answer = replies.create_answer(provider, task.id)
        if deed is None:
            return answer
        return damaged(answer, deed, provider=provider, time_scale=self.time_scale, task_id=task.id)

    def _post_feed(self, body: object, now: float) -> Answer:
        match body:
            case {"task_id": str(task_id), **others} if not others:
                return self._feed("cometapi", task_id, now)
            case {"task_id": str(), **others}:
                problem = _invalid(str(next(iter(others))), "is not a field of this page")
            case {"task_id": _}:
                problem = _invalid("task_id", "must be a string")
            case _:
                problem = _invalid("task_id", "is required")
        return self._refused(problem, "cometapi", now)

    def _feed(self, provider: str | None, task_id: str, now: float) -> Answer:
        self.polls.add(task_id)
        task = self.tasks.get(task_id)
        if task is None or not _may_see(provider, task):
            return self._refused(unknown_task(provider or "native"), provider or "native", now)
        deed = self._play.fault_for("feed", task, now)
        if deed is None:
            return self._feeds().honest(task, now)
        answer = self._feeds().struck(task, self._books.other_than(task), deed, now)
        return damaged(answer, deed, provider=task.provider, time_scale=self.time_scale, task_id=task.id)

    # -- the CDN origin ------------------------------------------------------------------------------------------

    def locate(self, method: str, path: str, headers: Mapping[str, str], now: float) -> cdn.Media | Answer:
        """What a CDN request names: a file to be served by :meth:`serve`, or the answer at once."""
        found = self._locate(method, path, now)
        return self._seen_at_cdn(method, path, headers, found, now) if isinstance(found, Answer) else found

    def _locate(self, method: str, path: str, now: float) -> cdn.Media | Answer:
        found = cdn.split_media_path(path)
        task = self.tasks.get(found[0]) if found else None
        if found is None or task is None or task.settles_at > now or task.failure is not None:
            return replies.not_found()
        if method not in ("GET", "HEAD"):
            return Answer(405, {"Allow": "GET, HEAD"}, b"")
        _, kind, expires_at = found
        if expires_at is not None and now > expires_at:
            return cdn.expired(403)
        deed = self._play.fault_for("cdn", task, now)
        if deed is not None and deed.fault == "expired":
            return attrs.evolve(cdn.expired(deed["status"]), fault=Disruption(name="expired"))
        return cdn.Media(task, kind, deed)

    def serve(
        self, media: cdn.Media, content: bytes, *, method: str, path: str, headers: Mapping[str, str], now: float
    ) -> Answer:
        """The answer for a located file, given its content; honours ``Range`` and ``If-Range``."""
        count = len(self.cdn_requests)
        answer = cdn.serve_media(media, content, _lowered(headers), count=count, time_scale=self.time_scale)
        return self._seen_at_cdn(method, path, headers, answer, now)

    def _seen_at_cdn(self, method: str, path: str, headers: Mapping[str, str], answer: Answer, now: float) -> Answer:
        low = _lowered(headers)
        leaked = tuple(name for name in cdn.CREDENTIALS if name.lower() in low)
        if any(self.api_key in value for value in low.values()) or self.api_key in path:
            leaked = (*leaked, "the key itself")
        self.cdn_requests.append(CdnRequest(method, path, answer.status, now, low.get("range"), leaked))
        return answer

    # -- callbacks -----------------------------------------------------------------------------------------------

    def next_callback_at(self) -> float | None:
        """When the next notification is due, or ``None`` when none is waiting."""
        return self._notices.next_at()

    def due_callbacks(self, now: float) -> list[Callback]:
        """The notifications that are due by now; each is handed out once."""
        return self._notices.due(now)


@attrs.frozen
class _Create:
    """A create that is not a task yet."""

    id: str
    provider: str
    prompt: str


def _invalid(field: str, what: str) -> Answer:
    return replies.error_answer("", 400, "invalid_request", f"{field}: {what}" if field else what, field=field)


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _no_constant(token: str) -> float:
    raise ValueError(f"{token} is not JSON")


def _may_see(provider: str | None, task: Task) -> bool:
    """At the root any videos task answers; behind a prefix only the provider's own."""
    return task.provider == provider or (provider is None and task.provider != "cometapi")


def _page_for(body: object) -> str:
    """The videos page that a create at the root is measured by: the first that allows it."""
    for provider in ("yescale", "gptge", "native"):
        if request_schemas.check_create(provider, body) is None:
            return provider
    return "gptge" if isinstance(body, dict) and "video" in body else "native"
