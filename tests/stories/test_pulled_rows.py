"""Requests of a generator with a journal in a file: those that are there at once share a commit, and none is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from pika_async import GenerationRequest, InvalidRequest, JobStatus, Limits, PikaClient
from pika_async._journal.sqlite import SqliteJournal
from tests.fakes import virtual_clock
from tests.fakes.journals import SlowLoopExecutor, write_in_loop_time
from tests.fakes.memory_gateway import client, gateway, requests, until
from tests.http.media_files import made

QUOTA: Final[dict[str, Any]] = {"fault": "refuse", "as": "quota"}


@pytest.fixture
def new_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], SqliteJournal]:
    """Journals of one file, whose commits take 10 ms."""
    write_in_loop_time(monkeypatch, SlowLoopExecutor)
    return lambda: SqliteJournal(tmp_path / "j.db")


def commits_of_new_jobs(journal: SqliteJournal) -> list[int]:
    """Return a list that gets the number of jobs that each commit adds."""
    added: list[int] = []
    number = 0

    def trace(statement: str) -> None:
        nonlocal number
        number += statement.startswith("INSERT INTO requests")
        if statement == "COMMIT" and number:
            added.append(number)
            number = 0

    journal._write_connection.set_trace_callback(trace)
    return added


async def take(pika: PikaClient, rows: Iterable[GenerationRequest], settled: list[str]) -> None:
    """Add the key of each settled job to *settled*, until an error is raised."""
    async for job in pika.as_settled(iter(rows)):
        settled.append(job.key)  # noqa: PERF401 - what came before the error counts


def test_rows_that_are_there_at_once_share_commits(new_journal: Callable[[], SqliteJournal]) -> None:
    """The first is saved alone; those that were read meanwhile, as many as may be sent, are saved together."""
    journal = new_journal()

    async def story() -> None:
        at = gateway(durations="constant:1")
        async with client(at, journal=journal, limits=Limits(submitting=16)) as pika:
            added = commits_of_new_jobs(journal)
            report = await pika.run(iter(requests(16)))
        assert [job.key for job in report.jobs] == [one.key for one in requests(16)]
        assert (report.counts, added) == ({JobStatus.SUCCEEDED: 16}, [1, 15])

    virtual_clock.run(story())


def test_a_slow_row_is_not_waited_for(new_journal: Callable[[], SqliteJournal]) -> None:
    """A row is sent while the generator waits for the next one."""

    async def story() -> None:
        at = gateway(durations="constant:1")

        async def rows() -> AsyncIterator[GenerationRequest]:
            for number, request in enumerate(requests(3)):
                await until(lambda sent=number: len(at.ledger) == sent)  # type: ignore[misc]
                yield request

        async with asyncio.timeout(60), client(at, journal=new_journal()) as pika:
            assert (await pika.run(rows())).ok

    virtual_clock.run(story())


def test_the_first_row_is_being_saved_before_the_second_is_read(new_journal: Callable[[], SqliteJournal]) -> None:
    """A generator that takes its time for each row delays the first submission by one row at most."""
    journal = new_journal()
    seen: list[bool] = []

    def rows() -> Iterator[GenerationRequest]:
        for request in requests(3):
            seen.append("k0" in journal)
            yield request

    async def story() -> None:
        async with client(gateway(durations="constant:1"), journal=journal) as pika:
            assert (await pika.run(rows())).ok

    virtual_clock.run(story())
    assert seen == [False, True, True]


def test_no_more_is_read_than_may_be_sent(new_journal: Callable[[], SqliteJournal]) -> None:
    """Rows that wait for their commit count as rows that wait to be sent."""
    pulled = 0

    def many() -> Iterator[str]:
        nonlocal pulled
        for number in range(500):
            pulled += 1
            yield f"prompt {number}"

    async def story() -> None:
        at = gateway(durations="constant:60")
        async with client(at, journal=new_journal(), limits=Limits(submitting=8, max_in_flight=10)) as pika:
            async for _ in pika.as_settled(many()):
                break
            assert len(at.ledger) <= pulled <= len(at.ledger) + 8 + 8

    virtual_clock.run(story())


def test_the_report_has_the_order_of_the_rows(new_journal: Callable[[], SqliteJournal], tmp_path: Path) -> None:
    """A row whose picture is checked in a thread is admitted after the rows behind it, and keeps its place."""
    picture = tmp_path / "cat.png"
    picture.write_bytes(made("png"))
    rows = [GenerationRequest(f"prompt {n}", key=f"k{n}", image=picture if n == 1 else None) for n in range(5)]

    async def story() -> None:
        at = gateway(durations="constant:0.01")
        async with client(at, "native", journal=new_journal()) as pika:
            report = await pika.run(iter(rows))
        assert [job.key for job in report.jobs] == [f"k{n}" for n in range(5)]
        assert [job.index for job in report.jobs] == list(range(5))

    asyncio.run(story())


def test_equal_rows_are_found_again_by_their_places(
    new_journal: Callable[[], SqliteJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that ask for the known keys side by side get one each, in their order, and a second run pays nothing."""
    monkeypatch.setattr("pika_async._runtime.pacing.ITEMS_PER_TURN", 1)
    rows: list[GenerationRequest | str] = [GenerationRequest("other", key="first"), "same", "same", "same", "new"]

    async def story() -> None:
        at = gateway(durations="constant:1")
        keys = []
        for _ in range(2):
            async with client(at, journal=new_journal()) as pika:
                report = await pika.run(iter(rows))
                keys.append([job.key for job in report.jobs])
        assert keys[0] == keys[1]
        assert len(set(keys[0])) == len(at.ledger) == 5

    virtual_clock.run(story())


