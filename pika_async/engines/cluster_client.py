"""A cluster as a batch uses it: requests in, jobs as the workers finish them. Drives nothing and reads no key."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import Any, Final, Self

import attrs

from pika_async._planning.estimate import Estimate
from pika_async._runtime.estimation import estimate
from pika_async._runtime.session import build_stats
from pika_async._runtime.stats import Stats
from pika_async.config.accounts import Account, Routing
from pika_async.config.client import ClientConfig
from pika_async.engines.cluster import Cluster
from pika_async.engines.cluster_stats import ClusterStats
from pika_async.engines.cluster_view import ClusterView
from pika_async.engines.keyless import keyless_config
from pika_async.errors import NoAccountLeft, SubmissionsStopped
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest

__all__ = ["ClusterClient"]

#: Seconds between two checks of the workers and the accounts, and the number of checks that must agree on a stop: a
#: worker tries a stopped account again now and then.
CHECK_S: Final = 2.0
AGREEING: Final = 3


class ClusterClient:
    """The jobs of one batch in a cluster; see `BatchClient` for the calls.

    :param database_url: the address of the database.
    :param accounts: those of the workers; at least one.
    :param options: further arguments of `Cluster`.
    :param notify: called with a sentence for a person, when no worker is alive.
    """

    def __init__(
        self, database_url: str, accounts: Iterable[Account], *, notify: Callable[[str], object], **options: Any
    ) -> None:
        self._url, self._accounts, self._options = database_url, tuple(accounts), options
        self._notify = notify
        #: What is known of the jobs of the batch.
        self.journal = ClusterView()
        self._config = self._configured()
        first = self._config.accounts[0]
        self.provider, self.base_url = first.provider, first.base_url
        self.accounts = {each.name: (each.provider, each.base_url) for each in self._config.accounts}
        self.routing: Routing = self._config.routing
        #: Why accounts are stopped, by their names, but for limits of the user's own.
        self.stopped_accounts: dict[str, str] = {}
        self._cluster: Cluster | None = None
        self._stats: ClusterStats | None = None
        #: Keys of the jobs that are not finished.
        self._waiting: set[str] = set()
        self._agreeing = 0
        self._has_workers = True

    def _configured(self) -> ClientConfig:
        return keyless_config(self._accounts, self.journal, **self._options)

    def _new_cluster(self) -> Cluster:
        return Cluster(self._url, self._accounts, **self._options)

    async def read(self, requests: Iterable[GenerationRequest] | None = None) -> ClusterView:
        """Read what the cluster knows of some requests, by their keys or contents, into `journal`; default: all jobs.

        :raises ClusterUnusable: if the database cannot be reached.
        """
        async with self._new_cluster() as cluster:
            self.use(await cluster.view(requests))
        return self.journal

    def use(self, view: ClusterView) -> None:
        """Take over what was read of the cluster already."""
        self.journal = view
        self._config = self._configured()

    async def resume(self, keys: Collection[str]) -> list[str]:
        """See `Cluster.resume`."""
        return await self._required().resume(keys)

    async def __aenter__(self) -> Self:
        self._cluster = await self._new_cluster().open()
        return self

    async def __aexit__(self, *_: object) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.aclose()

    def _required(self) -> Cluster:
        assert self._cluster is not None, "it is not open"  # noqa: S101
        return self._cluster

    async def as_settled(
        self,
        requests: Sequence[GenerationRequest],
        *,
        download_to: Path | str | None = None,  # noqa: ARG002 - the workers do
    ) -> AsyncGenerator[Job, None]:
        """Save and queue the requests; yield each job once it is finished.

        :raises SubmissionsStopped: if every account is stopped, and no job is in flight.
        """
        cluster = self._required()
        keys = await cluster.submit_many(requests)
        await cluster.resume(keys)
        waiting = self._waiting = set(keys)
        checked_at = 0.0
        async with aclosing(cluster.changes(keys)) as pages:
            async for page in pages:
                for job, is_finished in page:
                    await self.journal.save(job)
                    if is_finished and job.key in waiting:
                        waiting.discard(job.key)
                        yield job
                if not waiting:
                    return
                if time.monotonic() - checked_at >= CHECK_S:
                    await self._check(cluster, waiting)
                    checked_at = time.monotonic()

    async def _check(self, cluster: Cluster, waiting: Collection[str]) -> None:
        """Say so when no worker is alive; raise once all accounts are stopped and nothing is in flight."""
        self._stats = stats = await cluster.stats()
        has_workers = any(worker.is_alive for worker in stats.workers)
        if self._has_workers and not has_workers:
            jobs = "1 job waits" if len(waiting) == 1 else f"{len(waiting)} jobs wait"
            self._notify(f"no worker is running, so nothing is sent or polled: {jobs} for one")
        self._has_workers = has_workers
        reasons = {name: stats.stop_of(name) for name in self.accounts}
        is_stopped = has_workers and all(reasons.values())
        if not is_stopped or any(self._is_in_flight(key) for key in waiting):
            self._agreeing = 0
            return
        self._agreeing += 1
        if self._agreeing >= AGREEING:
            raise self._stop({name: reason or "" for name, reason in reasons.items()}, stats)

    def _is_in_flight(self, key: str) -> bool:
        job = self.journal.get(key)
        return job is not None and job.status is not JobStatus.PLANNED

    def _stop(self, reasons: Mapping[str, str], stats: ClusterStats) -> SubmissionsStopped:
        self.stopped_accounts = {name: why for name, why in reasons.items() if not stats.accounts[name].is_at_limit}
        return NoAccountLeft(provider=", ".join(reasons), reasons=reasons)

    def active_jobs(self) -> list[Job]:
        """See `PikaClient.active_jobs`; those of this batch that were sent."""
        jobs = (self.journal.get(key) for key in self._waiting)
        return [job for job in jobs if job is not None and job.status is not JobStatus.PLANNED]

    def stats(self) -> Stats:
        """See `PikaClient.stats`; of what is known without a session."""
        found = build_stats(self._config, None)
        if self._stats is None:
            return found
        accounts = {name: attrs.evolve(one, stopped=self._stats.stop_of(name)) for name, one in found.accounts.items()}
        return attrs.evolve(found, open=self._cluster is not None, accounts=accounts)

    async def job(self, key: str) -> Job | None:
        """Return the job of this key as it was last read; None if it is not one of the batch."""
        return self.journal.get(key)

    async def jobs(self) -> AsyncGenerator[Job, None]:
        """Iterate over the jobs of the batch as they were last read."""
        for job in self.journal.all():
            yield job

    async def estimate(
        self,
        requests: Sequence[GenerationRequest],
        *,
        again: Collection[str] = (),
        quotes: bool = False,  # noqa: ARG002
    ) -> Estimate:
        """See `PikaClient.estimate`. No provider is asked, because the keys are the workers'."""
        return await estimate(self._config, None, requests, again, nullcontext())

    async def resubmit(self, key: str, *, new_seed: bool = False) -> Job:
        """See `PikaClient.resubmit`."""
        earlier = await self._required().resubmit(key, new_seed=new_seed, random=random.random())
        await self.journal.save(earlier, await self._required().job(key))
        return earlier

    async def cancel_planned(self) -> int:
        """Cancel nothing: what is planned is the workers'."""
        return 0
