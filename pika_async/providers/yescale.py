"""YEScale: the videos dialect with a required model; its own example sends the ratio beside an image.

Source: YEScale Docs, Create Video by Pika, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from pika_async.providers._provider import Provider
from pika_async.providers._videos import VIDEOS
from pika_async.providers._videos_record import INLINE_LIMIT, TEN_EFFECTS, capabilities

__all__ = ["YESCALE"]

YESCALE: Final = Provider(
    name="yescale",
    title="YEScale",
    dialect=VIDEOS,
    base_url="https://api.yescale.io",
    api_key_env="YESCALE_API_KEY",
    documentation="YEScale Docs, Create Video by Pika",
    account_page="https://yescale.io",
    capabilities=capabilities(aspect_ratio="a number, 0.4 to 2.5; with an image, sent only when given"),
    effects=TEN_EFFECTS,
    models=("1.5",),
    default_model="1.5",
    inline_limit=INLINE_LIMIT,
)
