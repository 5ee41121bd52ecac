"""Local pictures and videos of requests: checked at admission, read when they are sent.

Downloads no URLs. The content decides what a file is; `_planning.media_routes` decides which files must be uploaded.
"""

from __future__ import annotations

import errno
import io
import stat
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

import anyio
import attrs

from pika_async._http.input_files import WrongInput, check_structure, kind_of_input
from pika_async._http.marks import MARK_BYTES, FileKind
from pika_async._planning.media_routes import LocalMedia, fields_to_upload, local_media, with_media
from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest
from pika_async.models.media import MAX_MEDIA_BYTES
from pika_async.providers._provider import Provider

__all__ = ["ImageUnreadable", "UploadFailed", "UploadFile", "check_request", "check_request_blocking", "load_media"]

#: Errors of a path that leads to no file. Every other error is this machine's: another attempt may succeed.
NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR})
#: Bytes of a file that are read at once while it is checked.
CHECK_CHUNK_BYTES: Final = 1 << 16
#: Bytes that are checked in the event loop, which takes milliseconds; more of them are checked in a thread.
MAX_CHECK_BYTES: Final = 1 << 20


class ImageUnreadable(OSError):  # noqa: N818 - named after the image, as the errors of the package are
    """A local file that this machine cannot read now: no descriptor, an I/O error, a permission, a mount."""

    def __init__(self, field: str, path: Path, reason: str) -> None:
        super().__init__(f"{field}: {str(path)!r} cannot be read: {reason}")
        self.field = field
        self.path = path
        self.reason = reason


class UploadFailed(OSError):  # noqa: N818 - named after the upload
    """A file that could not be uploaded now.

    :param lasting: whether every further attempt would fail in the same way.
    """

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


#: (content, kind, name of its file or None) -> its URL; see `Uploads.url_for`.
UploadFile = Callable[[bytes, FileKind, str | None], Awaitable[str]]


@attrs.frozen
class LocalFile:
    """A local file of a request, not read yet."""

    field: str
    media: LocalMedia
    #: Called with its size before more than its first bytes are read; raises if it cannot be sent.
    accept: Callable[[int], object]

    @property
    def shown(self) -> str:
        """The path, or the number of bytes."""
        return f"{len(self.media):,} bytes" if isinstance(self.media, bytes) else str(self.media)


@attrs.frozen
class _Content:
    size: int
    kind: FileKind
    #: Empty if it was only checked.
    data: bytes = b""


async def check_request(provider: Provider, request: GenerationRequest, *, can_upload: bool = False) -> None:
    """Check that *provider* can serve *request*, and that each of its local files is a whole picture or video.

    Files are read in pieces that are not kept: those of a whole batch must not be in memory at once. A file that this
    machine cannot read now passes: it is read when it is sent.

    :param can_upload: whether there is an uploader for what the provider does not take inside a request.
    :raises InvalidRequest: names the field, the value and the way out.
    """
    sizes: dict[str, int] = {}
    for file in _local_files(provider, request, can_upload=can_upload):
        try:
            sizes[file.field] = (await _run(_check, file)).size
        except ImageUnreadable:
            continue
    fields_to_upload(provider, request, sizes, can_upload=can_upload)


def check_request_blocking(provider: Provider, request: GenerationRequest, *, can_upload: bool = False) -> None:
    """Check like `check_request`, for callers without an event loop that send nothing if it fails.

    :raises InvalidRequest: as `check_request`, and if a file cannot be read now.
    """
    sizes: dict[str, int] = {}
    for file in _local_files(provider, request, can_upload=can_upload):
        try:
            with _translated_errors(file):
                sizes[file.field] = _check(file).size
        except ImageUnreadable as error:
            reason = f"cannot be read: {error.reason}"
            raise InvalidRequest(field=file.field, value=str(error.path), reason=reason) from None
    fields_to_upload(provider, request, sizes, can_upload=can_upload)


