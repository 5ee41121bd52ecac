"""Layout of the gallery: accessible in light and dark, no sideways scrolling on a phone, screenshots to judge by eye."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from pika_async.report.writer import GalleryWriter
from tests.browser.conftest import OpenGallery
from tests.browser.hostile_batch import BatchPage

pytestmark = pytest.mark.browser

WIDTHS = (390, 800, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing(
    open_gallery: OpenGallery, batch: BatchPage, artefacts: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    """The page meets WCAG 2.2 AA as far as a program can see, the player too; both are kept as pictures."""
    gallery = open_gallery(width=width, color_scheme=scheme)
    gallery.resize()
    gallery.page.screenshot(path=artefacts / f"gallery-{width}-{scheme}.png")
    assert gallery.axe_violations() == []
    gallery.resize(900)
    gallery.card("cometapi-0").click()
    gallery.wait_playing(gallery.player)
    gallery.page.screenshot(path=artefacts / f"player-{width}-{scheme}.png")
    assert gallery.axe_violations() == []
    gallery.page.keyboard.press("Escape")
    gallery.card("native-failed").click()
    gallery.dialog.wait_for()
    assert gallery.axe_violations() == []


@pytest.mark.parametrize("width", [320, *WIDTHS, 2560])
def test_the_page_is_never_wider_than_the_window(open_gallery: OpenGallery, width: int) -> None:
    """Words of 300 letters and wide tables wrap or scroll inside their own boxes."""
    assert open_gallery(width=width).overflow() == 0


@pytest.mark.parametrize(("width", "is_open"), [(320, False), (390, False), (800, True), (1280, True)])
def test_problems_are_one_line_on_a_phone(open_gallery: OpenGallery, width: int, is_open: bool) -> None:
    """The line has the counts, stands before the videos and opens the table; a wide window shows the table at once."""
    gallery = open_gallery(width=width, height=844)
    problems = gallery.region("Problems")
    table = problems.get_by_role("table")
    assert table.is_visible() is is_open
    for words in ("4 failed", "4 in doubt", "4 rejected"):
        assert words in problems.locator("summary").inner_text()
    first = gallery.card(gallery.shown()[0]).bounding_box()
    assert first is not None
    assert is_open or first["y"] < 844
    problems.locator("summary").press("Enter")
    assert table.is_visible() is not is_open
    assert gallery.overflow() == 0


def test_a_page_without_a_finished_job_is_one_sentence(browser: Browser, tmp_path: Path) -> None:
    """There is nothing to search or to filter, and planned jobs are a count with the command that continues."""
    writer = GalleryWriter(tmp_path, "empty")
    writer.expect(["a", "b"])
    with ThreadPoolExecutor(1) as pool:  # the browser's event loop runs in this thread
        path = pool.submit(writer.finish).result()
    page = browser.new_page()
    page.goto(path.as_uri())
    text = page.inner_text("body")
    page.close()
    assert text.count("Nothing has finished yet.") == 1
    assert f"pika-async resume {tmp_path}" in text
    assert "2 planned" in text
    assert "shown" not in text


def test_a_narrow_card_has_few_lines(open_gallery: OpenGallery, batch: BatchPage) -> None:
    """The prompt and the facts below an upright video take two lines each at most."""
    gallery = open_gallery(width=1280)
    end = "getBoundingClientRect().bottom"
    below = f"article => article.lastElementChild.{end} - article.querySelector('video').{end}"
    heights = {key: gallery.card(key).evaluate(below) for key in batch.playable}
    assert len(heights) > 20
    assert max(heights.values()) < 100, heights


def test_forced_colors_keep_borders_and_states(open_gallery: OpenGallery, artefacts: Path) -> None:
    """A pressed filter differs from the others, and no text has the colour of its ground."""
    gallery = open_gallery(width=1280, forced_colors="active")
    chips = gallery.page.locator("button[aria-pressed]")
    chips.first.click()
    outlines = chips.evaluate_all("all => all.map(chip => getComputedStyle(chip).outlineStyle)")
    gallery.page.screenshot(path=artefacts / "gallery-1280-forced.png")
    assert outlines[0] == "solid"
    assert set(outlines[1:]) == {"none"}
    assert gallery.axe_violations() == []


@pytest.mark.parametrize("key", ["h-long", "native-failed"])
def test_the_player_fits_a_phone(open_gallery: OpenGallery, key: str) -> None:
    """All of it can be reached by scrolling down."""
    gallery = open_gallery(width=320, height=568)
    gallery.card(key).click()
    gallery.dialog.wait_for()
    box = gallery.dialog.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 320
    assert box["y"] + box["height"] <= 568
    assert gallery.dialog.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0
