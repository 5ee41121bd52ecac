"""Reading many jobs: a piece at a time, of bounded size, and each job once, whatever is saved meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import JobStatus
from pika_async._journal import queries
from pika_async._journal.memory import MAX_SKIPPED_CHANGES, MemoryJournal
from pika_async._journal.protocol import Journal
from pika_async._journal.sqlite import SqliteJournal
from tests.journal.builders import a_job, accepted

pytestmark = pytest.mark.anyio
S = JobStatus


@pytest.fixture(params=["in memory", "on disk"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Journal:
    return MemoryJournal() if request.param == "in memory" else SqliteJournal(tmp_path / "j.db")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list that gets the number of rows of each read of jobs."""
    sizes: list[int] = []

    def counted(read: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
        def select(*arguments: Any) -> list[Any]:
            rows = read(*arguments)
            sizes.append(len(rows))
            return rows

        return select

    monkeypatch.setattr(queries, "select_rows", counted(queries.select_rows))
    return sizes


async def test_rows_are_read_some_at_a_time(tmp_path: Path, reads: list[int]) -> None:
    """A page of keys is longer than the number of rows that are read at once."""
    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    await journal.save(*(a_job(f"k{number}") for number in range(300)))
    assert [job.key for job in journal.all()] == [f"k{number}" for number in range(300)]
    assert max(reads) == queries.ROWS_AT_ONCE
    await journal.close()


async def test_large_requests_are_read_in_smaller_pieces(tmp_path: Path, reads: list[int]) -> None:
    """A read stops after a million characters of requests, in an open journal and in one that is not open."""
    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    request = attrs.evolve(a_job().request, image=bytes(400_000), strict=False)
    await journal.save(*(attrs.evolve(a_job(f"k{number}"), request=request) for number in range(7)))
    for _ in range(2):
        reads.clear()
        assert len(list(journal.all())) == 7
        assert reads == [3, 3, 1]
        await journal.close()


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_each_job_is_read_once_while_others_are_saved(
    journal: Journal, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that is saved, archived or added between two pages is neither left out nor repeated."""
    monkeypatch.setattr(queries, "PAGE_KEYS", size)
    monkeypatch.setattr(queries, "ROWS_AT_ONCE", 1)
    await journal.open()
    await journal.save(*(a_job(key) for key in "abcdef"))
    found = []
    for job in journal.all():
        found.append((job.key, job.status))
        if job.key == "b":
            await journal.save(accepted("a", "t-1"), accepted("e", "t-5"))
            journal.save_later(accepted("f", "t-6"))
    assert found == [
        ("a", S.PLANNED),
        ("b", S.PLANNED),
        ("c", S.PLANNED),
        ("d", S.PLANNED),
        ("e", S.QUEUED),
        ("f", S.QUEUED),
    ]
    assert list(journal.keys()) == list("abcdef")
    assert [job.key for job in journal.all(S.QUEUED, S.PLANNED)] == list("abcdef")
    assert [job.key for job in journal.all(S.QUEUED)] == ["a", "e", "f"]
    await journal.close()


async def test_pending_jobs_are_counted_by_what_they_will_be(journal: Journal) -> None:
    """Jobs that are not written yet count with their new status, and their rows with none."""
    await journal.open()
    await journal.save(a_job("a"), accepted("b", "t-2"), accepted("c", "t-3"))
    for job in (accepted("a", "t-1"), attrs.evolve(accepted("b", "t-2"), status=S.RUNNING), a_job("d")):
        journal.save_later(job)
    assert (journal.count(S.PLANNED), journal.count(S.QUEUED), journal.count(S.RUNNING)) == (1, 2, 1)
    assert journal.charges() == 3
    assert ("a" in journal, "d" in journal, "e" in journal, 3 in journal) == (True, True, False, False)
    await journal.close()
    assert (journal.count(S.PLANNED), journal.count(S.QUEUED), journal.count(S.RUNNING)) == (1, 2, 1)
    assert journal.charges() == 3


async def test_replaced_changes_are_passed_in_pieces() -> None:
    """A reader in memory that comes after thousands of replaced changes gives other tasks turns."""
    journal = MemoryJournal()
    await journal.open()
    assert journal.revision == 0
    for progress in range(3 * MAX_SKIPPED_CHANGES):
        journal.save_later(attrs.evolve(accepted(), status=S.RUNNING, progress=progress % 100))
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count_turns())
    [(number, job)] = await journal.changes(0)
    task.cancel()
    assert (number, job) == (3 * MAX_SKIPPED_CHANGES, journal.get("a"))
    assert turns >= 3
    await journal.close()
    assert await journal.changes(number) == []
