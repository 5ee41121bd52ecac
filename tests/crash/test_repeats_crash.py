"""A batch at a gateway with idempotency keys, killed between a submission and its answer: nothing is left in doubt."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.crash.crash_batch import CrashBatch

pytestmark = pytest.mark.slow

MakeBatch = Callable[..., CrashBatch]
COUNT = 8
#: Kills in a row of one batch, each at another submission of the same run.
KILLS = 50


@pytest.mark.parametrize("point", ["intent-after:3", "send-before:3", "send-after:3", "id-before:3"])
def test_a_kill_around_a_submission_leaves_no_doubt(make_batch: MakeBatch, point: str) -> None:
    """Each prompt is charged once, whether the submission had arrived or not."""
    batch = make_batch(COUNT, provider="pika")
    assert batch.run(at=point, one_by_one=True).was_killed
    batch.finish_and_verify(unknown=0, charged=COUNT)


def test_fifty_kills_between_a_submission_and_its_answer(make_batch: MakeBatch) -> None:
    """Each run is killed when its next submission was sent; at the end every prompt was charged once."""
    batch = make_batch(KILLS, provider="pika")
    for number in range(KILLS):
        # A run repeats the submission that the run before it left in doubt, and is killed at the one after it.
        assert batch.run(at="send-after:1" if number == 0 else "send-after:2", one_by_one=True).was_killed
    batch.finish_and_verify(unknown=0, charged=KILLS)
