"""Two pictures of polling for the README beside this file: polls against delay, and the ages of polls.

    python benchmarks/plots.py

Virtual time and fixed seeds, by the code of `waiting.py` and `shapes.py`: with the same matplotlib the same files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from shapes import SHAPES, Durations
from waiting import Costs, Outcome, best_fixed, fixed, follow, known_in_full, run

from pika_async.polling import AdaptivePolling, Schedule

FOLDER = Path(__file__).parent / "plots"
SEED = 1
#: Of 2,000 jobs over 200 slots, those that settle before the policy is said to be steady.
WARM = 500
DEFAULT = 200.0
WEIGHTS = [DEFAULT * 2.0**power for power in range(-4, 5)]
PANELS = {
    "lognormal 0.25": "narrow: lognormal, sigma 0.25",
    "lognormal 0.5": "usual: lognormal, sigma 0.5",
    "lognormal 1.0": "wide: lognormal, sigma 1.0",
    "bimodal": "bimodal: 40 s, one in five 240 s",
}
SDK, FIXED, BOUND, OTHERS = "#0060a8", "#808080", "#000000", "#c04a00"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pika_async",
    "svg.fonttype": "none",  # the reader's own sans-serif: a third of the size
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
}
#: Waits of what others ship, from the number of polls so far and a random source.
PEERS: dict[str, Callable[[int, Random], float]] = {
    "fal 0.1 s": lambda _n, _r: 0.1,
    "replicate 0.5 s": lambda _n, _r: 0.5,
    "openai 1 s": lambda _n, _r: 1.0,
    "comfy 5 s": lambda _n, _r: 5.0,
    "runway 6 ± 1.5 s": lambda _n, random: random.uniform(4.5, 7.5),
    "full jitter\nto 60 s": lambda count, random: random.uniform(0, min(60.0, 2.0 ** min(count, 9))),
}
#: Where a name stands from its point, in points; all to the right and above the lines, but the two that are close.
ASIDE = {"comfy 5 s": (4, 9), "runway 6 ± 1.5 s": (8, 1), "full jitter\nto 60 s": (6, -4)}


def peer(jobs: Sequence[Outcome], draw: Callable[[int, Random], float]) -> tuple[float, float]:
    """Return the mean number of polls and the mean delay."""
    random = Random(SEED)
    polls = delay = 0.0
    for job in jobs:
        age, count = 0.0, 0
        while age < job.duration:
            age += draw(count, random)
            count += 1
        polls += count
        delay += age - job.duration
    return polls / len(jobs), delay / len(jobs)


def best_of(every: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the pairs (polls, delay) that no other pair beats in both."""
    best: list[tuple[float, float]] = []
    for polls, delay in sorted(every, key=lambda each: each[1]):
        if not best or polls < best[-1][0]:
            best.append((polls, delay))
    return best


def plain(value: float, _position: object = None) -> str:
    return f"{value:g}"


def on_logs(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.035, 110)
    axes.set_ylim(1.6, 1600)
    axes.set_xticks([0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50])
    axes.set_yticks([2, 5, 10, 20, 50, 100, 200, 500, 1000])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(plain))
        axis.set_minor_locator(NullLocator())
    axes.grid(visible=True)


def polls_and_delay(axes: Axes, durations: Durations) -> None:
    """One panel."""
    random = Random(SEED)
    jobs = [Outcome(durations(i, random)) for i in range(3000)]
    truth = known_in_full(durations)
    every = best_of([fixed(jobs, 0.07 * 1.05**step) for step in range(140)])
    axes.plot([delay for _, delay in every], [polls for polls, _ in every], color=FIXED, lw=1.6, zorder=2)
    bound = [follow(jobs, Schedule.of(truth, weight / 60).after) for weight in WEIGHTS]
    axes.plot(
        [delay for _, delay in bound], [polls for polls, _ in bound], color=BOUND, lw=1.0, ls=(0, (4, 2)), zorder=4
    )
    for name, draw in PEERS.items():
        polls, delay = peer(jobs, draw)
        axes.plot(delay, polls, "D", color=OTHERS, ms=4.5, zorder=5)
        axes.annotate(
            name, (delay, polls), ASIDE.get(name, (6, 3)), textcoords="offset points", color=OTHERS, fontsize=8
        )
    by_weight = {}
    for weight in WEIGHTS:
        settled = run(AdaptivePolling(delay_weight=weight), durations, seed=SEED)[WARM:]
        by_weight[weight] = Costs.of(settled)
        if weight == DEFAULT:
            share = by_weight[weight].polls / best_fixed(settled, by_weight[weight].delay)
    axes.plot(
        [each.delay for each in by_weight.values()], [each.polls for each in by_weight.values()],
        "o-", color=SDK, lw=1.6, ms=2.8, zorder=3,
    )  # fmt: skip
    default = by_weight[DEFAULT]
    axes.plot(default.delay, default.polls, "o", color=SDK, ms=7, zorder=6)
    label = f"SDK default: {share:.2f} of the polls\nof a fixed interval as quick"
    axes.annotate(
        label, (default.delay, default.polls), (0.05, 2.7), textcoords="data", color=SDK, fontsize=8,
        arrowprops={"arrowstyle": "-", "color": SDK, "lw": 0.7, "shrinkB": 4},
    )  # fmt: skip


