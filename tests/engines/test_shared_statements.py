"""Rows of what all workers share: duration samples and the stops of accounts."""

from __future__ import annotations

import sqlalchemy as sa

from pika_async._journal.samples import SAMPLES_PER_STRATUM
from pika_async.engines import tables
from pika_async.engines.shared_statements import delete_samples, insert_samples, select_new_samples, select_samples
from pika_async.polling import DurationSample
from tests.engines.rows import Rows


def samples_of(stratum: str, *accepted_at: float) -> list[DurationSample]:
    return [DurationSample(stratum, lower=1.0, upper=2.0, accepted_at=at) for at in accepted_at]


def test_of_each_kind_of_job_the_samples_that_were_accepted_last_are_read_and_kept(rows: Rows) -> None:
    """As many as a journal keeps, so that neither a start nor the table grows with the age of a cluster."""
    many = samples_of("x", *map(float, range(SAMPLES_PER_STRATUM + 50)))
    few = samples_of("y", 1000.5, 0.5)
    rows.run(insert_samples, "w", [*many[::-1], *few])
    latest, found = rows.run(select_samples)
    assert latest == len(many) + len(few)
    kept = sorted(many[50:] + few, key=lambda sample: sample.accepted_at)
    assert found == kept
    rows.run(delete_samples)
    stored = rows.run(lambda connection: connection.execute(sa.select(sa.func.count()).select_from(tables.samples)))
    assert stored.scalar_one() == len(kept)
    assert rows.run(select_samples) == (latest, kept)


def test_a_worker_reads_the_samples_of_the_others_and_passes_its_own(rows: Rows) -> None:
    for worker, at in (("w", 1.0), ("v", 2.0), ("u", 3.0), ("w", 4.0)):
        rows.run(insert_samples, worker, samples_of("x", at))
    assert rows.run(select_new_samples, "w", 0, 9) == (4, samples_of("x", 2.0, 3.0))
    assert rows.run(select_new_samples, "w", 4, 9) == (4, [])
    assert rows.run(select_new_samples, "v", 0, 2) == (4, samples_of("x", 3.0, 4.0))
