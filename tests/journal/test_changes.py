"""What changed, in order: one contract for both journals; whoever reads on behind a number is told of everything."""

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
from tests.journal.builders import INTENT, KEYS, Twins, a_job, accepted, broken, child, stalled, steps

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made: Journal = MemoryJournal() if request.param == "memory" else SqliteJournal(tmp_path / "j.sqlite")
    await made.open()
    assert made.revision == 0
    yield made
    await made.close()


def succeeded(key: str = "a") -> Job:
    return attrs.evolve(accepted(key, f"t-{key}"), status=JobStatus.SUCCEEDED)


async def soon(journal: Journal, after: int) -> list[tuple[int, Job]]:
    async with asyncio.timeout(5):
        return await journal.changes(after)


async def nothing(journal: Journal, after: int) -> None:
    """There is no change behind that number, and nobody is left listening."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(journal.changes(after), 0.05)
    assert not listened_to(journal)


def listened_to(journal: Any) -> bool:
    return bool(journal._change_signal.has_waiters)


async def test_each_change_has_the_next_number(journal: Journal) -> None:
    """In the order of the puts; a reader sees each job as it stands, under its latest number."""
    await journal.save(a_job("a"), a_job("b"))
    assert await soon(journal, 0) == [(1, a_job("a")), (2, a_job("b"))]
    await journal.record_intent(a_job("a").submitting(), INTENT)
    assert journal.revision == 3
    await journal.save(accepted("a"))
    assert await soon(journal, 0) == [(2, a_job("b")), (4, accepted("a"))]
    assert await soon(journal, 2) == [(4, accepted("a"))]
    assert journal.revision == 4
    await nothing(journal, 4)


async def test_who_waits_is_told_of_the_next(journal: Journal) -> None:
    """All who wait; others than jobs are no change."""
    waiting = [asyncio.create_task(journal.changes(0)) for _ in range(3)]
    await journal.set_setting("x", 1)
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in waiting)
    await journal.save(a_job())
    assert await asyncio.gather(*waiting) == [[(1, a_job())]] * 3
    assert not listened_to(journal)


async def test_a_note_is_told_soon_to_whoever_waits(journal: Journal) -> None:
    """Whether it was noted before or while one waits."""
    await journal.save(accepted())
    journal.save_later(attrs.evolve(accepted(), progress=10))
    assert await soon(journal, 1) == [(2, attrs.evolve(accepted(), progress=10))]
    waiting = asyncio.create_task(journal.changes(2))
    await asyncio.sleep(0.01)
    journal.save_later(attrs.evolve(accepted(), progress=20))
    assert await waiting == [(3, attrs.evolve(accepted(), progress=20))]


async def test_what_is_no_news_gets_no_number(journal: Journal) -> None:
    """The same again, more looks, and whatever becomes of a final job but another status."""
    await journal.save(accepted("b"))
    await journal.save(attrs.evolve(accepted("b"), polls=7, points=2.0))
    await journal.save(succeeded())
    await journal.save(succeeded().with_pending_file("ab"))
    await journal.save(fetched := succeeded().with_file(Path("/x/a.mp4"), "ab"))
    journal.save_later(fetched.with_download_error(_failed()))
    await journal.save(a_job("c"))
    told = await soon(journal, 0)
    assert [(number, job.key) for number, job in told] == [(1, "b"), (2, "a"), (3, "c")]
    assert (told[0][1].polls, told[1][1].file, told[1][1].error) == (7, fetched.file, _failed_like(told[1][1]))
    await journal.save(attrs.evolve(fetched, status=JobStatus.CANCELED))
    assert [(number, job.key) for number, job in await soon(journal, 3)] == [(4, "a")]


def _failed() -> Any:
    from pika_async.errors import DownloadFailed

    return DownloadFailed(url="https://x.test", reason="cut")


def _failed_like(job: Job) -> Any:
    assert str(job.error) == str(_failed())
    return job.error


async def test_an_error_is_news(journal: Journal) -> None:
    """A job that is put down says why, once."""
    await journal.save(a_job())
    for _ in range(2):
        journal.save_later(attrs.evolve(a_job(), error=_failed()))
    assert [number for number, _ in await soon(journal, 1)] == [2]
    await journal.save(attrs.evolve(a_job(), error=_failed()))
    await journal.save(a_job())
    assert journal.revision == 3


async def test_an_archived_job_is_told_by_its_new_key(journal: Journal) -> None:
    """Under the number that it had: who knows it is not told again, and who does not still is."""
    await journal.save(succeeded(), a_job("b"))
    archived = await journal.archive(succeeded())
    assert await soon(journal, 0) == [(1, archived), (2, a_job("b"))]
    await nothing(journal, 2)
    await journal.save(a_job())
    assert await soon(journal, 1) == [(2, a_job("b")), (3, a_job())]
    await journal.archive(attrs.evolve(a_job(), status=JobStatus.CANCELED))
    assert [(number, job.key, job.status) for number, job in await soon(journal, 2)] == [(4, "a~2", "canceled")]


async def test_many_changes_are_read_some_at_a_time(journal: Journal) -> None:
    """In order, none twice, none missed."""
    await journal.save(*[a_job(f"k{number}") for number in range(3 * MAX_CHANGES + 5)])
    seen: list[tuple[int, Job]] = []
    sizes = []
    while len(seen) < 3 * MAX_CHANGES + 5:
        sizes.append(len(page := await soon(journal, seen[-1][0] if seen else 0)))
        seen += page
    assert sizes == [MAX_CHANGES, MAX_CHANGES, MAX_CHANGES, 5]
    assert [(number, job.key) for number, job in seen] == [(n + 1, f"k{n}") for n in range(3 * MAX_CHANGES + 5)]


async def test_whole_images_are_read_few_at_a_time(tmp_path: Path) -> None:
    """Reading is done in the loop: as much as lets others have their turn soon, and at least one job."""
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


async def test_reading_lets_others_have_their_turn(journal: Journal) -> None:
    """Also when there is always more to read."""
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


async def test_a_closed_journal_gives_what_it_has_and_then_nothing(journal: Journal) -> None:
    """Whoever waits is told so, and what was noted last is given before."""
    assert await soon(type(journal)(*[journal.path] if journal.path else []), 0) == []
    waiting = asyncio.create_task(journal.changes(0))
    await asyncio.sleep(0.01)
    await journal.close()
    assert await asyncio.wait_for(waiting, 5) == []
    await journal.open()
    journal.save_later(accepted())
    await journal.close()
    assert await soon(journal, 0) == [(1, accepted())]
    assert await soon(journal, 1) == []


async def test_numbers_go_on_when_it_is_opened_again(journal: Journal) -> None:
    await journal.save(a_job("a"), succeeded("b"))
    await journal.close()
    assert journal.revision == 2
    await journal.open()
    await nothing(journal, 2)
    await journal.save(a_job("c"))
    assert await soon(journal, 1) == [(2, succeeded("b")), (3, a_job("c"))]


async def test_jobs_that_nobody_follows_are_not_numbered() -> None:
    """In memory, numbers begin with the jobs that are there when one is asked for."""
    journal = MemoryJournal()
    await journal.open()
    await journal.save(a_job("a"), a_job("b"))
    await journal.save(accepted("a"))
    assert journal._revisions is None
    assert await soon(journal, 0) == [(1, accepted("a")), (2, a_job("b"))]
    await journal.save(accepted("b", "t-2"))
    assert await soon(journal, 1) == [(3, accepted("b", "t-2"))]


def test_each_loop_has_its_readers(tmp_path: Path) -> None:
    """One loop after another, and one that was closed over a reader that waited."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(journal.open())
    left = loop.create_task(journal.changes(0))
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    assert listened_to(journal)

    async def story() -> None:
        waiting = asyncio.create_task(journal.changes(0))
        await asyncio.sleep(0.01)
        await journal.save(a_job())
        assert await asyncio.wait_for(waiting, 5) == [(1, a_job())]
        assert not listened_to(journal)

    asyncio.run(story())
    asyncio.run(journal.close())
    left._log_destroy_pending = False  # type: ignore[attr-defined]
    del left
    gc.collect()


