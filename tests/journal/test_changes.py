"""Contract of the change feed, for every journal: numbered, ordered, and complete for a reader after a given number."""

from __future__ import annotations

import asyncio
import gc
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import MAX_CHANGES, Journal
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalFailed
from pika_async.jobs import Job, JobStatus
from pika_async.models import GenerationRequest
from tests.journal.builders import (
    INTENT,
    KEYS,
    JournalPair,
    a_job,
    accepted,
    open_broken_journal,
    run_child,
    stalled,
    steps,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def journal(journal: Journal) -> Journal:
    """An open journal that numbers its changes."""
    assert journal.revision == 0
    return journal


def succeeded(key: str = "a") -> Job:
    return attrs.evolve(accepted(key, f"t-{key}"), status=JobStatus.SUCCEEDED)


async def soon(journal: Journal, after: int) -> list[tuple[int, Job]]:
    async with asyncio.timeout(5):
        return await journal.changes(after)


async def assert_no_change(journal: Journal, after: int) -> None:
    """Check that no change follows the number *after* and that no waiter is left behind."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(journal.changes(after), 0.05)
    assert not has_waiters(journal)


def has_waiters(journal: Any) -> bool:
    return bool(journal._change_signal.has_waiters)


async def test_each_change_has_the_next_number(journal: Journal) -> None:
    """Numbers follow the order of the saves; a reader gets each job in its current state under its latest number."""
    await journal.save(a_job("a"), a_job("b"))
    assert await soon(journal, 0) == [(1, a_job("a")), (2, a_job("b"))]
    await journal.record_intent(a_job("a").submitting(), INTENT)
    assert journal.revision == 3
    await journal.save(accepted("a"))
    assert await soon(journal, 0) == [(2, a_job("b")), (4, accepted("a"))]
    assert await soon(journal, 2) == [(4, accepted("a"))]
    assert journal.revision == 4
    await assert_no_change(journal, 4)


async def test_waiting_readers_receive_the_next_change(journal: Journal) -> None:
    """Every waiting reader receives it; a write of other records is not a change."""
    waiting = [asyncio.create_task(journal.changes(0)) for _ in range(3)]
    await journal.set_setting("x", 1)
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    await journal.save(a_job())
    assert await asyncio.gather(*waiting) == [[(1, a_job())]] * 3
    assert not has_waiters(journal)


async def test_a_deferred_save_reaches_waiting_readers_soon(journal: Journal) -> None:
    """A job passed to `save_later` reaches a reader, whether it was saved before or during the wait."""
    await journal.save(accepted())
    journal.save_later(attrs.evolve(accepted(), progress=10))
    assert await soon(journal, 1) == [(2, attrs.evolve(accepted(), progress=10))]
    waiting = asyncio.create_task(journal.changes(2))
    await asyncio.sleep(0.01)
    journal.save_later(attrs.evolve(accepted(), progress=20))
    assert await waiting == [(3, attrs.evolve(accepted(), progress=20))]


async def test_an_insignificant_save_gets_no_number(journal: Journal) -> None:
    """The same state, a larger poll count, and a change of a final job other than its status get no number."""
    await journal.save(accepted("b"))
    await journal.save(attrs.evolve(accepted("b"), polls=7, points=2.0))
    await journal.save(succeeded())
    await journal.save(succeeded().with_pending_file("ab"))
    await journal.save(fetched := succeeded().with_file(Path("/x/a.mp4"), "ab"))
    await journal.save(fetched.with_download_error(_failed()), a_job("c"))
    changes = await soon(journal, 0)
    assert [(number, job.key) for number, job in changes] == [(1, "b"), (2, "a"), (3, "c")]
    assert (changes[0][1].polls, changes[1][1].file, changes[1][1].error) == (
        7,
        fetched.file,
        _failed_like(changes[1][1]),
    )
    await journal.save(attrs.evolve(fetched, status=JobStatus.CANCELED))
    assert [(number, job.key) for number, job in await soon(journal, 3)] == [(4, "a")]


def _failed() -> Any:
    from pika_async.errors import DownloadFailed

    return DownloadFailed(url="https://x.test", reason="cut")


def _failed_like(job: Job) -> Any:
    assert str(job.error) == str(_failed())
    return job.error


async def test_a_new_error_is_a_change(journal: Journal) -> None:
    """A parked job is reported with its error exactly once."""
    await journal.save(a_job())
    for _ in range(2):
        journal.save_later(attrs.evolve(a_job(), error=_failed()))
    assert [number for number, _ in await soon(journal, 1)] == [2]
    await journal.save(attrs.evolve(a_job(), error=_failed()))
    await journal.save(a_job())
    assert journal.revision == 3


async def test_an_archived_job_is_reported_under_its_new_key(journal: Journal) -> None:
    """Archiving keeps the number: readers past it do not receive the job again, readers before it still do."""
    await journal.save(succeeded(), a_job("b"))
    archived = await journal.archive(succeeded())
    assert await soon(journal, 0) == [(1, archived), (2, a_job("b"))]
    await assert_no_change(journal, 2)
    await journal.save(a_job())
    assert await soon(journal, 1) == [(2, a_job("b")), (3, a_job())]
    await journal.archive(attrs.evolve(a_job(), status=JobStatus.CANCELED))
    assert [(number, job.key, job.status) for number, job in await soon(journal, 2)] == [(4, "a~2", "canceled")]


async def test_many_changes_are_read_in_pages(journal: Journal) -> None:
    """Pages are in order, without duplicates or gaps."""
    await journal.save(*[a_job(f"k{number}") for number in range(3 * MAX_CHANGES + 5)])
    seen: list[tuple[int, Job]] = []
    sizes = []
    while len(seen) < 3 * MAX_CHANGES + 5:
        sizes.append(len(page := await soon(journal, seen[-1][0] if seen else 0)))
        seen += page
    assert sizes == [MAX_CHANGES, MAX_CHANGES, MAX_CHANGES, 5]
    assert [(number, job.key) for number, job in seen] == [(n + 1, f"k{n}") for n in range(3 * MAX_CHANGES + 5)]


async def test_jobs_with_inline_images_are_read_in_small_pages(tmp_path: Path) -> None:
    """A page is limited in bytes, so that the event loop is not blocked, but holds at least one job."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    request = GenerationRequest("a cat", image=bytes(1 << 19))
    jobs = [attrs.evolve(a_job(f"{number}"), request=request) for number in range(5)]
    await journal.save(*jobs)
    read: list[tuple[int, Job]] = []
    while len(read) < 5:
        page = await soon(journal, read[-1][0] if read else 0)
        assert 1 <= len(page) <= 2
        read += page
    assert [job for _, job in read] == jobs
    huge = attrs.evolve(a_job("huge"), request=GenerationRequest("a cat", image=bytes(1 << 22)))
    await journal.save(huge)
    assert [job for _, job in await soon(journal, read[-1][0])] == [huge]
    await journal.close()


async def test_reading_yields_to_other_tasks(journal: Journal) -> None:
    """A reader yields to the event loop even when there is always more to read."""
    await journal.save(a_job())
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(10):
        await journal.changes(0)
    task.cancel()
    assert turns >= 10


async def test_a_journal_that_was_never_open_has_no_changes(tmp_path: Path) -> None:
    for journal in (MemoryJournal(), SqliteJournal(tmp_path / "j.sqlite")):
        assert await soon(journal, 0) == []


async def test_a_closed_journal_returns_its_last_changes_then_ends(journal: Journal) -> None:
    """Waiting readers are woken by the close and receive the jobs of the last `save_later` before the end."""
    waiting = asyncio.create_task(journal.changes(0))
    await asyncio.sleep(0.01)
    await journal.close()
    assert await asyncio.wait_for(waiting, 5) == []
    await journal.open()
    journal.save_later(accepted())
    await journal.close()
    assert await soon(journal, 0) == [(1, accepted())]
    assert await soon(journal, 1) == []


async def test_numbers_continue_after_reopening(journal: Journal) -> None:
    await journal.save(a_job("a"), succeeded("b"))
    await journal.close()
    assert journal.revision == 2
    await journal.open()
    await assert_no_change(journal, 2)
    await journal.save(a_job("c"))
    assert await soon(journal, 1) == [(2, succeeded("b")), (3, a_job("c"))]


async def test_jobs_without_a_reader_are_not_numbered() -> None:
    """In memory, numbers start with the jobs that exist when a number is first requested."""
    journal = MemoryJournal()
    await journal.open()
    await journal.save(a_job("a"), a_job("b"))
    await journal.save(accepted("a"))
    assert journal._revisions is None
    assert await soon(journal, 0) == [(1, accepted("a")), (2, a_job("b"))]
    await journal.save(accepted("b", "t-2"))
    assert await soon(journal, 1) == [(3, accepted("b", "t-2"))]


def test_each_loop_has_its_readers(tmp_path: Path) -> None:
    """Readers work in one event loop after another, even after a loop was closed while a reader waited."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(journal.open())
    left = loop.create_task(journal.changes(0))
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    assert has_waiters(journal)

    async def run_scenario() -> None:
        waiting = asyncio.create_task(journal.changes(0))
        await asyncio.sleep(0.01)
        await journal.save(a_job())
        assert await asyncio.wait_for(waiting, 5) == [(1, a_job())]
        assert not has_waiters(journal)

    asyncio.run(run_scenario())
    asyncio.run(journal.close())
    left._log_destroy_pending = False  # type: ignore[attr-defined]
    del left
    gc.collect()


async def test_a_cancelled_reader_is_removed(journal: Journal) -> None:
    """A reader cancelled while it waits, or just as it is woken, leaves assert_no_change behind."""
    for turns in range(6):
        reader = asyncio.create_task(journal.changes(journal.revision))
        for _ in range(turns):
            await asyncio.sleep(0)
        keeping = asyncio.create_task(journal.save(a_job(f"k{turns}")))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait({reader, keeping})
        assert (reader.cancelled(), has_waiters(journal)) == (True, False)


async def test_a_change_is_reported_only_after_its_commit(tmp_path: Path) -> None:
    """Reads include pending writes; a reported change cannot be undone by a crash."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    with stalled(journal):
        keeping = asyncio.create_task(journal.save(accepted()))
        waiting = asyncio.create_task(journal.changes(0))
        await asyncio.sleep(0.05)
        assert (journal.get("a"), journal.revision, waiting.done()) == (accepted(), 0, False)
    await keeping
    assert await waiting == [(1, accepted())]
    await journal.close()


async def test_a_failed_save_gets_its_number_on_commit(tmp_path: Path) -> None:
    """A failed commit uses no number; the change is reported when a later commit succeeds."""
    journal, double = await open_broken_journal(tmp_path / "j.sqlite")
    waiting = asyncio.create_task(journal.changes(1))
    with pytest.raises(JournalFailed):
        await journal.save(accepted("r", "t-r"))
    await asyncio.sleep(0.05)
    assert (journal.revision, waiting.done()) == (1, False)
    double.error = None
    await journal.save(a_job("b"))
    assert await waiting == [(2, accepted("r", "t-r")), (3, a_job("b"))]
    await journal.close()


async def test_an_unstorable_record_takes_no_number(tmp_path: Path) -> None:
    """The rest of its group is numbered without a gap."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    with stalled(journal):
        odd = attrs.evolve(a_job("odd"), polls=2**70)
        jobs = [asyncio.create_task(journal.save(job)) for job in (a_job("a"), odd, a_job("b"))]
        await asyncio.sleep(0.01)
    assert [type(it) for it in await asyncio.gather(*jobs, return_exceptions=True)] == [
        type(None), JournalFailed, type(None),
    ]  # fmt: skip
    assert [(number, job.key) for number, job in await soon(journal, 0)] == [(1, "a"), (2, "b")]
    await journal.close()


async def test_a_job_from_the_fallback_file_is_a_change_on_import(tmp_path: Path) -> None:
    """The opening that imports the job numbers it."""
    journal, _ = await open_broken_journal(tmp_path / "j.sqlite", "r")
    with pytest.raises(JournalFailed):
        await journal.save(accepted("r", "t-r"))
    await journal.close()
    again = SqliteJournal(tmp_path / "j.sqlite")
    await again.open()
    assert await soon(again, 2) == [(3, accepted("r", "t-r"))]
    await again.save(a_job("b"))
    assert again.revision == 4
    await again.close()


async def test_a_number_is_not_reused_after_a_kill(tmp_path: Path) -> None:
    """Every change that was reported before the kill exists afterwards under the same number."""
    script = """
async def main():
    await journal.open()
    reader = asyncio.create_task(journal.changes(0))
    await asyncio.gather(*[journal.save(accepted(f"k{n}", f"t{n}")) for n in range(5)])
    await reader
    last = (await journal.changes(0))[-1]
    print(last[0], last[1].key, flush=True)
    die()
asyncio.run(main())
"""
    path = tmp_path / "j.sqlite"
    number, key = run_child(script, path).stdout.split()
    journal = SqliteJournal(path)
    await journal.open()
    assert (await soon(journal, 0))[-1] == (5, journal.get(key))
    assert (journal.revision, int(number)) == (5, 5)
    await journal.save(a_job("new"))
    assert await soon(journal, 5) == [(6, a_job("new"))]
    await journal.close()


async def test_another_process_can_read_the_changes(tmp_path: Path) -> None:
    """A reader of another process gets the existing changes and does not wait for more."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    await journal.save(a_job())
    other = SqliteJournal(tmp_path / "j.sqlite")
    assert (other.revision, await soon(other, 0), await soon(other, 1)) == (1, [(1, a_job())], [])
    await journal.close()


async def test_changes_are_found_by_an_index(tmp_path: Path) -> None:
    """A reader scans only the changes after its number, however many jobs there are."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT * FROM jobs WHERE revision > 3 ORDER BY revision LIMIT 64")
        assert [row[-1] for row in plan] == ["SEARCH jobs USING INDEX jobs_by_revision (revision>?)"]
    await journal.close()


class Follower:
    """Reader that continues after its last number and stores the latest state of each job by its prompt."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.number = 0
        self.jobs: dict[str, Job] = {}

    async def read(self, pages: int) -> None:
        for _ in range(pages):
            if self.journal.revision == self.number:
                return
            found = await soon(self.journal, self.number)
            numbers = [number for number, _ in found]
            assert numbers == sorted(set(numbers))
            assert self.number < numbers[0]
            self.number = numbers[-1]
            self.jobs |= {job.request.prompt: job for _, job in found}

    def check(self) -> None:
        """Check that the reader has every job in its current state."""
        assert {prompt: _reported_state(job) for prompt, job in self.jobs.items()} == {
            job.request.prompt: _reported_state(job) for job in self.journal.all()
        }


def _reported_state(job: Job) -> tuple[Any, ...]:
    return (job.status, None if job.is_final else job.progress)


@pytest.mark.slow
@settings(max_examples=60)
@given(steps, st.lists(st.integers(0, 2), min_size=2))
def test_a_follower_has_the_current_state_of_every_job(steps: list[tuple[str, Any]], pages: list[int]) -> None:
    """This holds for every sequence of operations, times of reading, stalled commits and reopenings, in both journals."""

    async def run_scenario(path: Path) -> None:
        pair = JournalPair(path)
        followers = [Follower(pair.memory), Follower(pair.sqlite)]
        assert pair.memory.revision == 0
        await pair.sqlite.open()
        try:
            for number, (name, what) in enumerate([*steps, ("release", None), ("reopen", None)]):
                await pair.step(name, what)
                for follower in followers:
                    await follower.read(pages[number % len(pages)])
            for follower in followers:
                await follower.read(10**9)
                follower.check()
        finally:
            if pair.stalled is not None:
                pair.stalled.set()
            await pair.sqlite.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_scenario(Path(folder, "j.sqlite")))


