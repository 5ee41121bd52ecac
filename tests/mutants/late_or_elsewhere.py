"""Mutants of answers and results that are late, or that stand or go elsewhere than they should."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_RESULTS: Final = ("tests/runtime/test_results.py",)

MUTANTS: Final = (
    Mutant(
        "late-callback-not-counted",
        "_runtime/callback_handler.py",
        "            self._table.planner.account_for(job).on_late_callback(job.key)\n            return",
        "            return",
        "a gateway whose callbacks are a moment slower than the polls counts as one that loses them",
        ("tests/stories/test_late_callbacks.py",),
    ),
    Mutant(
        "folder-not-asked-for",
        "_runtime/results.py",
        'self.folder / f"{job.key}.mp4"',
        'self.folder.parent / f"{job.key}.mp4"',
        "results of a batch go beside its folder",
        _RESULTS,
        "under_its_key",
    ),
    Mutant(
        "name-not-asked-for",
        "_runtime/results.py",
        'self.folder / f"{job.key}.mp4"',
        'self.folder / f"{job.index}.mp4"',
        "results of two batches in one folder take each other's names",
        _RESULTS,
        "under_its_key",
    ),
    Mutant(
        "file-in-the-current-folder",
        "_http/downloads.py",
        "partial.target = partial.target.with_suffix(suffix)",
        "partial.target = Path(partial.target.name).with_suffix(suffix)",
        "a video goes to where the program was started",
        ("tests/http/test_downloads.py",),
        "a_video_arrives_complete",
    ),
    Mutant(
        "id-of-a-request-as-task-id",
        "providers/_receipts.py",
        "(wrapper or _is_task(holder))",
        "True",
        "the id of a request is polled as a task that does not exist",
        ("tests/providers/test_receipts.py",),
        "without_a_task_beside_it",
    ),
    Mutant(
        "id-of-a-failure-as-task-id",
        "providers/_receipts.py",
        "    if any(says_failure(holder) for _, holder in holders):\n        return None\n",
        "",
        "a refused request counts as accepted under the id of its error",
        ("tests/providers/test_receipts.py",),
    ),
    Mutant(
        "word-around-the-row",
        "providers/_feeds.py",
        "word = _status_word(sources[0], states) or _status_word(task, states)",
        "word = _status_word(task, states) or _status_word(sources[0], states)",
        "a row that waits is finished with the URL of something else",
        ("tests/providers/test_feeds.py",),
        "around_it",
    ),
    Mutant(
        "retry-after-shortened",
        "_planning/concurrency.py",
        "self._forced_until = max(self._forced_until, now + retry_after)",
        "self._forced_until = now + retry_after",
        "an account that asked for half a minute is asked again after two seconds",
        ("tests/planning/test_concurrency.py",),
        "shorten",
    ),
    Mutant(
        "retry-after-not-forced",
        "_planning/concurrency.py",
        "return max(now, self._next_at, self._forced_until)",
        "return max(now, self._next_at)",
        "a task that settles ends the wait that the account asked for",
        ("tests/planning/test_concurrency.py",),
        "obeyed",
    ),
    Mutant(
        "resumed-poll-postponed",
        "_planning/poll_queue.py",
        "            and not (active.rare.resumed and not active.polls)\n",
        "",
        "a video that was finished before the start is found at the end",
        ("tests/planning/test_poll_queue.py",),
        "resumed",
    ),
    Mutant(
        "progress-no-fit-penalty",
        "polling/progress.py",
        "gain - 2 / count - GAIN",
        "gain - GAIN",
        "progress that was fitted to a few tasks decides when to poll",
        ("tests/polling/test_margins.py",),
        "lucky",
    ),
    Mutant(
        "weight-ignores-loss",
        "polling/adaptive.py",
        "self.callback_loss * delay_weight / self",
        "delay_weight / self",
        "with reliable callbacks everything is polled as often as without",
        ("tests/polling/test_margins.py",),
        "callbacks",
    ),
    Mutant(
        "queued-before-it-is-saved",
        "_runtime/submitter.py",
        "        await self._table.save(active.job)\n        self._log_verdict(active, outcome)\n"
        "        stop = self._table.planner.on_submit_finished(active, outcome, sent_at, now(), random.random())\n",
        "        stop = self._table.planner.on_submit_finished(active, outcome, sent_at, now(), random.random())\n"
        "        await self._table.save(active.job)\n        self._log_verdict(active, outcome)\n",
        "a task is polled and may settle before its receipt is on disk",
        ("tests/stories/test_payment_records.py",),
        "no_task_is_polled",
    ),
    Mutant(
        "signal-before-commit-only",
        "_journal/sqlite.py",
        "        self._buffer.on_committed(group)\n        self._change_signal.notify()\n",
        "        self._buffer.on_committed(group)\n",
        "a reader of events waits for the next change to get this one",
        ("tests/stories/test_events.py",),
        "after_its_change_is_on_disk",
    ),
    Mutant(
        "named-task-of-a-closing-client",
        "_runtime/callback_handler.py",
        "            self._named.pop(token, None)\n            return\n",
        "            return\n",
        "a callback that came during a close is kept for ever",
        ("tests/runtime/test_callback_failures.py",),
    ),
    Mutant(
        "archived-over-another-file",
        "_runtime/resolution.py",
        "        if not archived.samefile(file):",
        "        if False:",
        "a job is recorded with the file of someone else",
        ("tests/runtime/test_callback_failures.py",),
    ),
)
