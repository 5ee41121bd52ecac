"""Fallback file: when the journal cannot be written, a receipt is saved beside it, logged, and imported later."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from pika_async._journal import fallback_file
from pika_async._journal.fallback_file import RESERVED_BYTES
from pika_async._journal.marks import PLACE_SETTING
from pika_async._journal.serialization import job_to_line
from pika_async._journal.sqlite import SqliteJournal
from pika_async._planning.resolution import apply_resolution
from pika_async.errors import JournalFailed, JournalUnusable, SubmissionInDoubt
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from pika_async.models import GenerationRequest
from tests.journal.builders import (
    INTENT,
    a_job,
    accepted,
    create_journal,
    job_for_token,
    open_broken_journal,
    run_child,
    stalled,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "j.sqlite"


def lines(path: Path) -> list[bytes]:
    file = Path(f"{path}.fallback")
    return file.read_bytes().partition(b"\0")[0].splitlines() if file.exists() else []


def line_of(path: Path, job: Job) -> bytes:
    """Return the line of *job* in the fallback file of the journal at *path*."""
    return job_to_line(job, None, path.parent, SqliteJournal(path).get_setting(PLACE_SETTING)["journal"])


async def test_space_is_reserved_in_advance(path: Path) -> None:
    """The reserved space holds the last receipts on a full disk; a clean close frees it."""
    journal = SqliteJournal(path)
    await journal.open()
    facts = Path(f"{path}.fallback").stat()
    assert (facts.st_size, stat.S_IMODE(facts.st_mode), lines(path)) == (RESERVED_BYTES, 0o600, [])
    assert facts.st_blocks * 512 >= RESERVED_BYTES
    await journal.close()
    assert not Path(f"{path}.fallback").exists()


async def test_an_intent_that_cannot_be_saved_leaves_no_trace(path: Path) -> None:
    """The job must not be sent, so it stays planned, deferred or absent, as before."""
    journal, double = await open_broken_journal(path)
    journal.save_later(a_job("deferred"))
    for key, before in (("new", None), ("deferred", a_job("deferred"))):
        with pytest.raises(JournalFailed, match="disk I/O error; nothing more is sent; mend it") as caught:
            await journal.record_intent(a_job(key).submitting(), attrs.evolve(INTENT, callback_sha256="t1"))
        assert (journal.get(key), caught.value.provider, caught.value.path) == (before, "p", str(path))
        assert job_for_token(journal, "t1") is None
    assert caught.value.fallback_file is None
    assert (journal.interrupted_jobs(), journal.charges()) == ([], 1)
    double.error = None
    await journal.record_intent(a_job("new").submitting(), INTENT)
    assert journal.interrupted_jobs() == [(a_job("new").submitting(), INTENT)]
    await journal.close()


async def test_a_receipt_that_cannot_be_saved_goes_to_the_fallback_file(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is on disk elsewhere, logged, readable, and in the journal as soon as the journal can be written."""
    journal, double = await open_broken_journal(path, "b", "c")
    with pytest.raises(JournalFailed, match="what it lacks is in") as caught:
        await journal.save(accepted("b", "t-\x1b2"), accepted("c", "t-3"))
    assert caught.value.fallback_file == f"{path}.fallback"
    assert len(lines(path)) == 2
    assert [record.levelname for record in caplog.records] == ["CRITICAL", "CRITICAL"]
    assert "job b (queued, task t-�2) is not in the journal" in caplog.text
    assert list(journal.keys()) == ["a", "b", "c"]
    assert journal.charges() == 3
    assert journal.key_for_task("p", "https://x.test", "t-3") == "c"
    assert SqliteJournal(path).get("b") == a_job("b").submitting()
    double.error = None
    await journal.save(a_job("d"))
    assert list(SqliteJournal(path).keys()) == ["a", "b", "c", "d"]
    assert (lines(path), Path(f"{path}.fallback").stat().st_size) == ([], RESERVED_BYTES)
    await journal.close()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), sqlite3.DatabaseError("malformed")])
async def test_every_disk_error_is_a_failed_journal(path: Path, error: Exception) -> None:
    journal, double = await open_broken_journal(path)
    double.error = error
    with pytest.raises(JournalFailed):
        await journal.save(a_job("b"))
    with pytest.raises(JournalFailed):
        await journal.set_setting("x", 1)
    assert (journal.get("b"), journal.get_setting("x")) == (a_job("b"), 1)
    await journal.close()