async def test_a_reader_that_leaves_is_forgotten(journal: Journal) -> None:
    """Cancelled while it waits, or right when it is woken."""
    for turns in range(6):
        reader = asyncio.create_task(journal.changes(journal.revision))
        for _ in range(turns):
            await asyncio.sleep(0)
        keeping = asyncio.create_task(journal.save(a_job(f"k{turns}")))
        await asyncio.sleep(0)
        reader.cancel()
        await asyncio.wait({reader, keeping})
        assert (reader.cancelled(), listened_to(journal)) == (True, False)


async def test_nothing_is_told_before_it_is_committed(tmp_path: Path) -> None:
    """Reads see what waits to be written; a change is one that no crash takes back."""
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


async def test_what_was_refused_gets_its_number_when_it_is_written(tmp_path: Path) -> None:
    """A commit that fails takes none, and is told when it succeeds."""
    journal, double = await broken(tmp_path / "j.sqlite")
    waiting = asyncio.create_task(journal.changes(1))
    with pytest.raises(JournalFailed):
        await journal.save(accepted("r", "t-r"))
    await asyncio.sleep(0.05)
    assert (journal.revision, waiting.done()) == (1, False)
    double.error = None
    await journal.save(a_job("b"))
    assert await waiting == [(2, accepted("r", "t-r")), (3, a_job("b"))]
    await journal.close()


async def test_what_no_column_can_hold_takes_no_number(tmp_path: Path) -> None:
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


