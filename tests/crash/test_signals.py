"""A batch that is interrupted, started twice, repeated, edited, or continued with a wrong clock."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable

import pytest

from pika_async._planning.fuses import MAX_UNREADABLE
from pika_async.jobs import JobStatus
from tests.crash.crash_batch import CrashBatch

#: Real processes that are killed: with the slowest cases, on one Python.
pytestmark = pytest.mark.slow

MakeBatch = Callable[..., CrashBatch]
COUNT = 12
#: Number of concurrent submissions before the first acceptance.
SENDING = MAX_UNREADABLE
#: Seconds for which a process is stopped: more than its timeout, which is more than a busy machine takes to send.
STOPPED_S = 4.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_waits_for_the_pending_answers(make_batch: MakeBatch, number: signal.Signals) -> None:
    """No further job is sent, each pending answer is saved, the exit code is 130, and the next command is printed."""
    batch = make_batch(COUNT, marks="[tardy]")
    with batch.started() as running:
        running.wait_for_event("sending", SENDING)
        running.process.send_signal(number)
        run = batch.check_run(running.end())
    assert (run.code, run.count("sending"), run.count("answered")) == (130, SENDING, SENDING)
    assert len(batch.charges) == SENDING
    assert batch.ids == {charge.task_id for charge in batch.charges}
    assert f"pika-async resume {batch.out_option}" in run.err
    batch.finish_and_verify(unknown=0, charged=COUNT)


def test_a_signal_waits_no_longer_than_the_grace(make_batch: MakeBatch) -> None:
    """After `--grace` the process exits by itself with code 130; submissions without an answer are in doubt and listed.

    The answers come 30 s after the requests: had it waited for them, each would have been recorded.
    """
    batch = make_batch(SENDING, marks="[stuck]", options=("--max-in-flight", "50", "--grace", "0.2"))
    with batch.started() as running:
        running.wait_until(lambda: len(batch.charges) == SENDING)
        running.process.send_signal(signal.SIGTERM)
        run = batch.check_run(running.end())
    assert (run.code, run.count("answered"), batch.statuses) == (130, 0, {JobStatus.UNKNOWN: SENDING})
    assert f"in doubt, possibly charged: {SENDING}" in run.err
    again = batch.run()
    assert (again.code, again.count("sending"), batch.statuses) == (1, 0, {JobStatus.UNKNOWN: SENDING})
    assert f"to list and resolve them: pika-async status {batch.out_option}" in again.err


def test_two_signals_exit_at_once(make_batch: MakeBatch) -> None:
    """The exit code is 130 without waiting for an answer; the journal is intact and the pending jobs are in doubt."""
    batch = make_batch(SENDING, marks="[stuck]", options=("--max-in-flight", "50", "--grace", "3600"))
    with batch.started() as running:
        running.wait_until(lambda: len(batch.charges) == SENDING)
        running.process.send_signal(signal.SIGINT)
        running.wait_until(lambda: "stopping" in running.err)
        running.process.send_signal(signal.SIGINT)
        run = batch.check_run(running.end())
    assert (run.code, run.count("answered")) == (130, 0)
    batch.finish_and_verify(unknown=SENDING, charged=SENDING)


def test_answers_that_came_while_the_process_was_stopped_are_read(make_batch: MakeBatch) -> None:
    """Stopped (Ctrl-Z) until every answer lies in its socket and every timeout is over, then continued: no doubt."""
    batch = make_batch(SENDING, marks="[held]")
    with batch.started(timeout=STOPPED_S - 0.5) as running:
        running.wait_until(lambda: len(batch.charges) == SENDING)
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        running.process.send_signal(signal.SIGCONT)
        run = batch.check_run(running.end())
    assert (run.code, run.count("answered"), batch.statuses) == (0, SENDING, {JobStatus.SUCCEEDED: SENDING})
    batch.finish_and_verify(unknown=0, charged=SENDING)


def test_a_signal_during_generation_keeps_the_task_ids(make_batch: MakeBatch) -> None:
    """Accepted jobs keep their task ids, and `resume` polls them."""
    batch = make_batch(COUNT, marks="[long]")
    with batch.started() as running:
        running.wait_until(
            lambda: len([event for event in running.events if event.kind == "saved" and event.task_id]) == COUNT
        )
        running.process.send_signal(signal.SIGINT)
        run = batch.check_run(running.end())
    assert (run.code, len(batch.ids)) == (130, COUNT)
    run = batch.run("resume", batch.out_option)
    assert (run.code, run.count("sending"), batch.statuses) == (0, 0, {JobStatus.SUCCEEDED: COUNT})
    assert batch.finish_and_verify(unknown=0, charged=COUNT).count("sending") == 0


def test_two_processes_cannot_share_a_folder(make_batch: MakeBatch) -> None:
    """The second exits with the pid of the first in its message and sends nothing; the first is not affected."""
    batch = make_batch(COUNT, marks="[long]")
    with batch.started() as first:
        first.wait_for_event("sending")
        before = (batch.out / "results.jsonl").read_bytes() if (batch.out / "results.jsonl").exists() else b""
        second = batch.run()
        assert (second.code, second.count("sending")) == (2, 0)
        assert str(first.process.pid) in second.err
        assert batch.run("status", batch.out_option).code == 0
        if before:
            assert (batch.out / "results.jsonl").read_bytes().startswith(before)
        assert batch.check_run(first.end()).code == 0
    assert batch.finish_and_verify(unknown=0, charged=COUNT).count("sending") == 0


def test_the_same_batch_again_costs_nothing(make_batch: MakeBatch) -> None:
    """Repeating a finished batch, in any order of rows, sends and downloads nothing and exits with 0."""
    batch = make_batch(COUNT)
    batch.finish_and_verify(unknown=0, charged=COUNT)
    downloads = batch.downloads()
    for prompts in (batch.prompts, batch.prompts[::-1]):
        batch.write_prompts(prompts)
        assert batch.finish_and_verify(unknown=0, charged=COUNT).count("sending") == 0
    assert batch.downloads() == downloads


def test_only_the_new_rows_of_an_edited_input_are_charged(make_batch: MakeBatch) -> None:
    """With one row changed, one added, one removed, a new order and a kill in between, there are two more charges."""
    batch = make_batch(COUNT, marks="[slow]")
    batch.run(at="id-after:5")
    batch.run()
    old = batch.prompts
    remaining = old[2:][::-1]
    batch.write_prompts([*remaining[:5], f"{old[0]}, changed", *remaining[5:], f"{old[0]}, added"])
    run = batch.run()
    assert (run.code, run.count("sending")) == (0 if not batch.statuses[JobStatus.UNKNOWN] else 1, 2)
    assert Counter(charge.prompt for charge in batch.charges).most_common(1)[0][1] == 1
    assert len([charge for charge in batch.emulator.ledger if charge.prompt.startswith(old[0][:-8])]) <= COUNT + 2
    lines = Counter(line["prompt"] for line in batch.lines())
    assert [prompt for prompt in batch.prompts if lines[prompt] != 1] == []


@pytest.mark.parametrize("seconds", [86400.0, -86400.0])
def test_a_shifted_clock_changes_nothing(make_batch: MakeBatch, seconds: float) -> None:
    """With a clock a day ahead or behind, all jobs settle without waiting for it and none is sent again."""
    batch = make_batch(COUNT)
    assert batch.run(at="settle-before", poll_after=COUNT).was_killed
    run = batch.finish_and_verify(unknown=0, charged=COUNT, clock=seconds)  # within RUN_TIMEOUT_S, not after a day
    assert run.count("sending") == 0
