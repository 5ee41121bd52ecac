"""A batch killed at each named point of a job and run again: the exact cost of a kill at each point."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from pika_async._journal.migrations import MIGRATIONS
from pika_async.emulator import Emulator
from pika_async.jobs import JobStatus
from tests.cli.command_line import KEY
from tests.crash.crash_batch import CrashBatch
from tests.crash.fork_server import ForkServer
from tests.crash.victim_process import NEWER, POINTS, use_migrations

#: Real processes that are killed: with the slowest cases, on one Python.
pytestmark = pytest.mark.slow

MakeBatch = Callable[..., CrashBatch]
COUNT = 8


@attrs.frozen
class Cost:
    """Cost of a kill at one point.

    :param in_doubt: Number of jobs in doubt.
    :param unsent: Number of jobs that stay unsent because they are in doubt.
    :param again: Largest number of videos that are downloaded twice.
    """

    in_doubt: int = 0
    unsent: int = 0
    again: int = 0


#: No job is polled before all are submitted.
COSTS: dict[str, Cost] = {
    "create-after": Cost(),
    "migrate-inside": Cost(),
    "plan-before": Cost(),
    "plan-after": Cost(),
    "intent-before:3": Cost(),
    "intent-after:3": Cost(in_doubt=1, unsent=1),
    "send-before:3": Cost(in_doubt=1, unsent=1),
    "send-after:3": Cost(in_doubt=1),
    "id-before:3": Cost(in_doubt=1),
    "id-after:3": Cost(),
    "settle-before:3": Cost(again=1),
    "settle-after:3": Cost(again=1),
    "download-half:3": Cost(again=1),
    "hash-before:3": Cost(again=1),
    "hash-after:3": Cost(again=1),
    "link-before:3": Cost(again=1),
    "link-after:3": Cost(),
    "named-before:3": Cost(),
    "named-after:3": Cost(),
    "line-half:3": Cost(again=1),
}


@pytest.mark.parametrize("point", COSTS)
def test_a_kill_at_each_point_has_its_exact_cost(make_batch: MakeBatch, point: str) -> None:
    """Only a kill between saving the intent and saving the task id leaves a job in doubt.

    A later kill leaves none; at most the video that was not yet published is downloaded again.
    """
    cost = COSTS[point]
    batch = make_batch(COUNT)
    assert batch.run(at=point, one_by_one=True, poll_after=COUNT).was_killed
    assert len(batch.possible_doubts) <= 1
    batch.finish_and_verify(unknown=cost.in_doubt, charged=COUNT - cost.unsent)
    assert batch.downloads().total() - (COUNT - cost.in_doubt) in range(cost.again + 1)


def test_a_kill_between_a_charge_and_its_answer(make_batch: MakeBatch) -> None:
    """The job whose answer is pending is charged and in doubt; the others are charged by the next run."""
    batch = make_batch(COUNT)
    batch.write_prompts([f"{prompt} [stuck]" if number == 2 else prompt for number, prompt in enumerate(batch.prompts)])
    with batch.started(one_by_one=True) as running:
        running.wait_until(lambda: len(batch.charges) == 3)
        running.process.kill()
        assert batch.check_run(running.end()).was_killed
    assert len(batch.possible_doubts) == 1
    batch.finish_and_verify(unknown=1, charged=COUNT)


def test_every_point_has_a_test() -> None:
    """Each point of `POINTS` is used by a test of this module."""
    elsewhere = {"fallback-read", "fallback-clear", "archive-before", "archive-after"}
    elsewhere |= {"mark-before", "mark-after", "close-before", "close-copied", "close-after"}  # test_lost_log
    assert {point.partition(":")[0] for point in COSTS} | elsewhere == set(POINTS)


def test_several_kills_of_one_batch(make_batch: MakeBatch) -> None:
    """After kills at five points in a row, each job in doubt has its cause and no prompt is charged twice."""
    batch = make_batch(COUNT, marks="[slow]")
    for point in ("migrate-inside", "send-after", "hash-after", "link-after", "line-half"):
        assert batch.run(at=point, one_by_one=True).was_killed
    batch.finish_and_verify()


def test_kills_in_the_middle_of_lines_leave_the_lines_before_them(make_batch: MakeBatch) -> None:
    """Each next run removes the half line alone and appends; at the end each job has one line."""
    batch = make_batch(COUNT)
    file = batch.out / "results.jsonl"
    whole = b""
    for number in (2, 3, COUNT):
        assert batch.run(at=f"line-half:{number}", one_by_one=True).was_killed
        before, end, half = file.read_bytes().rpartition(b"\n")
        assert half
        assert (before + end).startswith(whole)
        whole = before + end
    inode = file.stat().st_ino
    batch.finish_and_verify(unknown=0, charged=COUNT)
    assert file.read_bytes().startswith(whole)
    assert file.stat().st_ino == inode
    assert whole.count(b"\n") > 2


@pytest.mark.parametrize("point", ["fallback-read", "fallback-clear"])
def test_a_kill_during_the_import_of_the_fallback_file(make_batch: MakeBatch, point: str) -> None:
    """A task id in the fallback file is imported by the next run, even if an import was killed before.

    After the journal has failed, no further job is sent.
    """
    batch = make_batch(COUNT)
    run = batch.run(fail_from="send-after:3", one_by_one=True)
    assert (run.code, run.count("sending"), len(batch.charges)) == (1, 3, 3)
    assert batch.charges[-1].task_id in run.err
    assert batch.run(at=point).was_killed
    batch.finish_and_verify(unknown=0, charged=COUNT)


def test_a_job_whose_intent_cannot_be_saved_is_not_sent(make_batch: MakeBatch) -> None:
    """When the third intent cannot be saved, exactly two jobs are sent; the next run sends the rest."""
    batch = make_batch(COUNT)
    run = batch.run(fail_from="intent-before:3", one_by_one=True)
    assert (run.code, run.count("sending"), len(batch.charges)) == (1, 2, 2)
    batch.finish_and_verify(unknown=0, charged=COUNT)


def test_a_last_task_id_that_cannot_be_saved_is_reported(make_batch: MakeBatch) -> None:
    """The exit code is 1, the task id is on standard error, and the next run has it without sending again."""
    batch = make_batch(COUNT)
    run = batch.run(fail_from=f"send-after:{COUNT}", one_by_one=True)
    assert (run.count("sending"), len(batch.ids)) == (COUNT, COUNT - 1)
    assert batch.charges[-1].task_id in run.err
    assert batch.finish_and_verify(unknown=0, charged=COUNT).count("sending") == 0
    assert run.code == 1


def test_a_kill_during_a_migration(make_batch: MakeBatch) -> None:
    """A journal whose migration was killed is intact and of the earlier version."""
    batch = make_batch(COUNT)
    assert batch.run(at="settle-before:3", one_by_one=True, poll_after=COUNT).was_killed
    run = batch.run(at="migrate-inside", newer=True)
    assert run.was_killed, run.err
    before = use_migrations((*MIGRATIONS, NEWER))
    try:
        batch.finish_and_verify(unknown=0, charged=COUNT, newer=True)
    finally:
        use_migrations(before)


@pytest.mark.parametrize("point", ["id-before", "id-after"])
def test_a_kill_while_a_job_in_doubt_is_resolved(make_batch: MakeBatch, point: str) -> None:
    """`resolve --task-id`, killed before or after its save, leaves the job in doubt or accepted; it then succeeds at no cost."""
    batch = make_batch(COUNT)
    assert batch.run(at="send-after:3", one_by_one=True).was_killed
    batch.finish_and_verify(unknown=1, charged=COUNT)
    [in_doubt] = [job for job in batch.jobs.values() if job.status is JobStatus.UNKNOWN]
    [task_id] = [charge.task_id for charge in batch.charges if charge.prompt == in_doubt.request.prompt]
    resolve = ("resolve", batch.out_option, in_doubt.key, "--task-id", task_id)
    assert batch.run(*resolve, at=point).was_killed
    assert batch.jobs[in_doubt.key].status is {"id-before": JobStatus.UNKNOWN, "id-after": JobStatus.QUEUED}[point]
    assert batch.run(*resolve).code == {"id-before": 0, "id-after": 2}[point]
    batch.finish_and_verify(unknown=0, charged=COUNT)


def test_a_job_resolved_as_not_charged_is_sent_once(make_batch: MakeBatch) -> None:
    """A job in doubt after a kill before its send is sent once after `resolve --not-charged`."""
    batch = make_batch(COUNT)
    assert batch.run(at="send-before:3", one_by_one=True).was_killed
    batch.finish_and_verify(unknown=1, charged=COUNT - 1)
    [in_doubt] = [job.key for job in batch.jobs.values() if job.status is JobStatus.UNKNOWN]
    assert batch.run("resolve", batch.out_option, in_doubt, "--not-charged").code == 0
    assert batch.finish_and_verify(unknown=0, charged=COUNT).count("sending") == 1


@pytest.fixture(scope="module")
def rendering_emulator() -> Iterator[Emulator]:
    """An emulator that renders a different video for each task."""
    with Emulator(api_key=KEY, durations="constant:0.1", video_seconds=0.5).in_thread() as serving:
        yield serving


@pytest.mark.parametrize("point", ["archive-before", "archive-after"])
def test_a_kill_during_a_paid_repetition(
    rendering_emulator: Emulator, fork_server: ForkServer, tmp_path: Path, point: str
) -> None:
    """`--again KEY`, killed before or after the earlier job is archived, loses neither its task id nor its video.

    The same command run again is charged once and has the new video as well.
    """
    batch = CrashBatch(
        rendering_emulator, tmp_path / "batch", [f"{point} {number}" for number in range(2)], fork_server=fork_server
    )
    batch.finish_and_verify(unknown=0, charged=2)
    key = min(batch.jobs)
    first = batch.jobs[key]
    again = (*batch.command, "--again", key)
    assert batch.run(*again, at=point).was_killed
    run = batch.run(*again)
    paid = [charge.task_id for charge in batch.charges if charge.prompt == first.request.prompt]
    assert (run.code, len(paid), paid[0] == first.task_id, set(paid) <= batch.ids) == (0, 2, True, True), (
        run.out + run.err
    )
    for task_id in paid:
        [job] = [job for job in batch.jobs.values() if job.task_id == task_id]
        assert job.file is not None
        assert hashlib.sha256(job.file.read_bytes()).hexdigest() == job.sha256
    assert len({job.sha256 for job in batch.jobs.values()}) == 3
