"""Timeouts of requests in virtual time: their ends, and a process that is stopped beyond them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from pika_async._http.answer_timeout import READ_MARGIN_S, AnswerTimeout
from tests.fakes import virtual_clock
from tests.fakes.virtual_clock import VirtualLoop


def _stop_process(seconds: float) -> None:
    """Let the clock pass without the loop, as SIGSTOP does."""
    cast("VirtualLoop", asyncio.get_running_loop()).selector.now += seconds


def _read_later(answer: asyncio.Future[str]) -> None:
    """Deliver the answer as a socket does that is readable when the loop polls next: behind the timers that are due."""

    def read(steps: int) -> None:
        if steps:
            asyncio.get_running_loop().call_soon(read, steps - 1)
        elif not answer.done():
            answer.set_result("receipt")

    read(3)


async def _time_of_end(timeout: AnswerTimeout, *, touch_at: tuple[float, ...] = ()) -> float:
    """Return the time at which the timeout ends a wait without an answer."""
    loop = asyncio.get_running_loop()
    for at in touch_at:
        loop.call_at(at, timeout.touch)
    with pytest.raises(TimeoutError):
        async with timeout:
            await loop.create_future()
    return loop.time()


@pytest.mark.parametrize(
    "total, idle, touch_at, expected",
    [
        (180, None, (), 180),
        (180, 120, (), 180),
        (180, 120, (1,), 121),
        (180, 120, (1, 50), 170),
        (180, 120, (1, 50, 100), 180),
        (None, 30, (5, 10, 39, 60), 90),
        (60, 30, (59,), 60),
    ],
)
def test_a_wait_ends_at_the_earlier_end(
    total: float | None, idle: float | None, touch_at: tuple[float, ...], expected: float
) -> None:
    """The total counts from the start, the idle time from the last byte; before the first byte only the total counts."""

    async def story() -> None:
        end = await _time_of_end(AnswerTimeout(total, idle), touch_at=touch_at)
        assert end == pytest.approx(expected + READ_MARGIN_S)

    virtual_clock.run(story())


def test_without_an_end_the_wait_lasts() -> None:
    """Neither a total nor an idle time: no timer is set."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        loop.call_later(1e6, answer.set_result, "late")
        async with AnswerTimeout(None, None):
            assert await answer == "late"

    virtual_clock.run(story())


@pytest.mark.parametrize("stopped", [100.0, 600.0, 86_400.0])
@pytest.mark.parametrize("idle", [None, 60.0])
def test_an_answer_that_came_while_the_process_was_stopped_is_read(stopped: float, idle: float | None) -> None:
    """The timers are due when the process continues, and the loop runs them before it reads; the answer wins."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def stop_and_continue() -> None:
            _stop_process(stopped)
            loop.call_soon(_read_later, answer)

        loop.call_at(10, stop_and_continue)
        timeout = AnswerTimeout(90, idle)
        timeout.touch()
        async with timeout:
            assert await answer == "receipt"
        async with timeout:  # the body of the answer
            await asyncio.sleep(READ_MARGIN_S / 2)

    virtual_clock.run(story())


def test_a_process_that_is_stopped_twice_in_a_row_reads_in_the_end() -> None:
    """A stop within the margin begins another margin: the loop must have run before the timeout judges."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        def stop_and_continue() -> None:
            _stop_process(100)
            loop.call_soon(_read_later, answer)

        loop.call_at(10, _stop_process, 100)
        loop.call_at(110 + READ_MARGIN_S / 2, stop_and_continue)
        async with AnswerTimeout(50, None):
            assert await answer == "receipt"

    virtual_clock.run(story())


def test_a_process_that_was_stopped_still_ends_a_wait_without_an_answer() -> None:
    """The time for which the process was stopped counts for nothing, the rest counts."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.call_at(10, _stop_process, 600)
        assert await _time_of_end(AnswerTimeout(90, None)) == pytest.approx(610 + READ_MARGIN_S, abs=0.01)

    virtual_clock.run(story())


def test_a_cancellation_passes_through() -> None:
    """A cancellation of the task is not taken for the timeout, and no timer is left."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        scheduled: Callable[[], Any] = lambda: [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]  # noqa: E731

        async def wait() -> None:
            async with AnswerTimeout(90, 60):
                await loop.create_future()

        task = asyncio.create_task(wait())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert scheduled() == []

    virtual_clock.run(story())