def labelled(axes: Axes) -> None:
    """The lines' names, in the panel where they are farthest apart."""
    axes.text(0.15, 400, "best fixed interval", color="#606060")
    axes.text(0.38, 48, "SDK, learned\nas tasks settle", color=SDK, ha="right")
    axes.text(0.38, 1.75, "the bound: durations known", color=BOUND, fontsize=8)


def trade() -> Figure:
    """Draw polls against delay, a panel for each shape of the durations."""
    figure = Figure(figsize=(9.2, 7.4), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, (shape, title) in zip(panels.flat, PANELS.items(), strict=True):
        on_logs(axes)
        axes.set_title(title, loc="left")
        polls_and_delay(axes, SHAPES[shape])
    labelled(panels[1, 1])
    for axes in panels[1]:
        axes.set_xlabel("mean delay from settled to found, seconds")
    for axes in panels[:, 0]:
        axes.set_ylabel("polls a task")
    return figure


# --- the ages of polls ----------------------------------------------------------------------------------------------


def schedule(axes: Axes, durations: Durations, end: float) -> None:
    """The durations of one class of tasks, and below them the polls of a task that has not settled yet."""
    policy = AdaptivePolling()
    settled = run(policy, durations, seed=SEED)[WARM:]
    costs = Costs.of(settled)
    ages_of_polls = [age for age in policy._strata["a"].schedule.polls(60) if age <= end]
    interval = min(
        (fixed(settled, costs.delay * 0.8 * 1.012**step)[0], costs.delay * 0.8 * 1.012**step)
        for step in range(160)
        if fixed(settled, costs.delay * 0.8 * 1.012**step)[1] <= costs.delay
    )[1]
    every = [interval * number for number in range(1, math.floor(end / interval) + 1)]
    random = Random(99)
    axes.hist(
        [durations(i, random) for i in range(40_000)],
        bins=[2.0 * i for i in range(int(end / 2) + 1)],
        color="#d9d9d9", density=True, histtype="stepfilled", zorder=1,
    )  # fmt: skip
    top = axes.get_ylim()[1]
    polls, _ = fixed(settled, interval)
    rows = (
        (ages_of_polls, -0.2, SDK, f"SDK, learned:\n{costs.polls:.1f} polls a task"),
        (every, -0.54, "#606060", f"every {interval:.1f} s, as quick:\n{polls:.1f} polls a task"),
    )
    for ages, row, colour, label in rows:
        axes.plot(ages, [row * top] * len(ages), "|", color=colour, ms=11, mew=1.3)
        axes.text(end * 1.015, row * top, label, color=colour, va="center")
    axes.set_xlim(0, end)
    axes.set_ylim(-0.74 * top, top)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_position(("axes", 0))
    axes.axhline(0, color="#444444", lw=0.8)


def where() -> Figure:
    """Draw the ages of polls, for two shapes."""
    figure = Figure(figsize=(9.2, 5.2), layout="constrained")
    panels = figure.subplots(2, 1)
    for axes, shape, end in ((panels[0], "lognormal 0.5", 200.0), (panels[1], "bimodal", 320.0)):
        schedule(axes, SHAPES[shape], end)
        axes.set_title(
            f"{PANELS[shape]}. Grey: how long tasks take. A stroke: a poll, if none has found it settled", loc="left"
        )
        axes.set_xlabel("age of the task, seconds")
    return figure


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with mpl.rc_context(STYLE):
        for name, draw in (("polls-and-delay", trade), ("schedule", where)):
            file = FOLDER / f"{name}.svg"
            draw().savefig(file, facecolor="white", metadata={"Date": None, "Creator": None})
            lines = file.read_text(encoding="utf-8").splitlines()
            file.write_text("\n".join(line.strip() for line in lines) + "\n", encoding="utf-8")  # a fifth smaller
            print(f"{file.name}: {file.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
