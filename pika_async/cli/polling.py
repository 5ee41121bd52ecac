"""`status --polling`: what the journal of a folder teaches of when to look. Sends nothing, waits for nobody."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
from rich.table import Table

from pika_async.cli.batch_folder import Folder
from pika_async.cli.exits import Exit
from pika_async.cli.progress import duration
from pika_async.cli.results import as_line
from pika_async.cli.terminal import Terminal, plain, table
from pika_async.jobs import Job, JobStatus
from pika_async.polling import AdaptivePolling, DurationForecast, PollContext
from pika_async.polling.adaptive import seconds

__all__ = ["show_polling"]


@attrs.define
class _Stratum:
    """Jobs that are alike: what is believed of them, how many have settled; of those in flight, ages and next waits."""

    belief: DurationForecast
    settled: int
    ages: list[float] = attrs.field(factory=list)
    waits: list[float] = attrs.field(factory=list)


def show_polling(folder: Folder, terminal: Terminal, *, as_json: bool) -> Exit:
    """Print what a command that starts now in `folder` would believe, by stratum; as lines of JSON, if `as_json`.

    :raises UsageError: if no batch ran there.
    :raises JournalUnusable: if its journal cannot be read.
    """
    folder.must_be_known()
    policy = folder.terms().polling
    for seen in folder.journal.samples():
        policy.observe(seen)
    strata = _strata(list(folder.journal.all()), policy, time.time())
    if as_json:
        for name, stratum in strata.items():
            terminal.write(as_line(_record(name, stratum), ascii_only=True))
        return Exit.OK
    if not strata:
        terminal.show(f"{folder.root}: nothing is learned yet of how long jobs take, and none waits")
        return Exit.OK
    shown = table(f"{folder.root}: when to look", "stratum", "settled", "used", "median", "10 % to 90 %", right=1)
    for name, stratum in strata.items():
        shown.add_row(*map(plain, _figures(name, stratum)))
    terminal.show(shown)
    for name, stratum in strata.items():
        terminal.show(name)
        terminal.show(_reasons(stratum))
    return Exit.OK


def _strata(jobs: Sequence[Job], policy: AdaptivePolling, now: float) -> dict[str, _Stratum]:
    """By name: every stratum that was learned of, or of which a job is in flight or planned."""
    settled = Counter(job.stratum for job in jobs if job.status in {JobStatus.SUCCEEDED, JobStatus.FAILED})
    # Asked of first: then the policy describes their strata as well, where none has settled yet.
    waits = [(job, *_waiting(job, policy, now)) for job in jobs if job.is_in_flight or job.status is JobStatus.PLANNED]
    strata = {name: _Stratum(belief, settled[name]) for name, belief in sorted(policy.describe().items())}
    for job, age, wait in waits:
        if job.is_in_flight:
            strata[job.stratum].ages.append(age)
            strata[job.stratum].waits.append(wait)
    return strata


def _waiting(job: Job, policy: AdaptivePolling, now: float) -> tuple[float, float]:
    """The age of `job`, and seconds until the next look at it, if it is watched from now on."""
    age = 0.0 if job.submitted_at is None else max(0.0, now - job.submitted_at.timestamp())
    looks = job.polls or int(job.progress is not None)
    return age, policy.next_delay(PollContext(job.stratum, age, looks, job.progress), 0.5)


def _figures(name: str, stratum: _Stratum) -> tuple[str, ...]:
    belief = stratum.belief
    return (
        name,
        str(stratum.settled),
        str(belief.settled),
        seconds(belief.median),
        " to ".join(map(seconds, belief.spread)),
    )


def _reasons(stratum: _Stratum) -> Table:
    belief = stratum.belief
    shown = Table.grid(padding=(0, 1))
    looks = ", ".join(map(seconds, belief.polls))
    shown.add_row(plain("  next looks"), plain(f"{looks} after acceptance"))
    shown.add_row(plain("  why"), plain(belief.why))
    if stratum.ages:
        waits = " to ".join(dict.fromkeys(map(seconds, (min(stratum.waits), max(stratum.waits)))))
        told = f"{len(stratum.ages)}, the oldest for {duration(max(stratum.ages))}; next looks in {waits}"
        shown.add_row(plain("  in flight"), plain(told))
    return shown


def _record(name: str, stratum: _Stratum) -> dict[str, Any]:
    belief = stratum.belief
    return {
        "stratum": name,
        "settled": stratum.settled,
        "used": belief.settled,
        "median": belief.median,
        "spread": belief.spread,
        "looks": belief.polls,
        "trusted_from": belief.trusted_from,
        "why": belief.why,
        "in_flight": len(stratum.ages),
        "oldest": max(stratum.ages, default=None),
        "next_looks_in": [min(stratum.waits), max(stratum.waits)] if stratum.waits else None,
    }