def test_a_key_that_is_read_twice_at_once_is_paid_once(new_journal: Callable[[], SqliteJournal]) -> None:
    """Both places have its job; the same key with another content is refused after the last job."""
    one = requests(1)[0]

    async def story() -> None:
        at = gateway(durations="constant:1")
        async with client(at, journal=new_journal()) as pika:
            report = await pika.run(iter([*requests(3), one, one]))
            assert [job.key for job in report.jobs] == ["k0", "k1", "k2", "k0", "k0"]
            settled: list[str] = []
            rows: list[Any] = [*requests(2), GenerationRequest("another", key="k1"), 7, GenerationRequest("x", key="x")]
            with pytest.raises(InvalidRequest, match="k1"):
                await take(pika, rows, settled)
        assert sorted(settled) == ["k0", "k1", "x"]
        assert len(at.ledger) == 4

    virtual_clock.run(story())


def test_a_generator_that_fails_loses_no_row_before(new_journal: Callable[[], SqliteJournal]) -> None:
    """Each row that it gave is sent and returned; then its error is raised."""

    def rows() -> Iterator[GenerationRequest]:
        yield from requests(4)
        raise KeyError("row 5")

    async def story() -> None:
        at = gateway(durations="constant:1")
        settled: list[str] = []
        async with client(at, journal=new_journal()) as pika:
            with pytest.raises(KeyError, match="row 5"):
                await take(pika, rows(), settled)
        assert (sorted(settled), len(at.ledger)) == ([one.key for one in requests(4)], 4)

    virtual_clock.run(story())


def test_a_stop_reports_every_row_in_its_place(new_journal: Callable[[], SqliteJournal]) -> None:
    """Rows that waited for their commit, and those that were not read, are planned."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": QUOTA}])
        async with client(at, journal=new_journal()) as pika:
            report = await pika.run(iter(requests(40)))
        assert [job.key for job in report.jobs] == [one.key for one in requests(40)]
        assert (report.counts, len(at.ledger)) == ({JobStatus.PLANNED: 40}, 0)

    virtual_clock.run(story())


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_a_batch_that_is_left_at_any_time_leaves_nothing_half_done(
    steps: int, new_journal: Callable[[], SqliteJournal]
) -> None:
    """Whatever waits for a commit by then, the client closes, and `run` with the same rows ends each, paid once."""

    async def story() -> None:
        at = gateway(durations="constant:1")
        async with client(at, journal=new_journal()) as pika:
            using = asyncio.create_task(pika.run(iter(requests(30))))
            for _ in range(steps):
                await asyncio.sleep(0.001)
            using.cancel()
            await asyncio.wait({using})
            assert (await pika.run(iter(requests(30)))).counts == {JobStatus.SUCCEEDED: 30}
        assert len(at.ledger) == 30

    virtual_clock.run(story())
