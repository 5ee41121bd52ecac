"""A batch killed at each named point of a job's life, and run again: what each point costs, exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from pika_async._journal.schema import MIGRATIONS
from pika_async.emulator import Emulator
from pika_async.jobs import JobStatus
from tests.cli.command_line import KEY
from tests.crash.batch_story import Story
from tests.crash.fork_server import Nursery
from tests.crash.victim import NEWER, POINTS, teach

Stories = Callable[..., Story]
COUNT = 8


@attrs.frozen
class Cost:
    """What a death at a point leaves: jobs in doubt, jobs that were never sent for it, videos fetched twice at most.

    `marks` are those of the prompts, see `RULES`.
    """

    doubts: int = 0
    unsent: int = 0
    again: int = 0
    marks: str = ""


#: With [later] nothing settles before all is submitted, with [held] no answer comes at once.
COSTS: dict[str, Cost] = {
    "create-after": Cost(),
    "migrate-inside": Cost(),
    "plan-before": Cost(),
    "plan-after": Cost(),
    "intent-before:3": Cost(),
    "intent-after:3": Cost(doubts=1, unsent=1),
    "send-before:3": Cost(doubts=1, unsent=1),
    "send-during:3": Cost(doubts=1, marks="[held]"),
    "send-after:3": Cost(doubts=1),
    "id-before:3": Cost(doubts=1),
    "id-after:3": Cost(),
    "settle-before:3": Cost(again=1, marks="[later]"),
    "settle-after:3": Cost(again=1, marks="[later]"),
    "download-half:3": Cost(again=1, marks="[later]"),
    "hash-before:3": Cost(again=1, marks="[later]"),
    "hash-after:3": Cost(again=1, marks="[later]"),
    "link-before:3": Cost(again=1, marks="[later]"),
    "link-after:3": Cost(marks="[later]"),
    "named-before:3": Cost(marks="[later]"),
    "named-after:3": Cost(marks="[later]"),
    "line-half:3": Cost(again=1, marks="[later]"),
}


@pytest.mark.parametrize("point", COSTS)
def test_a_death_costs_what_it_must_and_no_more(story: Stories, point: str) -> None:
    """Killed before the intent is kept: no doubt. Between intent and id: that one job is in doubt, charged or not.

    From there on: none; a video that was not named yet is fetched once more, one that was is not.
    """
    cost = COSTS[point]
    told = story(COUNT, marks=cost.marks)
    assert told.run(at=point, one_by_one=True).was_killed
    assert len(told.doubts) <= 1
    told.judge(unknown=cost.doubts, charged=COUNT - cost.unsent)
    assert told.downloads().total() - (COUNT - cost.doubts) in range(cost.again + 1)


def test_every_point_is_tried() -> None:
    """No point without a claim."""
    elsewhere = {"fallback-read", "fallback-clear", "archive-before", "archive-after"}
    assert {point.partition(":")[0] for point in COSTS} | elsewhere == set(POINTS)


def test_many_deaths_of_one_batch(story: Stories) -> None:
    """One after the other, each at another point: each doubt has its cause, and nothing is paid twice."""
    told = story(COUNT, marks="[slow]")
    for point in ("migrate-inside", "send-after", "hash-after", "link-after", "line-half"):
        assert told.run(at=point, one_by_one=True).was_killed
    told.judge()


@pytest.mark.parametrize("point", ["fallback-read", "fallback-clear"])
def test_a_death_while_rescued_records_are_taken_in(story: Stories, point: str) -> None:
    """The journal fails as an id has come: it is rescued, nothing more is sent. Killed while it is taken in, it is taken
    in by the next."""
    told = story(COUNT)
    life = told.run(fail_from="send-after:3", one_by_one=True)
    assert (life.code, life.count("sending"), len(told.charges)) == (1, 3, 3)
    assert told.charges[-1].task_id in life.err
    assert told.run(at=point).was_killed
    told.judge(unknown=0, charged=COUNT)


def test_what_cannot_be_intended_is_not_sent(story: Stories) -> None:
    """The journal fails as the third intent is to be kept: two were sent, and no more; the next run sends the rest."""
    told = story(COUNT)
    life = told.run(fail_from="intent-before:3", one_by_one=True)
    assert (life.code, life.count("sending"), len(told.charges)) == (1, 2, 2)
    told.judge(unknown=0, charged=COUNT)


def test_a_last_id_that_cannot_be_kept_is_told(story: Stories) -> None:
    """All is sent and all succeeds, but the journal lacks it: the exit code says so, the id is told, the next run has it."""
    told = story(COUNT)
    life = told.run(fail_from=f"send-after:{COUNT}", one_by_one=True)
    assert (life.count("sending"), len(told.ids)) == (COUNT, COUNT - 1)
    assert told.charges[-1].task_id in life.err
    assert told.judge(unknown=0, charged=COUNT).count("sending") == 0
    assert life.code == 1


def test_a_death_during_a_migration(story: Stories) -> None:
    """A journal of an earlier version, killed as it is brought up to date, is whole and of the earlier version."""
    told = story(COUNT, marks="[later]")
    assert told.run(at="settle-before:3", one_by_one=True).was_killed
    life = told.run(at="migrate-inside", newer=True)
    assert life.was_killed, life.err
    before = teach((*MIGRATIONS, NEWER))
    try:
        told.judge(unknown=0, charged=COUNT, newer=True)
    finally:
        teach(before)


@pytest.mark.slow
@pytest.mark.parametrize("point", ["id-before", "id-after"])
def test_a_death_while_a_doubt_is_settled(story: Stories, point: str) -> None:
    """`resolve --task-id`, killed before or after it is kept: still in doubt, or accepted; then it goes on, and is free."""
    told = story(COUNT)
    assert told.run(at="send-after:3", one_by_one=True).was_killed
    told.judge(unknown=1, charged=COUNT)
    [doubt] = [job for job in told.jobs.values() if job.status is JobStatus.UNKNOWN]
    [task_id] = [charge.task_id for charge in told.charges if charge.prompt == doubt.request.prompt]
    resolve = ("resolve", told.place, doubt.key, "--task-id", task_id)
    assert told.run(*resolve, at=point).was_killed
    assert told.jobs[doubt.key].status is {"id-before": JobStatus.UNKNOWN, "id-after": JobStatus.QUEUED}[point]
    assert told.run(*resolve).code == {"id-before": 0, "id-after": 2}[point]
    told.judge(unknown=0, charged=COUNT)


def test_what_was_not_charged_is_sent_again_once(story: Stories) -> None:
    """Killed before the send: in doubt; `resolve --not-charged`, and it is sent."""
    told = story(COUNT)
    assert told.run(at="send-before:3", one_by_one=True).was_killed
    told.judge(unknown=1, charged=COUNT - 1)
    [doubt] = [job.key for job in told.jobs.values() if job.status is JobStatus.UNKNOWN]
    assert told.run("resolve", told.place, doubt, "--not-charged").code == 0
    assert told.judge(unknown=0, charged=COUNT).count("sending") == 1


@pytest.fixture(scope="module")
def drawing() -> Iterator[Emulator]:
    """An emulator that draws another video for each task."""
    with Emulator(api_key=KEY, durations="constant:0.1", video_seconds=0.5).in_thread() as serving:
        yield serving


@pytest.mark.parametrize("point", ["archive-before", "archive-after"])
def test_a_death_while_a_job_is_paid_for_again(drawing: Emulator, nursery: Nursery, tmp_path: Path, point: str) -> None:
    """`--again KEY`, killed before or after the earlier job has made room: neither its id nor its video is lost, and the
    same command once more pays once, and has the new video too."""
    told = Story(drawing, tmp_path / "story", [f"{point} {number}" for number in range(2)], nursery=nursery)
    told.judge(unknown=0, charged=2)
    key = min(told.jobs)
    first = told.jobs[key]
    again = (*told.batch, "--again", key)
    assert told.run(*again, at=point).was_killed
    life = told.run(*again)
    paid = [charge.task_id for charge in told.charges if charge.prompt == first.request.prompt]
    assert (life.code, len(paid), paid[0] == first.task_id, set(paid) <= told.ids) == (0, 2, True, True), (
        life.out + life.err
    )
    for task_id in paid:
        [job] = [job for job in told.jobs.values() if job.task_id == task_id]
        assert job.file is not None
        assert hashlib.sha256(job.file.read_bytes()).hexdigest() == job.sha256
    assert len({job.sha256 for job in told.jobs.values()}) == 3
