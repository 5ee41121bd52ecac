"""Way of the media of a request to a gateway: inside the request, uploaded first, or by URL. Pure: reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest, evolve_unchecked
from pika_async.models.addresses import unreachable_kind
from pika_async.models.fields import Media, is_url
from pika_async.providers._provider import Provider

__all__ = ["LocalMedia", "check_reach", "fields_to_upload", "local_media", "with_media"]

#: A file of this machine, or its content.
LocalMedia = Path | bytes
#: Stands for the URL of a file that is not uploaded yet. The domain is reserved (RFC 2606) and never resolves.
FUTURE_URL: Final = "https://upload.invalid/"


def local_media(request: GenerationRequest) -> dict[str, LocalMedia]:
    """Return the files and bytes of a request by field: `image`, `video`, `last_image`, `ingredients[0]`..."""
    return {
        field: media if isinstance(media, bytes) else Path(media)
        for field, media in _media(request).items()
        if not is_url(media)
    }


def _media(request: GenerationRequest) -> dict[str, Media]:
    found: dict[str, Media] = {}
    if request.image is not None:
        found["image"] = request.image
    if request.video is not None:
        found["video"] = request.video
    if request.last_image is not None:
        found["last_image"] = request.last_image
    if request.ingredients:
        found |= {f"ingredients[{number}]": each for number, each in enumerate(request.ingredients)}
    return found


def check_reach(provider: Provider, request: GenerationRequest, base_url: str) -> None:
    """Refuse a URL that the gateway at `base_url` can never fetch, and might charge for trying.

    :raises InvalidRequest: names the field, the URL and the way out.
    """
    for field, media in _media(request).items():
        kind = unreachable_kind(str(media), base_url) if is_url(media) else None
        if kind is not None:
            raise provider.unreachable(field, str(media), kind)


def with_media(request: GenerationRequest, media: Mapping[str, Media]) -> GenerationRequest:
    """Return a copy of a request with other media, each in the field that `local_media` names."""
    changes: dict[str, Any] = {field: media[field] for field in ("image", "video", "last_image") if field in media}
    if len(changes) < len(media):
        changes["ingredients"] = tuple(
            media.get(f"ingredients[{number}]", each) for number, each in enumerate(request.ingredients)
        )
    return evolve_unchecked(request, **changes) if media else request


def fields_to_upload(
    provider: Provider, request: GenerationRequest, sizes: Mapping[str, int], *, can_upload: bool
) -> frozenset[str]:
    """Return the fields whose files must be uploaded: those that the provider does not take inside a request.

    :param sizes: the size in bytes of each file that is known, by field.
    :param can_upload: whether there is an uploader of the user's; else files go to the provider's own storage, if any.
    :raises InvalidRequest: if the provider cannot serve the request, or takes URLs only and there is no uploader.
    """
    local = local_media(request)
    if local:  # a field that the provider does not have is refused as that
        provider.check(with_media(request, dict.fromkeys(local, FUTURE_URL)))
    uploaded: set[str] = set()
    while True:
        try:
            for field, size in sizes.items():
                if field not in uploaded:
                    media = local[field]
                    provider.check_size(field, size, media if isinstance(media, PurePath) else None)
            provider.check(with_media(request, dict.fromkeys(uploaded, FUTURE_URL)))
        except InvalidRequest as error:
            if not (can_upload or provider.uploads) or error.field in uploaded or error.field not in local:
                raise
            uploaded.add(error.field)
        else:
            break
    for field in () if can_upload else uploaded & sizes.keys():
        media = local[field]
        provider.check_upload(field, sizes[field], media if isinstance(media, PurePath) else None)
    return frozenset(uploaded)
