"""Requests of the demo: distinct prompts and options drawn from word lists by a seed. Pure."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any, Final

from pika_async.errors import InvalidRequest
from pika_async.models import Camera, GenerationRequest
from pika_async.providers import Provider

__all__ = ["demo_requests"]

_SUBJECTS: Final = (
    "a paper boat", "an old lighthouse", "a clockwork owl", "a red fox", "a glass whale", "a tiny astronaut",
    "a brass tram", "a field of poppies", "a sleepy dragon", "a stone bridge", "a jellyfish", "a kite",
    "a snow leopard", "a cello", "a lemon tree", "a hot-air balloon", "a violet nebula", "a bicycle",
)  # fmt: skip
_ACTIONS: Final = (
    "drifting", "glowing softly", "waking up", "turning slowly", "reflected in water", "under falling petals",
    "covered in frost", "lit by lanterns", "seen from above", "made of folded paper", "in slow motion", "humming",
)  # fmt: skip
_PLACES: Final = (
    "at dawn", "in heavy rain", "above the clouds", "in a quiet library", "on a frozen lake", "in a neon alley",
    "at the edge of a desert", "beneath the sea", "in a greenhouse", "on a rooftop in Lisbon", "during an eclipse",
)  # fmt: skip
_RATIOS: Final = ("16:9", "9:16", "1:1", "4:3", "3:4", "5:2", "4:5")
_CAMERAS: Final = (
    Camera(pan="left"), Camera(pan="right", zoom="in"), Camera(tilt="up"), Camera(tilt="down", zoom="out"),
    Camera(rotate="cw"), Camera(rotate="ccw", zoom="in"),
)  # fmt: skip


def demo_requests(providers: list[Provider], count: int, seed: int) -> dict[str, list[GenerationRequest]]:
    """Return `count` requests with distinct prompts, dealt to `providers` in turn, by provider name.

    The same seed gives the same requests.
    """
    random = Random(seed)
    scenes = [" ".join(words) for words in itertools.product(_SUBJECTS, _ACTIONS, _PLACES)]
    random.shuffle(scenes)
    dealt: dict[str, list[GenerationRequest]] = {provider.name: [] for provider in providers}
    for number in range(count):
        provider = providers[number % len(providers)]
        prompt = scenes[number % len(scenes)] + (f", take {number // len(scenes) + 1}" if number >= len(scenes) else "")
        dealt[provider.name].append(_request(provider, prompt, f"{provider.name}-{number + 1:03d}", random))
    return dealt


def _request(provider: Provider, prompt: str, key: str, random: Random) -> GenerationRequest:
    """Return a request with a random choice of the options that the provider supports."""
    request = GenerationRequest(prompt, key=key)
    options: tuple[tuple[str, Any, float], ...] = (
        ("effect", random.choice(provider.effects), 0.3),
        ("aspect_ratio", random.choice(_RATIOS), 0.6),
        ("frame_rate", random.choice((8, 12, 16, 24)), 0.5),
        ("camera", random.choice(_CAMERAS), 0.4),
        ("guidance_scale", random.randrange(5, 26), 0.3),
        ("motion", random.randrange(5), 0.3),
        ("negative_prompt", "blurry, text", 0.2),
        ("seed", random.randrange(1 << 31), 0.5),
        ("sfx", True, 0.2),
    )
    fields: dict[str, Any] = {}
    for field, value, chance in options:
        if random.random() < chance:
            try:
                provider.check(GenerationRequest(prompt, **{field: value}))
            except InvalidRequest:
                continue
            fields[field] = value
    return GenerationRequest(prompt, key=key, **fields) if fields else request
