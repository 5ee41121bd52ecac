"""CometAPI: the envelope dialect, a number for the model, the ratio as text, the effect under the name `style`.

Source: CometAPI's API Doc, PIKA(video), read in November 2026. It has pages for text input only; what an image or a
video takes is from the pages of a gateway with the same wire.
"""

from __future__ import annotations

from typing import Final

from pika_async.models import GenerationRequest
from pika_async.models.fields import EFFECTS
from pika_async.providers._capabilities import VERSION, Capability
from pika_async.providers._envelope import ENVELOPE
from pika_async.providers._provider import Provider

__all__ = ["COMETAPI"]


def _video_needs_effect(provider: Provider, request: GenerationRequest) -> None:
    # The twin gateway's page lists `style` as required for a video.
    if request.kind == "video" and request.effect is None:
        raise provider.refusal("effect", None, f"must be given for a video at {provider.title}; give one")


def _model_is_a_number(provider: Provider, request: GenerationRequest) -> None:
    if request.model is None:
        return
    if request.kind == "video":
        raise provider.refusal("model", request.model, f"must be left out for a video at {provider.title}")
    if not VERSION.fullmatch(request.model):
        raise provider.refusal("model", request.model, f"must be a number at {provider.title}; give 1.5")


def _ratio_is_for_text(provider: Provider, request: GenerationRequest) -> None:
    if request.aspect_ratio is not None and request.kind != "text":
        raise provider.refusal(
            "aspect_ratio", request.aspect_ratio,
            f"must be left out with {request.kind} input at {provider.title}, which uses the ratio of that input",
        )  # fmt: skip


COMETAPI: Final = Provider(
    name="cometapi",
    title="CometAPI",
    dialect=ENVELOPE,
    base_url="https://api.cometapi.com",
    api_key_env="COMETAPI_API_KEY",
    documentation="https://api.cometapi.com, API Doc, PIKA(video)",
    account_page="https://www.cometapi.com",
    capabilities={
        "image": Capability("image", "a URL"),
        "video": Capability("video", "a URL; needs an effect"),
        "ingredients": Capability(None, "its page documents no ingredients"),
        "ingredients_mode": Capability(None, "its page documents no ingredients"),
        "effect": Capability("style", "13 effects"),
        "aspect_ratio": Capability("ratio", 'text, default "16:9"; text to video only'),
        "frame_rate": Capability("options.frameRate", "8 to 24"),
        "camera": Capability("options.camera", "pan, tilt, rotate, zoom"),
        "guidance_scale": Capability("options.parameters.guidanceScale", "5 to 25"),
        "motion": Capability("options.parameters.motion", "0 to 4"),
        "negative_prompt": Capability("options.parameters.negativePrompt"),
        "seed": Capability("options.parameters.seed"),
        "sfx": Capability("sfx", "sound; default false for a video"),
        "extend": Capability(None, "its page documents no extension of a video"),
        "model": Capability("model", "a number, 1.5; not for a video"),
        "duration": Capability(None, "its page documents no duration"),
        "resolution": Capability(None, "its page documents no resolution"),
        "last_image": Capability(None, "its page documents no last image"),
    },
    effects=EFFECTS[:13],
    models=("1.5",),
    takes_callback=True,
    rules=(_video_needs_effect, _model_is_a_number, _ratio_is_for_text),
)
