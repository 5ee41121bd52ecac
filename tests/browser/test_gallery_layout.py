"""Layout of the gallery: accessible in light and dark, no sideways scrolling on a phone, screenshots to judge by eye."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from tests.browser.conftest import OpenGallery

pytestmark = pytest.mark.browser

WIDTHS = (390, 800, 1280)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_picture_is_kept(
    open_gallery: OpenGallery, artefacts: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    """Each width and colour scheme can be judged by eye."""
    gallery = open_gallery(width=width, color_scheme=scheme)
    gallery.page.screenshot(path=artefacts / f"gallery-{width}-{scheme}.png", full_page=width > 390)


@pytest.mark.parametrize("width", [320, *WIDTHS, 2560])
def test_the_page_is_never_wider_than_the_window(open_gallery: OpenGallery, width: int) -> None:
    """Words of 300 letters and wide tables wrap or scroll inside their own boxes."""
    assert open_gallery(width=width).overflow() == 0