async def test_a_close_that_cannot_write_uses_the_fallback_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It does not raise and releases the file; reads stay correct, and the next opening has every record."""
    journal, _ = await open_broken_journal(path, "b")
    journal.save_later(accepted("b", "t-2"))
    journal.save_later(a_job("never_sent"))
    await journal.close()
    assert "job b (queued, task t-2) is not in the journal" in caplog.text
    assert "never_sent" not in caplog.text
    assert len(lines(path)) == 1
    assert list(journal.keys()) == ["a", "b", "never_sent"]
    other = SqliteJournal(path)
    await other.open()
    assert list(other.all()) == [accepted(), accepted("b", "t-2")]
    done = attrs.evolve(accepted("b", "t-2"), status=JobStatus.SUCCEEDED)
    await other.save(done)
    await other.close()
    await journal.open()
    assert journal.get("b") == done
    await journal.close()


async def test_flush_reports_unwritten_records(path: Path) -> None:
    journal, double = await open_broken_journal(path)
    journal.save_later(a_job("b"))
    assert not journal.flush(10)
    double.error = None
    assert journal.flush(10)
    await journal.close()


async def test_an_archive_that_cannot_be_saved_is_imported(path: Path) -> None:
    """The earlier job appears once, under its new key with its task id; the job in its place was not sent yet."""
    journal, _ = await open_broken_journal(path)
    with pytest.raises(JournalFailed):
        await journal.archive(accepted())
    with pytest.raises(JournalFailed):
        await journal.save(a_job("a"))
    assert list(journal.keys()) == ["a~1", "a"]
    await journal.close()
    other = SqliteJournal(path)
    await other.open()
    assert list(other.all()) == [attrs.evolve(accepted(), key="a~1")]
    assert other.charges() == 1
    await other.close()


async def test_a_full_database_is_reported_in_sqlites_words(path: Path) -> None:
    """With a real limit on its pages; when there is space again, everything is written."""
    journal = SqliteJournal(path)
    await journal.open()
    (pages,) = journal._write_connection.execute("PRAGMA page_count").fetchone()
    journal._write_connection.execute(f"PRAGMA max_page_count={pages}")
    big = attrs.evolve(accepted(), request=GenerationRequest("a cat", image=bytes(20_000)))
    with pytest.raises(JournalFailed, match="database or disk is full"):
        await journal.save(big)
    assert journal.get("a") == big
    journal._write_connection.execute("PRAGMA max_page_count=100000")
    assert journal.flush(10)
    assert SqliteJournal(path).get("a") == big
    await journal.close()


FULL = """
async def main():
    await journal.open()
    await journal.save(accepted("first", "t-first"))
    await journal.record_intent(a_job("last").submitting(), INTENT)
    limit = 400_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for number in range(1000):
        job = a_job(f"k{number}").submitting()
        try:
            await journal.record_intent(job, INTENT)
        except JournalFailed as error:
            print("not sent", error.reason)
            break
        try:
            await journal.save(job.accepted(f"t-{number}", 1.0))
        except JournalFailed as error:
            print("fallback", number, error.fallback_file)
            break
    try:
        await journal.save(a_job("last").submitting().accepted("t-last", 1.0))
    except JournalFailed as error:
        print("fallback", error.fallback_file, flush=True)
    die()
