"""Records of the emulator: answers, tasks, charges, logged requests, callbacks. Plain values without logic."""

from __future__ import annotations

import json
from typing import Any, Literal

import attrs

__all__ = [
    "EMULATED_GATEWAYS",
    "EMULATED_PROVIDERS",
    "Answer",
    "Callback",
    "CallbackResult",
    "CdnRequest",
    "Charge",
    "Ending",
    "FaultEffect",
    "GenerationSpec",
    "Polls",
    "Refusal",
    "RequestLogEntry",
    "Task",
    "UploadedFile",
]

#: The emulated gateways that resell Pika. They share two dialects.
EMULATED_GATEWAYS = ("cometapi", "yescale", "gptge", "native")
#: Every emulated provider: the gateways, Pika's own API and fal. Each name is also the path prefix that selects it.
EMULATED_PROVIDERS = (*EMULATED_GATEWAYS, "pika", "fal")

#: How a connection ends: kept alive, closed, reset, left open without data, or sent data without end.
Ending = Literal["keep", "fin", "rst", "stall", "endless"]


@attrs.frozen(kw_only=True)
class FaultEffect:
    """Effect of a fault on the connection, in place of a regular delivery of the answer.

    The server waits ``delay`` seconds, writes ``raw`` to the socket unchanged, then ends the connection as ``ending``
    says. If ``raw`` is ``None``, the server sends the regular answer for ``"keep"`` and nothing otherwise.

    - ``"stall"``: the connection stays open for ``stall_seconds`` (``None``: until the client disconnects).
    - ``"endless"``: the answer's body is repeated, without a length, until the client disconnects.
    """

    name: str
    delay: float = 0.0
    raw: bytes | None = attrs.field(default=None, repr=lambda raw: "None" if raw is None else f"<{len(raw)} bytes>")
    ending: Ending = "keep"
    stall_seconds: float | None = None


@attrs.frozen
class Answer:
    """HTTP answer. ``effect`` is what the server does to the connection; ``None`` is a regular delivery."""

    status: int
    headers: dict[str, str]
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")
    effect: FaultEffect | None = None

    def json(self) -> Any:
        """Return the decoded JSON body.

        :raises ValueError: if the body is not JSON.
        """
        return json.loads(self.body)


@attrs.frozen(kw_only=True)
class GenerationSpec:
    """Values of a valid create body that affect the emulated task.

    ``micro_usd`` is the price in millionths of a dollar: 0 where no page has a price.
    """

    prompt: str
    seed: int | None
    aspect_ratio: float
    frame_rate: int
    callback_url: str | None
    operation: str = ""
    micro_usd: int = 0


@attrs.frozen(kw_only=True)
class Task:
    """Accepted generation. Times are seconds of the gateway's clock.

    ``failure_code`` is the wire's word for the kind of ``failure``. A task leaves fal's queue at ``starts_at``.
    """

    id: str
    provider: str
    prompt: str
    seed: int
    seed_requested: bool
    created_at: float
    settles_at: float
    failure: str | None
    aspect_ratio: float
    frame_rate: int
    callback_url: str | None
    operation: str = ""
    failure_code: str = ""
    micro_usd: int = 0
    starts_at: float = 0.0

    def age_share(self, now: float) -> float:
        """Return the elapsed share of the generation, 0.0 to 1.0."""
        duration = self.settles_at - self.created_at
        return 1.0 if now >= self.settles_at or duration <= 0 else max(0.0, (now - self.created_at) / duration)


@attrs.frozen(kw_only=True)
class Charge:
    """Charge for one accepted task, recorded before the answer is sent. Times are seconds of the gateway's clock."""

    provider: str
    task_id: str
    prompt: str
    charged_at: float
    settles_at: float
    #: Whether the provider will report this generation as failed.
    fails: bool
    #: Name of the fault that the scenario applied to the create, if any.
    fault: str | None
    raw_body: bytes = attrs.field(repr=False)
    #: Price in millionths of a dollar: 0 where no page has a price. Pika's own API and fal take nothing for a failure.
    micro_usd: int = 0

    @property
    def body(self) -> dict[str, Any]:
        """The decoded request body."""
        parsed: dict[str, Any] = json.loads(self.raw_body)
        return parsed


@attrs.define
class Polls:
    """Number of polls, in total and by task id."""

    total: int = 0
    by_task: dict[str, int] = attrs.field(factory=dict, repr=False)

    def of(self, task_id: str) -> int:
        """Return the number of polls of *task_id*."""
        return self.by_task.get(task_id, 0)

    def add(self, task_id: str) -> None:
        """Count one poll of *task_id*."""
        self.total += 1
        self.by_task[task_id] = self.by_task.get(task_id, 0) + 1


@attrs.frozen
class RequestLogEntry:
    """Log entry of an API request. ``at`` is a time of the gateway's clock; ``fault`` is the name of a fault."""

    method: str
    path: str
    status: int
    at: float
    fault: str | None = None


@attrs.frozen
class Refusal:
    """Log entry of a refused request: the invalid field (``""`` if none is) and the problem with it."""

    provider: str
    status: int
    code: str
    field: str
    problem: str
    at: float


@attrs.frozen
class CdnRequest:
    """Log entry of a request to the CDN. ``credentials`` names the credentials that it wrongly carried."""

    method: str
    path: str
    status: int
    at: float
    range: str | None
    credentials: tuple[str, ...] = ()


@attrs.frozen
class UploadedFile:
    """File that a client uploads to Pika's own API: what it announced, and the content once it has come."""

    id: str
    url: str
    content_type: str
    size_bytes: int
    headers: dict[str, str]
    #: Time of the gateway's clock until which the content is taken.
    expires_at: float
    content: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Callback:
    """Callback that is due: the URL that the client passed, and a body (CometAPI: the feed's ``data`` object)."""

    task_id: str
    url: str
    body: bytes = attrs.field(repr=False)
    due_at: float
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)
    #: Number of earlier attempts; fal repeats a webhook until it is answered.
    attempt: int = 0


@attrs.frozen
class CallbackResult:
    """Result of one callback: the status of the answer, or the error that prevented one."""

    task_id: str
    url: str
    status: int | None
    error: str | None
    at: float
