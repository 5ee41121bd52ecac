"""Rules for asyncio tasks: where they may be awaited, and how they are started. Knows no jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import anyio

from pika_async.errors import WrongEventLoop

__all__ = ["Spawn", "require_asyncio", "require_loop", "wait_uncancelled", "was_cancelled"]


class Spawn(Protocol):
    """Starts a task that ends with its function or with the client."""

    def __call__(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Start `function(*args)` as the task `name`.

        :raises ClientClosed: if the client is closed.
        :raises RuntimeError: if the scheduler failed.
        """


def require_asyncio() -> None:
    """Require that an event loop of asyncio is running.

    :raises WrongEventLoop: if none is, as under trio.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise WrongEventLoop(
            reason="the client must be opened in an event loop of asyncio, not of trio or another library; "
            'use `asyncio.run(...)`, or `anyio.run(..., backend="asyncio")`'
        ) from None


def require_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Require that `loop` is the running one, or is closed.

    :raises WrongEventLoop: if `loop` is another loop, which may still run.
    """
    if loop is not asyncio.get_running_loop() and not loop.is_closed():
        raise WrongEventLoop(
            reason="the client is open in another event loop: call it there (from another thread with "
            "`asyncio.run_coroutine_threadsafe(..., loop)`), close it there first, or use another client here"
        )


async def wait_uncancelled(task: asyncio.Task[None]) -> None:
    """Wait until `task` has ended; a cancellation of the waiting is raised only then.

    A cancel scope shields from other scopes, but not from `Task.cancel`, which `asyncio.timeout` calls.
    """
    canceled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                canceled = error
    if canceled is not None:
        raise canceled
    task.result()


def was_cancelled(error: BaseException) -> bool:
    """Whether *error* cancels the running task itself, not only something that it awaits."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