asyncio.run(main())
"""


async def test_a_full_disk_loses_no_receipt(path: Path) -> None:
    """After a real file size limit and then a kill, the last task id is there on the next opening."""
    done = run_child(FULL, path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert f"fallback {path}.fallback" in done.stdout.splitlines(), done.stdout + done.stderr
    journal = SqliteJournal(path)
    await journal.open()
    jobs = list(journal.all())
    assert jobs[:2] == [accepted("first", "t-first"), a_job("last").submitting().accepted("t-last", 1.0)]
    assert len(jobs) > 5
    await journal.close()


async def test_another_folder_is_used_if_the_journals_folder_is_full(path: Path) -> None:
    """The file is found there when the journal is opened again."""
    journal, _ = await open_broken_journal(path, "b")
    beside = Path(f"{path}.fallback")
    beside.unlink()
    beside.mkdir()
    with pytest.raises(JournalFailed) as caught:
        await journal.save(accepted("b", "t-2"))
    place = Path(str(caught.value.fallback_file))
    assert (place.parent, stat.S_IMODE(place.stat().st_mode)) == (path.parent / "temporary", 0o600)
    await journal.close()
    with pytest.raises(JournalUnusable, match=r"j.sqlite.fallback is not a regular file; remove that"):
        await SqliteJournal(path).open()
    beside.rmdir()
    other = SqliteJournal(path)
    await other.open()
    assert other.get("b") == accepted("b", "t-2")
    assert not place.exists()
    await other.close()


async def test_a_receipt_that_cannot_be_written_anywhere_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays in memory and is tried again, also when the same journal is opened again."""
    journal, _ = await open_broken_journal(path)
    Path(f"{path}.fallback").unlink()
    Path(f"{path}.fallback").mkdir()
    (path.parent / "temporary").rmdir()
    with pytest.raises(JournalFailed) as caught:
        await journal.save(accepted("b", "t-2"))
    assert caught.value.fallback_file is None
    assert "it is nowhere else" in caplog.text
    await journal.close()
    Path(f"{path}.fallback").rmdir()
    await journal.open()
    assert list(journal.keys()) == ["a", "b"]
    assert journal.flush(10)
    assert list(SqliteJournal(path).keys()) == ["a", "b"]
    await journal.close()


