"""Durability: saved records survive a kill, a truncated log, a cancelled call and a closed event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import threading
import time
from pathlib import Path

import attrs
import pytest

from pika_async._journal import queries
from pika_async._journal.schema import open_writer
from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalFailed, JournalUnusable
from pika_async.jobs import Job
from pika_async.models import LastSeen
from tests.fakes import virtual_clock
from tests.fakes.journals import write_in_loop_time
from tests.journal.builders import INTENT, a_job, accepted, assert_refused, job_for_token, run_child, stalled

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.sqlite"


async def test_concurrent_saves_share_a_commit(path: Path) -> None:
    """Two hundred jobs take one commit, and each is stored when its call returns."""
    journal, released = SqliteJournal(path), threading.Event()
    await journal.open()
    assert journal._executor is not None
    journal._executor.submit(released.wait)  # until all of them wait
    statements: list[str] = []
    journal._write_connection.set_trace_callback(statements.append)
    saving = asyncio.gather(*[journal.save(a_job(f"k{number}")) for number in range(200)])
    await asyncio.sleep(0)
    released.set()
    await saving
    assert (len([sql for sql in statements if sql.startswith("BEGIN")]), statements.count("COMMIT")) == (1, 1)
    assert len(list(SqliteJournal(path).keys())) == 200
    await journal.close()


def test_a_transaction_holds_the_write_lock_from_its_beginning(path: Path) -> None:
    """Another writer is refused before the first write, so that the write after a read cannot fail."""
    path.touch(0o600)
    with (
        contextlib.closing(open_writer(path)) as one,
        contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other,
    ):
        with queries.transaction(one):
            queries.latest_revision(one)
            with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                other.execute("INSERT INTO settings VALUES ('x', '1')")
            queries.insert_setting(one, "x", "2")
        assert other.execute("SELECT value FROM settings").fetchall() == [("2",)]


async def test_a_deferred_save_is_written_once(path: Path) -> None:
    """`save_later` costs neither a commit nor a statement if the job is saved soon after; a close writes the rest."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(accepted())
    statements: list[str] = []
    journal._write_connection.set_trace_callback(statements.append)
    for progress in range(50):
        journal.save_later(attrs.evolve(accepted(), progress=progress))
    await asyncio.sleep(0.01)
    assert statements == []
    await journal.save(a_job("b"))
    assert [sql for sql in statements if "'a'" in sql] == []
    await journal.save(attrs.evolve(accepted(), progress=60))
    assert [sql for sql in statements if "'a'" in sql and "progress = 60" not in sql] == []
    for progress in (98, 99):
        journal.save_later(attrs.evolve(accepted(), progress=progress))
    assert journal.get("a") == attrs.evolve(accepted(), progress=99)
    await journal.close()
    assert SqliteJournal(path).get("a") == attrs.evolve(accepted(), progress=99)
    assert [sql for sql in statements if "progress = 98" in sql] == []


def test_lingering_writes_share_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for a commit at once or for 0.08 s, and are committed when `save` returns; four wait for nothing."""
    write_in_loop_time(monkeypatch)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        journal = SqliteJournal(path)
        await journal.open()
        statements: list[str] = []
        journal._write_connection.set_trace_callback(statements.append)

        async def lingering(key: str) -> float:
            await journal.save(a_job(key), linger=True)
            assert SqliteJournal(path).get(key) == a_job(key)
            return loop.time()

        began = loop.time()
        assert await lingering("a") - began == pytest.approx(0.08, abs=0.02)
        began = loop.time()
        waiting = [asyncio.create_task(lingering(key)) for key in "bc"]
        await asyncio.sleep(0.02)
        await journal.record_intent(a_job("d").submitting(), INTENT)
        assert max(await asyncio.gather(*waiting)) - began == pytest.approx(0.02, abs=0.02)
        began = loop.time()
        assert max(await asyncio.gather(*map(lingering, "efgh"))) - began < 0.02
        assert statements.count("COMMIT") == 3
        waiting = [asyncio.create_task(lingering("i"))]
        await asyncio.sleep(0)
        await journal.close()
        await asyncio.gather(*waiting)

    virtual_clock.run(story())


def test_a_deferred_save_waits_five_seconds_at_most(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another write, the states of `save_later` are on disk after 5 s, in one commit for all jobs."""
    write_in_loop_time(monkeypatch)

    async def story() -> None:
        journal = SqliteJournal(path)
        await journal.open()
        await journal.save(accepted("a"), accepted("b", "t-2"))
        seen = LastSeen("archived", "", "https://x.test/v.mp4")
        statements: list[str] = []
        journal._write_connection.set_trace_callback(statements.append)
        for _ in range(4):
            journal.save_later(attrs.evolve(accepted("a"), last_seen=seen))
            journal.save_later(attrs.evolve(accepted("b", "t-2"), progress=7))
            await asyncio.sleep(1.2)
        assert statements == []
        await asyncio.sleep(0.3)
        assert [job.last_seen for job in SqliteJournal(path).all()] == [seen, None]
        assert [job.progress for job in SqliteJournal(path).all()] == [None, 7]
        assert statements.count("COMMIT") == 1
        journal.save_later(accepted("a"))
        await asyncio.sleep(5.1)
        assert [job.last_seen for job in SqliteJournal(path).all()] == [None, None]
        await journal.close()

    virtual_clock.run(story())


