"""Mutants of the choice of the account, and of what moves a job to another."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

__all__ = ["MUTANTS"]

_ROUTING: Final = ("tests/planning/test_routing.py",)

MUTANTS: Final = (
    Mutant(
        "doubt-moves-on",
        "_planning/submissions.py",
        "                self.queue.return_probe(active)\n                trip =",
        "                self._queue_again(active)\n                trip =",
        "a job in doubt is sent to another account, and paid twice",
        _ROUTING,
    ),
    Mutant(
        "refused-request-moves-on",
        "_planning/planner.py",
        "frozenset({SubmitVerdict.NOT_SENT, SubmitVerdict.WAIT, SubmitVerdict.STOP})",
        "frozenset({SubmitVerdict.NOT_SENT, SubmitVerdict.WAIT, SubmitVerdict.STOP, SubmitVerdict.REJECTED})",
        "a request that is at fault is sent to every account",
        _ROUTING,
    ),
    Mutant(
        "moves-after-one-unsent",
        "_planning/planner.py",
        "MOVE_AFTER_UNSENT: Final = 2",
        "MOVE_AFTER_UNSENT: Final = 1",
        "one lost connection moves a job",
        _ROUTING,
    ),
    Mutant(
        "returns-to-the-account-that-blamed-itself",
        "_planning/planner.py",
        "active.options = tuple(others)",
        "pass",
        "a job is sent again to an account that has refused it for good",
        _ROUTING,
    ),
    Mutant(
        "no-cooldown",
        "_planning/planner.py",
        "            account.submissions.cooldowns.refuse(active.stratum, now, u, outcome.retry_after)\n",
        "            pass\n",
        "an account without a channel is asked again at once",
        _ROUTING,
    ),
    Mutant(
        "backlog-expires-in-a-pause",
        "_planning/planner.py",
        "if not self.shared.waiting or self.is_paused:",
        "if not self.shared.waiting:",
        "a pause costs the jobs of several accounts their patience",
        _ROUTING,
    ),
    Mutant(
        "turns-from-the-same-source",
        "_planning/turns.py",
        "self._first = (position + 1) % count",
        "self._first = position % count",
        "one queue takes every free slot of the client",
        _ROUTING,
    ),
    Mutant(
        "joins-the-jobs-behind-a-gate",
        "_planning/submit_queue.py",
        "return is_later or stratum in self._gates",
        "return is_later",
        "jobs of several accounts are sent to one that has no channel",
        _ROUTING,
    ),
    Mutant(
        "overtakes-the-queue-of-an-account",
        "_planning/submit_queue.py",
        "return is_later or stratum in self._gates",
        "return first is not None or stratum in self._gates",
        "jobs of several accounts wait while jobs of one are added",
        _ROUTING,
    ),
    Mutant(
        "patience-one-after-the-other",
        "_planning/backlog.py",
        "return min(self.head.deadline_at, self.refused_until)",
        "return self.head.deadline_at",
        "jobs without a channel are given up one after the other, each after its own patience",
        _ROUTING,
    ),
    Mutant(
        "acceptance-without-patience",
        "_planning/planner.py",
        "            self.router.backlog.on_accepted(active)\n",
        "            pass\n",
        "jobs of a model that has a channel again are given up",
        _ROUTING,
    ),
    Mutant(
        "spent-limit-goes-on-pulling",
        "_planning/submissions.py",
        "is_needed = self.queue or (short is not None and self.shared.waiting)",
        "is_needed = bool(self.queue)",
        "a batch without an end is read for ever after its money is spent",
        _ROUTING,
    ),
    Mutant(
        "money-of-the-account-alone",
        "_planning/submissions.py",
        "next((each for each in (self.spending, self.shared.spending) if not each.allows(price)), None)",
        "next((each for each in (self.spending,) if not each.allows(price)), None)",
        "accounts spend more together than the budget of the client",
        _ROUTING,
    ),
    Mutant(
        "nothing-reserved-for-the-client",
        "_planning/submissions.py",
        "        self.shared.spending.reserve(price)\n",
        "        self.shared.spending.reserve(None)\n",
        "submissions that are under way together exceed the budget",
        _ROUTING,
    ),
    Mutant(
        "full-account-is-chosen",
        "_planning/submissions.py",
        "if is_held or not self._has_room(in_flight) or self._short_of",
        "if is_held or self._short_of",
        "an account gets more jobs than it may have",
        _ROUTING,
    ),
    Mutant(
        "waits-for-the-cheapest",
        "_planning/routing.py",
        "    if not ready:\n",
        "    if len(ready) < len(willing):\n",
        "a job waits for a full account while another could send it",
        _ROUTING,
    ),
    Mutant(
        "stop-names-one-reason",
        "_planning/planner.py",
        "errors = {options: self._no_account_left(options)",
        "errors = {options: self._no_account_left(names)",
        "a parked job does not name the reasons of accounts that stopped earlier",
        _ROUTING,
    ),
    Mutant(
        "stopped-account-by-its-provider",
        "_runtime/scheduler.py",
        "account = self._planner.account_of(active).name",
        "account = job.account or job.provider",
        "a refused poll of a job from before there were accounts ends the scheduler",
        ("tests/stories/test_changed_accounts.py",),
    ),
    Mutant(
        "planned-jobs-of-a-removed-account-forgotten",
        "_runtime/journal_views.py",
        "if is_free or config.account_of(job) is not None:",
        "if config.account_of(job) is not None:",
        "resume leaves out jobs that any account could take, because the first one was removed",
        ("tests/stories/test_changed_accounts.py",),
    ),
    Mutant(
        "one-queue-of-downloads",
        "_runtime/batch.py",
        "self._downloads[self._table.planner.account_for(job).name][0]",
        "next(iter(self._downloads.values()))[0]",
        "a host that has no results yet holds up those of all other accounts for minutes",
        ("tests/stories/test_stuck_downloads.py",),
    ),
)
