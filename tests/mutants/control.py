"""Mutants of the control of a client that runs: pause, room and cancellation."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

MUTANTS: Final = (
    Mutant(
        "pause-sends",
        "_planning/submissions.py",
        "if not self.queue or self.paused_at is not None:",
        "if not self.queue:",
        "a paused client goes on to submit",
        ("tests/planning/test_pausing.py", "tests/stories/test_control.py"),
    ),
    Mutant(
        "pause-costs-patience",
        "_planning/submissions.py",
        "        self.queue.postpone(seconds)\n",
        "",
        "a job is given up because of a pause",
        ("tests/planning/test_pausing.py",),
    ),
    Mutant(
        "pause-costs-patience-behind-a-gate",
        "_planning/submit_queue.py",
        "            gate.expires_at += seconds\n",
        "",
        "the jobs of a model without a channel are given up because of a pause",
        ("tests/planning/test_pausing.py",),
    ),
    Mutant(
        "second-pause-counts",
        "_planning/submissions.py",
        "        if self.paused_at is None:\n            self.paused_at = now",
        "        self.paused_at = now",
        "a second pause forgets the time of the first",
        ("tests/planning/test_pausing.py",),
    ),
    Mutant(
        "pause-sends-after-an-upload",
        "_runtime/submitter.py",
        "is_held = planner.stop_reason is not None or planner.submissions.paused_at is not None",
        "is_held = planner.stop_reason is not None",
        "a job is paid for minutes after the pause, when its upload ends",
        ("tests/stories/test_control.py",),
        "uploaded",
    ),
    Mutant(
        "canceled-upload-is-sent",
        "_runtime/submitter.py",
        "planner.closing or is_held or active in self._table.canceled or (",
        "planner.closing or is_held or (",
        "a canceled job is paid for when its upload ends",
        ("tests/stories/test_control.py",),
        "uploaded",
    ),
    Mutant(
        "any-room",
        "_planning/limits.py",
        "if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:",
        "if isinstance(value, bool) or not isinstance(value, int):",
        "a room of 0 or of a million is taken",
        ("tests/planning/test_pausing.py",),
    ),
    Mutant(
        "room-is-not-used",
        "_runtime/control.py",
        "        session.table.planner.submissions.concurrency.ceiling = checked\n",
        "",
        "the room never changes",
        ("tests/stories/test_control.py",),
        "room",
    ),
    Mutant(
        "canceled-batch-sends-the-rest",
        "_runtime/control.py",
        "            admission.cancel_rest()\n",
        "            pass\n",
        "a batch sends what was canceled, as soon as it reaches it",
        ("tests/stories/test_control.py",),
    ),
    Mutant(
        "cancellation-leaves-the-journal",
        "_runtime/control.py",
        "return canceled + await _cancel_unreached(session)",
        "return canceled",
        "a later `resume` sends what was canceled",
        ("tests/stories/test_control.py",),
    ),
    Mutant(
        "cancellation-misses-a-job-that-is-being-saved",
        "_runtime/job_table.py",
        "        if active in self.canceled:\n            await self.cancel([active])\n        else:\n            self.activate(active)",
        "        self.activate(active)",
        "a job that was being saved at the cancellation is sent",
        ("tests/stories/test_control.py",),
        "resumed",
    ),
)
