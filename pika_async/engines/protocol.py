"""Interface of what runs the jobs of a batch: the client of one process, or a cluster of many."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from pika_async._planning.estimate import Estimate
from pika_async._runtime.stats import Stats
from pika_async.config.accounts import Routing
from pika_async.jobs import Job
from pika_async.models import GenerationRequest
from pika_async.providers import Provider

__all__ = ["BatchClient"]


class BatchClient(Protocol):
    """The calls of `PikaClient` that a batch needs, which documents them; `ClusterClient` has them too.

    It is opened by `async with`, once or again in a later event loop.
    """

    #: The provider and the base URL of the first account.
    provider: Provider
    base_url: str
    #: The provider and the base URL of each account, by its name, and the choice between them.
    accounts: dict[str, tuple[Provider, str]]
    routing: Routing

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *_: object) -> None: ...

    def as_settled(
        self, requests: Sequence[GenerationRequest], *, download_to: Path | str | None = None
    ) -> AsyncGenerator[Job, None]: ...

    def active_jobs(self) -> Sequence[Job]: ...

    def stats(self) -> Stats: ...

    async def job(self, key: str) -> Job | None: ...

    def jobs(self) -> AsyncIterable[Job]: ...

    async def estimate(
        self, requests: Sequence[GenerationRequest], *, again: Collection[str] = (), quotes: bool = False
    ) -> Estimate: ...

    async def resubmit(self, key: str, *, new_seed: bool = False) -> Job: ...

    async def cancel_planned(self) -> int: ...
