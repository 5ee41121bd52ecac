"""The large player: opened from a card, walked by keys, with the texts to copy."""

from __future__ import annotations

import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest
from playwright.sync_api import Browser

from pika_async.models.results import RouteStep
from pika_async.report.writer import GalleryWriter
from tests.browser.conftest import OpenGallery
from tests.browser.gallery_page import GalleryPage
from tests.browser.hostile_batch import HOSTILE_PROMPTS, BatchPage
from tests.report.jobs import failed

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("way", ["Enter", "click"])
def test_a_card_opens_the_player_and_gets_the_focus_back(gallery: GalleryPage, batch: BatchPage, way: str) -> None:
    """Escape closes it; the keyboard goes on from the card that was left."""
    key = gallery.shown_among(batch.playable)[2]
    if way == "click":
        gallery.card(key).click()
    else:
        gallery.card(key).focus()
        gallery.page.keyboard.press(way)
    gallery.dialog.wait_for()
    gallery.wait_source(batch.video_url(key))
    gallery.page.keyboard.press("Escape")
    gallery.dialog.wait_for(state="hidden")
    gallery.wait_focused(key)


def test_arrows_go_to_the_next_video_and_back(gallery: GalleryPage, batch: BatchPage) -> None:
    """After Escape the focus is on the card whose video was shown last."""
    keys = gallery.shown_among(batch.playable)
    gallery.card(keys[0]).click()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        gallery.page.keyboard.press(key)
        gallery.wait_source(batch.video_url(keys[place]))
    gallery.page.keyboard.press("Escape")
    gallery.wait_focused(keys[1])


def test_space_pauses_and_plays(gallery: GalleryPage, batch: BatchPage) -> None:
    """The player starts by itself."""
    gallery.card("cometapi-0").click()
    gallery.wait_playing(gallery.player)
    gallery.page.keyboard.press("Space")
    gallery.wait_paused(gallery.player)
    gallery.page.keyboard.press("Space")
    gallery.wait_playing(gallery.player)


def test_the_player_follows_the_filter(gallery: GalleryPage, batch: BatchPage) -> None:
    """The arrows stay among the cards that are shown."""
    gallery.search_box.fill("a paper boat")
    expected = {key for key in batch.playable if "a paper boat" in batch.requests[key]["prompt"]}
    gallery.wait_shown(expected)
    gallery.card(min(expected)).click()
    seen = set()
    for _ in range(len(expected)):
        seen.add(gallery.player.evaluate("video => video.src"))
        gallery.page.keyboard.press("ArrowRight")
    assert seen == {batch.video_url(key) for key in expected}


def test_the_focus_stays_in_the_player(gallery: GalleryPage, batch: BatchPage) -> None:
    """Tab reaches its buttons and none of the page behind it."""
    gallery.card("cometapi-0").click()
    reached = set()
    for _ in range(12):
        gallery.page.keyboard.press("Tab")
        assert gallery.focused_key() is None
        assert gallery.page.evaluate("document.activeElement.matches('dialog *, dialog, [role=dialog] *, body')")
        reached.add(gallery.page.evaluate("document.activeElement.textContent"))
    assert any("copy prompt" in text.lower() for text in reached)


def test_the_player_has_what_a_card_leaves_out(gallery: GalleryPage, batch: BatchPage) -> None:
    """Key, task id and polls are in its text."""
    key = "cometapi-0"
    gallery.card(key).click()
    text = gallery.dialog.inner_text()
    assert key in text
    assert batch.finished[key]["task_id"] in text
    assert re.search(rf"polls\s+{batch.finished[key]['polls']}\b", text, re.IGNORECASE)


def test_the_player_has_the_account_and_the_way_of_a_job(browser: Browser, tmp_path: Path) -> None:
    """The account, the cost, and each submission with what came of it; a reason is text and no markup."""
    step = RouteStep("second", "stop", datetime(2026, 1, 2, tzinfo=UTC), "<b>no balance</b>")
    job = attrs.evolve(failed("k", "moderation"), account="main", cost=0.5, earlier_steps=(step,))
    writer = GalleryWriter(tmp_path, "accounts")
    writer.add(job)
    with ThreadPoolExecutor(1) as pool:  # Playwright runs an event loop in this thread
        assert pool.submit(writer.finish).result() == tmp_path / "index.html"
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.get_by_role("article").click()
    text = page.get_by_role("dialog").inner_text()
    assert re.search(r"account\s+main\b", text, re.IGNORECASE)
    assert re.search(r"cost\s+0.50?\b", text, re.IGNORECASE)
    assert "second: stop (<b>no balance</b>) \u2192 main: accepted" in text
    page.close()


def test_the_prompt_and_the_key_are_copied_whole(open_gallery: OpenGallery, batch: BatchPage) -> None:
    """What is pasted is what was given, letter by letter."""
    gallery = open_gallery(permissions=["clipboard-read", "clipboard-write"])
    for key in ("cometapi-0", "h-script", "h-quotes", "h-arabic", "h-rtl"):
        gallery.card(key).click()
        for name, expected in (("copy prompt", batch.requests[key]["prompt"]), ("copy key", key)):
            gallery.dialog.get_by_role("button", name=name).click()
            gallery.page.wait_for_function("async text => await navigator.clipboard.readText() === text", arg=expected)
        gallery.page.keyboard.press("Escape")


def test_the_command_that_makes_it_again_is_copied(open_gallery: OpenGallery, batch: BatchPage) -> None:
    """It is one command for a shell, with the prompt as it was given."""
    gallery = open_gallery(permissions=["clipboard-read", "clipboard-write"])
    for key in ("cometapi-0", "h-quotes", "h-template"):
        gallery.card(key).click()
        gallery.dialog.get_by_role("button", name=re.compile("copy.*(command|again)", re.IGNORECASE)).click()
        gallery.page.wait_for_function("async () => (await navigator.clipboard.readText()).startsWith('pika-async ')")
        command = shlex.split(gallery.page.evaluate("navigator.clipboard.readText()"))
        assert batch.requests[key]["prompt"] in command or {str(batch.folder), key} <= set(command)
        gallery.page.keyboard.press("Escape")


def test_a_hostile_prompt_is_text_in_the_player(gallery: GalleryPage) -> None:
    """It makes no element, and the player fits the window."""
    count = "document.querySelectorAll('script, iframe, img, style, link').length"
    before = gallery.page.evaluate(count)
    for key in HOSTILE_PROMPTS:
        gallery.card(key).click()
        gallery.dialog.wait_for()
        assert gallery.page.evaluate(count) == before, key
        assert gallery.overflow() == 0, key
        assert gallery.dialog.evaluate("dialog => dialog.scrollWidth - dialog.clientWidth") == 0, key
        gallery.page.keyboard.press("Escape")