puts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["save", "save_later"]), st.sampled_from(KEYS), st.sampled_from(JobStatus)),
        st.tuples(st.sampled_from(["archive", "crash", "read"]), st.sampled_from(KEYS), st.none()),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(puts)
def test_a_follower_continues_after_a_crash(puts: list[tuple[str, str, JobStatus | None]]) -> None:
    """After the number that it stored: reported changes still exist, and new ones have later numbers."""

    async def run_scenario(path: Path) -> None:
        journal = SqliteJournal(path)
        await journal.open()
        follower = Follower(journal)
        for number, (name, key, status) in enumerate(puts):
            existing = journal.get(key)
            match name:
                case "archive" if existing is not None:
                    await journal.archive(existing)
                case "save" | "save_later":
                    assert status is not None
                    base = existing or attrs.evolve(a_job(key), request=GenerationRequest(f"{key}{number}", key=key))
                    job = attrs.evolve(base, status=status, progress=number)
                    await journal.save(job) if name == "save" or existing is None else journal.save_later(job)
                case "read":
                    await follower.read(10**9)
                case "crash":
                    path = path.with_name(f"{number}.sqlite")
                    for suffix in ("", "-wal", ".lock"):
                        shutil.copyfile(f"{journal.path}{suffix}", f"{path}{suffix}")
                    await journal.close()
                    journal = follower.journal = SqliteJournal(path)
                    await journal.open()
        await journal.close()
        await follower.read(10**9)
        follower.check()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_scenario(Path(folder, "j.sqlite")))
