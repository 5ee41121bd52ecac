"""Starts of a worker that are cut short."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from dbos import DBOS

from pika_async.emulator import Emulator
from pika_async.engines.leases import Lease
from pika_async.engines.worker_errors import plain_errors
from pika_async.errors import JournalFailed
from tests.engines.worker_process import account, eventually, opened

pytestmark = pytest.mark.anyio


async def test_a_worker_that_is_cancelled_while_it_starts_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is launched in a thread, which a cancellation does not reach."""
    launch, launching, cancelled, launched = DBOS._launch, threading.Event(), threading.Event(), threading.Event()

    def launch_late(self: DBOS, **options: Any) -> None:
        launching.set()
        assert cancelled.wait(60)
        try:
            launch(self, **options)
        finally:
            launched.set()

    monkeypatch.setattr(DBOS, "_launch", launch_late)
    before = {thread.name for thread in threading.enumerate()}
    async with Emulator() as emulator, opened(f"sqlite:///{tmp_path}/cluster.db", account(emulator)) as cluster:
        worker = asyncio.create_task(cluster.run_worker())
        await eventually(launching.is_set)
        worker.cancel()
        asyncio.get_running_loop().call_later(0.1, cancelled.set)
        with pytest.raises(asyncio.CancelledError):
            await worker
        await eventually(launched.is_set)
        left = {thread.name for thread in threading.enumerate()} - before
    assert [name for name in left if "queue" in name] == []


def test_a_start_without_the_database_ends_with_its_error_alone() -> None:
    failed = JournalFailed(provider="", reason="connection refused", path="postgresql://127.0.0.1/cluster")
    with pytest.raises(JournalFailed, match="connection refused"), plain_errors(Lease("one", 6.0)):
        raise BaseExceptionGroup("", [ExceptionGroup("", [failed])])
