"""In-memory transport: the emulator's pure gateway without sockets, on the running loop's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs

from pika_async import PikaClient
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent
from pika_async._runtime.gateway import GatewayClient
from pika_async.emulator import Answer, Gateway, Scenario
from pika_async.jobs import Job
from pika_async.models import GenerationRequest
from pika_async.providers._verdicts import SubmitOutcome
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure
from tests.fakes.family import credential_headers

ORIGIN = "http://127.0.0.1:1"


class MemoryTransport:
    """Transport to a `Gateway` in memory; faults of connections have the results that they have on real sockets."""

    def __init__(self, gateway: Gateway, *, latency: float = 0.05) -> None:
        self.gateway = gateway
        self.latency = latency
        self.active_requests = 0
        self.max_active_requests = 0

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        self.active_requests += 1
        self.max_active_requests = max(self.max_active_requests, self.active_requests)
        try:
            return await self._handle(request)
        finally:
            self.active_requests -= 1

    async def _handle(self, request: HttpRequest) -> HttpResponse | TransportFailure:
        await asyncio.sleep(self.latency / 2)
        path = request.url.removeprefix(ORIGIN)
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers |= credential_headers(path.split("/")[1], self.gateway.api_key) | {"content-type": "application/json"}
        now = asyncio.get_running_loop().time()
        answer = self.gateway.handle(request.method, path, headers, request.body or b"", now)
        await asyncio.sleep(self.latency / 2)
        return await _delivered(answer)


async def _delivered(answer: Answer) -> HttpResponse | TransportFailure:
    fault = answer.effect
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if fault is None:
        return HttpResponse(status=answer.status, headers=headers, body=answer.body)
    await asyncio.sleep(fault.delay)
    if fault.ending == "stall":
        await asyncio.sleep(120 if fault.stall_seconds is None else min(120, fault.stall_seconds))
    if fault.raw is None and fault.ending == "keep":
        return HttpResponse(status=answer.status, headers=headers, body=answer.body)
    head, _, body = (fault.raw or b"").partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 ") and body:
        return HttpResponse(status=int(head[9:12]), headers=headers, body=body, complete=False)
    return TransportFailure(
        phase=SendPhase.SENT, kind="disconnected", detail="the connection was closed before an answer"
    )


def gateway(scenario: list[dict[str, Any]] | None = None, **options: Any) -> Gateway:
    """Return a gateway whose tasks take 60 s, unless `durations` is passed."""
    options.setdefault("durations", "constant:60")
    return Gateway(scenario=Scenario.of(scenario) if scenario else None, **options)


def client(gateway: Gateway, provider: str = "cometapi", **options: Any) -> PikaClient:
    """Return a client of `gateway` in memory."""
    transport = options.pop("transport", None) or MemoryTransport(gateway)
    return PikaClient(provider, base_url=f"{ORIGIN}/{provider}", transport=transport, **options)


class SlowJournal(MemoryJournal):
    """In-memory journal whose writes take time, as on a disk."""

    def __init__(self, seconds: float = 0.01) -> None:
        super().__init__()
        self.seconds = seconds

    async def record_intent(self, job: Job, intent: Intent) -> None:
        await asyncio.sleep(self.seconds)
        await super().record_intent(job, intent)

    async def save(self, *jobs: Job, linger: bool = False) -> None:
        await asyncio.sleep(self.seconds)
        await super().save(*jobs)


def with_journal(pika: PikaClient, journal: MemoryJournal) -> PikaClient:
    """Return `pika`, which must not be open, with another journal."""
    pika._journal = journal
    pika._config = attrs.evolve(pika._config, journal=journal)
    return pika


def now() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()


def prompts(count: int) -> list[str]:
    """Return *count* different prompts."""
    return [f"prompt {number}" for number in range(count)]


def requests(count: int) -> list[GenerationRequest]:
    """Return *count* different requests with keys."""
    return [GenerationRequest(prompt, key=f"k{number}") for number, prompt in enumerate(prompts(count))]


Until = Callable[[], bool]


async def until(condition: Until, step: float = 0.1) -> None:
    """Let virtual time pass until `condition` holds."""
    while not condition():
        await asyncio.sleep(step)


async def submit_once(gateway_client: GatewayClient, request: GenerationRequest) -> SubmitOutcome:
    """Encode and submit one request, and return its outcome."""
    encoded = await gateway_client.encode(request, "https://callback.invalid/")
    return encoded if isinstance(encoded, SubmitOutcome) else await gateway_client.submit(encoded)
