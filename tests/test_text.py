"""Text of users and gateways in messages: inert, and shown as it was written."""

from __future__ import annotations

import re

import pytest

from pika_async.errors import strip_control


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f469\u200d\U0001f4bb",
        "\u2764\ufe0f\u200d\U0001f525",
        "\U0001f3f3\ufe0f\u200d\U0001f308",
        "می\u200cخواهم",
        "क्\u200dष",
    ],
)
def test_joiners_of_emoji_and_scripts_are_kept(text: str) -> None:
    """An emoji of several, or a word of Persian or Hindi, is shown as it was written."""
    assert strip_control(f"a {text} b") == f"a {text} b"


@pytest.mark.parametrize(
    "text",
    [
        "pay\u200dpal",
        "pay\u200cpal",
        "\u200da",
        "\U0001f469\u200d",
        "\U0001f469\u200d\u200d\U0001f4bb",
        "a\u202eb",
        "a\u2066b",
        "a\u200bb",
        "a\ufeffb",
    ],
)
def test_other_invisible_characters_are_replaced(text: str) -> None:
    """Joiners elsewhere, overrides of direction, spaces without a width."""
    assert re.search("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", strip_control(text)) is None