async def load_media(
    provider: Provider, request: GenerationRequest, upload: UploadFile | None = None
) -> GenerationRequest:
    """Return *request* with the bytes or the uploaded URL of each local file in its place; others as they are.

    :param upload: uploads what the provider does not take inside a request; None if there is no uploader.
    :raises InvalidRequest: as `check_request`, or if the provider cannot send this content.
    :raises ImageUnreadable: if this machine cannot read a file now.
    :raises UploadFailed: if a file could not be uploaded.
    :raises JournalFailed: if the URL of an uploaded file could not be saved.
    """
    can_upload = upload is not None
    files = _local_files(provider, request, can_upload=can_upload)
    if not files:
        return request
    contents = {file.field: await _run(_read, file) for file in files}
    sizes = {field: content.size for field, content in contents.items()}
    loaded = with_media(request, {field: content.data for field, content in contents.items()})
    # A provider's rules see the content here for the first time.
    ways = fields_to_upload(provider, loaded, sizes, can_upload=can_upload)
    if not ways or upload is None:
        return loaded
    media = local_media(request)
    urls = {}
    for field in sorted(ways):
        path, content = media[field], contents[field]
        urls[field] = await upload(content.data, content.kind, None if isinstance(path, bytes) else path.name)
    return with_media(loaded, urls)


def _local_files(provider: Provider, request: GenerationRequest, *, can_upload: bool) -> list[LocalFile]:
    def accept(field: str) -> Callable[[int], object]:
        return lambda size: fields_to_upload(provider, request, {field: size}, can_upload=can_upload)

    return [LocalFile(field, media, accept(field)) for field, media in local_media(request).items()]


async def _run(call: Callable[[LocalFile], _Content], file: LocalFile) -> _Content:
    """Run `call(file)` in a thread, which a cancellation leaves behind: a dead mount may never answer."""
    with _translated_errors(file):
        if isinstance(file.media, bytes) and len(file.media) <= MAX_CHECK_BYTES:
            return call(file)
        return await anyio.to_thread.run_sync(call, file, abandon_on_cancel=True)


def _check(file: LocalFile) -> _Content:
    """Read the whole file and keep nothing of it."""
    with _opened(file) as (reader, size):
        head = reader.read(MARK_BYTES)
        kind = _accepted_kind(file, head, size)
        check_structure(file.field, kind, chain([head], iter(lambda: reader.read(CHECK_CHUNK_BYTES), b"")))
    return _Content(size, kind)


def _read(file: LocalFile) -> _Content:
    """Check again what may have changed since admission: a file that has grown must not fill the memory."""
    with _opened(file) as (reader, size):
        head = reader.read(MARK_BYTES)
        kind = _accepted_kind(file, head, size)
        if isinstance(file.media, bytes):
            return _Content(size, kind, file.media)
        data = head + _read_rest(reader)
    file.accept(len(data))
    check_structure(file.field, kind, [data])
    return _Content(len(data), kind, data)


def _read_rest(reader: BinaryIO) -> bytes:
    return reader.read(MAX_MEDIA_BYTES)


def _accepted_kind(file: LocalFile, head: bytes, size: int) -> FileKind:
    kind = kind_of_input(file.field, head)
    if size > MAX_MEDIA_BYTES:
        raise WrongInput(f"must be at most {MAX_MEDIA_BYTES:,} bytes long, not {size:,}; make it smaller")
    file.accept(size)
    return kind


@contextmanager
def _opened(file: LocalFile) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file that is a regular one and not empty; yield it with its size."""
    if isinstance(file.media, bytes):
        yield io.BytesIO(file.media), len(file.media)
        return
    found = file.media.stat()
    if not stat.S_ISREG(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a file")
    if not found.st_size:
        raise WrongInput("must not be an empty file; give another one, or a URL")
    with file.media.open("rb") as reader:
        yield reader, found.st_size


@contextmanager
def _translated_errors(file: LocalFile) -> Iterator[None]:
    def invalid(reason: str) -> InvalidRequest:
        return InvalidRequest(field=file.field, value=file.shown, reason=reason)

    try:
        yield
    except InvalidRequest:
        raise
    except WrongInput as error:
        raise invalid(str(error)) from None
    except ValueError as error:  # the path itself: a NUL, a lone surrogate
        raise invalid(f"cannot be read: {error}") from None
    except OSError as error:
        if isinstance(file.media, bytes):
            raise
        if error.errno in NO_FILE:
            raise invalid("must be an existing file; correct the path, or give a URL") from None
        raise ImageUnreadable(file.field, file.media, error.strerror or str(error)) from None
    except (MemoryError, RuntimeError) as error:  # no memory for the content, or for a thread
        if isinstance(file.media, bytes):
            raise
        raise ImageUnreadable(file.field, file.media, repr(error)) from None
