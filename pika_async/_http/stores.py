"""Stores of results beyond the local disk: the address of an object, and the protocol of a store. Opens nothing.

An object appears whole or not at all, and no object of other content is overwritten.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Final, Protocol, Self

import attrs

from pika_async._http.marks import GIF, JPEG, MP4, PNG, WEBM, WEBP
from pika_async._http.media import MEDIA_SUFFIXES
from pika_async.errors import ConfigurationError, shorten

__all__ = [
    "ObjectPlace",
    "ObjectStore",
    "StoreFailed",
    "StoredObject",
    "content_type",
    "possible_places",
    "spool_folder",
]

#: The only scheme so far: Amazon S3, and the stores that speak its protocol.
SCHEME: Final = "s3"
#: Longest prefix in bytes: a key of S3 has at most 1,024, of which the name of a result takes 200 and its ending.
MAX_PREFIX_BYTES: Final = 800
#: Names of buckets as S3 has them, old ones included.
BUCKET_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
CONTENT_TYPES: Final = {kind.suffix: kind.content_type for kind in (MP4, WEBM, GIF, JPEG, PNG, WEBP)}


class StoreFailed(Exception):  # noqa: N818 - a signal inside one call
    """A store did not do what was asked. The text says why, and holds no credential."""


@attrs.frozen
class ObjectPlace:
    """The address of an object, or of a prefix of objects.

    :param bucket: the name of the bucket.
    :param key: the key of the object as it is, not percent-encoded; a prefix is empty or ends with a slash.
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{SCHEME}://{self.bucket}/{self.key}"

    @classmethod
    def parse(cls, target: str | os.PathLike[str], *, setting: str) -> Self:
        """Return the place of an `s3://` URL.

        :param setting: the argument that holds it, for the error.
        :raises ConfigurationError: if it is another URL, or has no valid bucket.
        """
        scheme, _, rest = (text := os.fspath(target)).partition("://")
        bucket, _, key = rest.partition("/")
        shown = shorten(text)
        if scheme != SCHEME:
            reason = f"must be a path, or s3://BUCKET/PREFIX as text, not {shown}; no other kind of store is supported"
        elif not BUCKET_PATTERN.fullmatch(bucket):
            reason = f"must name a bucket, as in s3://BUCKET/PREFIX, not {shown}; give the name of one that exists"
        elif len(key.encode("utf-8", "replace")) > MAX_PREFIX_BYTES or not key.isprintable():
            reason = (
                f"must have a printable key of at most {MAX_PREFIX_BYTES} bytes, not {shown}; give a shorter prefix"
            )
        else:
            return cls(bucket, key)
        raise ConfigurationError(setting=setting, reason=reason)

    @property
    def as_prefix(self) -> Self:
        """The place as a prefix: with a slash at its end unless it is the whole bucket."""
        return attrs.evolve(self, key=f"{self.key}/") if self.key and not self.key.endswith("/") else self

    @property
    def suffix(self) -> str:
        """The ending of its name in lower case, with the dot; empty if it has none."""
        return Path(self.key.rpartition("/")[2]).suffix.lower()

    def with_name(self, name: str) -> Self:
        """Return the place of `name` beside this one, or below it if it is a prefix."""
        return attrs.evolve(self, key=f"{self.key.rpartition('/')[0]}/{name}".removeprefix("/"))

    def with_suffix(self, suffix: str) -> Self:
        """Return the place with another ending of the same length or another one."""
        return attrs.evolve(self, key=self.key[: len(self.key) - len(self.suffix)] + suffix)


@attrs.frozen
class StoredObject:
    """What a store has of an object.

    :param size: in bytes.
    :param sha256: SHA-256 in hex digits, as its uploader stated it; None if that did not.
    """

    size: int
    sha256: str | None


class ObjectStore(Protocol):
    """A store of objects. Each call repeats what may succeed later, with growing delays, before it fails.

    Every method raises `StoreFailed` with the reason in words.
    """

    async def check(self, prefix: ObjectPlace) -> None:
        """Check that objects may be stored below `prefix`, without leaving one there.

        :raises ConfigurationError: if the library of the store is not installed.
        """

    async def find(self, place: ObjectPlace) -> StoredObject | None:
        """Return the object at `place`; None if nothing is there, or if it may not be read."""

    async def put(
        self, file: Path, place: ObjectPlace, *, sha256: str, overwrite: bool = False, replaces: str | None = None
    ) -> None:
        """Store a whole file as the object `place`.

        :param sha256: its SHA-256 in hex digits; an object that has it already is left as it is.
        :param overwrite: whether it takes the place of any other object. Default: False.
        :param replaces: SHA-256 of an object whose place it takes all the same. Default: none.
        """

    async def copy(self, source: ObjectPlace, target: ObjectPlace) -> None:
        """Copy an object inside of the store, unless there is none."""

    async def delete(self, place: ObjectPlace) -> None:
        """Remove an object; one that does not exist is left out."""


def content_type(suffix: str) -> str:
    """Return the media type of a result by the ending of its kind."""
    return CONTENT_TYPES.get(suffix, "application/octet-stream")


def possible_places(place: ObjectPlace) -> list[ObjectPlace]:
    """Return `place` under the ending of each kind of result, its own first."""
    if place.suffix not in MEDIA_SUFFIXES:
        return [place]
    return [place, *(place.with_suffix(suffix) for suffix in MEDIA_SUFFIXES if suffix != place.suffix)]


def spool_folder(journal: Path | None) -> Path:
    """Return the folder in which results are verified before they are stored: that of the journal, or a temporary one.

    :param journal: the file of the journal; None if it is in memory.
    """
    return Path(tempfile.gettempdir()) if journal is None else journal.parent
