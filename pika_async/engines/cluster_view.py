"""Jobs of a cluster as they were last read, in memory, for what reads a journal. Writes nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from pika_async._journal.memory import MemoryJournal
from pika_async.engines import job_reads, shared_statements
from pika_async.engines.database import Database
from pika_async.jobs import Job
from pika_async.models import GenerationRequest
from pika_async.polling.durations import DurationSample

__all__ = ["ClusterView", "read_view"]

#: Rows read at once.
VIEW_ROWS: Final = 1_000


class ClusterView(MemoryJournal):
    """Jobs of a cluster; see `Journal` for the calls. It forgets none of them."""

    #: It has no file that could be moved, and nothing to be written.
    is_displaced = False
    is_saved = True

    def __init__(self) -> None:
        super().__init__(settled=sys.maxsize)
        #: Charges of all jobs that are not here.
        self._elsewhere: Counter[tuple[str, float | None]] = Counter()

    async def load(
        self, jobs: Iterable[Job], costs: Counter[tuple[str, float | None]], samples: Iterable[DurationSample]
    ) -> None:
        """Take over jobs, the charges of all jobs of the cluster, and what was learned of durations."""
        await self.save(*jobs)
        self._elsewhere = costs - super().costs()
        self._samples = list(samples)

    def charges(self) -> int:
        """See `Journal`. Those of the whole cluster."""
        return self.costs().total()

    def costs(self) -> Counter[tuple[str, float | None]]:
        """See `Journal`. Those of the whole cluster."""
        return self._elsewhere + super().costs()

    def flush(self, timeout: float) -> None:
        """Write nothing: the database has every job."""

    def require_none_due(self) -> None:
        """Require nothing: no file can be missing."""


async def read_view(database: Database, requests: Sequence[GenerationRequest] | None) -> ClusterView:
    """Return the jobs of `requests`, by their keys or contents; of None all jobs of the cluster."""
    view = ClusterView()
    if requests is None:
        after, jobs = 0, list[Job]()
        while page := await database.run(job_reads.select_page, after, VIEW_ROWS):
            jobs += [job for _, job in page]
            after = page[-1][0]
    else:
        keys = {request.key for request in requests if request.key is not None}
        contents = {request.fingerprint() for request in requests}
        jobs = await database.run(job_reads.select_known, keys, contents)
    costs = await database.run(job_reads.select_costs)
    _, samples = await database.run(shared_statements.select_samples)
    await view.load(jobs, costs, samples)
    return view
