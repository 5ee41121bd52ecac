"""Ctrl-C, SIGTERM and a closed terminal: the first lets the work put everything away, the second leaves at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pika_async.cli.exits import ExitCode, Interrupted

__all__ = ["interruptible"]

T = TypeVar("T")


async def interruptible(
    work: Coroutine[Any, Any, T], on_interrupt: Callable[[], None], on_exit: Callable[[], None] = lambda: None
) -> T:
    """What `work` returns. The first signal calls `asked` and cancels it; the second calls `leaving` and leaves.

    :raises Interrupted: if it was cancelled so and did not return.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="pika_async command")
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            _exit_now(on_exit)
        on_interrupt()
        task.cancel()

    handled = [number for number in _stop_signals() if _install_handler(loop, number, stop)]
    try:
        return await task
    except asyncio.CancelledError:
        if signals:
            raise Interrupted("interrupted") from None
        raise
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


def _stop_signals() -> list[signal.Signals]:
    asked = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # `nohup` ignores it
        asked.append(hangup)
    return asked


def _install_handler(loop: asyncio.AbstractEventLoop, number: int, stop: Callable[[], None]) -> bool:
    try:
        loop.add_signal_handler(number, stop)
    except (NotImplementedError, RuntimeError, ValueError):
        return False  # no main thread, or a system without them: KeyboardInterrupt remains
    return True


def _exit_now(on_exit: Callable[[], None]) -> None:
    """Without waiting for anything: what was being sent may be charged, and its receipt is not read."""
    with contextlib.suppress(Exception):
        on_exit()
    sys.stderr.write("\npika-async: left at once; what was on its way may have been accepted\n")
    sys.stderr.flush()
    os._exit(ExitCode.INTERRUPTED)
