"""`PikaClient.estimate`: what a run would be charged and take, against what it then is charged and takes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import (
    Account,
    BudgetReached,
    Estimate,
    GenerationRequest,
    InvalidRequest,
    JobStatus,
    Limits,
    PikaClient,
    Routing,
)
from pika_async._journal.schema import open_reader
from pika_async._journal.sqlite import SqliteJournal
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, client, gateway, now, prompts, until

REFUSED = {"on": "create", "prompt": "bad", "do": {"fault": "answer", "status": 400, "body": '{"error": "no cats"}'}}


async def learned(pika: PikaClient, count: int) -> None:
    """Run a first batch."""
    await pika.run([f"learned {number}" for number in range(count)])


@attrs.frozen
class Outcome:
    """What an estimate was, and what happened."""

    estimate: Estimate
    seconds: float
    charges: int
    points: float


def estimated_and_run(seed: int, *, rooms: int | None = None, account: int | None = None, jobs: int = 40) -> Outcome:
    """Learn one batch, estimate the next, run it; all in virtual time."""
    random.seed(seed)
    at = gateway(durations="lognormal:60,0.5", seed=seed, in_flight=account)

    async def main() -> Outcome:
        async with client(at, limits=Limits(max_in_flight=rooms)) as pika:
            await learned(pika, 60)
            charges, begun = len(at.ledger), now()
            estimate = await pika.estimate(prompts(jobs))
            assert now() == begun
            assert len(at.ledger) == charges
            report = await pika.run(prompts(jobs))
            points = sum(job.points or 0.0 for job in report.jobs)
            return Outcome(estimate, now() - begun, len(at.ledger) - charges, points)

    return virtual_clock.run(main())


@pytest.mark.slow
@pytest.mark.parametrize(("rooms", "account"), [(None, None), (15, None), (None, 12)])
def test_what_happens_is_what_was_estimated(rooms: int | None, account: int | None) -> None:
    """Of ten batches, the charges of all are exact, their points within 2 %, the seconds of nine inside the range."""
    outcomes = [estimated_and_run(seed, rooms=rooms, account=account) for seed in range(10)]
    inside = 0
    for outcome in outcomes:
        estimate = outcome.estimate
        assert estimate.new_charges == outcome.charges == 40
        assert estimate.unit == "points"
        assert estimate.money == pytest.approx(outcome.points, rel=0.02)
        assert estimate.learned_from == 60
        inside += estimate.seconds[0] <= outcome.seconds <= estimate.seconds[1]
    widths = sorted(each.estimate.seconds[1] / each.estimate.seconds[0] for each in outcomes)
    assert widths[5] < 3.5  # a range without an end would hold every batch
    assert inside >= 9, [(each.estimate.seconds, each.seconds) for each in outcomes]


def test_every_request_is_counted_once() -> None:
    """New, known, refused and equal requests are counted by the same rules as in a run, whose charges are those."""
    at = gateway(durations="constant:5")

    async def main() -> None:
        async with client(at) as pika:
            await pika.run(["a cat", GenerationRequest("a dog", key="dog")])
            requests = [
                "a cat",  # known by its content
                GenerationRequest("a fish", key="dog"),  # the key of another content
                "a bird",
                "a bird",
                GenerationRequest("a fox", model="latest"),
                GenerationRequest("a fox", effect="Unheard of", model="9.9", strict=False),
                GenerationRequest("a cow", key="cow"),
                GenerationRequest("a cow", key="cow"),  # the same job
                42,
            ]
            estimate = await pika.estimate(requests)  # type: ignore[arg-type]
            assert (estimate.new_charges, estimate.known, estimate.held_back) == (4, 2, 0)
            assert list(estimate.refused) == [1, 4, 8]
            assert "belongs to a job with another content" in estimate.refused[1]
            assert "must be a GenerationRequest or a prompt" in estimate.refused[8]
            assert estimate.equal == ((2, 3), (6, 7))
            assert estimate.unlisted == ("model 9.9", "effect Unheard of")
            assert estimate.charged == len(at.ledger) == 2
            assert await pika.estimate(iter(requests)) == estimate  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest):  # after the last job
                await pika.run(requests)  # type: ignore[arg-type]
            assert len(at.ledger) - 2 == estimate.new_charges - 1  # the emulator refuses model 9.9

    virtual_clock.run(main())


async def _as_async(requests: list[str]) -> AsyncIterator[str]:
    for request in requests:
        await asyncio.sleep(0)
        yield request


def test_an_async_iterable_beside_an_open_batch() -> None:
    """Jobs of the batch that runs are known, and those ahead make the run longer; neither the batch nor others wait."""
    at = gateway(durations="constant:60")

    async def main() -> None:
        async with client(at, limits=Limits(max_in_flight=10)) as pika:
            alone = await pika.estimate(prompts(15)[10:])
            batch = asyncio.create_task(pika.run(prompts(10)))
            await until(lambda: pika.stats().in_flight == 10)
            beside = await pika.estimate(_as_async(prompts(15)))
            assert (beside.new_charges, beside.known) == (5, 10)
            assert beside.seconds[1] > alone.seconds[1]
            assert (await batch).ok

    virtual_clock.run(main())


@pytest.fixture
def threads_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the journal's thread work while virtual time stands still."""
    monkeypatch.setattr("pika_async._journal.sqlite.ThreadPoolExecutor", virtual_clock.AwaitedThread)


