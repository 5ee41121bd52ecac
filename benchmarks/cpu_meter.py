"""CPU time of some work inside a process, by the thread that does it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs


@attrs.define
class CpuMeter:
    """CPU seconds of some work, of each call on the thread that makes it."""

    seconds: list[float] = attrs.field(factory=list)

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, which counts here."""

        def call(*args: Any, **options: Any) -> Any:
            started = time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds.append(time.thread_time() - started)

        return call
