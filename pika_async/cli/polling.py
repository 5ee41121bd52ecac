"""`status --polling`: the polling schedule that a folder's journal teaches. Reads the journal only; sends nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
from rich.table import Table

from pika_async.cli.batch_folder import BatchFolder, starting_text
from pika_async.cli.exits import ExitCode
from pika_async.cli.results import json_line
from pika_async.cli.terminal import Terminal, plain, table
from pika_async.jobs import Job, JobStatus
from pika_async.polling import AdaptivePolling, DurationForecast, PollContext
from pika_async.polling.adaptive import seconds

__all__ = ["show_polling"]


@attrs.define
class _StratumSummary:
    """Forecast of one stratum, its number of settled jobs, and the age and next delay of each of its jobs in flight."""

    forecast: DurationForecast
    settled: int
    #: Seconds since each job in flight was accepted.
    ages: list[float] = attrs.field(factory=list)
    #: Seconds until the next poll of each job in flight.
    delays: list[float] = attrs.field(factory=list)


def show_polling(folder: BatchFolder, terminal: Terminal, *, as_json: bool) -> ExitCode:
    """Print, for each stratum, when a command that starts now in `folder` would poll and why.

    :param as_json: print one line of JSON for each stratum instead of a table.
    :raises UsageError: if no batch ran there.
    :raises JournalUnusable: if its journal cannot be read.
    """
    if (starting := folder.starting_process()) is not None:
        if not as_json:
            terminal.show(starting_text(folder, starting))
        return ExitCode.OK
    folder.require_existing()
    policy = folder.options().polling
    for sample in folder.journal.samples():
        policy.observe(sample)
    strata = _summarize(list(folder.journal.all()), policy, time.time())
    if as_json:
        for name, stratum in strata.items():
            terminal.write(json_line(_record(name, stratum), ascii_only=True))
        return ExitCode.OK
    if not strata:
        terminal.show(f"{folder.root}: no durations recorded yet, and no job is in flight")
        return ExitCode.OK
    shown = table(f"{folder.root}: when to poll", "stratum", "settled", "used", "median", "10 % to 90 %", right=1)
    for name, stratum in strata.items():
        shown.add_row(*map(plain, _figures(name, stratum)))
    terminal.show(shown)
    for name, stratum in strata.items():
        terminal.show(name)
        terminal.show(_details(stratum))
    return ExitCode.OK


def _summarize(jobs: Sequence[Job], policy: AdaptivePolling, now: float) -> dict[str, _StratumSummary]:
    """Return, by name, every stratum with recorded durations or with a job that is planned or in flight."""
    settled = Counter(job.stratum for job in jobs if job.status in {JobStatus.SUCCEEDED, JobStatus.FAILED})
    pending = [job for job in jobs if job.is_in_flight or job.status is JobStatus.PLANNED]
    # The policy describes only strata that it has seen: ask it for the delays first.
    delays = [(job, *_age_and_delay(job, policy, now)) for job in pending]
    strata = {name: _StratumSummary(forecast, settled[name]) for name, forecast in sorted(policy.describe().items())}
    for job, age, delay in delays:
        if job.is_in_flight:
            strata[job.stratum].ages.append(age)
            strata[job.stratum].delays.append(delay)
    return strata


def _age_and_delay(job: Job, policy: AdaptivePolling, now: float) -> tuple[float, float]:
    """Return the age of `job` and the delay until its next poll, in seconds, as if polling began now."""
    age = 0.0 if job.submitted_at is None else max(0.0, now - job.submitted_at.timestamp())
    polls = job.polls or int(job.progress is not None)
    return age, policy.next_delay(PollContext(job.stratum, age, polls, job.progress), 0.5)


def _figures(name: str, stratum: _StratumSummary) -> tuple[str, ...]:
    forecast = stratum.forecast
    return (
        name,
        str(stratum.settled),
        str(forecast.settled),
        seconds(forecast.median),
        " to ".join(map(seconds, forecast.spread)),
    )


def _details(stratum: _StratumSummary) -> Table:
    forecast = stratum.forecast
    shown = Table.grid(padding=(0, 1))
    polls = ", ".join(map(seconds, forecast.polls))
    shown.add_row(plain("  next polls"), plain(f"{polls} after acceptance"))
    shown.add_row(plain("  why"), plain(forecast.why))
    if stratum.ages:
        delays = " to ".join(dict.fromkeys(map(seconds, (min(stratum.delays), max(stratum.delays)))))
        in_flight = f"{len(stratum.ages)}, oldest {seconds(max(stratum.ages))}; next polls in {delays}"
        shown.add_row(plain("  in flight"), plain(in_flight))
    return shown


def _record(name: str, stratum: _StratumSummary) -> dict[str, Any]:
    forecast = stratum.forecast
    return {
        "stratum": name,
        "settled": stratum.settled,
        "used": forecast.settled,
        "median": forecast.median,
        "spread": forecast.spread,
        "polls": forecast.polls,
        "trusted_from": forecast.trusted_from,
        "why": forecast.why,
        "in_flight": len(stratum.ages),
        "oldest": max(stratum.ages, default=None),
        "next_polls_in": [min(stratum.delays), max(stratum.delays)] if stratum.delays else None,
    }