@pytest.mark.usefixtures("threads_take_no_time")
def test_what_was_not_accepted_is_a_new_charge(tmp_path: Path) -> None:
    """Planned and withdrawn jobs are charged by the next run; failed, rejected and doubtful ones are known."""
    at = gateway([REFUSED, {"on": "create", "prompt": "lost", "do": "drop"}], durations="constant:5")

    async def main() -> None:
        journal = tmp_path / "j.db"
        async with client(at, journal=journal, limits=Limits(max_charges=3)) as pika:
            await pika.run(["lost", "bad", "one", "two", "three", "four"])
        later = client(at, journal=journal)
        estimate = await later.estimate(["lost", "bad", "one", "two", "three", "four"])
        before = len(at.ledger)
        async with later:
            await later.run(["lost", "bad", "one", "two", "three", "four"])
        assert estimate.new_charges == len(at.ledger) - before == 2
        assert estimate.known == 4

    virtual_clock.run(main())


def stored_in(folder: Path) -> dict[str, bytes]:
    """Return the contents of a folder, without the shared memory of SQLite's readers."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith(("-shm", "-wal"))}


@pytest.mark.usefixtures("threads_take_no_time")
def test_a_closed_client_reads_its_journal_and_writes_nothing(tmp_path: Path) -> None:
    """The journal of a client that is open elsewhere can be estimated from; no byte of a closed one changes."""
    at = gateway(durations="lognormal:60,0.5", seed=4)

    async def main() -> None:
        path = tmp_path / "j.db"
        nothing = await client(at, journal=path).estimate(["a cat"])
        assert (nothing.new_charges, nothing.money, nothing.learned_from, list(tmp_path.iterdir())) == (1, None, 0, [])
        async with client(at, journal=path) as pika:
            await learned(pika, 20)
            elsewhere = await client(at, journal=SqliteJournal(path)).estimate(["a cat", "learned 3"])
        stored = stored_in(tmp_path)
        closed = await client(at, journal=path).estimate(["a cat", "learned 3"])
        assert stored == stored_in(tmp_path)
        assert elsewhere == closed
        assert (closed.new_charges, closed.known, closed.money, closed.learned_from) == (1, 1, 400.0, 20)
        assert 10 < closed.seconds[0] < closed.seconds[1] < 400

    virtual_clock.run(main())


def test_a_price_goes_before_points() -> None:
    """Money is price times charges, known before the first job has settled."""

    async def main() -> Estimate:
        return await client(gateway(), price=0.1).estimate(prompts(3))

    estimate = virtual_clock.run(main())
    assert (estimate.money, estimate.unit, estimate.price) == (0.3, "price", 0.1)


@pytest.mark.usefixtures("threads_take_no_time")
@pytest.mark.parametrize("lost", [0, 2])
def test_a_budget_is_never_exceeded(tmp_path: Path, lost: int) -> None:
    """It holds over all runs with the journal; a submission in doubt is charged; the rest stays planned."""
    rules = [{"on": "create", "prompt": f"prompt {number}", "do": "drop"} for number in range(lost)]
    at = gateway(rules, durations="constant:5")

    async def main() -> None:
        journal = tmp_path / "j.db"
        for budget, charges in ((1.0, 10), (1.0, 10), (1.35, 13)):
            pika = client(at, journal=journal, price=0.1, budget=budget)
            estimate = await pika.estimate(prompts(20))
            before = len(at.ledger)
            async with pika:
                report = await pika.run(prompts(20))
                assert pika.stats().charges == charges
            assert len(at.ledger) == charges
            assert estimate.new_charges == charges - before
            assert estimate.held_back == report.counts[JobStatus.PLANNED] == 20 - charges
            assert isinstance(report.stopped, BudgetReached)
            assert report.stopped.needed == round(0.1 * (charges + 1), 6)

    virtual_clock.run(main())


def test_the_limits_of_each_account_hold_back_what_they_would_not_pay() -> None:
    """The estimate is exact for the cheapest account first, and the most that may be spent for any other choice."""
    own: dict[str, dict[str, Any]] = {
        "a": {"price": 0.25, "budget": 0.6}, "b": {"price": 0.5, "max_charges": 3}, "c": {"price": 1.0, "budget": 1.5},
    }  # fmt: skip
    accounts = [Account("gptge", name=name, base_url=f"{ORIGIN}/gptge", **limits) for name, limits in own.items()]

    async def estimated(strategy: Any, budget: float | None) -> tuple[int, int, float | None, int]:
        at = gateway(durations="constant:5")
        transport, routing = MemoryTransport(at), Routing(strategy)
        async with PikaClient(accounts, transport=transport, routing=routing, budget=budget) as pika:
            estimate = await pika.estimate(prompts(9))
            report = await pika.run(prompts(9))
            assert sum(report.costs.values()) <= (estimate.money or 0)
            return estimate.new_charges, estimate.held_back, estimate.money, len(at.ledger)

    assert virtual_clock.run(estimated("cheapest", None)) == (6, 3, 3.0, 6)
    assert virtual_clock.run(estimated("capacity", None)) == (6, 3, 3.0, 6)
    assert virtual_clock.run(estimated("cheapest", 1.2))[:3] == (3, 6, 1.0)


def test_the_smaller_of_both_limits_stops() -> None:
    """The reason names the limit that was reached first."""

    async def stop(**options: Any) -> str:
        at = gateway(durations="constant:5")
        async with client(at, price=1.0, **options) as pika:
            report = await pika.run(prompts(6))
        assert report.stopped is not None
        return f"{report.stopped.type} after {len(at.ledger)}"

    assert virtual_clock.run(stop(budget=2.5, limits=Limits(max_charges=4))) == "BudgetReached after 2"
    assert virtual_clock.run(stop(budget=4.5, limits=Limits(max_charges=2))) == "ChargeLimitReached after 2"


def test_a_job_that_is_paid_for_again_is_a_new_charge() -> None:
    """Keys in `again` are counted as `resubmit` would have them charged."""

    async def main() -> Estimate:
        async with client(gateway(durations="constant:5")) as pika:
            await pika.run([GenerationRequest("a cat", key="cat"), GenerationRequest("a dog", key="dog")])
            new_seed = GenerationRequest("a cat", key="cat", seed=5)
            return await pika.estimate([new_seed, GenerationRequest("a dog", key="dog")], again={"cat"})

    estimate = virtual_clock.run(main())
    assert (estimate.new_charges, estimate.known, estimate.refused) == (1, 1, {})


@pytest.mark.usefixtures("threads_take_no_time")
def test_a_closed_journal_is_opened_once_for_an_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once for each request, and not at all for longer."""
    opened = []

    def counted(path: Path) -> object:
        opened.append(path)
        return open_reader(path)

    async def main() -> None:
        at, journal = gateway(durations="constant:5"), tmp_path / "j.db"
        async with client(at, journal=journal) as pika:
            await pika.run(prompts(20))
        monkeypatch.setattr("pika_async._journal.reader.open_reader", counted)
        assert (await client(at, journal=journal).estimate(prompts(30))).known == 20
        assert len(opened) == 1
        async with client(at, journal=journal) as pika:  # nothing is in its way
            assert (await pika.estimate(prompts(30))).known == 20

    virtual_clock.run(main())
