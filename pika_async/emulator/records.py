"""The nouns of the emulator: answers, tasks, charges and what was seen; plain values that decide nothing."""

from __future__ import annotations

import json
from typing import Any, Literal

import attrs

__all__ = [
    "PROVIDERS",
    "Answer",
    "Callback",
    "CallbackResult",
    "CdnRequest",
    "Charge",
    "Disruption",
    "Ending",
    "Polls",
    "Refusal",
    "RequestLogEntry",
    "Task",
]

#: The gateways the emulator stands in for, by the path prefix that selects each.
PROVIDERS = ("cometapi", "yescale", "gptge", "native")

#: How a disturbed connection ends: kept alive, closed politely, reset, left hanging, or fed for ever.
Ending = Literal["keep", "fin", "rst", "stall", "endless"]


@attrs.frozen(kw_only=True)
class Disruption:
    """What happens to the connection instead of an ordinary delivery of the answer.

    In order: wait ``delay`` seconds, write ``raw`` to the socket as it is (``None``: the ordinary answer when
    ``ending`` is ``"keep"``, otherwise nothing), then end the connection as ``ending`` says. With ``"stall"``
    the connection hangs ``stall_seconds`` (``None``: until the client leaves) and then closes. With
    ``"endless"`` the answer's body is repeated without a length for as long as the client reads.
    """

    name: str
    delay: float = 0.0
    raw: bytes | None = attrs.field(default=None, repr=lambda raw: "None" if raw is None else f"<{len(raw)} bytes>")
    ending: Ending = "keep"
    stall_seconds: float | None = None


@attrs.frozen
class Answer:
    """One HTTP answer; ``fault`` tells the shell what to do with the socket, ``None`` means deliver as usual."""

    status: int
    headers: dict[str, str]
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")
    fault: Disruption | None = None

    def json(self) -> Any:
        """The body as JSON; raises ``ValueError`` when it is none."""
        return json.loads(self.body)


@attrs.frozen(kw_only=True)
class Task:
    """One accepted generation; times are seconds of the gateway's clock."""

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

    def age_share(self, now: float) -> float:
        """How much of the generation has passed, 0.0 to 1.0."""
        whole = self.settles_at - self.created_at
        return 1.0 if now >= self.settles_at or whole <= 0 else max(0.0, (now - self.created_at) / whole)


@attrs.frozen(kw_only=True)
class Charge:
    """One paid acceptance, written before its answer is sent; times are seconds of the gateway's clock."""

    provider: str
    task_id: str
    prompt: str
    charged_at: float
    settles_at: float
    #: Whether the provider will report this generation as failed.
    fails: bool
    #: The fault that struck the answer, if a script's rule did.
    fault: str | None
    raw_body: bytes = attrs.field(repr=False)

    @property
    def body(self) -> dict[str, Any]:
        """The request body as it was sent."""
        parsed: dict[str, Any] = json.loads(self.raw_body)
        return parsed


@attrs.define
class Polls:
    """How often feeds were asked: in total and by task."""

    total: int = 0
    by_task: dict[str, int] = attrs.field(factory=dict, repr=False)

    def of(self, task_id: str) -> int:
        """How many polls named this task."""
        return self.by_task.get(task_id, 0)

    def add(self, task_id: str) -> None:
        """Counts one poll of a task."""
        self.total += 1
        self.by_task[task_id] = self.by_task.get(task_id, 0) + 1


@attrs.frozen
class RequestLogEntry:
    """One API request: what was asked, the status answered, and when."""

    method: str
    path: str
    status: int
    at: float
    fault: str | None = None


@attrs.frozen
class Refusal:
    """One request that was refused: the field at fault (``""`` when no field is) and what was wrong."""

    provider: str
    status: int
    code: str
    field: str
    problem: str
    at: float


@attrs.frozen
class CdnRequest:
    """One request at the CDN origin; ``credentials`` names the headers that had no business there."""

    method: str
    path: str
    status: int
    at: float
    range: str | None
    credentials: tuple[str, ...] = ()


@attrs.frozen
class Callback:
    """One notification that is due: the feed's bare ``data`` object for the address the client gave."""

    task_id: str
    url: str
    body: bytes = attrs.field(repr=False)
    due_at: float


@attrs.frozen
class CallbackResult:
    """What became of one notification: the status answered, or why there is none."""

    task_id: str
    url: str
    status: int | None
    error: str | None
    at: float