async def test_more_lines_than_the_reserved_space_are_imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file grows where it can."""
    monkeypatch.setattr(fallback_file, "RESERVED_BYTES", 4096)
    jobs = [accepted(f"k{number}", f"t-{number}") for number in range(100)]
    journal, double = await open_broken_journal(path)
    double.error, broken = None, double.error
    await journal.save(*[a_job(job.key).submitting() for job in jobs])
    double.error = broken
    for start in range(0, 100, 25):
        with pytest.raises(JournalFailed):
            await journal.save(*jobs[start : start + 25])
    assert len(lines(path)) == 100
    assert Path(f"{path}.fallback").stat().st_size > 4096
    await journal.close()
    other = SqliteJournal(path)
    await other.open()
    assert list(other.all()) == [accepted(), *jobs]
    assert Path(f"{path}.fallback").stat().st_size == 4096
    await other.close()


async def test_only_later_states_are_imported(path: Path) -> None:
    """A line written before the current state of its job changes nothing."""
    journal = SqliteJournal(path)
    await journal.open()
    done = attrs.evolve(accepted(), status=JobStatus.SUCCEEDED)
    await journal.save(done, a_job("b"))
    await journal.close()
    fetched = attrs.evolve(done, file=path.parent / "a.mp4", sha256="ab" * 32)
    Path(f"{path}.fallback").write_bytes(line_of(path, accepted()) + line_of(path, accepted("b", "t-2")))
    await journal.open()
    assert list(journal.all()) == [done, accepted("b", "t-2")]
    await journal.close()
    Path(f"{path}.fallback").write_bytes(line_of(path, fetched))
    await journal.open()
    assert journal.get("a") == fetched
    await journal.close()


async def test_unreadable_lines_are_set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A torn line and a foreign line are set aside, the others are imported, and an earlier set-aside file stays."""
    await create_journal(path)
    good = line_of(path, attrs.evolve(accepted(), status=JobStatus.RUNNING))
    for number, name in enumerate(["j.sqlite.fallback.broken", "j.sqlite.fallback.broken1"]):
        data = good + b'{"key": "b"}\n[1]\n\xff\n' + good[: len(good) // 2]
        Path(f"{path}.fallback").write_bytes(data + bytes(number))
        journal = SqliteJournal(path)
        await journal.open()
        assert journal.get("a") == attrs.evolve(accepted(), status=JobStatus.RUNNING)
        await journal.close()
        assert path.with_name(name).read_bytes() == data + bytes(number)
    assert "it is kept as" in caplog.text
    assert json.loads(good)["task_id"] == "t-1"


async def test_an_unstorable_record_fails_alone(path: Path) -> None:
    """A task id with a lone surrogate fails; the other records of its commit are written."""
    journal = SqliteJournal(path)
    await journal.open()
    with stalled(journal):
        odd = asyncio.ensure_future(journal.save(accepted("odd", "t-\ud800")))
        even = asyncio.ensure_future(journal.save(accepted("even", "t-2")))
        await asyncio.sleep(0)
    await even
    with pytest.raises(JournalFailed, match="surrogates not allowed"):
        await odd
    await journal.save(a_job("later"))
    assert list(SqliteJournal(path).keys()) == ["even", "later"]
    assert journal.key_for_task("p", "https://x.test", "t-\ud800") == "odd"
    await journal.close()


async def test_a_link_is_not_followed(path: Path) -> None:
    """A symbolic link cannot make the journal write into another file."""
    other = path.with_name("precious")
    other.write_bytes(b"precious")
    Path(f"{path}.fallback").symlink_to(other)
    with pytest.raises(JournalUnusable, match=r"j.sqlite.fallback is a link; remove that"):
        await SqliteJournal(path).open()
    assert other.read_bytes() == b"precious"
    assert Path(f"{path}.fallback").is_symlink()


async def test_the_database_is_intact_after_a_failure(path: Path) -> None:
    journal, double = await open_broken_journal(path)
    with pytest.raises(JournalFailed):
        await journal.save(a_job("b"))
    double.error = None
    await journal.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert list(journal.keys()) == ["a", "b"]


async def test_the_file_is_kept_until_every_record_of_it_is_saved(path: Path) -> None:
    """One record still fails while the others are written; a later opening sets the lines aside and has the rest."""
    journal, double = await open_broken_journal(path, "odd", "b")
    with pytest.raises(JournalFailed):
        await journal.save(accepted("odd", "t-\ud800"))
    with pytest.raises(JournalFailed):
        await journal.save(accepted("b", "t-2"))
    double.error = None
    await journal.save(a_job("c"))
    assert SqliteJournal(path).get("b") == accepted("b", "t-2")
    assert len(lines(path)) == 2
    await journal.close()
    assert len(lines(path)) == 2
    other = SqliteJournal(path)
    await other.open()
    assert [job.task_id for job in other.all()] == ["t-1", None, "t-2", None]
    assert b"t-\\ud800" in Path(f"{path}.fallback.broken").read_bytes()
    await other.close()


async def test_a_doubt_that_was_resolved_as_not_charged_stays_resolved(path: Path) -> None:
    """The word of a person that only the fallback file has is in the journal after the next opening."""
    journal, double = await open_broken_journal(path, "b")
    doubt = (
        a_job("b").submitting().in_doubt(SubmissionInDoubt(key="b", provider="p"), utc_from_timestamp(1_700_000_000.0))
    )
    double.error, broken = None, double.error
    await journal.save(doubt)
    double.error = broken
    resolved = apply_resolution(doubt, 1_700_000_100.0, task_id=None, charged=False, abandon=False)
    with pytest.raises(JournalFailed):
        await journal.save(resolved)
    await journal.close()
    other = SqliteJournal(path)
    await other.open()
    assert (other.get("b"), other.charges(), other.interrupted_jobs()) == (resolved, 1, [])
    await other.close()


@pytest.mark.parametrize("beside", [True, False])
async def test_the_lines_are_synced_before_the_call_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    """The lines and the name of their file are on the disk, beside the journal or in the temporary folder."""
    journal, _ = await open_broken_journal(path, "b")
    if not beside:
        Path(f"{path}.fallback").unlink()
        Path(f"{path}.fallback").mkdir()
    synced: list[tuple[int, bytes]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        synced.append((os.fstat(descriptor).st_ino, os.pread(descriptor, 4096, 0) if is_file else b""))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(JournalFailed) as caught:
        await journal.save(accepted("b", "t-2"))
    file = Path(str(caught.value.fallback_file))
    assert (file.parent == path.parent) is beside
    [(inode, content), (folder, _)] = synced
    assert (inode, folder) == (file.stat().st_ino, file.parent.stat().st_ino)
    assert b'"task_id": "t-2"' in content
    monkeypatch.undo()
    await journal.close()


async def test_receipts_of_big_requests_fit_into_the_reserved_space(path: Path) -> None:
    """A line has no request: eight hundred receipts fit, whatever pictures their requests hold."""
    journal, double = await open_broken_journal(path)
    double.error, broken = None, double.error
    big = GenerationRequest("a cat", image=bytes(30_000))
    jobs = [attrs.evolve(a_job(f"k{number}"), request=big).submitting() for number in range(800)]
    await journal.save(*jobs)
    double.error = broken
    with pytest.raises(JournalFailed):
        await journal.save(*[job.accepted(f"00000000-0000-4000-8000-{job.key:0>12}", 1.0) for job in jobs])
    assert len(lines(path)) == 800
    assert Path(f"{path}.fallback").stat().st_size == RESERVED_BYTES
    await journal.close()
