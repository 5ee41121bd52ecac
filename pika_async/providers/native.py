"""Native Pika: the videos dialect at any host that serves it, with ingredients on model 2.0. Has no base URL.

Sources: the integration page of the native shape, and the picker of effects in the web client that its vendor ships,
read in November 2026.
"""

from __future__ import annotations

from typing import Final

from pika_async.models import GenerationRequest
from pika_async.models.fields import EFFECTS, is_url
from pika_async.providers._provider import Provider
from pika_async.providers._videos import VIDEOS
from pika_async.providers._videos_record import INLINE_LIMIT, capabilities, ratio_is_not_for_images

__all__ = ["NATIVE"]


def _ingredients_need_model_2(provider: Provider, request: GenerationRequest) -> None:
    if request.ingredients and request.model not in {None, "2.0"}:
        raise provider.refusal("model", request.model, "must be 2.0 with ingredients; give that or leave it out")


def _ingredients_are_urls(provider: Provider, request: GenerationRequest) -> None:
    for number, ingredient in enumerate(request.ingredients):
        if not is_url(ingredient):
            raise provider.url_only(f"ingredients[{number}]", ingredient)


NATIVE: Final = Provider(
    name="native",
    title="native Pika",
    dialect=VIDEOS,
    base_url=None,
    api_key_env="PIKA_API_KEY",
    documentation="the native shape's integration page",
    capabilities=capabilities(ingredients="URLs; model 2.0", effects=len(EFFECTS)),
    effects=EFFECTS,
    models=("1.5", "2.0"),
    default_model="1.5",
    inline_limit=INLINE_LIMIT,
    rules=(_ingredients_need_model_2, _ingredients_are_urls, ratio_is_not_for_images),
)
