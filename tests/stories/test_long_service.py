"""A client that runs for long: what is left of a settled job is small, the same for each, and bounded."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from pika_async import FixedInterval, GenerationRequest, Job, JobStatus, Limits, PikaClient
from pika_async._journal.memory import UNPACKED_JOBS, MemoryJournal
from pika_async._journal.protocol import Journal
from pika_async._runtime.results import ResultDownloader
from pika_async.emulator import Gateway
from tests.fakes import virtual_clock
from tests.fakes.journals import journal_factory
from tests.fakes.memory_gateway import client, gateway, requests, until

#: Bytes that a settled job may take beside its key and its task id: the record and its places in the tables.
MAX_SETTLED_BYTES: Final = 800
#: Bytes that an accepted job may take beside its places in the tables: its request, its records and its texts.
MAX_WAITING_BYTES: Final = 970
#: Bytes that a job may leave once the bound of settled jobs is reached, or that has its place in a journal file.
MAX_LEFT_BYTES: Final = 8
#: Jobs of a round: the samples of durations are cut to 256 each time that there are 512.
ROUND: Final = 512


def held_bytes(roots: Iterable[object], *, without_tables: bool = False) -> int:
    """Return the bytes of all objects that are reached from `roots`, without types, modules and functions.

    :param without_tables: whether to leave out dicts, sets and lists, but not what they hold.
    """
    seen: set[int] = set()
    found, total = list(roots), 0
    while found:
        value = found.pop()
        if id(value) in seen or isinstance(value, type | type(sys) | type(held_bytes)):
            continue
        seen.add(id(value))
        if isinstance(value, Gateway | asyncio.AbstractEventLoop):
            continue
        if not (without_tables and isinstance(value, dict | set | list)):
            total += sys.getsizeof(value)
        found += gc.get_referents(value)
    return total


async def settle(pika: PikaClient, first: int, count: int) -> None:
    """Generate videos one after another in 20 tasks, as the requests of a service do."""

    async def serve(numbers: range) -> None:
        for number in numbers:
            await pika.generate(GenerationRequest(f"prompt {number:08d}", key=f"key-{number:08d}"))

    await asyncio.gather(*(serve(range(first + task, first + count, 20)) for task in range(20)))


async def measured(pika: PikaClient, at: Gateway, start: int, count: int) -> float:
    """Return the bytes that each of `count` more jobs leaves."""
    before = held_bytes([pika])
    await settle(pika, start, count)
    at.requests.clear()
    return (held_bytes([pika]) - before) / count


def quick_client(at: Gateway, **options: Any) -> PikaClient:
    return client(at, polling=FixedInterval(4), **options)


def test_a_settled_job_takes_little_and_each_the_same() -> None:
    """Of 1,424 jobs without a journal file, with the growth of the hash tables."""

    async def story() -> None:
        at = gateway(durations="constant:3")
        async with quick_client(at) as pika:
            await settle(pika, 0, UNPACKED_JOBS + 144)
            first, second = await measured(pika, at, 400, ROUND), await measured(pika, at, 400 + ROUND, ROUND)
            assert max(first, second) < MAX_SETTLED_BYTES
            assert pika.stats().charges == 400 + 2 * ROUND

    virtual_clock.run(story())


def test_a_waiting_job_takes_little() -> None:
    """Of 1,000 accepted jobs, without the growth of hash tables, which comes in steps."""

    async def story() -> None:
        at = gateway(durations="constant:100000")
        async with client(at, polling=FixedInterval(50_000), limits=Limits(submitting=64)) as pika:
            await pika.submit("warm up")
            before = held_bytes([pika], without_tables=True)
            await asyncio.gather(*(pika.submit(f"prompt number {number:08d}") for number in range(1_000)))
            each = (held_bytes([pika], without_tables=True) - before) / 1_000
            assert len(pika.active_jobs()) == 1_001
            assert each < MAX_WAITING_BYTES

    virtual_clock.run(story())


@pytest.mark.parametrize("kind", ["in memory", pytest.param("on disk", marks=pytest.mark.slow)])
def test_beyond_the_bound_a_settled_job_leaves_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in memory nor with a journal file; with hooks, events and a bound of 300 jobs."""
    journal: Journal = journal_factory(kind, tmp_path, monkeypatch)()
    if isinstance(journal, MemoryJournal):
        journal = MemoryJournal(settled=300)

    async def story() -> None:
        at = gateway(durations="constant:3")
        hooked: list[int] = [0]
        async with quick_client(at, journal=journal) as pika:

            @pika.on_settled
            def count(_: object) -> None:
                hooked[0] += 1

            await settle(pika, 0, 2 * ROUND)
            assert await measured(pika, at, 2 * ROUND, ROUND) < MAX_LEFT_BYTES
            await until(lambda: hooked[0] == 3 * ROUND)

    virtual_clock.run(story())


def test_a_key_beyond_the_bound_is_a_new_job_and_one_within_is_not(tmp_path: Path) -> None:
    """The client takes the bound from its limits. A doubt from before all others is listed, and is not sent again."""

    async def story() -> None:
        lost = [{"on": "create", "nth": 1, "do": {"fault": "drop", "when": "before-reply"}}]
        at = gateway(lost, durations="constant:3")
        async with quick_client(at, limits=Limits(settled=10)) as pika:
            doubt = GenerationRequest("a doubt", key="doubt")
            assert (await pika.run([doubt])).counts == {JobStatus.UNKNOWN: 1}
            await settle(pika, 0, 30)
            assert [job.key for job in await pika.jobs("unknown")] == ["doubt"]
            assert (await pika.run([doubt])).counts == {JobStatus.UNKNOWN: 1}
            assert len(at.ledger) == pika.stats().charges == 31
            latest = [job.key for job in await pika.jobs("succeeded")]
            assert len(latest) == 10
            await pika.generate(GenerationRequest(f"prompt {latest[0][4:]}", key=latest[0]))
            assert len(at.ledger) == 31
            await settle(pika, 0, 1)
            assert len(at.ledger) == pika.stats().charges == 32

    virtual_clock.run(story())


def test_results_that_wait_for_their_download_are_not_forgotten(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Forty settle at once and are fetched four at a time; the bound is one. Asked for meanwhile, none is paid twice."""

    async def collect(self: ResultDownloader, job: Job, target: Path) -> Job:
        await asyncio.sleep(10)
        done = job.with_file(target, "0" * 64)
        await self.save(done)
        return done

    monkeypatch.setattr(ResultDownloader, "collect", collect)

    async def story() -> None:
        at = gateway(durations="constant:3")
        async with quick_client(at, limits=Limits(settled=1, submitting=40)) as pika:
            batch = asyncio.create_task(pika.run(requests(40), download_to=tmp_path))
            await asyncio.sleep(35)
            waiting = [job for job in await pika.jobs() if job.file is None]
            assert len(waiting) > 20
            await pika.generate(waiting[0].request)
            assert all(job.file is not None for job in (await batch).jobs)
            assert (len(await pika.jobs()), len(at.ledger)) == (1, 40)

    virtual_clock.run(story())
