"""Mutants of estimates, of budgets and of the question before a command costs."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

ESTIMATES: Final = ("tests/runtime/test_estimates.py",)
MAKESPAN: Final = ("tests/planning/test_makespan.py",)
TIME_LEFT: Final = ("tests/planning/test_time_left.py",)
MONEY: Final = ("tests/planning/test_money.py",)
PREVIEW: Final = ("tests/cli/test_cli_preview.py",)

MUTANTS: Final = (
    Mutant(
        "budget-ignored",
        "_planning/submissions.py",
        "for each in (self.spending, self.shared.spending) if not each.allows(price)",
        "for each in () if not each.allows(price)",
        "more money is spent than the user allows",
        ESTIMATES,
        "budget_is_never_exceeded",
    ),
    Mutant(
        "budget-in-binary",
        "_planning/money.py",
        "(exact(self.budget) - money) // exact(price))",
        "int((self.budget - float(money)) // price))",
        "0.3 pays for two charges at 0.1",
        MONEY,
        "exact",
    ),
    Mutant(
        "known-announced-as-new",
        "_runtime/estimation.py",
        "        if job is None or may_be_sent(job):",
        "        if True:",
        "the preview announces charges that no run makes",
        ESTIMATES,
        "counted_once or not_accepted",
    ),
    Mutant(
        "limit-not-announced",
        "_runtime/estimation.py",
        "    spending = config.new_spending(config.journal.costs())\n",
        "    spending = config.new_spending({})\n",
        "the preview forgets what earlier runs have used of a limit",
        ESTIMATES,
        "budget_is_never_exceeded",
    ),
    Mutant(
        "points-of-part-of-the-jobs",
        "_planning/estimate.py",
        "    if any(stratum not in points for stratum in counts):\n        return None\n",
        "    counts = {stratum: count for stratum, count in counts.items() if stratum in points}\n",
        "the cost of jobs of an unknown price counts as nothing",
        MONEY,
        "unknown",
    ),
    Mutant(
        "rooms-without-end",
        "_planning/makespan.py",
        "    if settled > 0:",
        "    if False:",
        "a batch that waits for rooms is announced to end after one round",
        MAKESPAN,
        "end_in_the_range",
    ),
    Mutant(
        "any-answer-is-yes",
        "cli/preview.py",
        'if answer.casefold() in {"y", "yes"}:',
        'if answer.casefold() not in {"n", "no"}:',
        "Enter at the question pays",
        PREVIEW,
        "asked_on_a_terminal",
    ),
    Mutant(
        "end-of-input-is-yes",
        "cli/preview.py",
        "    if answer is None:",
        "    if answer is None:\n        return None\n    if False:",
        "the end of the input at the question pays",
        PREVIEW,
        "asked_on_a_terminal",
    ),
    Mutant(
        "dry-run-sends",
        "cli/preview.py",
        "    if spend.dry_run:\n        return ExitCode.OK\n    offers",
        "    offers",
        "a dry run is charged",
        PREVIEW,
        "dry_run",
    ),
    Mutant(
        "running-tasks-not-censored",
        "_planning/time_left.py",
        "ages = sorted(math.log(max(SHORTEST_SECONDS, age)) for age in known.ages[::step])",
        "ages: list[float] = []",
        "the first tasks to settle, which are the fast ones, promise too short a time",
        TIME_LEFT,
        "slow_as_they_are",
    ),
    Mutant(
        "one-figure-for-a-range",
        "_planning/time_left.py",
        "RANGE_SHARE: Final = 0.8",
        "RANGE_SHARE: Final = 0.0",
        "a time left is promised to the second",
        TIME_LEFT,
        "never_missed",
    ),
    Mutant(
        "earlier-settles-count-as-this-run",
        "cli/forecast.py",
        "job.settled_at is not None and job.settled_at >= since",
        "job.settled_at is not None",
        "a resumed batch promises the pace of another day",
        ("tests/cli/test_cli_progress.py",),
        "has_not_settled",
    ),
    Mutant(
        "earlier-settles-count-for-the-pace",
        "cli/job_counts.py",
        "job.settled_at is not None and job.settled_at >= self.since",
        "job.settled_at is not None",
        "a resumed batch shows thousands of jobs a minute",
        ("tests/cli/test_cli_progress.py",),
        "counts_for_its_pace",
    ),
    Mutant(
        "ended-jobs-counted-again",
        "cli/job_counts.py",
        "        self._seen += len(ended)\n",
        "",
        "the display counts a finished job at each of its updates",
        ("tests/cli/test_cli_progress.py",),
        "counted",
    ),
    Mutant(
        "status-says-resume-at-a-limit",
        "cli/batch.py",
        " and not (at_limit and job.status is JobStatus.PLANNED) for job",
        " for job",
        "after a limit a command is advised that sends nothing",
        PREVIEW,
        "names_a_higher_one",
    ),
    Mutant(
        "limit-names-what-is-left-alone",
        "cli/spending.py",
        "str(charges + planned)",
        "str(planned)",
        "the limit that is named is reached already",
        PREVIEW,
        "names_a_higher_one",
    ),
)
