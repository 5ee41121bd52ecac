"""The gateway that stands in for all four: requests and a time in, answers out; no clock, socket or loop of its own."""

from __future__ import annotations

import heapq
import itertools
import json
import math
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any, TypedDict
from urllib.parse import urlsplit
from uuid import UUID

import attrs

from pika_async.emulator import cdn, pages, wires
from pika_async.emulator.damage import damaged
from pika_async.emulator.durations import Durations
from pika_async.emulator.faults import Deed, Play, Scenario
from pika_async.emulator.records import (
    PROVIDERS,
    Answer,
    Callback,
    CdnRequest,
    Charge,
    Disruption,
    Polls,
    Refusal,
    Seen,
    Task,
)
from pika_async.emulator.routes import Route, find_route

__all__ = ["Gateway", "GatewayOptions"]

#: How many API requests are remembered one by one; the oldest are forgotten first.
REMEMBERED = 200_000


class GatewayOptions(TypedDict, total=False):
    """The keyword arguments of :class:`Gateway`."""

    durations: str
    time_scale: float
    in_flight: int | Mapping[str, int] | None
    seed: int
    scenario: Scenario | None
    api_key: str
    envelope: wires.Envelope
    failure_rate: float
    failure_reason: str
    retry_after: float | None
    url_lifetime: float | None
    max_body: int
    video_seconds: float
    cdn_url: str
    epoch: float


