"""`client.stats()`: what a health check is told, while jobs wait, are parked, and after all is closed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import FixedInterval, JobStatus, Limits, Stats
from pika_async._planning.limits import RATE_WINDOW_S, RateMeter
from tests.fakes import virtual_clock
from tests.fakes.callback_delivery import receiver
from tests.fakes.memory_gateway import client, gateway, until


@given(st.lists(st.floats(0, 500), max_size=60), st.floats(0, 100))
def test_a_meter_counts_the_last_minute(times: list[float], later: float) -> None:
    """What lies a minute back or more counts no more, to the second."""
    times.sort()
    meter = RateMeter()
    for at in times:
        meter.add(at)
    now = (times[-1] if times else 0.0) + later
    counted = [at for at in times if int(at) > int(now) - RATE_WINDOW_S]
    span = min(RATE_WINDOW_S, int(now) - int(times[0]) + 1) if times else 1
    assert meter.per_second(now) == pytest.approx(len(counted) / span)


def test_a_client_that_works_tells_what_it_does() -> None:
    at = gateway([{"on": "create", "prompt": "lost", "do": "drop"}], in_flight=5, durations="constant:60")

    async def main() -> list[Stats]:
        async with client(at, "native", limits=Limits(polls_per_second=100)) as pika:
            seen = [pika.stats()]
            batch = asyncio.create_task(pika.run(["lost", *(f"p{number}" for number in range(12))]))
            await until(lambda: pika.stats().in_flight == 4 and pika.stats().unknown == 1)
            await asyncio.sleep(20)
            seen.append(pika.stats())
            await batch
            seen.append(pika.stats())
        return [*seen, pika.stats()]

    fresh, busy, done, closed = virtual_clock.run(main())
    assert (fresh.open, fresh.planned, fresh.in_flight, fresh.charges, fresh.medians) == (True, 0, 0, 0, {})
    assert fresh.provider == "native"
    assert (busy.in_flight, busy.unknown, busy.charges, busy.callback_loss_rate) == (4, 1, 5, None)
    assert busy.planned + busy.submitting > 0
    assert busy.estimated_limit is not None
    assert busy.submits_per_second > 0
    assert (done.in_flight, done.planned, done.unknown, done.charges) == (0, 0, 1, 13)
    assert done.polls_per_second > 0
    assert 50 < done.medians["native/-/text/plain"] < 70
    assert (closed.open, closed.charges, closed.unknown) == (False, 13, 1)
    assert json.loads(json.dumps(attrs.asdict(done)))["charges"] == 13


def test_what_stops_it_is_told() -> None:
    """A stopped account, strays and a provider that answers nothing."""
    key = {"on": "create", "do": {"fault": "refuse", "as": "key"}}

    async def stopped() -> Stats:
        async with client(gateway([key]), "native") as pika:
            await pika.run(["a"])
            return pika.stats()

    assert "401" in str(virtual_clock.run(stopped()).stopped) or virtual_clock.run(stopped()).stopped

    async def strange() -> tuple[Stats, Stats]:
        at = gateway([{"on": "feed", "between": [0, 200], "do": {"fault": "answer", "status": 502}},
                      {"on": "feed", "between": [200, 400], "do": "other-task"}])  # fmt: skip
        async with client(at, "native") as pika:
            batch = asyncio.create_task(pika.run([f"p{n}" for n in range(20)]))
            await asyncio.sleep(190)
            held = pika.stats()
            report = await batch
            assert report.counts == {JobStatus.SUCCEEDED: 20}
            return held, pika.stats()

    held, after = virtual_clock.run(strange())
    assert (held.breaker_open, held.in_flight) == (True, 20)
    assert (after.breaker_open, after.mismatched_answers > 0) == (False, True)


def test_how_many_callbacks_are_lost_is_told() -> None:
    async def main() -> float | None:
        async with client(gateway(), callbacks=receiver()) as pika:
            return pika.stats().callback_loss_rate

    untold = virtual_clock.run(main())
    assert untold is not None
    assert 0 < untold < 0.1


@pytest.mark.anyio
async def test_a_health_check_may_ask_from_a_thread(tmp_path: Path) -> None:
    """As a web framework does with a handler that is no coroutine."""
    at = gateway(durations="constant:0.2")
    async with client(at, "native", journal=tmp_path / "jobs.db", polling=FixedInterval(0.05)) as pika:
        batch = asyncio.create_task(pika.run(["a", "b", "c"]))
        seen: list[Stats] = []
        while not batch.done():
            seen.append(await asyncio.to_thread(pika.stats))
    assert max(stats.in_flight for stats in seen) > 0
    assert (seen[-1].open, seen[-1].charges) == (True, 3)
    assert seen[-1].submits_per_second > 0


@pytest.mark.anyio
async def test_the_parked_of_earlier_lives_are_counted(tmp_path: Path) -> None:
    """By the journal, also of a client that is not open."""
    at = gateway([{"on": "create", "do": "drop"}])
    pika = client(at, "native", journal=tmp_path / "jobs.db")
    assert pika.stats().unknown == 0
    async with pika:
        await pika.run(["a", "b"])
    again = client(at, "native", journal=tmp_path / "jobs.db")
    assert (again.stats().unknown, again.stats().charges, again.stats().open) == (2, 2, False)
