"""Faults injected into system calls by strace: a kill before the n-th call of a kind, a full disk, a broken disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from pika_async._journal.fallback_file import FallbackFile
from pika_async.jobs import JobStatus
from tests.crash.crash_batch import CrashBatch, ProcessRun
from tests.fakes.requirements import require_program

#: Real processes that are killed: with the slowest cases, on one Python.
pytestmark = pytest.mark.slow

MakeBatch = Callable[..., CrashBatch]
COUNT = 6
#: The system calls with a lasting effect, and about how often one thread makes each.
CALLS = {"pwrite64": 180, "write": 40, "fdatasync": 30, "fsync": 8, "linkat": 4, "unlink": 10, "ftruncate": 5}
#: Whether each n is tried, or only those of `SAMPLED_CALLS`.
EVERY_CALL = bool(os.environ.get("PIKA_CRASH_EVERY"))
SAMPLED_CALLS = {
    "pwrite64": (7, 60), "write": (4, 9), "fdatasync": (9,), "fsync": (1,), "linkat": (1,), "unlink": (1, 3),
    "ftruncate": (1,),
}  # fmt: skip


def strace(*options: str) -> Sequence[str]:
    """Return the strace command; it counts the calls of each thread separately."""
    return (require_program("strace"), "-f", "-qq", "-o", os.devnull, *options)


def kill_points() -> list[tuple[str, int]]:
    return [
        (call, number)
        for call, last in CALLS.items()
        for number in (range(1, last + 1) if EVERY_CALL else SAMPLED_CALLS[call])
    ]


@pytest.mark.parametrize(("call", "number"), kill_points())
def test_a_kill_before_a_system_call(make_batch: MakeBatch, call: str, number: int) -> None:
    """A kill as a thread begins its n-th call of a kind passes the checks that hold for every kill."""
    batch = make_batch(COUNT)
    run = batch.run(tracer=strace("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"))
    assert run.was_killed or EVERY_CALL
    batch.finish_and_verify()


# --- a full or broken disk --------------------------------------------------------------------------------------------

#: The calls of the journal's thread from which on all fail: at its creation, at an intent, at a task id, or later.
FAULTS = {"pwrite64": "ENOSPC", "fdatasync": "EIO"}
SAMPLED_FAULTS = {"pwrite64": (1, 31, 43, 100), "fdatasync": (1, 7, 10)}


def fault_points() -> list[tuple[str, int]]:
    return [
        (call, number)
        for call in FAULTS
        for number in (range(1, CALLS[call] + 1, 2) if EVERY_CALL else SAMPLED_FAULTS[call])
    ]


def sends_after_failed_save(run: ProcessRun) -> int:
    """Count the submissions that began after a failed save."""
    kinds = [event.kind for event in run.events]
    return kinds[kinds.index("refused") :].count("sending") if "refused" in kinds else 0


def fallback_content(batch: CrashBatch) -> bytes:
    """Return the content of all fallback files, beside the journal or in the temporary folder."""
    return b"".join(path.read_bytes() for path in [*batch.out.glob("*.fallback"), *batch.scratch.glob("*.fallback")])


@pytest.mark.parametrize(("call", "number"), fault_points())
def test_a_journal_that_cannot_be_written(make_batch: MakeBatch, call: str, number: int) -> None:
    """After the first failed save no job is sent, and the next run leaves no job in doubt and charges none twice.

    Each task id that could not be saved is on standard error and in the fallback file, and the exit code is not 0.
    """
    batch = make_batch(COUNT)
    paths = [option for name in ("journal.db", "journal.db-wal") for option in ("-P", str(batch.out / name))]
    fault = f"inject={call}:error={FAULTS[call]}:when={number}+"
    run = batch.run(tracer=strace(*paths, "-e", fault), one_by_one=True)
    lost = {charge.task_id for charge in batch.charges} - batch.ids
    assert sends_after_failed_save(run) == 0
    assert [
        task_id for task_id in lost if task_id not in run.err or task_id.encode() not in fallback_content(batch)
    ] == []
    assert run.code != 0 or not lost
    assert run.code != 2 or not batch.charges
    batch.finish_and_verify(unknown=0, charged=COUNT)


def test_a_disk_on_which_no_file_can_be_written(make_batch: MakeBatch) -> None:
    """When no fallback file can be written either, the task id is on standard error and the job is in doubt.

    `resolve` with that task id settles the job without another charge.
    """
    batch = make_batch(COUNT)
    beside, elsewhere = FallbackFile(batch.journal_path)._candidates()
    paths = ("-P", str(beside), "-P", str(batch.scratch / elsewhere.name))
    tracer = strace(*paths, "-e", "inject=pwrite64:error=ENOSPC")
    run = batch.run(tracer=tracer, fail_from="send-after:3", one_by_one=True)
    lost = {charge.task_id for charge in batch.charges} - batch.ids
    assert (run.code, len(lost), sends_after_failed_save(run), fallback_content(batch).strip(b"\0")) == (1, 1, 0, b"")
    assert all(task_id in run.err for task_id in lost)
    batch.finish_and_verify(unknown=1, charged=COUNT)
    [in_doubt] = [job.key for job in batch.jobs.values() if job.status is JobStatus.UNKNOWN]
    assert batch.run("resolve", batch.out_option, in_doubt, "--task-id", *lost).code == 0
    assert batch.run("resume", batch.out_option).code == 0
    batch.finish_and_verify(unknown=0, charged=COUNT)
