"""Local images of requests: checked at admission, read when they are sent.

Downloads no URLs and uploads nothing.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

import anyio

from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest, evolve_unchecked
from pika_async.models.fields import is_url
from pika_async.providers._provider import Provider

__all__ = ["ImageUnreadable", "check_image", "check_image_blocking", "image_path", "load_image"]


T = TypeVar("T")

#: Errors of a path that leads to no file. Every other error is this machine's: another attempt may succeed.
NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR})


class ImageUnreadable(OSError):  # noqa: N818 - named after the image, as the errors of the package are
    """A local image that this machine cannot read now: no descriptor, an I/O error, a permission, a mount."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"image: {str(path)!r} cannot be read: {reason}")
        self.reason = reason


def image_path(request: GenerationRequest) -> Path | None:
    """Return the path of the local image of *request*, None if it has no image, a URL or bytes."""
    image = request.image
    return None if image is None or isinstance(image, bytes) or is_url(image) else Path(image)


async def check_image(provider: Provider, request: GenerationRequest) -> None:
    """Check that the local image of *request*, if it has one, is a file that is not too large for *provider*.

    The file is opened, but its content is not read: the images of a whole batch must not be in memory at once. An image
    that this machine cannot read now passes: it is read when it is sent.

    :raises InvalidRequest: if the file is missing, empty, not a regular file, or too large.
    """
    path = image_path(request)
    if path is not None:
        with suppress(ImageUnreadable):
            await _run_in_thread(path, _open_file, provider)


def check_image_blocking(provider: Provider, request: GenerationRequest) -> None:
    """Check like `check_image`, for callers without an event loop that send nothing if it fails.

    :raises InvalidRequest: as `check_image`, and if the file cannot be read now.
    """
    path = image_path(request)
    if path is not None:
        try:
            with _translated_errors(path):
                _open_file(provider, path)
        except ImageUnreadable as error:
            raise InvalidRequest(field="image", value=str(path), reason=f"cannot be read: {error.reason}") from None


async def load_image(provider: Provider, request: GenerationRequest) -> GenerationRequest:
    """Return *request* with the bytes of its local image in place of the path; other requests are returned as they are.

    :raises InvalidRequest: as `check_image`, or if the provider cannot send this content.
    :raises ImageUnreadable: if this machine cannot read the file now.
    """
    path = image_path(request)
    if path is None:
        return request
    loaded = evolve_unchecked(request, image=await _run_in_thread(path, _read_file, provider))
    provider.check(loaded)  # a provider's rules see the content here for the first time
    return loaded


async def _run_in_thread(path: Path, call: Callable[[Provider, Path], T], provider: Provider) -> T:
    """Run `call(provider, path)` in a thread, which a cancellation leaves behind: a dead mount may never answer."""
    with _translated_errors(path):
        return await anyio.to_thread.run_sync(call, provider, path, abandon_on_cancel=True)


def _open_file(provider: Provider, path: Path) -> None:
    _check_file(provider, path)
    path.open("rb").close()


def _read_file(provider: Provider, path: Path) -> bytes:
    _check_file(provider, path)  # again: a file that has grown since admission must not fill the memory
    return path.read_bytes()


def _check_file(provider: Provider, path: Path) -> None:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a file")
    if not found.st_size:
        reason = "must not be an empty file; give another one, or a URL"
        raise InvalidRequest(field="image", value=str(path), reason=reason)
    provider.check_size("image", found.st_size)


@contextmanager
def _translated_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except InvalidRequest:
        raise
    except ValueError as error:  # the path itself: a NUL, a lone surrogate
        raise InvalidRequest(field="image", value=str(path), reason=f"cannot be read: {error}") from None
    except OSError as error:
        if error.errno in NO_FILE:
            reason = "must be an existing file; correct the path, or give a URL"
            raise InvalidRequest(field="image", value=str(path), reason=reason) from None
        raise ImageUnreadable(path, error.strerror or str(error)) from None
    except (MemoryError, RuntimeError) as error:  # no memory for the content, or for a thread
        raise ImageUnreadable(path, repr(error)) from None
