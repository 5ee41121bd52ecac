"""Contents of local files in the journal: each is stored once, by its hash, however many requests hold it.

Each function works on an open connection. Commits nothing by itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pika_async.models import GenerationRequest

if TYPE_CHECKING:
    import sqlite3

__all__ = ["add_contents", "digest_of", "insert_contents", "row_size"]

#: A content in the JSON of a request. In a text the quotation marks would be escaped.
REFERENCE_PATTERN: Final = re.compile(r'\{"sha256": "([0-9a-f]{64})"\}')


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a content in 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def insert_contents(connection: sqlite3.Connection, request: GenerationRequest) -> None:
    """Insert the bytes in a request that are not stored yet."""
    for media in (request.image, request.video, request.last_image, *request.ingredients):
        if isinstance(media, bytes):
            row = (digest_of(media), media)
            connection.execute("INSERT INTO contents VALUES (?, ?) ON CONFLICT DO NOTHING", row)


def add_contents(connection: sqlite3.Connection, row: dict[str, Any]) -> dict[str, Any]:
    """Return the row of a job with the bytes in its request, by their hash, as `contents`."""
    contents: dict[str, bytes] = {}
    for digest in REFERENCE_PATTERN.findall(row["request"] or ""):
        found = connection.execute("SELECT content FROM contents WHERE sha256 = ?", (digest,)).fetchone()
        if found is not None:  # else it is an object in the metadata, or the error about the job names it
            contents[digest] = found[0]
    return row | {"contents": contents}


def row_size(row: Mapping[str, Any]) -> int:
    """Return the length of a row's request with its contents, in characters and bytes."""
    return len(row["request"] or "") + sum(map(len, row["contents"].values()))
