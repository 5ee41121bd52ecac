"""Handling of Ctrl-C, SIGTERM, SIGHUP and Windows' Ctrl-Break: the first cancels the work, the second ends at once."""

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
    work: Coroutine[Any, Any, T],
    on_interrupt: Callable[[], None],
    on_exit: Callable[[], None] = lambda: None,
    *,
    lost: str = "pending submissions may have been accepted",
) -> T:
    """Run `work` and return its result, unless a signal cancels it.

    :param on_interrupt: called at the first signal, before `work` is cancelled.
    :param on_exit: called at the second signal, before the process ends; default does nothing.
    :param lost: what a second signal may lose, for the user.
    :raises Interrupted: if a signal cancelled `work` and it did not return a result.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name="pika_async command")
    signals = 0

    def stop() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            _exit_now(on_exit, lost)
        on_interrupt()
        task.cancel()

    with contextlib.ExitStack() as handlers:
        for number in _stop_signals():
            _install_handler(loop, number, stop, handlers)
        try:
            return await task
        except asyncio.CancelledError:
            if signals:
                raise Interrupted("interrupted") from None
            raise


def _stop_signals() -> list[signal.Signals]:
    signals = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGBREAK"):  # Windows: Ctrl-Break, and the stop of a console's process group
        signals.append(signal.SIGBREAK)
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # `nohup` ignores it
        signals.append(hangup)
    return signals


def _install_handler(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, stop: Callable[[], None], handlers: contextlib.ExitStack
) -> None:
    """Call `stop` in `loop` at a signal until `handlers` is closed, which restores the handler from before.

    Do nothing outside of the main thread, where no signal arrives.
    """
    previous = signal.getsignal(number) or signal.SIG_DFL
    with contextlib.suppress(RuntimeError, ValueError):
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows' loop; a signal wakes it, and the handler runs in the main thread
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))
            handlers.callback(signal.signal, number, previous)
        else:
            handlers.callback(signal.signal, number, previous)  # after the loop has set the default one
            handlers.callback(loop.remove_signal_handler, number)


def _exit_now(on_exit: Callable[[], None], lost: str) -> None:
    """End the process without waiting; submissions on their way may be charged, and their receipts are lost."""
    with contextlib.suppress(Exception):
        on_exit()
    sys.stderr.write(f"\npika-async: exited at once; {lost}\n")
    sys.stderr.flush()
    os._exit(ExitCode.INTERRUPTED)