async def test_a_rescued_job_is_a_change_when_it_is_taken_in(tmp_path: Path) -> None:
    """Of the opening that takes it in."""
    journal, _ = await broken(tmp_path / "j.sqlite")
    with pytest.raises(JournalFailed):
        await journal.save(accepted("r", "t-r"))
    await journal.close()
    again = SqliteJournal(tmp_path / "j.sqlite")
    await again.open()
    assert await soon(again, 1) == [(2, accepted("r", "t-r"))]
    await again.save(a_job("b"))
    assert again.revision == 3
    await again.close()


async def test_a_killed_process_leaves_no_number_twice(tmp_path: Path) -> None:
    """What it was told of is there, with the numbers that it was told."""
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
    number, key = child(script, path).stdout.split()
    journal = SqliteJournal(path)
    await journal.open()
    assert (await soon(journal, 0))[-1] == (5, journal.get(key))
    assert (journal.revision, int(number)) == (5, 5)
    await journal.save(a_job("new"))
    assert await soon(journal, 5) == [(6, a_job("new"))]
    await journal.close()


async def test_another_process_can_read_the_changes(tmp_path: Path) -> None:
    """What is there, and it does not wait for more."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    await journal.save(a_job())
    other = SqliteJournal(tmp_path / "j.sqlite")
    assert (other.revision, await soon(other, 0), await soon(other, 1)) == (1, [(1, a_job())], [])
    await journal.close()


async def test_changes_are_found_by_an_index(tmp_path: Path) -> None:
    """However many jobs there are, a reader reads only what is behind its number."""
    journal = SqliteJournal(tmp_path / "j.sqlite")
    await journal.open()
    with closing(sqlite3.connect(tmp_path / "j.sqlite")) as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT * FROM jobs WHERE revision > 3 ORDER BY revision LIMIT 64")
        assert [row[-1] for row in plan] == ["SEARCH jobs USING INDEX jobs_by_revision (revision>?)"]
    await journal.close()


class Follower:
    """Reads on behind the last number, some of the time, and remembers what it was told of each job by its request."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.number = 0
        self.told: dict[str, Job] = {}

    async def read(self, pages: int) -> None:
        for _ in range(pages):
            if self.journal.revision == self.number:
                return
            found = await soon(self.journal, self.number)
            numbers = [number for number, _ in found]
            assert numbers == sorted(set(numbers))
            assert self.number < numbers[0]
            self.number = numbers[-1]
            self.told |= {job.request.prompt: job for _, job in found}

    def check(self) -> None:
        """It knows every job, as it stands."""
        assert {prompt: _news(job) for prompt, job in self.told.items()} == {
            job.request.prompt: _news(job) for job in self.journal.all()
        }


def _news(job: Job) -> tuple[Any, ...]:
    return (job.status, None if job.is_final else job.progress)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(steps, st.lists(st.integers(0, 2), min_size=2))
def test_a_follower_knows_how_every_job_stands(steps: list[tuple[str, Any]], pages: list[int]) -> None:
    """Whatever is asked for, whenever it reads, over commits that are held up and openings; both journals alike."""

    async def story(path: Path) -> None:
        twins = Twins(path)
        followers = [Follower(twins.memory), Follower(twins.sqlite)]
        assert twins.memory.revision == 0
        await twins.sqlite.open()
        try:
            for number, (name, what) in enumerate([*steps, ("release", None), ("reopen", None)]):
                await twins.step(name, what)
                for follower in followers:
                    await follower.read(pages[number % len(pages)])
            for follower in followers:
                await follower.read(10**9)
                follower.check()
        finally:
            if twins.stalled is not None:
                twins.stalled.set()
            await twins.sqlite.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder, "j.sqlite")))


puts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["keep", "note"]), st.sampled_from(KEYS), st.sampled_from(JobStatus)),
        st.tuples(st.sampled_from(["archive", "crash", "read"]), st.sampled_from(KEYS), st.none()),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=40)
@given(puts)
def test_a_follower_goes_on_after_a_crash(puts: list[tuple[str, str, JobStatus | None]]) -> None:
    """From the number that it remembers: what it was told is there, and what comes has later numbers."""

    async def story(path: Path) -> None:
        journal = SqliteJournal(path)
        await journal.open()
        follower = Follower(journal)
        for number, (name, key, status) in enumerate(puts):
            known = journal.get(key)
            match name:
                case "archive" if known is not None:
                    await journal.archive(known)
                case "keep" | "note":
                    assert status is not None
                    base = known or attrs.evolve(a_job(key), request=GenerationRequest(f"{key}{number}", key=key))
                    job = attrs.evolve(base, status=status, progress=number)
                    await journal.save(job) if name == "keep" else journal.save_later(job)
                case "read":
                    await follower.read(10**9)
                case "crash":
                    path = path.with_name(f"{number}.sqlite")
                    for suffix in ("", "-wal"):
                        shutil.copyfile(f"{journal.path}{suffix}", f"{path}{suffix}")
                    await journal.close()
                    journal = follower.journal = SqliteJournal(path)
                    await journal.open()
        await journal.close()
        await follower.read(10**9)
        follower.check()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(story(Path(folder, "j.sqlite")))
