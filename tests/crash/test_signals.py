"""A batch interrupted, started twice, started again, edited, and continued by a clock that is wrong."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from pika_async.jobs import JobStatus
from tests.crash.batch_story import Story

Stories = Callable[..., Story]
COUNT = 12
#: Submissions that are under way at once.
SENDING = 8


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_keeps_the_receipts_that_are_on_their_way(story: Stories, number: signal.Signals) -> None:
    """Nothing more is sent, what was sent is answered and kept; exit code 130, and what to run next is said."""
    told = story(COUNT, marks="[tardy]")
    with told.started() as running:
        running.until_told("sending", SENDING)
        running.process.send_signal(number)
        life = told.note(running.end())
    assert (life.code, life.count("sending"), life.count("answered")) == (130, SENDING, SENDING)
    assert len(told.charges) == SENDING
    assert told.ids == {charge.task_id for charge in told.charges}
    assert f"pika-async resume {told.place}" in life.err
    told.judge(unknown=0, charged=COUNT)


def test_two_signals_leave_at_once(story: Stories) -> None:
    """Exit code 130 without waiting for an answer; the journal is whole, and what was being sent is in doubt."""
    told = story(SENDING, marks="[stuck]")
    with told.started() as running:
        running.until_told("sending", SENDING)
        running.process.send_signal(signal.SIGINT)
        running.until(lambda: "stopping" in running.err)
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        life = told.note(running.end())
    assert (life.code, time.monotonic() - began < 5, life.count("answered")) == (130, True, 0)
    told.judge(unknown=SENDING, charged=SENDING)


def test_a_signal_while_generations_run(story: Stories) -> None:
    """What was accepted stays with its task id, and `resume` asks for it."""
    told = story(COUNT, marks="[long]")
    with told.started() as running:
        running.until(
            lambda: len([event for event in running.events if event.what == "kept" and event.task_id]) == COUNT
        )
        running.process.send_signal(signal.SIGINT)
        life = told.note(running.end())
    assert (life.code, len(told.ids)) == (130, COUNT)
    life = told.run("resume", told.place)
    assert (life.code, life.count("sending"), told.statuses) == (0, 0, {JobStatus.SUCCEEDED: COUNT})
    assert told.judge(unknown=0, charged=COUNT).count("sending") == 0


def test_two_processes_cannot_have_one_folder(story: Stories) -> None:
    """The second is refused by the pid of the first, and sends nothing; the first does not notice."""
    told = story(COUNT, marks="[long]")
    with told.started() as first:
        first.until_told("sending")
        before = (told.out / "results.jsonl").read_bytes() if (told.out / "results.jsonl").exists() else b""
        second = told.run()
        assert (second.code, second.count("sending")) == (2, 0)
        assert str(first.process.pid) in second.err
        assert told.run("status", told.place).code == 0
        if before:
            assert (told.out / "results.jsonl").read_bytes().startswith(before)
        assert told.note(first.end()).code == 0
    assert told.judge(unknown=0, charged=COUNT).count("sending") == 0


def test_the_same_batch_again_is_free(story: Stories) -> None:
    """After its end: nothing is sent, nothing is fetched, exit code 0; in whatever order the rows are."""
    told = story(COUNT)
    told.judge(unknown=0, charged=COUNT)
    fetched = told.downloads()
    for prompts in (told.prompts, told.prompts[::-1]):
        told.write(prompts)
        assert told.judge(unknown=0, charged=COUNT).count("sending") == 0
    assert told.downloads() == fetched


def test_of_an_edited_input_only_what_is_new_is_paid(story: Stories) -> None:
    """One row changed, one added, one removed, all in another order, and a death between: two more charges."""
    told = story(COUNT, marks="[slow]")
    told.run(at="id-after:5")
    told.run()
    old = told.prompts
    kept = old[2:][::-1]
    told.write([*kept[:5], f"{old[0]}, changed", *kept[5:], f"{old[0]}, added"])
    life = told.run()
    assert (life.code, life.count("sending")) == (0 if not told.statuses[JobStatus.UNKNOWN] else 1, 2)
    assert Counter(charge.prompt for charge in told.charges).most_common(1)[0][1] == 1
    assert len([charge for charge in told.emulator.ledger if charge.prompt.startswith(old[0][:-8])]) <= COUNT + 2
    lines = Counter(line["prompt"] for line in told.lines())
    assert [prompt for prompt in told.prompts if lines[prompt] != 1] == []


@pytest.mark.parametrize("seconds", [86400.0, -86400.0])
def test_a_clock_that_was_moved_changes_nothing(story: Stories, seconds: float) -> None:
    """A day ahead or behind while nothing ran: all settle, nothing is sent again, and it takes no longer."""
    told = story(COUNT, marks="[later]")
    assert told.run(at="settle-before").was_killed
    began = time.monotonic()
    life = told.judge(unknown=0, charged=COUNT, clock=seconds)
    assert (life.count("sending"), time.monotonic() - began < 10) == (0, True)
