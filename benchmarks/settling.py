"""From submit to settled, end to end over sockets: the SDK's policy beside others, carried out by the same client.

    python benchmarks/settling.py [JOBS] [ROUNDS]

Every batch is submitted at once, in a process of its own, to an emulator of its own (another process) that draws the
same durations for all policies of a round: 60 s in the median (lognormal, sigma 0.5). Thousands of jobs take that time,
and each policy runs alone; fewer run twice as fast, up to five policies side by side: the time scale of 0.5 divides the
intervals of the other policies and the SDK's first estimate, but not the constants of the SDK's limits (no delay under
0.05 s, nor over 0.35 x age + 2 s). The emulator reports an honest progress, which is passed only to the policy whose
row says so. "learned" is the policy object of an earlier batch of 256 jobs; "by the journal" is a new one that read
that batch's journal.

A delay runs from the ledger's settle time to the moment at which the client had read the answer that contains it. Both
are put on the machine's monotonic clock; the client's is a wall time in whole milliseconds (`Job.settled_at`, rounded
down), so a delay is up to 1 ms too small, and wrong by what the two clocks of the machine moved apart meanwhile, which
is printed. `best` is the fewest polls of any fixed interval for the same mean delay, computed from the ledger's
durations by an oracle; the row "best interval" is that interval for the SDK's cold batch, found and run afterwards.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
from gateway import LedgerCharge, run_server
from waiting import Outcome, best_fixed, fixed

from pika_async import AdaptivePolling, FixedInterval, JobStatus, Limits, PikaClient
from pika_async.polling import DurationSample, PollContext, PollingPolicy

MEDIAN, SIGMA = 60.0, 0.5
#: Number of jobs of the earlier batch.
EARLIER = 256
#: Number of jobs from which on each policy runs alone.
MANY = 2000
EARLIER_SEED = 9001
#: Rows of the table, in groups that run side by side.
GROUPS = [
    ["cold", "cold, with progress", "comfy 5 s", "runway 6 +- 1.5 s"],
    ["learned", "learned, by the journal", "best interval", "openai 1 s", "full jitter, cap 60 s"],
]
ALONE = [["cold"], ["learned"], ["best interval"]]


def limits(count: int) -> Limits:
    """Return limits that allow all jobs in flight, and 16 concurrent submissions."""
    return Limits(max_in_flight=count, submitting=16)


# --- the policies ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Between(PollingPolicy):
    """A poll after *low* to *high* seconds, drawn each time."""

    low: float
    high: float

    def next_delay(self, context: PollContext, u: float) -> float:  # noqa: ARG002 - the protocol's
        return self.low + (self.high - self.low) * u

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
        """Nothing is learned."""


@attrs.frozen
class FullJitter(PollingPolicy):
    """Exponential backoff with full jitter: up to *first* seconds, twice that, and so on to *cap*."""

    first: float
    cap: float

    def next_delay(self, context: PollContext, u: float) -> float:
        return max(1e-3, u * min(self.cap, self.first * 2.0 ** min(context.polls, 30)))

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> None:
        """Nothing is learned."""


@attrs.frozen
class Order:
    """One batch to run; *folder* holds the policy and the journal of the earlier batch."""

    name: str
    count: int
    scale: float
    folder: str
    interval: float | None = None
    url: str = ""
    key: str = ""

    @property
    def journal(self) -> Path:
        return Path(self.folder) / "earlier.db"

    @property
    def memory(self) -> Path:
        return Path(self.folder) / "earlier.pickle"

    def policy(self) -> PollingPolicy:
        if self.name == "learned":
            learned: AdaptivePolling = pickle.loads(self.memory.read_bytes())  # noqa: S301 - written by `batch`
            return learned
        if self.name in {"earlier", "cold", "cold, with progress", "learned, by the journal"}:
            return AdaptivePolling(expected_seconds=MEDIAN * self.scale)
        if self.name == "runway 6 +- 1.5 s":
            return Between(4.5 * self.scale, 7.5 * self.scale)
        if self.name == "full jitter, cap 60 s":
            return FullJitter(self.scale, 60 * self.scale)
        if self.name == "best interval":
            assert self.interval is not None
            return FixedInterval(self.interval)
        return FixedInterval({"comfy 5 s": 5, "openai 1 s": 1}[self.name] * self.scale)


@attrs.define
class MeasuredPolicy(PollingPolicy):
    """A policy whose polls are counted; *blind* hides the progress from it.

    The first delay is asked for once a task: after *count* of them the last task was accepted.
    """

    policy: PollingPolicy
    count: int
    blind: bool
    polls: int = 0
    #: CPU time and polls at that moment.
    cpu: float = 0.0
    polls_before: int = 0

    def next_delay(self, context: PollContext, u: float) -> float:
        if context.polls:
            self.polls += 1
        else:
            self.count -= 1
            if not self.count:
                self.cpu, self.polls_before = time.process_time(), self.polls
        return self.policy.next_delay(self._seen(context), u)

    def replan_delay(self, context: PollContext, u: float) -> float | None:
        return self.policy.replan_delay(self._seen(context), u)

    def observe(self, sample: DurationSample, last_unsettled_age: float | None = None) -> bool | None:
        if self.blind:
            sample = attrs.evolve(sample, progress=None, progress_age=None)
        return self.policy.observe(sample, last_unsettled_age)

    def observe_unsettled(self, stratum: str, last_unsettled_age: float, age: float) -> bool | None:
        return self.policy.observe_unsettled(stratum, last_unsettled_age, age)

    def expected_delay(self, stratum: str, last_unsettled_age: float, age: float) -> float | None:
        return self.policy.expected_delay(stratum, last_unsettled_age, age)

    def medians(self) -> Mapping[str, float]:
        return self.policy.medians()

    def describe(self) -> Mapping[str, Any]:
        return self.policy.describe()

    def _seen(self, waiting: PollContext) -> PollContext:
        return attrs.evolve(waiting, progress=None) if self.blind else waiting


# --- one batch, in a process of its own -----------------------------------------------------------------------------


async def batch(order: Order) -> dict[str, Any]:
    """Submit all jobs and wait for all."""
    policy = order.policy()
    if order.name == "learned, by the journal":  # opening a client passes the journal's samples to the policy
        async with PikaClient("native", api_key=order.key, base_url=order.url, polling=policy, journal=order.journal):
            pass
    measured = MeasuredPolicy(policy, order.count, blind=order.name != "cold, with progress")
    journal = order.journal if order.name == "earlier" else None
    room = limits(order.count)
    rows = []
    async with PikaClient(
        "native", api_key=order.key, base_url=order.url, polling=measured, limits=room, journal=journal
    ) as pika:
        apart = time.time() - time.monotonic()
        began = time.monotonic()
        async for job in pika.as_settled(f"{order.name} {number}" for number in range(order.count)):
            assert job.status is JobStatus.SUCCEEDED, job
            assert job.settled_at is not None
            rows.append((job.request.prompt, job.task_id, job.settled_at.timestamp() - apart, job.polls))
        ended, cpu = time.monotonic(), time.process_time()
        slew = time.time() - time.monotonic() - apart
    if order.name == "earlier":
        order.memory.write_bytes(pickle.dumps(policy))
    polls = sum(row[3] for row in rows)
    return {
        "rows": rows,
        "began": began,
        "wall": ended - began,
        "cpu_per_poll": (cpu - measured.cpu) / (polls - measured.polls_before),
        "slew": slew,
    }


@attrs.frozen
class Batch:
    """The cost of one batch."""

    durations: list[float]
    polls: float
    delay: float
    worst: float
    #: Polls over those of the best fixed interval, for the same durations and the same mean delay.
    best: float
    #: Time until the last was found settled, over the time until the last settled; over the longest duration.
    makespan: float
    over_longest: float
    #: Time until the last was accepted; time until all were yielded.
    sent: float
    wall: float
    cpu_per_poll: float
    slew: float

    @classmethod
    def of(cls, found: dict[str, Any], ledger: list[LedgerCharge]) -> Batch:
        """Compare the client's jobs with the ledger.

        :raises AssertionError: if a job was yielded twice, or its charge is not the only one.
        """
        charges = {charge.prompt: charge for charge in ledger}
        rows = {row[0]: row for row in found["rows"]}
        assert Counter(row[0] for row in found["rows"]) == Counter(charge.prompt for charge in ledger)
        assert len(charges) == len(ledger) == len(rows)
        assert all(charges[prompt].task_id == row[1] for prompt, row in rows.items())
        delays = sorted(row[2] - charges[row[0]].settles_at for row in found["rows"])
        assert delays[0] > -0.005, delays[0]
        durations = [charge.settles_at - charge.charged_at for charge in ledger]
        polls, delay = statistics.fmean(row[3] for row in found["rows"]), statistics.fmean(delays)
        began, seen = found["began"], max(row[2] for row in found["rows"])
        return cls(
            durations=durations,
            polls=polls,
            delay=delay,
            worst=delays[int(0.99 * (len(delays) - 1))],
            best=polls / best_fixed([Outcome(duration) for duration in durations], delay),
            makespan=(seen - began) / (max(charge.settles_at for charge in ledger) - began),
            over_longest=(seen - began) / max(durations),
            sent=max(charge.charged_at for charge in ledger) - began,
            wall=found["wall"],
            cpu_per_poll=found["cpu_per_poll"],
            slew=found["slew"],
        )


def interval_for(durations: list[float], delay: float) -> float:
    """Return the fixed interval that needs the fewest polls for a mean delay of *delay* or less."""
    jobs = [Outcome(duration) for duration in durations]
    tried = [(fixed(jobs, interval), interval) for interval in (delay * 0.8 * 1.012**step for step in range(160))]
    return min((polls, interval) for (polls, found), interval in tried if found <= delay)[1]


def measure(order: Order, seed: int) -> Batch:
    """Run one batch in a fresh process, against a fresh emulator."""
    with run_server(durations=f"lognormal:{MEDIAN},{SIGMA}", time_scale=order.scale, seed=seed) as server:
        given = json.dumps(attrs.asdict(attrs.evolve(order, url=server.url, key=server.key)))
        command = [sys.executable, __file__, "batch", given]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        done = Batch.of(found, server.ledger())
    costs = {name: round(value, 4) for name, value in attrs.asdict(done).items() if name != "durations"}
    print(f"  {order.name}: {costs}", file=sys.stderr)
    return done


def rounds_of(count: int, rounds: int) -> dict[str, list[Batch]]:
    """Run every policy in every round; the earlier batch once, beside the first."""
    scale = 0.5 if count < MANY else 1.0
    done: dict[str, list[Batch]] = {}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        order = Order("earlier", EARLIER, scale, folder)
        earlier = pool.submit(measure, order, EARLIER_SEED)
        for seed in range(rounds):
            for group in GROUPS if count < MANY else ALONE:
                if "best interval" in group:
                    cold = done["cold"][-1]
                    order = attrs.evolve(order, interval=interval_for(cold.durations, cold.delay))
                orders = [attrs.evolve(order, name=name, count=count) for name in group]
                running = [pool.submit(measure, order, seed) for order in orders]
                for name, batch in zip(group, running, strict=True):
                    done.setdefault(name, []).append(batch.result())
                earlier.result()
    return done


def main(count: int, rounds: int) -> None:
    """Print the table; medians over the rounds."""
    done = rounds_of(count, rounds)
    mean = statistics.median(statistics.fmean(batch.durations) for batch in done["cold"])
    print(f"{count:,} jobs at once, {rounds} rounds, mean duration {mean:.1f} s; every job settled once, charged once")
    print(
        "| policy | polls per job | mean delay | 99 % within | polls over best | last found over last settled |", end=""
    )
    print(" over the longest | wall | CPU per poll |")
    print("|---|" + "---|" * 8)
    for name, batches in done.items():
        of = {
            field.name: statistics.median(getattr(batch, field.name) for batch in batches)
            for field in attrs.fields(Batch)
            if field.name != "durations"
        }
        spans = [batch.makespan for batch in batches]
        print(
            f"| {name} | {of['polls']:.2f} | {of['delay']:.2f} s, {100 * of['delay'] / mean:.1f} % | "
            f"{of['worst']:.2f} s | {of['best']:.2f} | {of['makespan']:.4f} (to {max(spans):.4f}) | "
            f"{of['over_longest']:.3f} | {of['wall']:.1f} s | {1e3 * of['cpu_per_poll']:.2f} ms |"
        )
    for name in ("cold", "learned"):
        pairs = list(zip(done[name], done["best interval"], strict=True))
        polls = statistics.median(batch.polls / other.polls for batch, other in pairs)
        delays = statistics.median(batch.delay / other.delay for batch, other in pairs)
        print(
            f"{name} against the best interval, both over sockets: {polls:.2f} of its polls, {delays:.2f} of its delay"
        )
    batches = [batch for found in done.values() for batch in found]
    sent = statistics.median(batch.sent for batch in done["cold"])
    print(f"the last was accepted after {sent:.2f} s; clocks apart by {1e3 * max(abs(b.slew) for b in batches):.2f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["batch"]:
        print(json.dumps(asyncio.run(batch(Order(**json.loads(sys.argv[2]))))))
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        main(*(given + [500, 3][len(given) :]))
