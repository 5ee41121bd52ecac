"""Collections of garbage that stay short, however many jobs a command keeps to its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

__all__ = ["short_collections"]

#: The generation that holds every object that was not collected, so that a collection of it visits them all.
_OLDEST: Final = 2


@contextmanager
def short_collections() -> Iterator[None]:
    """Let no full collection visit an object twice while the body runs.

    A collection holds every thread, and the jobs of a command live to its end: each full one would visit all of them
    and find nothing. What survives one is never collected, even if it becomes garbage in a cycle later: only for the
    main work of a process that ends with it.
    """
    gc.freeze()
    gc.callbacks.append(_freeze_survivors)
    try:
        yield
    finally:
        gc.callbacks.remove(_freeze_survivors)


def _freeze_survivors(phase: str, info: Mapping[str, Any]) -> None:
    if phase == "stop" and info["generation"] == _OLDEST:
        gc.freeze()
