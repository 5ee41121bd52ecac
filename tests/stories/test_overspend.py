"""Stories of a provider that charges more than the price given, over real sockets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from pika_async import BudgetReached, FixedInterval, JobStatus, Limits, PikaClient
from pika_async.emulator import Emulator
from tests.fakes.memory_gateway import prompts

pytestmark = pytest.mark.anyio

#: US dollars for 5 s of the default size at Pika's own API.
COST = 0.45


def client(served: Emulator, journal: Path, **options: Any) -> PikaClient:
    """Return a client that was given a price below that of the provider."""
    return PikaClient(
        "pika", base_url=served.base_url("pika"), api_key=served.api_key, journal=journal, price=0.3, budget=3.0,
        polling=FixedInterval(0.05), **options,
    )  # fmt: skip


def charged(served: Emulator) -> float:
    return sum(charge.micro_usd for charge in served.ledger) / 1_000_000


async def test_a_budget_holds_at_the_price_that_is_charged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One at a time: after the first its cost is reserved for the others, so that six fit and not seven."""
    async with Emulator(durations="constant:0.05", video_seconds=1) as served:
        async with client(served, tmp_path / "j.db", limits=Limits(max_in_flight=1)) as pika:
            with caplog.at_level(logging.WARNING, "pika_async.submissions"):
                report = await pika.run(prompts(9))
            assert isinstance(report.stopped, BudgetReached)
            assert (report.stopped.spent, report.stopped.needed) == (2.7, 3.15)
        assert report.counts == {JobStatus.SUCCEEDED: 6, JobStatus.PLANNED: 3}
        assert {job.cost for job in report.jobs} == {COST, None}
        assert charged(served) == 6 * COST
        (record,) = [each for each in caplog.records if each.name == "pika_async.submissions"]
        assert record.getMessage().startswith("pika charged 0.45 for a request at the price of 0.30;")


@pytest.mark.parametrize("together", [4, 20])
async def test_what_was_under_way_is_all_that_may_exceed_a_budget(tmp_path: Path, together: int) -> None:
    """The excess is the difference for each job that had no cost when the first came; a resumption adds none."""
    async with Emulator(durations="constant:0.05", video_seconds=1) as served:
        async with client(served, tmp_path / "j.db", limits=Limits(max_in_flight=together)) as pika:
            report = await pika.run(prompts(20))
            assert isinstance(report.stopped, BudgetReached)
        first = charged(served)
        assert first <= 3.0 + (COST - 0.3) * min(together, 10) + 1e-9
        async with client(served, tmp_path / "j.db") as pika:
            await pika.resume()
        assert charged(served) in {first, round(first + COST, 6)}
        assert charged(served) <= max(first, 3.0 + COST - 0.3) + 1e-9
