"""Local images of requests: checked at admission, read when they are sent.

Downloads no URLs and uploads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest, evolve_unchecked
from pika_async.models.fields import is_url
from pika_async.providers._provider import Provider

__all__ = ["check_image", "check_image_blocking", "image_path", "load_image"]


def image_path(request: GenerationRequest) -> Path | None:
    """Return the path of the local image of *request*, None if it has no image, a URL or bytes."""
    image = request.image
    return None if image is None or isinstance(image, bytes) or is_url(image) else Path(image)


async def check_image(provider: Provider, request: GenerationRequest) -> None:
    """Check that the local image of *request*, if it has one, can be read and is not too large for *provider*.

    The file is opened, but its content is not read: the images of a whole batch must not be in memory at once.

    :raises InvalidRequest: if the file is missing, empty, not readable, not a regular file, or too large.
    """
    if image_path(request) is not None:
        await anyio.to_thread.run_sync(check_image_blocking, provider, request)


def check_image_blocking(provider: Provider, request: GenerationRequest) -> None:
    """Check like `check_image`, for callers without an event loop.

    :raises InvalidRequest: as `check_image`.
    """
    path = image_path(request)
    if path is not None:
        with _translated_errors(path):
            _check_file(provider, path)
            path.open("rb").close()


async def load_image(provider: Provider, request: GenerationRequest) -> GenerationRequest:
    """Return *request* with the bytes of its local image in place of the path; other requests are returned as they are.

    :raises InvalidRequest: as `check_image`, or if the provider cannot send this content.
    """
    path = image_path(request)
    if path is None:
        return request
    loaded = evolve_unchecked(request, image=await anyio.to_thread.run_sync(_read_file, provider, path))
    provider.check(loaded)  # a provider's rules see the content here for the first time
    return loaded


def _read_file(provider: Provider, path: Path) -> bytes:
    with _translated_errors(path):
        _check_file(provider, path)  # again: a file that has grown since admission must not fill the memory
        return path.read_bytes()


def _check_file(provider: Provider, path: Path) -> None:
    if not path.is_file():
        reason = "must be an existing file; correct the path, or give a URL"
        raise InvalidRequest(field="image", value=str(path), reason=reason)
    size = path.stat().st_size
    if not size:
        reason = "must not be an empty file; give another one, or a URL"
        raise InvalidRequest(field="image", value=str(path), reason=reason)
    provider.check_size("image", size)


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except InvalidRequest:
        raise
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InvalidRequest(field="image", value=str(path), reason=reason) from None
