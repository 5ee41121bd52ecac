"""Storm over sockets: 300 jobs over four accounts at four emulators, three of which fail in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import pytest

from pika_async import Account, DownloadFailed, FixedInterval, GenerationRequest, Job, JobStatus, Limits, PikaClient
from pika_async.emulator import Charge, Emulator
from tests.fakes.mortal_emulator import MortalEmulator

#: Real processes and sockets for about 30 seconds.
pytestmark = pytest.mark.slow

S: Final = JobStatus
KEY: Final = "storm-key"
COUNT: Final = 300
PRICES: Final = {"cometapi": 0.28, "native": 0.5, "yescale": 0.33, "gptge": 0.1}
#: Charges of the account that is killed, of which the last get no answer, and of the one that runs out of balance.
KILLED_AT: Final = 25
LOST: Final = 5
BALANCE: Final = 40
#: The faults of the emulators that live on.
FAULTS: Final[Mapping[str, list[dict[str, Any]]]] = {
    "native": [],
    "yescale": [{"on": "create", "after": BALANCE, "do": {"fault": "refuse", "as": "quota"}}],
    "gptge": [{"on": "create", "share": 0.5, "do": {"fault": "refuse", "as": "no-channel"}}],
}


class Field:
    """The four emulators of a storm; that of `cometapi` is the one to be killed."""

    def __init__(self, folder: Path) -> None:
        self.mortal = MortalEmulator(folder / "charges", KEY)
        self.others = {
            name: Emulator(
                api_key=KEY, render=False, video_seconds=1.0, durations="constant:0.3", scenario=faults, seed=number
            )
            for number, (name, faults) in enumerate(FAULTS.items())
        }

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.mortal)
            for emulator in self.others.values():
                stack.enter_context(emulator.in_thread())
            yield

    def client(self, journal: Path, deadline: float) -> PikaClient:
        places = {name: emulator.base_url(name) for name, emulator in self.others.items()}
        places["cometapi"] = self.mortal.base_url("cometapi")
        accounts = [
            Account(name, api_key=KEY, base_url=places[name], max_in_flight=20, price=price)
            for name, price in PRICES.items()
        ]
        return PikaClient(
            accounts,
            journal=journal,
            polling=FixedInterval(0.2),
            deadline=deadline,
            limits=Limits(submitting=16, downloading=20),
        )

    @property
    def ledgers(self) -> list[Charge]:
        return [*self.mortal.ledger, *(charge for each in self.others.values() for charge in list(each.ledger))]


def verify(field: Field, jobs: Sequence[Job], spent: float) -> None:
    """Check that all jobs have ended, at most one charge of each, its way, its file, and the sums of the journal."""
    assert len(jobs) == COUNT
    charges = Counter(charge.prompt for charge in field.ledgers)
    assert max(charges.values()) == 1, charges.most_common(3)
    for job in jobs:
        verdicts = [step.verdict for step in job.route]
        assert {"accepted", "unknown"} & set(verdicts[:-1]) == set(), "sent on although it may be charged"
        assert job.status in {S.SUCCEEDED, S.UNKNOWN, S.TIMED_OUT}, job
        assert job.status is S.SUCCEEDED or job.error is not None, "ended without a reason"
        assert job.status is S.SUCCEEDED or job.account == "cometapi", job
        if job.file is not None:
            verify_file(job)
        elif job.status is S.SUCCEEDED:
            assert isinstance(job.error, DownloadFailed)
            assert job.account == "cometapi"
    answered = {(job.account, job.task_id): job for job in jobs if job.task_id is not None}
    sums = {charge.task_id: PRICES[charge.provider] for charge in field.ledgers}
    for (account, task_id), job in answered.items():
        assert job.cost == sums[str(task_id)] == PRICES[str(account)]
    may_be_charged = [job for job in jobs if job.may_be_charged]
    assert spent == float(sum((Fraction(str(PRICES[str(job.account)])) for job in may_be_charged), Fraction()))
    lost = {charge.prompt for charge in field.ledgers if (charge.provider, charge.task_id) not in answered}
    assert lost <= {job.request.prompt for job in jobs if job.status is S.UNKNOWN}


def verify_file(job: Job) -> None:
    """Check that the video of a job is whole, as the journal has it."""
    assert job.file is not None
    content = job.file.read_bytes()
    assert content[4:8] == b"ftyp"
    assert hashlib.sha256(content).hexdigest() == job.sha256
    with av.open(io.BytesIO(content), "r") as container:
        assert next(container.decode(video=0)).width > 0


async def kill_in_the_middle(field: Field) -> None:
    while len(field.mortal.ledger) < KILLED_AT:
        await asyncio.sleep(0.01)
    field.mortal.kill()


async def run_storm(field: Field, folder: Path) -> tuple[list[Job], float]:
    requests = [GenerationRequest(f"storm {number}", key=f"k{number}") for number in range(COUNT)]
    async with field.client(folder / "j.db", deadline=10.0) as pika, asyncio.TaskGroup() as group:
        group.create_task(kill_in_the_middle(field))
        report = await pika.run(requests, download_to=folder / "videos")
        return list(report.jobs), pika.stats().spent


async def run_again(field: Field, folder: Path) -> tuple[list[Job], float]:
    requests = [GenerationRequest(f"storm {number}", key=f"k{number}") for number in range(COUNT)]
    async with field.client(folder / "j.db", deadline=60.0) as pika:
        report = await pika.run(requests, download_to=folder / "videos")
        return list(report.jobs), pika.stats().spent


async def resolve_all(field: Field, folder: Path) -> tuple[list[Job], float]:
    """Resolve each doubt as a person would, by what the gateway lists, and run the rest."""
    tasks = {charge.prompt: charge.task_id for charge in field.mortal.ledger}
    async with field.client(folder / "j.db", deadline=60.0) as pika:
        for job in await pika.jobs(S.UNKNOWN):
            task_id = tasks.get(job.request.prompt)
            await pika.resolve(job.key, task_id=task_id, charged=None if task_id else False)
        await pika.resume(download_to=folder / "videos")
        return list(await pika.jobs()), pika.stats().spent


def test_a_gateway_that_is_killed_among_failing_ones_costs_no_second_charge(tmp_path: Path) -> None:
    field = Field(tmp_path)
    with field.serving():
        field.mortal.start(KILLED_AT - LOST)
        jobs, spent = asyncio.run(run_storm(field, tmp_path))
        verify(field, jobs, spent)
        used = Counter(charge.provider for charge in field.ledgers)
        assert set(used) == set(PRICES)
        assert used["yescale"] == BALANCE
        charged = len(field.ledgers)
        doubts = {job.key for job in jobs if job.status is S.UNKNOWN}
        assert len(doubts) >= LOST

        field.mortal.start()
        jobs, spent = asyncio.run(run_again(field, tmp_path))
        verify(field, jobs, spent)
        assert len(field.ledgers) == charged
        assert {job.status for job in jobs} == {S.SUCCEEDED, S.UNKNOWN}
        assert {job.key for job in jobs if job.status is S.UNKNOWN} == doubts
        assert [job.key for job in jobs if job.status is S.SUCCEEDED and job.file is None] == []

        jobs, spent = asyncio.run(resolve_all(field, tmp_path))
        verify(field, jobs, spent)
        assert {job.status for job in jobs} == {S.SUCCEEDED}
        assert Counter(charge.prompt for charge in field.ledgers) == Counter(job.request.prompt for job in jobs)
