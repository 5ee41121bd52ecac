"""Fixtures of the board's browser tests."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.board_server import BoardPage, BoardServer, serving_board
from tests.browser.hostile_batch import BatchPage

#: Opens the board with options of a browser context; without an address that of `board_server`.
OpenBoard = Callable[..., BoardPage]
#: Milliseconds to wait for a state, on a busy machine.
TIMEOUT_MS = 30_000


@pytest.fixture
def board_server(batch: BatchPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BoardServer]:
    """Serve the board of a copy of the batch; it gives a sign of life each second."""
    monkeypatch.setattr("pika_async.report.board.BEAT_S", 1.0)
    folder = tmp_path / "live"
    shutil.copytree(batch.folder, folder, ignore=shutil.ignore_patterns("*.lock"))
    with serving_board(folder) as server:
        yield server


@pytest.fixture
def open_board(browser: Browser, request: pytest.FixtureRequest) -> Iterator[OpenBoard]:
    """Open a board.

    Afterwards the console must be free of errors, and every request must have gone to the board.
    """
    pages: list[tuple[BoardPage, str]] = []
    with contextlib.ExitStack() as stack:

        def opened(url: str | None = None, *, width: int = 1280, height: int = 900, **options: Any) -> BoardPage:
            address: str = request.getfixturevalue("board_server").url if url is None else url
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            stack.callback(context.close)
            context.set_default_timeout(TIMEOUT_MS)
            board = BoardPage(context.new_page())
            pages.append((board, address.partition("/?")[0]))
            board.page.goto(address)
            return board

        yield opened
        for board, origin in pages:
            assert board.page.evaluate("window.breached ?? null") is None
            assert board.unexpected_faults() == [], board.faults
            elsewhere = [url for url in board.requests if not url.startswith(origin + "/")]
            assert [url for url in elsewhere if not url.startswith(("data:", "blob:"))] == [], elsewhere
