"""Common parts of the records of the gateways that speak the videos dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pika_async.models import GenerationRequest
from pika_async.models.fields import EFFECTS
from pika_async.providers._capabilities import Capability
from pika_async.providers._provider import Provider

__all__ = ["INLINE_LIMIT", "TEN_EFFECTS", "capabilities", "ratio_is_not_for_images"]

#: The effects that gpt.ge and YEScale document.
TEN_EFFECTS: Final = EFFECTS[:10]
#: Characters of base64. Not documented: users of several such gateways report that bodies over about 1 MB are refused
#: or cut (November 2026), and the rest of the body needs some of that.
INLINE_LIMIT: Final = 980_000


def capabilities(
    *,
    video: str | None = None,
    ingredients: str | None = None,
    effects: int = len(TEN_EFFECTS),
    aspect_ratio: str = "a number, 0.4 to 2.5; not with an image, whose own ratio is used",
) -> Mapping[str, Capability]:
    """Return the capability table of one gateway.

    :param video: the note on video input; None where the gateway's page has no such field.
    :param ingredients: the note on ingredients; None where the gateway's page has no such field.
    :param effects: the number of effects that the gateway's page lists.
    :param aspect_ratio: the note on the ratio.
    """
    no_ingredients = "its page documents no ingredients"
    return {
        "image": Capability("image", "a URL, or base64 up to 1 MB"),
        "video": Capability("video", video) if video else Capability(None, "its page documents no video input"),
        "ingredients": Capability("ingredient", ingredients) if ingredients else Capability(None, no_ingredients),
        "ingredients_mode": (
            Capability("options.ingredients-mode", "precise (default) or creative")
            if ingredients
            else Capability(None, no_ingredients)
        ),
        "effect": Capability("pikaffect", f"{effects} effects"),
        "aspect_ratio": Capability("options.aspectRatio", aspect_ratio),
        "frame_rate": Capability("options.frameRate", "8 to 24, default 24"),
        "camera": Capability("options.camera", "pan, tilt, rotate, zoom"),
        "guidance_scale": Capability("options.parameters.guidanceScale", "5 to 25, default 12"),
        "motion": Capability("options.parameters.motion", "0 to 4, default 1"),
        "negative_prompt": Capability("options.parameters.negativePrompt"),
        "seed": Capability("options.parameters.seed"),
        "sfx": Capability(None, "its wire has no switch for sound; effects bring their own"),
        "extend": Capability("options.extend", "with the video to extend" if video else "as documented, a flag only"),
        "model": Capability("model", "text, default 1.5" + ("; 2.0 for ingredients" if ingredients else "")),
        "duration": Capability(None, "its page documents no duration"),
        "resolution": Capability(None, "its page documents no resolution"),
        "last_image": Capability(None, "its page documents no last image"),
    }


def ratio_is_not_for_images(provider: Provider, request: GenerationRequest) -> None:
    """Refuse a ratio beside an image: the pages ask to leave it out, and it would be ignored."""
    if request.aspect_ratio is not None and request.kind == "image":
        raise provider.refusal(
            "aspect_ratio", request.aspect_ratio,
            f"must be left out with image input at {provider.title}, which uses the ratio of that input",
        )  # fmt: skip