async def test_a_request_is_written_once(path: Path) -> None:
    """Later states of a job do not rewrite its request, which may contain whole images."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(a_job())
    statements: list[str] = []
    journal._write_connection.set_trace_callback(statements.append)
    await journal.save(accepted())
    assert [sql for sql in statements if "requests" in sql or "a cat" in sql] == []
    await journal.close()


KILLED = """
async def main():
    await journal.open()
    for number in range(8):
        job = a_job(f"k{number}")
        await journal.record_intent(job.submitting(), INTENT)
        await journal.save(job.submitting().accepted(f"t-{number}", 1.0))
    journal.save_later(a_job("deferred"))
    die()
asyncio.run(main())
"""


def killed(path: Path) -> None:
    done = run_child(KILLED, path)
    assert done.returncode == -signal.SIGKILL, done.stderr


async def test_a_kill_right_after_save_loses_nothing(path: Path) -> None:
    """Every task id passed to `save` is stored; a job passed to `save_later` may be lost."""
    killed(path)
    journal = SqliteJournal(path)
    await journal.open()
    assert [job.task_id for job in journal.all()] == [f"t-{number}" for number in range(8)]
    await journal.close()


async def test_a_kill_after_the_intent_leaves_the_intent_open(path: Path) -> None:
    script = """
import attrs
async def main():
    await journal.open()
    await journal.record_intent(a_job().submitting(), attrs.evolve(INTENT, callback_sha256="cd" * 32))
    die()
