"""gpt.ge (V-API): the videos dialect, with a reference or extension video; images also as base64.

Source: gpt.ge's API pages, Task: Generate Video, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from pika_async.providers._provider import Provider
from pika_async.providers._videos import VIDEOS
from pika_async.providers._videos_record import INLINE_LIMIT, TEN_EFFECTS, capabilities, ratio_is_not_for_images

__all__ = ["GPTGE"]


GPTGE: Final = Provider(
    name="gptge",
    title="gpt.ge",
    dialect=VIDEOS,
    base_url="https://api.gpt.ge",
    api_key_env="GPTGE_API_KEY",
    documentation="gpt.ge API pages, Task: Generate Video",
    account_page="https://api.gpt.ge",
    capabilities=capabilities(video="a reference or extension video, a URL"),
    effects=TEN_EFFECTS,
    models=("1.5",),
    default_model="1.5",
    inline_limit=INLINE_LIMIT,
    rules=(ratio_is_not_for_images,),
)
