"""Videos of the gallery: real files that play on hover, focus and click, and stay still for those who ask for it."""

from __future__ import annotations

import pytest

from tests.browser.conftest import OpenGallery
from tests.browser.gallery_page import GalleryPage
from tests.browser.hostile_batch import BatchPage

pytestmark = pytest.mark.browser


def test_a_video_plays_while_the_pointer_is_on_its_card(gallery: GalleryPage, batch: BatchPage) -> None:
    """It is muted, runs again from the start, and pauses when the pointer leaves."""
    key = "cometapi-0"
    video = gallery.video(key)
    gallery.card(key).hover()
    gallery.wait_playing(video)
    assert video.evaluate("video => [video.muted, video.loop]") == [True, True]
    gallery.page.mouse.move(1, 1)
    gallery.wait_paused(video)


def test_a_video_plays_while_its_card_has_the_focus(gallery: GalleryPage, batch: BatchPage) -> None:
    """The next card takes over: one video plays at a time."""
    first, second = "cometapi-0", "h-rtl"
    gallery.card(first).focus()
    gallery.wait_playing(gallery.video(first))
    gallery.card(second).focus()
    gallery.wait_playing(gallery.video(second))
    gallery.wait_paused(gallery.video(first))


def test_a_click_plays_the_video_in_the_large_player(gallery: GalleryPage, batch: BatchPage) -> None:
    """The card's own video pauses meanwhile."""
    key = "gptge-0"
    gallery.card(key).click()
    gallery.wait_playing(gallery.player)
    gallery.wait_paused(gallery.video(key))


def test_every_video_can_be_played(gallery: GalleryPage, batch: BatchPage) -> None:
    """The large player reaches each file and knows its length, whatever the prompt and the key are."""
    keys = gallery.shown_among(batch.playable)
    gallery.card(keys[0]).click()
    for key in keys:
        gallery.wait_source(batch.video_url(key))
        gallery.page.wait_for_function("video => video.duration > 0", arg=gallery.player.element_handle())
        gallery.page.keyboard.press("ArrowRight")


def test_nothing_moves_by_itself_under_reduced_motion(open_gallery: OpenGallery, batch: BatchPage) -> None:
    """A pointer that passes, or the focus, starts no video, and nothing is animated; Space in the player plays."""
    gallery = open_gallery(reduced_motion="reduce")
    key = "cometapi-0"
    gallery.card(key).hover()
    gallery.card(key).focus()
    assert gallery.page.evaluate("document.getAnimations().length") == 0
    assert gallery.video(key).evaluate("video => video.paused")
    gallery.page.keyboard.press("Enter")
    gallery.page.keyboard.press("Space")
    gallery.wait_playing(gallery.player)
