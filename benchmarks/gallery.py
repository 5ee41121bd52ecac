"""Gallery of a large batch: its size, the time to open and to filter it in Chromium, and the CPU of writing it.

    python benchmarks/gallery.py [JOBS]

The command `batch` runs JOBS requests (default 10,000) in this process, against an emulator in another one. A tenth of
them fail, and all tasks share one clip. Each write of the page is timed by the CPU of its own thread; posters, which
are drawn once at the end, stand apart. Then the page is opened in the installed Chromium, five times in a new context,
and each time searched and filtered. A time ends when the browser has drawn the next frame. The bounds are 200 ms, and
3 % of the batch's CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from cpu_meter import CpuMeter
from gateway import run_server
from playwright.sync_api import Browser, Page, sync_playwright

from pika_async.__main__ import main as run_command
from pika_async.report import writer

BOUND_MS = 200.0
BOUND_SHARE = 0.03
ROUNDS = 5
EFFECTS = ("Inflate", "Melt", "Explode", "Squish")
RATIOS = ("16:9", "9:16", "1:1")
#: Keeps the time at which the first frame with cards was drawn, in milliseconds from the start of the navigation.
WATCH_OPENING = """
addEventListener("DOMContentLoaded",
  () => requestAnimationFrame(() => setTimeout(() => { window.drawn = performance.now() })))
"""
#: Returns the milliseconds from an action until the next frame is drawn.
TIME_ACTION = """async ([selector, text]) => {
  const element = document.querySelector(selector), started = performance.now();
  if (text === null) element.click();
  else { element.value = text; element.dispatchEvent(new Event("input", { bubbles: true })); }
  await new Promise(resolve => requestAnimationFrame(() => setTimeout(resolve)));
  return performance.now() - started;
}"""


def write_input(path: Path, jobs: int) -> None:
    """Write the requests of a batch, with prompts of usual length."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(jobs):
            prompt = f"take {number}: an old lighthouse in heavy rain, lit by lanterns, seen from above, in slow motion"
            more = {"effect": EFFECTS[number % 4], "aspect_ratio": RATIOS[number % 3], "seed": number}
            file.write(json.dumps({"key": f"job-{number:05d}", "prompt": prompt, **more}) + "\n")


def run_batch(folder: Path, jobs: int) -> None:
    """Run the batch and print what writing its page cost."""
    writes, posters = CpuMeter(), CpuMeter()
    writer.GalleryWriter.write = writes.timed(writer.GalleryWriter.write)  # type: ignore[method-assign]
    writer.draw_posters = posters.timed(writer.draw_posters)  # type: ignore[attr-defined]
    write_input(folder / "input.jsonl", jobs)
    failing = {"on": "create", "every": 10, "do": {"fault": "fails", "reason": "refused by moderation"}}
    options = {"durations": "lognormal:3,0.5", "video_seconds": 1.0, "scenario": [failing]}
    with run_server(**options) as server:
        os.environ["PIKA_API_KEY"] = server.key
        target = ("--provider", "native", "--base-url", server.url, "--expected-seconds", "3")
        started, cpu = time.monotonic(), time.process_time()
        run_command(["batch", str(folder / "input.jsonl"), "--out", str(folder / "out"), *target])
        cpu = time.process_time() - cpu - sum(posters.seconds)
    milliseconds = [1e3 * seconds for seconds in writes.seconds]
    share = sum(writes.seconds) / cpu
    size = (folder / "out" / "index.html").stat().st_size / 1e6
    print(f"| batch | {jobs:,} jobs in {time.monotonic() - started:.0f} s, CPU {cpu:.1f} s without posters |")
    print(f"| page | {size:.1f} MB, {len(milliseconds)} writes |")
    print(f"| CPU of a write | {statistics.median(milliseconds):.0f} ms, at most {max(milliseconds):.0f} ms |")
    print(f"| CPU of all writes over the batch's | {share:.2%}, ratio to the bound {share / BOUND_SHARE:.2f} |")
    print(f"| CPU of the posters | {sum(posters.seconds):.1f} s |")


def time_page(browser: Browser, url: str) -> dict[str, float]:
    """Return the milliseconds of opening, searching and filtering in a new context."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(WATCH_OPENING)
    page.goto(url)
    page.wait_for_function("() => window.drawn")
    times = {"open": float(page.evaluate("window.drawn"))}
    for name, selector, text in (
        ("search, 111 found", "input[type=search]", "take 12"),
        ("search, all found again", "input[type=search]", ""),
        ("filter by status", button(page, "failed"), None),
        ("filter by effect too", button(page, EFFECTS[1]), None),
        ("no filter by status", button(page, "failed"), None),
        ("no filter", button(page, EFFECTS[1]), None),
    ):
        page.wait_for_timeout(300)  # milliseconds; cards are drawn on in idle time
        times[name] = float(page.evaluate(TIME_ACTION, [selector, text]))
    context.close()
    return times


def button(page: Page, value: str) -> str:
    """Mark the filter of a value and return the selector of the mark."""
    chip = page.locator("button[aria-pressed]", has_text=value).first
    chip.evaluate("(element, value) => { element.dataset.timed = value }", value)
    return f"[data-timed={value}]"


def main(jobs: int) -> None:
    """Run the batch, then the browser, and print a row for each figure."""
    program = shutil.which("chromium")
    assert program, "needs chromium: apt-get install chromium"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run_batch(folder, jobs)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program)
            rounds = [time_page(browser, (folder / "out" / "index.html").as_uri()) for _ in range(ROUNDS)]
            browser.close()
    for name in rounds[0]:
        times = [one[name] for one in rounds]
        median, span = statistics.median(times), f"{min(times):.0f} to {max(times):.0f}"
        print(f"| {name} | {median:.0f} ms ({span}), ratio to the bound {median / BOUND_MS:.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
