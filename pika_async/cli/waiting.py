"""Display of one job that is waited for: its state, the elapsed and the expected time. Sends nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final

from rich.live import Live

from pika_async.cli.progress import is_line_due
from pika_async.cli.terminal import Terminal, plain
from pika_async.cli.words import range_words
from pika_async.jobs import Job

__all__ = ["show_waiting", "waiting_line"]

#: Seconds between two updates.
_INTERVAL_S: Final = 1.0


def waiting_line(job: Job | None, elapsed: float, expected: tuple[float, float] | None) -> str:
    """Return the state of a job, the elapsed and the expected time.

    :param job: None while it is not known.
    :param elapsed: seconds since the wait began.
    :param expected: seconds from acceptance to the end, low and high; None where unknown.
    """
    state = "waiting" if job is None else job.status.label
    progress = "" if job is None or job.progress is None else f" {job.progress} %"
    range_text = "" if expected is None or expected[1] <= 0 else f", expected {range_words(expected)}"
    return f"{state}{progress}, {timedelta(seconds=int(elapsed))} elapsed{range_text}"


@asynccontextmanager
async def show_waiting(
    terminal: Terminal, current: Callable[[], Job | None], expected: tuple[float, float] | None
) -> AsyncIterator[None]:
    """Show a job while the body waits for it: one live line on a terminal, elsewhere a line now and after a while.

    :param current: returns the latest state of the job.
    :param expected: see `waiting_line`.
    """
    updates = asyncio.get_running_loop().create_task(
        _update(terminal, current, expected), name="pika_async waiting display"
    )
    try:
        yield
    finally:
        updates.cancel()
        await asyncio.wait({updates})


async def _update(terminal: Terminal, current: Callable[[], Job | None], expected: tuple[float, float] | None) -> None:
    started = time.monotonic()
    if not terminal.err.is_terminal:
        terminal.note(waiting_line(current(), 0.0, expected))
        printed = 0.0
        while True:
            await asyncio.sleep(_INTERVAL_S)
            elapsed = time.monotonic() - started
            if is_line_due(elapsed, printed):
                printed = elapsed
                terminal.note(waiting_line(current(), elapsed, expected))
    with suppress(asyncio.CancelledError), Live(console=terminal.err, auto_refresh=False, transient=True) as live:
        while True:
            line = waiting_line(current(), time.monotonic() - started, expected)
            live.update(plain(line), refresh=True)
            await asyncio.sleep(_INTERVAL_S)
