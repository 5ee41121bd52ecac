"""A budget over four accounts at four prices, in a batch that is killed and run again."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Final

import pytest

from pika_async.emulator import Emulator
from pika_async.jobs import JobStatus
from tests.crash.crash_batch import CrashBatch
from tests.crash.fork_server import ForkServer

#: Real processes that are killed: with the slowest cases, on one Python.
pytestmark = pytest.mark.slow

PRICES: Final = {"cometapi": "0.28", "native": "0.5", "yescale": "0.33", "gptge": "0.1"}
BUDGET: Final = 10


class AccountsBatch(CrashBatch):
    """Batch over four accounts, with a budget."""

    @property
    def command(self) -> tuple[str, ...]:
        accounts = "\n".join(
            f'[accounts.{name}]\nprovider = "{name}"\nbase_url = "{self.emulator.base_url(name)}"\nprice = {price}'
            for name, price in PRICES.items()
        )
        (self.folder / "accounts.toml").write_text(accounts)
        options = ("--accounts", "accounts.toml", "--budget", str(BUDGET), *self.options)
        return ("batch", "b.txt", "--out", self.out_option, "--expected-seconds", "0.1", *options)


def test_a_budget_holds_over_kills_and_resumes(emulator: Emulator, fork_server: ForkServer, tmp_path: Path) -> None:
    """The charges of all ledgers at their prices are never above the budget, and no prompt is charged twice."""
    prompts = [f"budget {number} [slow]" for number in range(60)]
    batch = AccountsBatch(emulator, tmp_path / "batch", prompts, fork_server=fork_server)
    for number in (2, 5, 9, 14, 3):
        with batch.started() as running:
            running.wait_for_event("sending", number)
            running.process.kill()
            batch.check_run(running.end())
        verify(batch)
    run = batch.run()
    verify(batch)
    assert run.code != 0, "planned jobs are left"
    assert batch.statuses[JobStatus.PLANNED] > 0
    assert {charge.provider for charge in batch.charges} == set(PRICES)


def verify(batch: CrashBatch) -> None:
    """Check the ledgers against the budget and the jobs."""
    assert sum((Fraction(PRICES[charge.provider]) for charge in batch.charges), Fraction()) <= BUDGET
    times = Counter(charge.prompt for charge in batch.charges)
    assert max(times.values(), default=0) <= 1
    recorded = {job.request.prompt for job in batch.jobs.values() if job.may_be_charged}
    assert set(times) <= recorded
