"""Mutants of refusals and doubts between acceptances, and of the places of jobs in the queue."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_TESTS: Final = ("tests/planning/test_held_refusals.py",)
_SUBMISSIONS: Final = "_planning/submissions.py"
_FUSES: Final = "_planning/fuses.py"
_QUEUE: Final = "_planning/submit_queue.py"

MUTANTS: Final = (
    Mutant(
        "accepted-no-reset-refusals",
        _FUSES,
        "= True, 0, None, 0\n        self._refused.clear()\n",
        "= True, 0, None, 0\n",
        "five equal refusals in a batch of thousands stop it",
        _TESTS,
    ),
    Mutant(
        "accepted-no-reset-blame",
        _FUSES,
        "        self._blaming.clear()\n\n    def on_doubt",
        "\n    def on_doubt",
        "two jobs that are not allowed for their own reasons stop the account",
        _TESTS,
    ),
    Mutant(
        "accepted-no-reset",
        _SUBMISSIONS,
        "                self.cooldowns.reset(active.stratum)\n                self.throttle.reset()\n",
        "                self.cooldowns.reset(active.stratum)\n",
        "six failed connections in a batch of hours count as an unreachable provider",
        _TESTS,
    ),
    Mutant(
        "refusal-proves-no-wire",
        _FUSES,
        "        self._unreadable = 0  # the gateway answers on this wire\n",
        "",
        "receipts that cannot be read now and then blame the base URL",
        _TESTS,
    ),
    Mutant(
        "proven-after-a-stop",
        _FUSES,
        "self._accepted, self._unreadable, self._proven = 0, 0, False",
        "self._accepted, self._unreadable = 0, 0",
        "a base URL that was mended wrongly is paid into until the gateway is in trouble",
        _TESTS,
    ),
    Mutant(
        "stop-keeps-the-fuses",
        _SUBMISSIONS,
        "            self.throttle = SubmitThrottle()\n            self.fuses.reset()",
        "            self.throttle = SubmitThrottle()",
        "after the cause is mended the first refusal stops the account again",
        _TESTS,
    ),
    Mutant(
        "pause-keeps-the-window",
        _FUSES,
        "            self._probes = self._accepted = 0\n",
        "            self._probes = 0\n",
        "the first acceptance after trouble lets a hundred submissions into the next",
        _TESTS,
    ),
    Mutant(
        "blame-keeps-the-window",
        _FUSES,
        "            limits.append(MAX_ACCOUNT_REFUSALS - len(self._blaming))",
        "            pass",
        "a whole window is sent with a key that was just refused",
        _TESTS,
    ),
    Mutant(
        "alike-to-the-end-is-burnt",
        _SUBMISSIONS,
        "        if alike is not None:",
        "        if False:",
        "the last rows of a list are rejected for an empty balance in unknown words",
        _TESTS,
    ),
    Mutant(
        "alike-after-an-acceptance",
        _SUBMISSIONS,
        "alike = None if self.fuses.is_proven else self.refused.common_refusal()",
        "alike = self.refused.common_refusal()",
        "two bad rows at the end of a good list stop the account and stay planned",
        _TESTS,
    ),
    Mutant(
        "one-content-is-alike",
        "_planning/refused_jobs.py",
        "if len(refusals) != 1 or len(contents) < 2:",
        "if len(refusals) != 1:",
        "a single bad request stops the account",
        _TESTS,
    ),
    Mutant(
        "quiet-without-a-pause",
        _SUBMISSIONS,
        "(QUIET_S if self.shared.sources and not is_limit_reached else 0.0)",
        "0.0",
        "a list that is read slowly has its rows rejected before the fuse can count them",
        _TESTS,
    ),
    Mutant(
        "quiet-remembers-refusals",
        _SUBMISSIONS,
        "        if not self.shared.sources:\n            self.fuses.on_quiet()\n",
        "",
        "a service stops after five bad requests in a year",
        _TESTS,
    ),
    Mutant(
        "held-job-not-withdrawn",
        _SUBMISSIONS,
        "return self.queue.remove(active) or self.refused.remove(active)",
        "return self.queue.remove(active)",
        "a refused job goes on after its caller has left",
        _TESTS,
    ),
    Mutant(
        "unreadable-image-first",
        _SUBMISSIONS,
        "            self.queue.append(active)\n        else",
        "            self.queue.appendleft(active)\n        else",
        "one image on a dead mount stops a batch of text prompts",
        _TESTS,
    ),
    Mutant(
        "rolled-back-to-the-end",
        _SUBMISSIONS,
        "        self._on_ended(active, is_charged=False)\n        self._queue_again(active)",
        "        self._on_ended(active, is_charged=False)\n        self.queue.return_probe(active)\n        self.queue.append(active)",
        "a job that was nearly sent is the last of a long list",
        _TESTS,
    ),
    Mutant(
        "gated-jobs-last",
        _QUEUE,
        "for other in reversed(gate.jobs):\n                _put_first(self._ready, other)",
        "self._ready.update(gate.jobs)",
        "jobs whose model is back wait for the whole list",
        _TESTS,
    ),
    Mutant(
        "gate-delayed-by-others",
        _QUEUE,
        "        if gate.probe is active or not gate.refusals:",
        "        if True:",
        "eight submissions that were under way delay a model by minutes",
        _TESTS,
    ),
    Mutant(
        "unanswered-probe-blocks",
        _QUEUE,
        "            self._end_probe(gate, active)\n            self._drop_gate_if_idle(active.stratum)\n\n    def open_gate",
        "            self._drop_gate_if_idle(active.stratum)\n\n    def open_gate",
        "a probe that could not be sent blocks its model for ever",
        _TESTS,
    ),
    Mutant(
        "empty-gate-stays",
        _QUEUE,
        "            self._end_probe(gate, active)\n            self._drop_gate_if_idle(active.stratum)\n\n    def open_gate",
        "            self._end_probe(gate, active)\n\n    def open_gate",
        "a job is given up at once, behind a gate whose patience ended before it was planned",
        _TESTS,
    ),
)
