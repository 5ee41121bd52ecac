"""Pauses of the event loop while a command keeps many jobs."""

from __future__ import annotations

import contextlib
import gc
import sys
from typing import Any

from pika_async.cli.pauses import short_pauses


def test_a_full_collection_visits_what_is_new() -> None:
    """What existed before, or survived a full collection, is not visited by the next one; afterwards nothing is special."""
    visited: list[int] = []

    def count(phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"] == 2:
            visited.append(sum(isinstance(one, Kept) for one in gc.get_objects()))

    class Kept:
        def __init__(self) -> None:
            self.content: list[object] = []

    callbacks = list(gc.callbacks)
    gc.callbacks.append(count)
    try:
        kept = [Kept() for _ in range(100)]
        with short_pauses():
            gc.collect()
            kept += [Kept() for _ in range(10)]
            gc.collect()
            gc.collect()
        kept.append(Kept())
        gc.collect()
        gc.collect()
    finally:
        gc.callbacks.remove(count)
    assert visited == [0, 10, 0, 1, 1]
    assert gc.callbacks == callbacks
    assert len(kept) == 111


def test_what_the_interpreter_did_before_it_does_again() -> None:
    """Thresholds and the turns of threads are shorter in the body, and as they were after it, however it ends."""
    before = gc.get_threshold(), sys.getswitchinterval()
    with contextlib.suppress(KeyError), short_pauses():
        meanwhile = gc.get_threshold(), sys.getswitchinterval()
        raise KeyError
    assert meanwhile[0][2] < before[0][2]
    assert meanwhile[1] < before[1]
    assert (gc.get_threshold(), sys.getswitchinterval()) == before
