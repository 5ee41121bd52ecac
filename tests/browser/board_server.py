"""The live board of a folder whose journal a test writes to, served from a thread; it can go away and come back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
from anyio.from_thread import BlockingPortal, start_blocking_portal
from playwright.sync_api import Locator

from pika_async import Job
from pika_async._journal.sqlite import SqliteJournal
from pika_async.report.board import Board
from pika_async.report.board_access import BoardAccess
from pika_async.report.board_servers import serving
from pika_async.report.board_source import JournalFollower
from tests.browser.gallery_page import GalleryPage

__all__ = ["BoardPage", "BoardServer", "serving_board"]

TOKEN = "b" * 43


@attrs.define
class BoardServer:
    """Server of the board of `folder`, and the owner of its journal."""

    folder: Path
    portal: BlockingPortal
    journal: SqliteJournal
    is_running: bool = True
    url: str = ""
    _server: AbstractContextManager[str] | None = None

    @property
    def origin(self) -> str:
        return self.url.partition("/?")[0]

    def start(self, token: str = TOKEN) -> None:
        """Serve on a free port; after a stop on the same one again."""
        port = int(self.origin.rpartition(":")[2]) if self.url else 0
        follower = JournalFollower(self.folder, self.folder / "journal.db")
        board = Board(follower, BoardAccess(token), "a live batch", lambda: self.is_running)
        self._server = self.portal.wrap_async_context_manager(serving(board, "127.0.0.1", port))
        self.url = self._server.__enter__()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.__exit__(None, None, None)

    def save(self, *jobs: Job) -> None:
        """Write jobs to the journal, as a batch does."""
        self.portal.call(self.journal.save, *jobs)

    def changed(self, key: str, **changes: Any) -> Job:
        """Return a job of the journal with changes."""
        job = self.journal.get(key)
        assert job is not None
        return attrs.evolve(job, **changes)


@contextmanager
def serving_board(folder: Path) -> Iterator[BoardServer]:
    """Serve the board of `folder` while the body runs."""
    with start_blocking_portal() as portal, ExitStack() as stack:
        journal = SqliteJournal(folder / "journal.db")
        portal.call(journal.open)
        stack.callback(portal.call, journal.close)
        server = BoardServer(folder, portal, journal)
        server.start()
        stack.callback(server.stop)
        yield server


@attrs.define(slots=False)
class BoardPage(GalleryPage):
    """The board in the browser."""

    expected: tuple[str, ...] = ()

    @property
    def state(self) -> Locator:
        """The line that says whether the page is live."""
        return self.page.get_by_role("status").filter(
            has_text=re.compile("live|stale|batch|board|journal", re.IGNORECASE)
        )

    def wait_state(self, start: str) -> None:
        """Wait until the line of the state begins with `start`."""
        self.page.wait_for_function("start => document.querySelector('#live').textContent.startsWith(start)", arg=start)

    def mark(self) -> None:
        """Mark the document and each card as they are now."""
        self.page.evaluate(
            "window.isMarked = true; for (const card of document.querySelectorAll('article')) card.isOld = true"
        )

    def is_same_document(self) -> bool:
        is_marked: bool = self.page.evaluate("window.isMarked === true")
        return is_marked

    def new_cards(self) -> list[str]:
        """Return the keys of the cards that were drawn since `mark`."""
        keys: list[str] = self.page.locator("article").evaluate_all(
            "cards => cards.filter(card => !card.isOld).map(card => card.dataset.key)"
        )
        return keys

    def wait_cards(self, keys: Iterable[str]) -> None:
        """Wait until these cards, and perhaps others, are on the page."""
        self.page.wait_for_function(
            """keys => {
              const drawn = new Set([...document.querySelectorAll("article")].map(card => card.dataset.key));
              return keys.every(key => drawn.has(key));
            }""",
            arg=sorted(keys),
        )

    def forgive(self, *texts: str) -> None:
        """Leave out faults that hold one of `texts`, which the test causes."""
        self.expected += texts

    def unexpected_faults(self) -> list[str]:
        """Return the faults that the test has not caused."""
        return [fault for fault in self.faults if not any(text in fault for text in self.expected)]
