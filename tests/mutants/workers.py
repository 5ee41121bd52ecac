"""Mutants of the workers of a cluster: leases, fences, and what another worker makes of a crash."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

SAFETY: Final = ("tests/engines/test_worker_safety.py",)
INTERRUPTED: Final = ("tests/engines/test_interrupted.py",)
DATABASE: Final = ("tests/engines/test_database.py",)
START: Final = ("tests/engines/test_worker_start.py",)

LEARNING: Final = ("tests/engines/test_shared_concurrency.py",)
SHARING: Final = ("tests/engines/test_account_sharing.py",)
GIVING_UP: Final = ("tests/engines/test_giving_up.py",)

MUTANTS: Final = (
    Mutant(
        "naive-submit-step",
        "engines/job_driver.py",
        "            job = mark_interrupted(job, intent.at)\n",
        "            job = job.requeued()\n",
        "what was sent without an answer is sent again by the next worker, and paid twice",
        INTERRUPTED,
        "not_sent_again",
    ),
    Mutant(
        "worker-sends-without-lease",
        "engines/cluster_journal.py",
        "        if not self._lease.is_valid:\n",
        "        if False:\n",
        "a worker that was stopped between its intent and its request sends after it was given up",
        SAFETY,
        "lease_that_was_not_extended",
    ),
    Mutant(
        "late-id-lost",
        "engines/cluster_journal.py",
        "            await self._save_orphans(write.jobs)\n            raise",
        "            raise",
        "a task id that is read after the lease has ended is lost",
        SAFETY,
        "id_after_the_end",
    ),
    Mutant(
        "outage-ends-leases",
        "engines/leases.py",
        "        return self.is_valid and time.monotonic() - self.unbroken_since >= self.ttl",
        "        return self.is_valid",
        "the first worker that reaches a restarted database ends all others",
        SAFETY,
        "there_for_a_whole_lease",
    ),
    Mutant(
        "lease-from-the-answer",
        "engines/leases.py",
        "        self.valid_until = asked_at + self.ttl",
        "        self.valid_until = at + self.ttl",
        "a worker trusts its lease longer than the database does",
        SAFETY,
        "not_the_answer",
    ),
    Mutant(
        "failed-run-forgotten",
        "engines/job_driver.py",
        "                self._lease.over.set()\n        finally:\n            self.running -= 1\n"
        "        await asyncio.Event().wait()",
        "                self._lease.over.set()\n        finally:\n            self.running -= 1\n",
        "a job whose run failed by a defect is planned for ever",
        SAFETY,
        "defect_in_a_run",
    ),
    Mutant(
        "failed-scheduler-unnoticed",
        "engines/worker.py",
        "            session.table.intake.require_sound()\n",
        "",
        "a worker whose scheduler failed drives nothing and keeps its jobs",
        SAFETY,
        "defect_of_the_scheduler",
    ),
    Mutant(
        "locks-of-the-stopped",
        "engines/database.py",
        "int(IDLE_TRANSACTION_S * 1000)",
        "0",
        "a worker that is stopped within a transaction keeps all others waiting",
        DATABASE,
        "ends_the_transaction",
    ),
    Mutant(
        "launched-after-its-end",
        "engines/dbos_queue.py",
        "        await self._wait(self._calls, CALLS_S)\n",
        "",
        "a worker that is cancelled while it starts leaves an engine that runs for ever",
        START,
        "leaves_no_thread",
    ),
    Mutant(
        "start-without-database-in-a-group",
        "engines/worker_errors.py",
        "        if (failed := group.subgroup(JournalFailed)) is not None:",
        "        if (failed := group.subgroup(JournalFailed)) is None:",
        "a worker that starts while the database is away ends with a traceback",
        START,
        "its_error_alone",
    ),
    Mutant(
        "every-worker-tries-a-full-account",
        "engines/shared_concurrency.py",
        "    concurrency.on_submit_started(now)\n    return",
        "    return",
        "all workers try an account that is full at the same moment",
        LEARNING,
    ),
    Mutant(
        "learned-window-not-shared",
        "engines/bounds.py",
        '        if wait > 0 or not concurrency.has_capacity(row["in_flight"] - submitting, submitting):\n',
        "        if wait > 0:\n",
        "each worker sends as many at once as one alone may",
        LEARNING,
    ),
    Mutant(
        "learned-limit-not-checked",
        "engines/job_writes.py",
        '            held = hold_of(row, job.cost, at, row["submitting"])\n',
        "            held = hold_of(row, job.cost, at)\n",
        "each worker sends as many at once as one alone may",
        LEARNING,
        "holds_for_the_others",
    ),
    Mutant(
        "ended-submissions-count-on",
        "engines/job_writes.py",
        '                bounds["submitting"] += is_sending - was_sending\n',
        '                bounds["submitting"] += is_sending\n',
        "an account that refuses some is tried less often than a single client would",
        LEARNING,
        "saved_in_one_piece",
    ),
    Mutant(
        "answers-on-another-clock",
        "engines/shared_concurrency.py",
        "        at, since = self.at + shift, self.since + shift\n",
        "        at, since = self.at, self.since\n",
        "what a machine learns is hours away on the others",
        LEARNING,
    ),
    Mutant(
        "own-answers-forgotten",
        "engines/shared_concurrency.py",
        "        for answer in self.answers:\n            answer.apply_to(newest, accepted)\n",
        "",
        "a worker tries a full account again because the row does not know of the refusal yet",
        LEARNING,
    ),
    Mutant(
        "others-places-taken",
        "_planning/concurrency.py",
        "        return in_flight + self.others + submitting < ",
        "        return in_flight + submitting < ",
        "a worker asks again and again for places that the others have",
        LEARNING,
    ),
    Mutant(
        "full-by-others-is-a-pause",
        "_planning/submissions.py",
        "        in_flight += self.concurrency.others\n",
        "",
        "a job runs out of patience because other workers fill its account",
        SHARING,
        "has_learned",
    ),
    Mutant(
        "submissions-of-each-worker",
        "engines/account_sharing.py",
        "window_share(self._window, state.live)",
        "self._window",
        "ten workers send ten times as many at once as were allowed",
        SHARING,
        "has_learned",
    ),
    Mutant(
        "outage-holds-a-closing-worker",
        "engines/database.py",
        "        self._abandoned = frozenset(waiting for waiting in list(self._waiting) if waiting.cancel())\n",
        "",
        "a worker that is stopped during an outage hangs for a minute",
        GIVING_UP,
        "not_tried",
    ),
    Mutant(
        "given-up-thread-waits-on",
        "engines/database.py",
        "                    own.shutdown(socket.SHUT_RDWR)\n",
        "                    pass\n",
        "the process of a worker stays until a server that hangs answers",
        GIVING_UP,
        "keeps_no_thread",
    ),
    Mutant(
        "given-up-journal-tries-on",
        "engines/cluster_journal.py",
        "                if self._database.is_given_up:\n",
        "                if False:\n",
        "a worker that closes during an outage waits for ever to save its last writes",
        GIVING_UP,
        "ends_its_lease",
    ),
    Mutant(
        "known-id-is-an-orphan",
        "engines/statements.py",
        "        if connection.execute(known).first() is not None:\n            continue\n",
        "",
        "a person is shown task ids as lost that their jobs have",
        SAFETY,
        "is_not_an_orphan",
    ),
)
