"""Option for the place of the videos, and its check before anything is sent. Stores nothing."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

import attrs
from cyclopts import Parameter

from pika_async._http.media import MEDIA_SUFFIXES
from pika_async._http.s3 import S3Store
from pika_async._http.stores import ObjectPlace, StoreFailed
from pika_async._runtime.results import is_url
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.exits import UsageError
from pika_async.cli.file_names import check_file_names
from pika_async.cli.paths import expand_home

__all__ = ["VideoOptions", "check_videos", "other_folder"]

#: Stands for the keys of jobs that are not known yet.
ANY_KEY: Final = ("pika-check",)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class VideoOptions:
    """Where the videos go."""

    videos: str | None = None
    """Folder for the videos, which may be a shared one, or s3://BUCKET/PREFIX in any S3-compatible store (extra s3).
    Later commands in the folder keep it. [default: videos/ in the folder of the batch]"""

    def applied_to(self, options: BatchOptions) -> BatchOptions:
        """Return `options` with the place, if one is given.

        :raises ConfigurationError: if it is a URL that cannot be used.
        """
        if self.videos is None:
            return options
        if is_url(self.videos):
            return attrs.evolve(options, videos=str(ObjectPlace.parse(self.videos, setting="download_to").as_prefix))
        return attrs.evolve(options, videos=str(expand_home(Path(self.videos)).absolute()))


def other_folder(options: BatchOptions) -> Path | None:
    """Return the folder that `options` name for the videos; None if they go to the batch's own or to a store."""
    return None if options.videos is None or _prefix(options) is not None else Path(options.videos)


def _prefix(options: BatchOptions) -> ObjectPlace | None:
    if options.videos is None or not is_url(options.videos):
        return None
    return ObjectPlace.parse(options.videos, setting="download_to")


async def check_videos(options: BatchOptions, keys: Collection[str] = ()) -> None:
    """Check that the folder or the store that `options` name, if any, would take the videos. Leaves nothing there.

    :param keys: keys of new jobs, for which no object may be there; default none.
    :raises ConfigurationError: if the extra `s3` is missing.
    :raises UsageError: if it cannot be used, or has an object of that name.
    """
    if not options.download or options.videos is None:
        return
    prefix = _prefix(options)
    if prefix is None:
        try:
            check_file_names(Path(options.videos), keys or ANY_KEY, "--videos")
        except OSError as error:
            reason = f"{options.videos} cannot be used: {error.strerror}; nothing was sent"
            raise UsageError(f"--videos: {reason}") from None
        return
    store = S3Store()
    try:
        await store.check(prefix)
        present = await store.names(prefix) if keys else set()
    except StoreFailed as failure:
        raise UsageError(f"--videos: {prefix} cannot be used: {failure}; nothing was sent") from None
    finally:
        await store.close()
    for name in (f"{key}{suffix}" for key in keys for suffix in MEDIA_SUFFIXES):
        if name in present:
            reason = (
                f"{prefix.with_name(name)} exists and is never overwritten; choose another prefix; nothing was sent"
            )
            raise UsageError(f"--videos: {reason}")
