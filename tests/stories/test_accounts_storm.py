"""Stories of many jobs over four accounts of four gateways, three of which fail in the middle."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest

from pika_async import AcceptedElsewhere, Account, BatchReport, FixedInterval, Job, JobStatus, Limits, PikaClient
from pika_async.emulator import Gateway
from tests.fakes import virtual_clock
from tests.fakes.journals import write_in_loop_time
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, gateway, requests

S: Final = JobStatus
NAMES: Final = ("cometapi", "native", "yescale", "gptge")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    random.seed(11)


def storm(dies_at: int, balance: int) -> list[dict[str, Any]]:
    """Return the faults: one gateway dies, one runs out of balance, one has no channel half of the time."""
    return [
        {"on": "create", "provider": "cometapi", "nth": dies_at, "do": "die"},
        {"on": "create", "provider": "yescale", "after": balance, "do": {"fault": "refuse", "as": "quota"}},
        {"on": "create", "provider": "gptge", "share": 0.5, "do": {"fault": "refuse", "as": "no-channel"}},
    ]


def fleet(at: Gateway, max_in_flight: int, **options: Any) -> PikaClient:
    accounts = [Account(name, base_url=f"{ORIGIN}/{name}", max_in_flight=max_in_flight) for name in NAMES]
    options.setdefault("polling", FixedInterval(5.0))
    return PikaClient(accounts, transport=MemoryTransport(at), deadline=600.0, **options)


def run_storm(count: int, max_in_flight: int, faults: list[dict[str, Any]]) -> tuple[Gateway, BatchReport]:
    at = gateway(faults, seed=3)

    async def main() -> BatchReport:
        async with fleet(at, max_in_flight, limits=Limits(submitting=16)) as pika:
            return await pika.run(requests(count))

    return at, virtual_clock.run(main())


def verify(at: Gateway, jobs: list[Job], dead: str = "cometapi") -> None:
    """Check that all jobs have ended, that each was charged once at most, and that none was sent on while in doubt."""
    charged = Counter(charge.prompt for charge in at.ledger)
    assert max(charged.values()) == 1
    lost = [job for job in jobs if job.status is not S.SUCCEEDED]
    assert {job.status for job in lost} <= {S.UNKNOWN, S.TIMED_OUT}
    assert {job.account for job in lost} == {dead}, "only the gateway that is dead keeps jobs"
    for job in jobs:
        verdicts = [step.verdict for step in job.route]
        assert {"accepted", "unknown"} & set(verdicts[:-1]) == set(), "sent on although it may be charged"
        assert verdicts[-1] == ("unknown" if job.status is S.UNKNOWN else "accepted")
        assert job.route[-1].account == job.account
        if job.status is S.SUCCEEDED:
            assert charged[job.request.prompt] == 1
    tasks = {charge.task_id: charge.prompt for charge in at.ledger}
    assert all(tasks[str(job.task_id)] == job.request.prompt for job in jobs if job.task_id)


@pytest.mark.parametrize(
    ("count", "max_in_flight", "dies_at", "balance"),
    [(60, 5, 10, 6), pytest.param(600, 25, 60, 80, marks=pytest.mark.slow)],
)
def test_three_of_four_gateways_fail_and_every_job_ends(
    count: int, max_in_flight: int, dies_at: int, balance: int
) -> None:
    at, report = run_storm(count, max_in_flight, storm(dies_at, balance))
    assert len(report.jobs) == count
    verify(at, list(report.jobs))
    used = Counter(charge.provider for charge in at.ledger)
    assert set(used) == set(NAMES)
    assert used["yescale"] == balance
    assert used["cometapi"] < dies_at
    moved = [job for job in report.jobs if len({step.account for step in job.route}) > 1]
    assert moved
    assert all(job.status is S.SUCCEEDED for job in moved if job.account != "cometapi")


def test_a_job_in_doubt_at_a_dead_gateway_is_listed_and_nowhere_else() -> None:
    faults = [{"on": "create", "provider": "cometapi", "nth": 3, "do": {"fault": "drop", "when": "before-reply"}}]
    at, report = run_storm(24, 5, faults)
    (doubt,) = (job for job in report.jobs if job.status is S.UNKNOWN)
    assert doubt.account == "cometapi"
    assert [(step.account, step.verdict) for step in doubt.route] == [("cometapi", "unknown")]
    assert [charge.provider for charge in at.ledger if charge.prompt == doubt.request.prompt] == ["cometapi"]
    assert len(at.ledger) == 24


def test_jobs_of_an_account_that_is_missing_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep their route, account and cost in the journal, are neither polled nor paid again, and name the account."""
    at, batch = gateway(durations="constant:1000"), requests(6)
    write_in_loop_time(monkeypatch)
    both = [
        Account(name, base_url=f"{ORIGIN}/{name}", price=price) for name, price in (("native", 0.1), ("gptge", 0.3))
    ]

    async def submit() -> list[Job]:
        async with PikaClient(both, transport=MemoryTransport(at), journal=tmp_path / "j.db") as pika:
            return [await pika.submit(request) for request in batch]

    async def again() -> list[Job]:
        async with PikaClient(
            both[:1], transport=MemoryTransport(at), journal=tmp_path / "j.db", deadline=5000
        ) as pika:
            jobs = [job async for job in pika.as_settled(batch)]
            return sorted(jobs, key=lambda job: str(job.key))

    sent = virtual_clock.run(submit())
    polled = len([seen for seen in at.requests if "gptge" in seen.path])
    jobs = virtual_clock.run(again())
    assert len(at.ledger) == 6
    assert len([seen for seen in at.requests if "gptge" in seen.path]) == polled
    for before, after in zip(sent, jobs, strict=True):
        assert (after.account, after.cost, after.route) == (before.account, before.cost, before.route)
        assert after.cost == {"native": 0.1, "gptge": 0.3}[str(after.account)]
        if after.account == "native":
            assert after.status is S.SUCCEEDED
        else:
            assert isinstance(after.error, AcceptedElsewhere)
            assert "gptge" in str(after.error)
    assert {job.account for job in jobs} == {"native", "gptge"}
