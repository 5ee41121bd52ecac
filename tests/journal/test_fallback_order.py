"""Order in which records that the database refused are kept, synced, retried and dropped."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pika_async._journal.fallback_file import FallbackFile
from pika_async._journal.sqlite import SqliteJournal
from pika_async._journal.write_buffer import WriteBuffer, WriteOp
from pika_async.errors import JournalFailed, SubmissionInDoubt
from pika_async.jobs import Job, JobStatus, utc_from_timestamp
from tests.journal.builders import INTENT, a_job, accepted, open_broken_journal


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "j.sqlite"


def lines(path: Path) -> list[bytes]:
    return Path(f"{path}.fallback").read_bytes().partition(b"\0")[0].splitlines()


def doubt(key: str) -> Job:
    return a_job(key).submitting().in_doubt(
        SubmissionInDoubt(key=key, provider="p", reason="r"), utc_from_timestamp(1.0)
    )  # fmt: skip


# --- the file ---------------------------------------------------------------------------------------------------------


def test_lines_are_synced_before_they_count_as_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the file with all its lines, then the folder that names it."""
    synced: list[tuple[str, bytes]] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((target.name, target.read_bytes().partition(b"\0")[0] if target.is_file() else b""))
        fsync(descriptor)

    file = FallbackFile(path)
    file.append([b"one\n"])
    monkeypatch.setattr(os, "fsync", recorded)
    assert file.append([b"two\n", b"three\n"]) == file.path
    assert synced == [("j.sqlite.fallback", b"one\ntwo\nthree\n"), (path.parent.name, b"")]


def test_half_a_line_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full within an append, the lines before it stay readable, and the new ones are elsewhere."""
    file = FallbackFile(path)
    file.reserve()
    file.append([b"one\n"])
    pwrite, calls = os.pwrite, 0

    def full(descriptor: int, data: Any, offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return pwrite(descriptor, bytes(data)[:5], offset)
        if calls == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    place = file.append([b"a long line\n"])
    assert place is not None
    assert place.parent == path.parent / "temporary"
    assert (lines(path), file.read_lines()) == ([b"one"], [b"one", b"a long line"])


def test_a_file_of_another_user_in_the_temporary_folder_is_ignored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may create one there: it is neither read nor written nor removed."""
    file = FallbackFile(path)
    theirs = file._candidates()[1]
    theirs.write_bytes(b'{"key": "forged"}\n')
    assert file.read_lines() == [b'{"key": "forged"}']
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    file.path.mkdir()
    assert file.append([b"mine\n"]) is None
    file.path.rmdir()
    assert file.read_lines() == []
    file.remove()
    assert theirs.read_bytes() == b'{"key": "forged"}\n'


# --- the journal ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("odd_is_first", [True, False])
async def test_the_file_is_kept_while_one_of_its_records_is_unsaved(path: Path, odd_is_first: bool) -> None:
    """The disk works again, but one record has a value that no column can hold: its line stays until it is saved."""
    journal, double = await open_broken_journal(path, "b", "odd")
    records = [accepted("b", "t-2"), accepted("odd", "t-\ud800")]
    for record in records[::-1] if odd_is_first else records:
        with pytest.raises(JournalFailed):
            await journal.save(record)
    assert len(lines(path)) == 2
    double.error = None
    await journal.save(a_job("later"))
    assert SqliteJournal(path).get("b") == accepted("b", "t-2")
    assert [line for line in lines(path) if b'"odd"' in line] != []
    assert not journal.is_saved
    await journal.close()
    assert [line for line in lines(path) if b'"odd"' in line] != []


@pytest.mark.anyio
async def test_a_resolution_that_cannot_be_saved_is_imported(path: Path) -> None:
    """A doubt that a person has resolved as not charged is planned for the next process, not in doubt again."""
    journal, _ = await open_broken_journal(path, "b")
    with pytest.raises(JournalFailed):
        await journal.save(doubt("b").requeued())
    assert len(lines(path)) == 1
    await journal.close()
    other = SqliteJournal(path)
    await other.open()
    found = other.get("b")
    assert found is not None
    assert (found.status, found.may_be_charged) == (JobStatus.PLANNED, False)
    await other.close()


# --- the buffer -------------------------------------------------------------------------------------------------------


def failed(buffer: WriteBuffer, *operations: WriteOp) -> None:
    for operation in operations:
        buffer.add(operation)
    buffer.on_commit_failed(buffer.take(late=True))


def write_of(job: Job) -> WriteOp:
    return WriteOp(jobs={job.key: job})


def test_earlier_failures_are_written_first() -> None:
    """A later state of a job is not overwritten by an earlier one that failed."""
    buffer = WriteBuffer()
    earlier, later = write_of(doubt("b")), write_of(accepted("b"))
    failed(buffer, earlier)
    buffer.add(later)
    assert buffer.take(late=True) == [earlier, later]


def test_a_dropped_intent_uncovers_the_latest_state() -> None:
    """Of several states that are still to be written, reads see the last one."""
    buffer = WriteBuffer()
    failed(buffer, write_of(doubt("b")), write_of(doubt("b").requeued()))
    failed(buffer, WriteOp(jobs={"b": a_job("b").submitting()}, intent=INTENT))
    assert buffer.find_job("b") == (True, doubt("b").requeued())
    assert buffer.intent("b") is None


def test_a_deferred_state_does_not_replace_the_job_of_an_intent() -> None:
    """The intent is committed with the job that it was recorded for."""
    buffer = WriteBuffer()
    intended = WriteOp(jobs={"b": a_job("b").submitting()}, intent=INTENT)
    buffer.add(intended)
    buffer.save_later(accepted("b"))
    first, second = buffer.take(late=True)
    assert (first, first.jobs) == (intended, {"b": a_job("b").submitting()})
    assert (second.jobs, second.intent) == ({"b": accepted("b")}, None)


def test_a_deferred_state_survives_an_intent_that_fails() -> None:
    """A failed intent is dropped, and the state that was to be saved later is written."""
    buffer = WriteBuffer()
    buffer.save_later(doubt("b").requeued())
    intended = WriteOp(jobs={"b": a_job("b").submitting()}, intent=INTENT)
    buffer.add(intended)
    deferred, taken = group = buffer.take(late=False)
    assert (deferred.jobs, taken) == ({"b": doubt("b").requeued()}, intended)
    buffer.on_commit_failed(group)
    assert buffer.take(late=False) == [deferred]


def test_a_deferred_state_is_dropped_for_a_later_one() -> None:
    """Saving a job leaves nothing of it to be written later, and reads see the saved state."""
    buffer = WriteBuffer()
    buffer.save_later(accepted("b"))
    saved = write_of(doubt("b"))
    buffer.add(saved)
    assert buffer.take(late=True) == [saved]
    assert buffer.find_job("b") == (True, doubt("b"))
