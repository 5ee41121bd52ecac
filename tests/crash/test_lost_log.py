"""A killed batch whose log is lost: only the database is carried elsewhere, or the log is removed. Judged by the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.crash.crash_batch import CrashBatch, ProcessRun

#: Real processes that are killed: with the slowest cases, on one Python.
pytestmark = pytest.mark.slow

MakeBatch = Callable[..., CrashBatch]
COUNT = 6


def _keep_the_database(out: Path) -> None:
    for file in out.glob("journal.db?*"):
        file.unlink()


def _remove_the_log(out: Path) -> None:
    (out / "journal.db-wal").unlink(missing_ok=True)


LOSSES: Final = {"only the database": _keep_the_database, "no log": _remove_the_log}
#: The points of a kill, and whether the same command goes on afterwards although the log is lost: with only the
#: database, and without the log alone.
POINTS: Final[dict[str, tuple[bool, bool]]] = {
    "mark-before": (True, True),  # nothing was sent, nor planned
    "mark-after": (False, True),  # that is known of the database only beside its lock file
    "plan-after": (False, False),
    "intent-after:3": (False, False),
    "send-after:3": (False, False),
    "id-after:3": (False, False),
    "named-after:3": (False, False),
    "close-before": (False, False),
    "close-copied": (False, True),
    "close-after": (True, True),
}


def _run_again(batch: CrashBatch) -> ProcessRun:
    with batch.started() as running:
        return running.end()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_and_a_lost_log_pay_nothing_twice(make_batch: MakeBatch, point: str, loss: str) -> None:
    """The next run is refused by name before it sends anything, or nothing is missing and it goes on."""
    batch = make_batch(COUNT)
    with batch.started(at=point, one_by_one=True, poll_after=COUNT) as running:
        assert running.end().was_killed
    LOSSES[loss](batch.out)
    paid = len(batch.charges)
    again = _run_again(batch)
    goes_on = POINTS[point][list(LOSSES).index(loss)]
    assert (again.code == 2) is not goes_on, again.err
    if not goes_on:
        assert "was not closed cleanly and its log (journal.db-wal) is missing" in again.err
        assert len(batch.charges) == paid
    assert max(Counter(charge.prompt for charge in batch.charges).values(), default=0) <= 1
    assert not goes_on or len(batch.charges) == COUNT


def test_a_log_that_is_put_back_continues_the_batch(make_batch: MakeBatch) -> None:
    """After the refusal the folder is whole again once the log is back."""
    batch = make_batch(COUNT)
    assert batch.run(at="id-after:3", one_by_one=True).was_killed
    log = batch.out / "journal.db-wal"
    content = log.read_bytes()
    log.unlink()
    assert _run_again(batch).code == 2
    log.write_bytes(content)
    batch.finish_and_verify(unknown=0, charged=COUNT)
