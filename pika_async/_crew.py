"""The tasks of a scheduler: workers that share a queue, and others beside them. Knows nothing of jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

__all__ = ["Crew"]

T = TypeVar("T")


class Crew(Generic[T]):
    """The children of one task group."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_here(self) -> bool:
        """Whether the running task is one of them, which would wait for the group in vain."""
        return asyncio.current_task() in self._tasks

    def workers(self, name: str, size: int, work: Callable[[T], Awaitable[None]]) -> MemoryObjectSendStream[T]:
        """A queue with `size` workers; who puts never more in than there are idle workers never waits."""
        send, receive = anyio.create_memory_object_stream[T](size)
        for number in range(size):
            self.spawn(self._labour, receive.clone(), work, name=f"pika_async {name} {number}")
        receive.close()
        return send

    @staticmethod
    async def _labour(queue: MemoryObjectReceiveStream[T], work: Callable[[T], Awaitable[None]]) -> None:
        async with queue:
            async for item in queue:
                await work(item)

    def spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: Any, name: str) -> None:
        """Run `function` until it ends or the group does."""
        self._group.start_soon(self._own, function, args, name=name)

    async def _own(self, function: Callable[..., Coroutine[Any, Any, None]], args: tuple[Any, ...]) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._tasks.add(task)
        try:
            await function(*args)
        finally:
            self._tasks.discard(task)
