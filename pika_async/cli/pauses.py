"""Short pauses of the event loop while a command keeps many jobs and writes its files in threads."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["short_pauses"]

#: The generation that holds every object that was not collected, so that a collection of it visits them all.
_OLDEST: Final = 2
#: Collections of the middle generation before a full one. Each leaves at most 7,000 objects, which take 3 ms.
_MIDDLE_BEFORE_FULL: Final = 3
#: Seconds after which a thread that computes lets the loop's thread go on: it waits as long after each read of a file.
_SWITCH_INTERVAL_S: Final = 0.0005


@contextmanager
def short_pauses() -> Iterator[None]:
    """Keep collections of garbage, and the turns of other threads, short while the body runs.

    A collection holds every thread, and the jobs of a command live to its end: each full one would visit all of them
    and find nothing. What survives one is never collected, even if it becomes garbage in a cycle later: only for the
    main work of a process that ends with it.
    """
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.callbacks.append(_freeze_survivors)
    gc.set_threshold(*thresholds[:_OLDEST], _MIDDLE_BEFORE_FULL)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(_freeze_survivors)


def _freeze_survivors(phase: str, info: Mapping[str, Any]) -> None:
    if phase == "stop" and info["generation"] == _OLDEST:
        gc.freeze()