def _share(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must lie between 0 and 1, not {value!r}")


def _positive(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{attribute.name} must be above 0, not {value!r}")


def _known_envelope(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value not in wires.ENVELOPES:
        raise ValueError(f"envelope must be one of {', '.join(wires.ENVELOPES)}, not {value!r}")


def _parsed(durations: str | Durations) -> Durations:
    return durations if isinstance(durations, Durations) else Durations.parse(durations)


@attrs.define(kw_only=True, eq=False)
class Gateway:
    """Accepts, charges, settles and reports generations on the four wires, as their pages say.

    Times are seconds; every duration given here or in a script is multiplied by ``time_scale``. ``in_flight``
    limits the unsettled tasks of each account (one per provider); creates beyond it are answered 429 with
    ``retry_after`` (whole seconds, at least 1; ``None`` sends no header). Chance is drawn from ``seed`` and the
    number of the accepted create, so the same requests meet the same fate. Result URLs expire ``url_lifetime``
    seconds after the poll that handed them out (``None``: never). ``epoch`` is the unix time at which ``now`` is 0.

    Raises ``ValueError`` for settings that make no sense.
    """

    durations: Durations = attrs.field(default="lognormal:60,0.5", converter=_parsed)
    time_scale: float = attrs.field(default=1.0, validator=_positive)
    in_flight: int | Mapping[str, int] | None = None
    seed: int = 0
    scenario: Scenario | None = None
    api_key: str = attrs.field(default="emulator-key", repr=False)
    envelope: wires.Envelope = attrs.field(default="a", validator=_known_envelope)
    failure_rate: float = attrs.field(default=0.0, validator=_share)
    failure_reason: str = "generation failed: the upstream model returned an error"
    retry_after: float | None = 5.0
    url_lifetime: float | None = None
    max_body: int = 1_000_000
    video_seconds: float = attrs.field(default=5.0, validator=_positive)
    cdn_url: str = "http://cdn.invalid"
    epoch: float = 1_741_587_817.0

    #: One entry per paid acceptance, written before the answer is given.
    ledger: list[Charge] = attrs.field(init=False, factory=list, repr=False)
    polls: Polls = attrs.field(init=False, factory=Polls)
    refusals: list[Refusal] = attrs.field(init=False, factory=list, repr=False)
    #: The API requests, the newest 200,000 of them.
    requests: deque[Seen] = attrs.field(init=False, repr=False, factory=lambda: deque(maxlen=REMEMBERED))
    cdn_requests: list[CdnRequest] = attrs.field(init=False, factory=list, repr=False)
    tasks: dict[str, Task] = attrs.field(init=False, factory=dict, repr=False)

    _play: Play = attrs.field(init=False, repr=False)
    _started: float | None = attrs.field(init=False, default=None)
    _accepted: int = attrs.field(init=False, default=0)
    _unsettled: dict[str, list[float]] = attrs.field(init=False, repr=False)
    _first_ids: dict[str, str] = attrs.field(init=False, factory=dict, repr=False)
    _callbacks: list[tuple[float, int, str, str, bytes | None]] = attrs.field(init=False, factory=list, repr=False)
    _order: itertools.count[int] = attrs.field(init=False, factory=itertools.count, repr=False)

    def __attrs_post_init__(self) -> None:
        self._play = Play(self.scenario or Scenario(), Random(f"{self.seed}:script"))
        self._unsettled = {provider: [] for provider in PROVIDERS}

    # -- the API origin ------------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        """Answers one API request; header names in any case, ``now`` never less than the time before."""
        if self._started is None:
            self._started = now
        answer = self._answer(method, path, _lowered(headers), body, now)
        fault = answer.fault.name if answer.fault else None
        self.requests.append(Seen(method, path, answer.status, now, fault))
        return answer

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        route = find_route(method, path)
        if isinstance(route, Answer):
            return route
        provider = route.provider or "native"
        if headers.get("authorization") != f"Bearer {self.api_key}":
            return self._refuse(provider, 401, "invalid_api_key", "authorization must be Bearer and the key", now)
        if route.task_id is not None:
            return self._feed(route.provider, route.task_id, now)
        return self._post(route, provider, headers, body, now)

    def _post(self, route: Route, provider: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        if len(body) > self.max_body:
            return self._refuse(provider, 413, "body_too_large", f"the body exceeds {self.max_body} bytes", now)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return self._refuse(provider, 400, "invalid_request", "Content-Type must be application/json", now)
        try:
            value = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return self._refuse(provider, 400, "invalid_request", "the body is not JSON in UTF-8", now)
        if route.feeds:
            return self._post_feed(value, now)
        provider = route.provider or _page_for(value)
        problem = pages.check_create(provider, value)
        if problem is not None:
            message = f"{problem.field or 'body'}: {problem.what}"
            return self._refuse(provider, 400, "invalid_request", message, now, problem.field)
        return self._create(provider, value, body, now)

    def _refuse(
        self,
        provider: str,
        status: int,
        code: str,
        message: str,
        now: float,
        field: str = "",
        headers: dict[str, str] | None = None,
    ) -> Answer:
        self.refusals.append(Refusal(provider, status, code, field, message, now))
        return wires.error_answer(provider, status, code, message, field, headers)

    # -- create --------------------------------------------------------------------------------------------------

    def _create(self, provider: str, body: dict[str, Any], raw: bytes, now: float) -> Answer:
        limit = self.in_flight.get(provider) if isinstance(self.in_flight, Mapping) else self.in_flight
        if limit is not None and self.count_in_flight(provider, now) >= limit:
            headers = {} if self.retry_after is None else {"Retry-After": self._wait(self.retry_after)}
            message = f"the current group is saturated: {limit} tasks in flight, please try again later"
            return self._refuse(provider, 429, "rate_limit_exceeded", message, now, headers=headers)
        wanted = pages.read_create(provider, body)
        deed = self._play.strike("create", provider, wanted.prompt, "", self._elapsed(now))
        if deed is None:
            return wires.create_answer(provider, self._accept(provider, wanted, raw, now, None))
        answer = wires.create_answer(provider, "")
        if deed.charges:
            answer = wires.create_answer(provider, self._accept(provider, wanted, raw, now, deed))
        elif deed.fault not in ("answer", "refuse", "redirect"):
            # Nothing was accepted, so whatever is left of the answer must carry no task id.
            answer = wires.error_answer(provider, 502, "upstream_error", "the upstream did not accept the task")
        answer = damaged(answer, deed, provider=provider, time_scale=self.time_scale)
        return answer if answer.fault else attrs.evolve(answer, fault=Disruption(name=deed.fault))

    def _wait(self, seconds: float) -> str:
        return str(max(1, math.ceil(seconds * self.time_scale)))

    def _accept(self, provider: str, wanted: pages.Wanted, raw: bytes, now: float, deed: Deed | None) -> str:
        """Books one paid task and says the id that the client is told."""
        self._accepted += 1
        task = self._draw_task(provider, wanted, now, deed)
        told = task.id
        if deed is not None and deed.fault == "duplicate-id":
            told = self._first_ids.get(provider, task.id)
        self.ledger.append(
            Charge(
                provider=provider,
                task_id=told,
                prompt=wanted.prompt,
                charged_at=now,
                settles_at=task.settles_at,
                fails=task.failure is not None,
                fault=deed.fault if deed else None,
                raw_body=raw,
            )
        )
        heapq.heappush(self._unsettled[provider], task.settles_at)
        if told == task.id:
            self._first_ids.setdefault(provider, task.id)
            self.tasks[task.id] = task
            if task.callback_url is not None:
                self._plan_callback(task, task.callback_url)
        return told

    def _draw_task(self, provider: str, wanted: pages.Wanted, now: float, deed: Deed | None) -> Task:
        random = Random(f"{self.seed}:{self._accepted}")
        task_id = str(UUID(int=random.getrandbits(128), version=4))
        # One drawn seed in eight exceeds 2^32, as the gateways' own do at times.
        drawn = random.getrandbits(40 if random.random() < 0.125 else 32)
        failure = self.failure_reason if random.random() < self.failure_rate else None
        seconds = self.durations.draw(random)
        if deed is not None and deed.fault == "fails":
            failure = str(deed["reason"])
        if deed is not None and deed.fault == "takes":
            seconds = deed["seconds"]
        return Task(
            id=task_id,
            provider=provider,
            prompt=wanted.prompt,
            seed=drawn if wanted.seed is None else wanted.seed,
            seed_requested=wanted.seed is not None,
            created_at=now,
            settles_at=now + seconds * self.time_scale,
            failure=failure,
            aspect_ratio=wanted.aspect_ratio,
            frame_rate=wanted.frame_rate,
            callback_url=wanted.callback_url if _wants_callback(wanted.callback_url) else None,
        )

    def count_in_flight(self, provider: str, now: float) -> int:
        """How many paid tasks of a provider's account have not settled yet."""
        waiting = self._unsettled[provider]
        while waiting and waiting[0] <= now:
            heapq.heappop(waiting)
        return len(waiting)

    def _elapsed(self, now: float) -> float:
        return (now - (self._started or 0.0)) / self.time_scale

    # -- feed ----------------------------------------------------------------------------------------------------

    def _post_feed(self, body: object, now: float) -> Answer:
        if not isinstance(body, dict):
            return self._refuse("cometapi", 400, "invalid_request", "the body must be a JSON object", now)
        for name in body:
            if name != "task_id":
                return self._refuse("cometapi", 400, "invalid_request", f"{name}: is not a field", now, name)
        if not isinstance(body.get("task_id"), str):
            return self._refuse("cometapi", 400, "invalid_request", "task_id: must be a string", now, "task_id")
        return self._feed("cometapi", body["task_id"], now)

    def _feed(self, provider: str | None, task_id: str, now: float) -> Answer:
        self.polls.add(task_id)
        task = self.tasks.get(task_id)
        if task is None or not _may_see(provider, task):
            status = 400 if provider == "cometapi" else 404
            return self._refuse(provider or "native", status, "task_not_exist", "task_not_exist", now)
        deed = self._play.strike("feed", task.provider, task.prompt, task.id, self._elapsed(now))
        if deed is None:
            return wires.feed_answer(task, self.view(task, now), self.envelope)
        answer = damaged(self._struck_feed(task, deed, now), deed, provider=task.provider, time_scale=self.time_scale)
        return answer if answer.fault else attrs.evolve(answer, fault=Disruption(name=deed.fault))

    def view(self, task: Task, now: float) -> wires.View:
        """What an honest feed says of a task."""
        share = task.age_share(now)
        files = self.files(task, now) if share >= 1.0 and task.failure is None else {}
        return wires.View(now=now, epoch=self.epoch, share=share, duration=self.video_seconds, files=files)

    def files(self, task: Task, now: float, name: str | None = None) -> dict[str, str]:
        """The URLs of a task's files as handed out now: ``video share poster thumbnail``."""
        expires = None if self.url_lifetime is None else now + self.url_lifetime * self.time_scale
        return cdn.media_files(self.cdn_url, task, expires, name)

    def _struck_feed(self, task: Task, deed: Deed, now: float) -> Answer:
        view = self.view(task, now)
        envelope = self.envelope
        match deed.fault:
            case "vanish":
                status = 400 if task.provider == "cometapi" else 404
                return wires.error_answer(task.provider, status, "task_not_exist", "task_not_exist")
            case "other-task":
                task = self._other(task)
                view = self.view(task, now)
            case "word":
                view = attrs.evolve(view, word=deed["word"] or "")
            case "no-url":
                view = attrs.evolve(view, urls=False)
            case "unfinish" if view.share >= 1.0:
                view = attrs.evolve(view, share=0.5)
            case "progress":
                view = attrs.evolve(view, progress=self._progress(task, view, deed))
            case "envelope":
                envelope = deed["shape"]
            case "hostile-name" if view.files:
                view = attrs.evolve(view, files=self.files(task, now, deed["name"]))
            case "link" if view.files:
                view = attrs.evolve(view, files={**view.files, "video": deed["url"]})
            case _:
                pass
        return wires.feed_answer(task, view, envelope)

    def _other(self, task: Task) -> Task:
        others = (other for other in self.tasks.values() if other.id != task.id and other.provider == task.provider)
        stranger = str(UUID(int=Random(task.id).getrandbits(128), version=4))
        return next(others, attrs.evolve(task, id=stranger))

    def _progress(self, task: Task, view: wires.View, deed: Deed) -> Any:
        mode = deed["mode"]
        if mode == "value":
            return deed["value"]
        if view.share >= 1.0:
            return None
        if mode == "stuck":
            return deed["value"]
        if mode == "late":
            return max(0, int((view.share - 0.9) * 1000))
        return min(99, int((view.now - task.created_at) / (deed["seconds"] * self.time_scale) * 100))

    # -- the CDN origin ------------------------------------------------------------------------------------------

    def locate(self, method: str, path: str, headers: Mapping[str, str], now: float) -> cdn.Media | Answer:
        """What a CDN request names: a file to be served by :meth:`serve`, or the answer at once."""
        found = cdn.split_media_path(path)
        task = self.tasks.get(found[0]) if found else None
        if found is None or task is None or task.settles_at > now or task.failure is not None:
            return self._seen_at_cdn(method, path, headers, wires.not_found(), now)
        if method not in ("GET", "HEAD"):
            return self._seen_at_cdn(method, path, headers, Answer(405, {"Allow": "GET, HEAD"}, b""), now)
        _, kind, expires = found
        denied = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
        if expires is not None and now > expires:
            answer = Answer(403, {"Content-Type": "application/xml"}, denied)
            return self._seen_at_cdn(method, path, headers, answer, now)
        deed = self._play.strike("cdn", task.provider, task.prompt, task.id, self._elapsed(now))
        if deed is not None and deed.fault == "expired":
            answer = Answer(deed["status"], {"Content-Type": "application/xml"}, denied, Disruption(name="expired"))
            return self._seen_at_cdn(method, path, headers, answer, now)
        return cdn.Media(task, kind, deed)

    def serve(
        self, media: cdn.Media, content: bytes, method: str, path: str, headers: Mapping[str, str], now: float
    ) -> Answer:
        """The answer for a located file, given its content; honours ``Range`` and ``If-Range``."""
        count = len(self.cdn_requests)
        answer = cdn.serve_media(media, content, method, _lowered(headers), count=count, time_scale=self.time_scale)
        return self._seen_at_cdn(method, path, headers, answer, now)

    def _seen_at_cdn(self, method: str, path: str, headers: Mapping[str, str], answer: Answer, now: float) -> Answer:
        low = _lowered(headers)
        leaked = tuple(name for name in cdn.CREDENTIALS if name.lower() in low)
        if any(self.api_key in value for value in low.values()) or self.api_key in path:
            leaked = (*leaked, "the key itself")
        self.cdn_requests.append(CdnRequest(method, path, answer.status, now, low.get("range"), leaked))
        return answer

    @property
    def cdn_credentials(self) -> list[CdnRequest]:
        """The CDN requests that carried a credential; must stay empty."""
        return [request for request in self.cdn_requests if request.credentials]

    # -- callbacks -----------------------------------------------------------------------------------------------

    def _plan_callback(self, task: Task, url: str) -> None:
        elapsed = self._elapsed(task.settles_at)
        deed = self._play.strike("callback", task.provider, task.prompt, task.id, elapsed)
        due, times, body = task.settles_at, 1, None
        match deed.fault if deed else "":
            case "lost":
                times = 0
            case "repeat":
                times = deed["times"] if deed else 1
            case "late":
                due += deed["seconds"] * self.time_scale if deed else 0.0
            case "early":
                due = task.created_at
            case "forged":
                body = _forged(task, deed["body"] if deed else None)
            case _:
                pass
        for _ in range(times):
            heapq.heappush(self._callbacks, (due, next(self._order), task.id, url, body))

    def next_callback_at(self) -> float | None:
        """When the next notification is due, or ``None`` when none is waiting."""
        return self._callbacks[0][0] if self._callbacks else None

    def due_callbacks(self, now: float) -> list[Callback]:
        """The notifications that are due by now; each is handed out once."""
        due = []
        while self._callbacks and self._callbacks[0][0] <= now:
            at, _, task_id, url, body = heapq.heappop(self._callbacks)
            task = self.tasks[task_id]
            if body is None:
                body = json.dumps(wires.feed_data(task, self.view(task, max(now, at)))).encode()
            due.append(Callback(task_id, url, body, at))
        return due


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
        if pages.check_create(provider, body) is None:
            return provider
    return "gptge" if isinstance(body, dict) and "video" in body else "native"


def _wants_callback(url: str | None) -> bool:
    """Whether a URL's host is a real one: reserved names (RFC 2606, RFC 6761) say "none"."""
    host = (urlsplit(url).hostname or "") if url else ""
    reserved = ("invalid", "example", "test", "example.com", "example.net", "example.org")
    return bool(host) and not any(host == name or host.endswith(f".{name}") for name in reserved)


def _forged(task: Task, body: object) -> bytes:
    if body is not None:
        return json.dumps(body).encode()
    stranger = str(UUID(int=Random(f"forged:{task.id}").getrandbits(128), version=4))
    forged = {"task_id": stranger, "state": "succeeded", "status": "3", "video_url": "http://169.254.169.254/x.mp4"}
    return json.dumps(forged).encode()
