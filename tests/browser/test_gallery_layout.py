"""Layout of the gallery: accessible in light and dark, no sideways scrolling on a phone, screenshots to judge by eye."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

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


@pytest.mark.parametrize("width", [320, *WIDTHS, 2560])
def test_the_page_is_never_wider_than_the_window(open_gallery: OpenGallery, width: int) -> None:
    """Words of 300 letters and wide tables wrap or scroll inside their own boxes."""
    assert open_gallery(width=width).overflow() == 0


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
