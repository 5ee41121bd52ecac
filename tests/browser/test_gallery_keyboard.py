"""The gallery without a mouse, its problems and its timeline, and the page on paper."""

from __future__ import annotations

import re

import pytest

from tests.browser.gallery_page import GalleryPage
from tests.browser.hostile_batch import CRASH_REASON, FAILURE_REASON, BatchPage

pytestmark = pytest.mark.browser

#: More than the page has elements to stop at.
MAX_TABS = 250


def test_tab_walks_search_filters_and_cards(gallery: GalleryPage, batch: BatchPage) -> None:
    """The order is that of the page, every card is reached once, and the walk ends behind the last one."""
    stops: list[str] = []
    while len(stops) < MAX_TABS:
        gallery.page.keyboard.press("Tab")
        if (stop := gallery.focus()) == "body":
            break
        stops.append(stop)
    assert len(stops) < MAX_TABS, "Tab never left the page"
    search, chip = stops.index("searchbox"), stops.index("filter")
    cards = [stop.removeprefix("card ") for stop in stops if stop.startswith("card ")]
    first_card = next(place for place, stop in enumerate(stops) if stop.startswith("card "))
    assert search < chip < first_card
    assert list(dict.fromkeys(cards)) == gallery.shown()


def test_the_focus_can_be_seen(gallery: GalleryPage, batch: BatchPage) -> None:
    """The element that has it changes: an outline, a border or a shadow."""
    gallery.search_box.focus()
    gallery.page.keyboard.press("Tab")
    style = "getComputedStyle(document.activeElement)"
    assert gallery.page.evaluate(f"{style}.outlineStyle !== 'none' || {style}.boxShadow !== 'none'")


def test_problems_are_grouped_by_reason(gallery: GalleryPage, batch: BatchPage) -> None:
    """Each group has its count, its reason and a command that helps; together they are all jobs that did not succeed."""
    rows = gallery.problem_rows()
    counts = [int(found.group()) for row in rows if (found := re.search(r"\d+", row))]
    assert sum(counts) == sum(row["status"] in {"failed", "rejected", "unknown"} for row in batch.results)
    assert all("pika-async " in row for row in rows)
    for reason, count in ((CRASH_REASON, 1), (FAILURE_REASON, 3)):
        assert [row for row in rows if reason in row and re.search(rf"\b{count}\b", row)]
    assert [row for row in rows if "in doubt" in row.lower() and "pika-async resolve" in row]


def test_problems_stand_before_the_videos(gallery: GalleryPage, batch: BatchPage) -> None:
    """A person sees first what needs a person."""
    problems = gallery.region("Problems").bounding_box()
    first = gallery.card(gallery.shown()[0]).bounding_box()
    assert problems is not None
    assert first is not None
    assert problems["y"] + problems["height"] <= first["y"]


def test_the_timeline_is_a_named_picture(gallery: GalleryPage) -> None:
    """It stands in a region of its own, as an SVG that has a title."""
    drawing = gallery.region("Timeline").locator("svg", has=gallery.page.locator("title")).first
    assert (drawing.locator("title").first.text_content() or "").strip()
    assert drawing.is_visible()


def test_the_page_prints_as_a_contact_sheet(gallery: GalleryPage, batch: BatchPage) -> None:
    """On paper there are the cards and no controls."""
    gallery.page.emulate_media(media="print")
    assert not gallery.search_box.is_visible()
    assert not gallery.page.get_by_role("button", name="succeeded").first.is_visible()
    assert set(gallery.shown()) >= batch.playable
    assert gallery.page.pdf().startswith(b"%PDF-")
