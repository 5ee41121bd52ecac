"""`PikaClient.stats()` while jobs wait, run and are parked, and after the client is closed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async import Account, FixedInterval, JobStatus, Limits, PikaClient, Stats
from pika_async._journal.memory import MemoryJournal
from pika_async._planning.limits import RATE_WINDOW_S, RateMeter
from tests.fakes import virtual_clock
from tests.fakes.callback_delivery import receiver
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, client, gateway, until, with_journal


@given(st.lists(st.floats(0, 500), max_size=60), st.floats(0, 100))
def test_a_meter_counts_the_last_minute(times: list[float], later: float) -> None:
    """Events of a minute ago and before are not counted, to the second."""
    times.sort()
    meter = RateMeter()
    for at in times:
        meter.add(at)
    now = (times[-1] if times else 0.0) + later
    counted = [at for at in times if int(at) > int(now) - RATE_WINDOW_S]
    span = min(RATE_WINDOW_S, int(now) - int(times[0]) + 1) if times else 1
    assert meter.per_second(now) == pytest.approx(len(counted) / span)


def test_stats_count_the_jobs_of_a_running_client() -> None:
    """Stats before, during and after a batch have the numbers of jobs, charges, rates and medians of that moment."""
    at = gateway([{"on": "create", "prompt": "lost", "do": "drop"}], in_flight=5, durations="constant:60")

    async def main() -> list[Stats]:
        async with client(at, "native", limits=Limits(polls_per_second=100)) as pika:
            samples = [pika.stats()]
            batch = asyncio.create_task(pika.run(["lost", *(f"p{number}" for number in range(12))]))
            await until(lambda: pika.stats().in_flight == 4 and pika.stats().unknown == 1)
            await asyncio.sleep(20)
            samples.append(pika.stats())
            await batch
            samples.append(pika.stats())
        return [*samples, pika.stats()]

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


def test_stats_have_the_limit_of_each_account() -> None:
    """It is that of the account, else that of the client, which also holds over all of them."""
    accounts = [
        Account("gptge", name=name, base_url=f"{ORIGIN}/gptge", max_in_flight=limit)
        for name, limit in (("small", 2), ("large", 20), ("open", None))
    ]
    at, limits = MemoryTransport(gateway()), Limits(max_in_flight=9)

    async def main() -> Stats:
        async with PikaClient(accounts, transport=at, limits=limits) as pika:
            pika.set_max_in_flight(5)
            return pika.stats()

    stats = virtual_clock.run(main())
    assert stats.max_in_flight == 5
    assert {name: each.max_in_flight for name, each in stats.accounts.items()} == {"small": 2, "large": 5, "open": 5}


def test_stats_name_the_accounts_whose_jobs_wait_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    """A client that lacks the account of a job neither polls nor pays it, and says how many wait for which account."""
    caplog.set_level("INFO", "pika_async.session")
    at, journal = gateway(), MemoryJournal()

    async def main() -> None:
        async with with_journal(client(at, "gptge"), journal) as pika:
            await pika.submit("a cat")
        async with with_journal(client(at, "native"), journal) as other:
            assert other.stats().elsewhere == {"gptge": 1}
            assert (await other.resume()).jobs == []
        assert "1 jobs wait for the account gptge" in caplog.text
        async with with_journal(client(at, "gptge"), journal) as pika:
            assert pika.stats().elsewhere == {}
            assert (await pika.resume()).counts == {JobStatus.SUCCEEDED: 1}

    virtual_clock.run(main())
    assert len(at.ledger) == 1


def test_stats_show_a_stop_and_an_open_breaker() -> None:
    """`stopped`, `breaker_open` and `mismatched_answers` show a stopped account, failing polls and others' answers."""
    key = {"on": "create", "do": {"fault": "refuse", "as": "key"}}

    async def stopped() -> Stats:
        async with client(gateway([key]), "native") as pika:
            await pika.run(["a"])
            return pika.stats()

    assert "401" in str(virtual_clock.run(stopped()).stopped) or virtual_clock.run(stopped()).stopped

    async def failing() -> tuple[Stats, Stats]:
        at = gateway([{"on": "feed", "between": [0, 200], "do": {"fault": "answer", "status": 502}},
                      {"on": "feed", "between": [200, 400], "do": "other-task"}])  # fmt: skip
        async with client(at, "native") as pika:
            batch = asyncio.create_task(pika.run([f"p{n}" for n in range(20)]))
            await asyncio.sleep(190)
            held = pika.stats()
            report = await batch
            assert report.counts == {JobStatus.SUCCEEDED: 20}
            return held, pika.stats()

    held, after = virtual_clock.run(failing())
    assert (held.breaker_open, held.in_flight) == (True, 20)
    assert (after.breaker_open, after.mismatched_answers > 0) == (False, True)


def test_stats_have_a_callback_loss_rate_with_a_receiver() -> None:
    """Before any callback the estimate is above 0 and below 10 %."""

    async def main() -> float | None:
        async with client(gateway(), callbacks=receiver()) as pika:
            return pika.stats().callback_loss_rate

    loss_rate = virtual_clock.run(main())
    assert loss_rate is not None
    assert 0 < loss_rate < 0.1


@pytest.mark.anyio
async def test_stats_may_be_called_from_a_thread(tmp_path: Path) -> None:
    """As a web framework calls a handler that is not a coroutine, while a batch runs."""
    at = gateway(durations="constant:0.2")
    async with client(at, "native", journal=tmp_path / "jobs.db", polling=FixedInterval(0.05)) as pika:
        batch = asyncio.create_task(pika.run(["a", "b", "c"]))
        samples: list[Stats] = []
        while not batch.done():
            samples.append(await asyncio.to_thread(pika.stats))
    assert max(stats.in_flight for stats in samples) > 0
    assert (samples[-1].open, samples[-1].charges) == (True, 3)
    assert samples[-1].submits_per_second > 0


@pytest.mark.anyio
async def test_stats_count_parked_jobs_of_earlier_processes(tmp_path: Path) -> None:
    """They are counted in the journal, also before the client is opened."""
    at = gateway([{"on": "create", "do": "drop"}])
    pika = client(at, "native", journal=tmp_path / "jobs.db")
    assert pika.stats().unknown == 0
    async with pika:
        await pika.run(["a", "b"])
    later = client(at, "native", journal=tmp_path / "jobs.db")
    assert (later.stats().unknown, later.stats().charges, later.stats().open) == (2, 2, False)