asyncio.run(main())
"""
    assert run_child(script, path).returncode == -signal.SIGKILL
    journal = SqliteJournal(path)
    assert journal.interrupted_jobs() == [(a_job().submitting(), attrs.evolve(INTENT, callback_sha256="cd" * 32))]
    assert job_for_token(journal, "cd" * 32) == a_job().submitting()


@pytest.mark.slow
async def test_a_truncated_log_holds_a_prefix(path: Path) -> None:
    """Without its lock file, cut after or inside any frame, the journal opens and holds the commits up to some moment."""
    killed(path)
    log = Path(f"{path}-wal").read_bytes()
    main = path.read_bytes()
    states = [(0, 0)]
    for number in range(8):
        states += [(number + 1, number), (number + 1, number + 1)]  # after the intent, then after the receipt
    seen = []
    frame = 24 + 4096
    cuts = sorted({*range(32, len(log) + 1, frame), *range(32 + frame // 2, len(log), frame), 31, len(log)})
    for cut in cuts:
        copy = path.with_name(f"cut{cut}")
        copy.write_bytes(main)
        Path(f"{copy}-wal").write_bytes(log[:cut])
        journal = SqliteJournal(copy)
        await journal.open()
        jobs = list(journal.all())
        await journal.close()
        assert [job.key for job in jobs] == [f"k{number}" for number in range(len(jobs))]
        seen.append((len(jobs), sum(job.task_id is not None for job in jobs)))
    assert [state for state in seen if state not in states] == []
    assert seen == sorted(seen)
    assert seen[-1] == (8, 8)
    assert len(set(seen)) == len(states)


async def test_a_cut_log_beside_its_lock_file_is_refused(path: Path) -> None:
    """Cut before the last commit, or removed: the numbers in the lock file show that changes are missing."""
    killed(path)
    log = Path(f"{path}-wal").read_bytes()
    frame = 24 + 4096
    for cut in range(len(log) - frame, 0, -5 * frame):
        Path(f"{path}-wal").write_bytes(log[:cut])
        with pytest.raises(JournalUnusable, match=r"was not closed cleanly and its log \(j.sqlite-wal\) is not whole"):
            await SqliteJournal(path).open()
        assert Path(f"{path}-wal").read_bytes() == log[:cut]
    Path(f"{path}-wal").unlink()
    Path(f"{path}-shm").unlink()
    await assert_refused(path, "was not closed cleanly and its log (j.sqlite-wal) is missing")
    Path(f"{path}-wal").write_bytes(log)
    journal = SqliteJournal(path)
    await journal.open()
    assert [job.task_id for job in journal.all()] == [f"t-{number}" for number in range(8)]
    await journal.close()


async def test_cancelling_a_save_does_not_undo_it(path: Path) -> None:
    """The task is cancelled, the job is saved, and the writer continues."""
    journal = SqliteJournal(path)
    await journal.open()
    with stalled(journal):
        task = asyncio.create_task(journal.save(accepted()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert journal.get("a") == accepted()
    await journal.save(a_job("b"))
    await journal.close()
    assert list(SqliteJournal(path).keys()) == ["a", "b"]


async def test_cancelling_a_failed_save_is_silent(path: Path) -> None:
    """An error without a waiter does not reach the exception handler of the event loop."""
    journal = SqliteJournal(path)
    await journal.open()
    with stalled(journal):
        task = asyncio.create_task(journal.record_intent(a_job().submitting(), INTENT))
        await asyncio.sleep(0)
        task.cancel()
        journal._write_connection.execute("PRAGMA query_only=ON")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal.flush(10)
    assert journal.get("a") is None
    await journal.close()


async def test_a_cancelled_opening_releases_the_journal(path: Path) -> None:
    """Another instance can open the journal as soon as the thread has ended."""
    journal = SqliteJournal(path)
    task = asyncio.create_task(journal.open())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    until = time.monotonic() + 10
    while [it for it in threading.enumerate() if it.name.startswith("pika_async-journal")]:
        assert time.monotonic() < until, "the thread of the journal has not ended after 10 s"
        await asyncio.sleep(0.001)
    other = SqliteJournal(path)
    await other.open()
    await other.close()
    with pytest.raises(JournalFailed, match="it is not open"):
        await journal.save(a_job())


def test_closing_the_event_loop_early_loses_nothing(path: Path) -> None:
    """Started saves are written; the journal can be closed and reopened in other event loops."""
    journal = SqliteJournal(path)
    released = threading.Event()

    async def begin() -> None:
        await journal.open()
        assert journal._executor is not None
        journal._executor.submit(released.wait)
        task = asyncio.create_task(journal.save(accepted()))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(begin())
    released.set()
    assert journal.flush(10)
    asyncio.run(journal.close())
    assert list(SqliteJournal(path).keys()) == ["a"]

    async def again() -> None:
        await journal.open()
        await journal.save(a_job("b"))
        await journal.close()

    asyncio.run(again())
    assert list(journal.keys()) == ["a", "b"]


async def test_closing_twice_or_unopened_does_nothing(path: Path) -> None:
    """Two concurrent closes wait for the same end."""
    journal = SqliteJournal(path)
    await journal.close()
    await journal.open()
    journal.save_later(a_job())
    with stalled(journal):
        closes = [asyncio.create_task(journal.close()) for _ in range(2)]
        await asyncio.sleep(0)
    await asyncio.gather(*closes)
    await journal.close()
    assert list(journal.keys()) == ["a"]


async def test_flush_respects_its_timeout(path: Path) -> None:
    """It returns whether everything is committed, deferred saves included."""
    journal = SqliteJournal(path)
    assert journal.flush(1)
    await journal.open()
    journal.save_later(a_job())
    with stalled(journal):
        assert not journal.flush(0.01)
    assert journal.flush(10)
    assert list(SqliteJournal(path).keys()) == ["a"]
    await journal.close()


async def test_a_closed_journal_rejects_writes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The error says that the journal is closed, and the receipt is logged; the file is not touched."""
    journal = SqliteJournal(path)
    with pytest.raises(JournalFailed, match="it is not open") as caught:
        await journal.save(accepted())
    journal.save_later(a_job())
    assert (caught.value.provider, caught.value.fallback_file, list(journal.keys())) == ("p", None, [])
    assert "job a (queued, task t-1) is not in the journal" in caplog.text
    assert list(path.parent.iterdir()) == []


async def test_a_read_never_waits_for_the_writer(path: Path) -> None:
    """A read returns while a transaction is open and while the writer thread is busy."""
    journal = SqliteJournal(path)
    await journal.open()
    await journal.save(accepted())
    with stalled(journal):
        journal._write_connection.execute("BEGIN IMMEDIATE")
        journal._write_connection.execute("UPDATE jobs SET task_id = 'x'")
        found: list[Job | None] = [journal.get("a"), SqliteJournal(path).get("a")]
        journal._write_connection.execute("ROLLBACK")
    assert found == [accepted(), accepted()]
    await journal.close()
