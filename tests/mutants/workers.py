"""Mutants of the workers of a cluster: leases, fences, and what another worker makes of a crash."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

SAFETY: Final = ("tests/engines/test_worker_safety.py",)
CRASH: Final = ("tests/engines/test_worker_crash.py",)
FENCING: Final = ("tests/engines/test_worker_fencing.py",)

MUTANTS: Final = (
    Mutant(
        "naive-submit-step",
        "engines/worker.py",
        "            job = mark_interrupted(job, intent.at)\n",
        "            job = job.requeued()\n",
        "what was sent without an answer is sent again by the next worker, and paid twice",
        CRASH,
        "between_the_answer_and_the_record",
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
        "engines/worker.py",
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
        "            self._require_session().table.intake.require_sound()\n",
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
        FENCING,
        "stopped_within_a_transaction",
    ),
)
