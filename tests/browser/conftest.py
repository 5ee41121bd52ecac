"""Fixtures of the browser tests: one batch, one browser, and a page that must stay free of errors and requests."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.board_fixtures import board_server, open_board
from tests.browser.gallery_page import GalleryPage
from tests.browser.hostile_batch import BatchPage, make_batch_page
from tests.fakes.requirements import require_program

__all__ = ["board_server", "open_board"]

#: Opens the page with options of a browser context, such as `color_scheme`.
OpenGallery = Callable[..., GalleryPage]
#: Milliseconds to wait for an element or a state, on a busy machine.
TIMEOUT_MS = 10_000
#: No name resolves but those of this machine and one of another site that points here: nothing leaves the machine.
OFFLINE = "--host-resolver-rules=MAP rebound.example 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start the installed Chromium, without a window. Playwright's own browsers are not used."""
    program = require_program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[OFFLINE])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def batch(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> BatchPage:
    """Return the folder of a batch with every outcome and hostile prompts; needs the browser first."""
    return make_batch_page(tmp_path_factory.mktemp("gallery") / "batch")


@pytest.fixture
def open_gallery(browser: Browser, batch: BatchPage) -> Iterator[OpenGallery]:
    """Open the batch's page from the file system.

    Afterwards the console must be free of errors, and every request must be for a file of the folder.
    """
    pages: list[GalleryPage] = []
    with contextlib.ExitStack() as stack:

        def opened(*, width: int = 1280, height: int = 900, **options: Any) -> GalleryPage:
            context = browser.new_context(viewport={"width": width, "height": height}, **options)
            stack.callback(context.close)
            context.set_default_timeout(TIMEOUT_MS)
            gallery = GalleryPage(context.new_page())
            pages.append(gallery)
            gallery.page.goto(batch.url)
            return gallery

        yield opened
        for gallery in pages:
            assert gallery.page.evaluate("window.breached ?? null") is None
            assert gallery.faults == []
            elsewhere = [url for url in gallery.requests if not url.startswith(batch.folder.as_uri() + "/")]
            assert [url for url in elsewhere if not url.startswith(("data:", "blob:"))] == []


@pytest.fixture
def gallery(open_gallery: OpenGallery) -> GalleryPage:
    """Return the batch's page in a window of 1,280 pixels."""
    return open_gallery()


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder for screenshots: `PIKA_BROWSER_ARTEFACTS`, by default a temporary one."""
    given = os.environ.get("PIKA_BROWSER_ARTEFACTS")
    folder = Path(given) if given else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
