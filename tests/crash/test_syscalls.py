"""The system itself as the enemy, by strace: a death before the n-th call of a kind, a disk that is full or broken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence

import pytest

from pika_async._journal.fallback_file import FallbackFile
from pika_async.jobs import JobStatus
from tests.crash.batch_story import Life, Story

Stories = Callable[..., Story]
COUNT = 6
#: The calls that leave something behind, and about how often one thread makes each.
CALLS = {"pwrite64": 180, "write": 40, "fdatasync": 30, "fsync": 8, "linkat": 4, "unlink": 10, "ftruncate": 5}
#: Whether each n is tried, or some.
EVERY = bool(os.environ.get("PIKA_CRASH_EVERY"))
SOME = {
    "pwrite64": (7, 60), "write": (4, 9), "fdatasync": (9,), "fsync": (1,), "linkat": (1,), "unlink": (1, 3),
    "ftruncate": (1,),
}  # fmt: skip


def strace(*options: str) -> Sequence[str]:
    """The tracer, which counts the calls of each thread for itself."""
    found = shutil.which("strace")
    if not found:
        (pytest.fail if os.environ.get("PIKA_SKIP_NOTHING") else pytest.skip)(
            "needs strace: apt-get install strace (or dnf, apk, pacman)"
        )
    return (found, "-f", "-qq", "-o", os.devnull, *options)


def deaths() -> list[tuple[str, int]]:
    return [(call, number) for call, last in CALLS.items() for number in (range(1, last + 1) if EVERY else SOME[call])]


@pytest.mark.parametrize(("call", "number"), deaths())
def test_a_death_before_a_call(story: Stories, call: str, number: int) -> None:
    """Killed as any of its threads begins its n-th call of a kind: what holds for every death."""
    told = story(COUNT)
    life = told.run(tracer=strace("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"))
    assert life.was_killed or EVERY
    told.judge()


# --- a disk that is full, or broken -------------------------------------------------------------------------------------

#: From which call on, in the journal's thread: some fail at its creation, some at an intent, some at an id, some later.
FAULTS = {"pwrite64": "ENOSPC", "fdatasync": "EIO"}
SOME_FAULTS = {"pwrite64": (1, 31, 43, 100), "fdatasync": (1, 7, 10)}


def faults() -> list[tuple[str, int]]:
    return [
        (call, number) for call in FAULTS for number in (range(1, CALLS[call] + 1, 2) if EVERY else SOME_FAULTS[call])
    ]


def sent_after_a_refusal(life: Life) -> int:
    """How many submissions began after the journal had refused something."""
    what = [event.what for event in life.events]
    return what[what.index("refused") :].count("sending") if "refused" in what else 0


def rescued(story: Story) -> bytes:
    """All that was rescued, beside the journal or in the temporary folder."""
    return b"".join(path.read_bytes() for path in [*story.out.glob("*.fallback"), *story.scratch.glob("*.fallback")])


@pytest.mark.parametrize(("call", "number"), faults())
def test_a_journal_that_cannot_be_written(story: Stories, call: str, number: int) -> None:
    """From there on nothing is sent. Each id that it could not keep is on standard error and in the rescue file, the exit
    code is not 0 then, and the next run takes all in: nothing in doubt, nothing paid twice."""
    told = story(COUNT)
    paths = [option for name in ("journal.db", "journal.db-wal") for option in ("-P", str(told.out / name))]
    fault = f"inject={call}:error={FAULTS[call]}:when={number}+"
    life = told.run(tracer=strace(*paths, "-e", fault), one_by_one=True)
    lost = {charge.task_id for charge in told.charges} - told.ids
    assert sent_after_a_refusal(life) == 0
    assert [task_id for task_id in lost if task_id not in life.err or task_id.encode() not in rescued(told)] == []
    assert life.code != 0 or not lost
    assert life.code != 2 or not told.charges
    told.judge(unknown=0, charged=COUNT)


def test_a_disk_that_takes_nothing_at_all(story: Stories) -> None:
    """Not even the rescue files can be written: the id is on standard error, the job is in doubt, and told the id it is
    settled without another charge."""
    told = story(COUNT)
    beside, elsewhere = FallbackFile(told.path)._candidates()
    paths = ("-P", str(beside), "-P", str(told.scratch / elsewhere.name))
    tracer = strace(*paths, "-e", "inject=pwrite64:error=ENOSPC")
    life = told.run(tracer=tracer, fail_from="send-after:3", one_by_one=True)
    lost = {charge.task_id for charge in told.charges} - told.ids
    assert (life.code, len(lost), sent_after_a_refusal(life), rescued(told).strip(b"\0")) == (1, 1, 0, b"")
    assert all(task_id in life.err for task_id in lost)
    told.judge(unknown=1, charged=COUNT)
    [doubt] = [job.key for job in told.jobs.values() if job.status is JobStatus.UNKNOWN]
    assert told.run("resolve", told.place, doubt, "--task-id", *lost).code == 0
    assert told.run("resume", told.place).code == 0
    told.judge(unknown=0, charged=COUNT)
