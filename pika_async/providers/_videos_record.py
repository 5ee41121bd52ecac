"""What the gateways of the videos dialect have in common as records; each names where it differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pika_async.fields import EFFECTS
from pika_async.models import GenerationRequest
from pika_async.providers._provider import Capability, Provider

__all__ = ["INLINE_LIMIT", "TEN_EFFECTS", "capabilities", "ratio_is_not_for_images"]

#: The effects that gpt.ge and YEScale list.
TEN_EFFECTS: Final = EFFECTS[:10]
#: Characters of base64: users of several such gateways report bodies over about 1 MB refused or cut. The rest of the
#: body needs some of that.
INLINE_LIMIT: Final = 980_000


def capabilities(
    *,
    video: str | None = None,
    ingredients: str | None = None,
    aspect_ratio: str = "a number, 0.4 to 2.5; with an image its own ratio is used",
) -> Mapping[str, Capability]:
    """The table of one gateway; `video` and `ingredients` are notes, or None where its page has no such field."""
    no_mix = "its page documents no ingredients"
    return {
        "image": Capability("image", "an address, or base64 up to 1 MB"),
        "video": Capability("video", video) if video else Capability(None, "its page documents no video input"),
        "ingredients": Capability("ingredient", ingredients) if ingredients else Capability(None, no_mix),
        "ingredients_mode": (
            Capability("options.ingredients-mode", "precise unless given, or creative")
            if ingredients
            else Capability(None, no_mix)
        ),
        "effect": Capability("pikaffect", "10 effects" if ingredients is None else "13 effects"),
        "aspect_ratio": Capability("options.aspectRatio", aspect_ratio),
        "frame_rate": Capability("options.frameRate", "8 to 24, 24 unless given"),
        "camera": Capability("options.camera", "pan, tilt, rotate, zoom"),
        "guidance_scale": Capability("options.parameters.guidanceScale", "5 to 25, 12 unless given"),
        "motion": Capability("options.parameters.motion", "0 to 4, 1 unless given"),
        "negative_prompt": Capability("options.parameters.negativePrompt"),
        "seed": Capability("options.parameters.seed"),
        "sfx": Capability(None, "its wire has no switch for sound; effects bring their own"),
        "extend": Capability("options.extend", "with the video to extend" if video else "as documented, a flag only"),
        "model": Capability("model", "text, 1.5 unless given" + ("; 2.0 for ingredients" if ingredients else "")),
    }


def ratio_is_not_for_images(provider: Provider, request: GenerationRequest) -> None:
    """The pages ask to leave the ratio out for an image; a wish that would be ignored is refused instead."""
    if request.aspect_ratio is not None and request.kind == "image":
        raise provider.refusal(
            "aspect_ratio", request.aspect_ratio,
            f"is not taken with an image at {provider.title}: its own ratio is used; leave it out",
        )  # fmt: skip
