"""Progress of one download over all attempts, and the meaning of each answer. Does no I/O and keeps no bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from pika_async._http.mp4 import Mp4Validator, NotMp4, TruncatedMp4
from pika_async.errors import shorten
from pika_async.providers._verdicts import retry_after

__all__ = ["MAX_RETRY_DELAY_S", "REDIRECT_STATUSES", "AbortDownload", "DownloadState", "RetryDownload"]

#: Longest delay between two attempts in seconds, whatever Retry-After asks for.
MAX_RETRY_DELAY_S: Final = 60.0
#: Statuses with a Location to follow.
REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
#: Statuses of an address that has expired; the provider may return a new address.
EXPIRED_STATUSES: Final = frozenset({401, 403, 404, 410})
#: Statuses that ask to try again later, besides every 5xx.
RETRY_STATUSES: Final = frozenset({408, 425, 429})
#: A range with its total, without which the range cannot be checked. 18 digits exceed every file size and bound `int`.
CONTENT_RANGE_PATTERN: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)


class RetryDownload(Exception):  # noqa: N818 - a signal inside one fetch
    """The attempt failed; another one may succeed, after `min_delay` seconds at least."""

    def __init__(self, reason: str, min_delay: float = 0.0) -> None:
        super().__init__(reason)
        self.min_delay = min_delay


class AbortDownload(Exception):  # noqa: N818 - a signal inside one fetch
    """No further attempt will succeed. If `expired`, one with a new address may."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired


class DownloadState:
    """Bytes received so far, their MP4 boxes, and whether the rest may be requested as a range.

    :param max_bytes: the largest size of the file; a server could otherwise fill the disk.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        #: Number of starts at byte 0, by which the owner of the bytes notices that it must discard them.
        self.restarts = 0
        self.restart()

    def restart(self) -> None:
        """Start again at byte 0."""
        self.restarts += 1
        self._validator = Mp4Validator()
        self.size = 0
        #: Bytes of the whole file; None until an answer states them.
        self.total: int | None = None
        #: Strong ETag of the bytes, and the address without its query that sent it. A range is requested only from the
        #: same address and with the same ETag, so that parts of two files are never joined.
        self._etag: str | None = None
        self._source: str | None = None

    def range_headers(self, source: str) -> dict[str, str]:
        """Return the headers that request the rest from `source`, an address without its query.

        Empty unless the bytes so far came from there. If-Range makes a server whose file has changed send all of it.
        """
        if self._etag is None or not self.size or self._source != source:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._etag}

    def on_response(
        self,
        status: int,
        headers: Mapping[str, str],
        *,
        source: str,
        length: int | None,
        range_requested: bool,
        now: float,
    ) -> None:
        """Check the head of an answer. On return, its body continues the bytes so far.

        :param headers: the response headers, whose lookup ignores case.
        :param source: the address without its query.
        :param length: bytes of the body; None if the answer does not state them.
        :param range_requested: whether the request asked for a range.
        :param now: unix time in seconds, for a Retry-After that is a date.
        :raises RetryDownload: if another attempt may succeed.
        :raises AbortDownload: if no further attempt will.
        """
        if status in EXPIRED_STATUSES:
            raise AbortDownload(f"HTTP {status}: the address has expired", expired=True)
        if status in RETRY_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise RetryDownload(f"HTTP {status}", min(retry_after(headers, now) or 0.0, MAX_RETRY_DELAY_S))
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.restart()
            raise RetryDownload(f"HTTP {status}")
        if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            raise AbortDownload(f"HTTP {status}")
        coding = headers.get("Content-Encoding", "").strip().lower()
        if coding not in {"", "identity"}:
            raise AbortDownload(f"the body is compressed ({shorten(coding)}), which was not asked for")
        etag = headers.get("ETag", "")
        if status == HTTPStatus.OK:
            self.restart()
            self._source, self._etag, self.total = source, etag if etag.startswith('"') else None, length
        elif not (range_requested and self._is_requested_range(headers.get("Content-Range", ""), etag, length)):
            self.restart()
            raise RetryDownload("the server sent another part than the one asked for")
        if (self.total or 0) > self.max_bytes:
            raise AbortDownload(f"the body of {self.total:,} bytes is longer than the {self.max_bytes:,} bytes allowed")

    def _is_requested_range(self, content_range: str, etag: str, length: int | None) -> bool:
        found = CONTENT_RANGE_PATTERN.fullmatch(content_range.strip())
        if found is None:
            return False
        first, last, total = (int(number) for number in found.groups())
        fits = first == self.size <= last < total and length in {None, last - first + 1}
        if not fits or etag not in {"", self._etag} or self.total not in {None, total}:
            return False
        self.total = total
        return True

    def on_chunk(self, chunk: bytes) -> None:
        """Count and check the next bytes of the body.

        :raises AbortDownload: if they cannot belong to an MP4 file, or exceed `max_bytes`.
        """
        self.size += len(chunk)
        if self.size > self.max_bytes:
            raise AbortDownload(f"the body is longer than the {self.max_bytes:,} bytes allowed")
        try:
            self._validator.feed(chunk)
        except NotMp4 as error:
            raise AbortDownload(f"the body is not an MP4 file: it {error}") from None

    def on_body_end(self, *, terminated: bool) -> None:
        """Check that the file is complete at the end of the body.

        :param terminated: whether the body ended by its own framing, rather than with the connection.
        :raises RetryDownload: if bytes are missing.
        :raises AbortDownload: if nothing proves that the file is complete.
        """
        if self.total is not None and self.size != self.total:
            short = self.size < self.total
            missing = f"ended {self.total - self.size:,} bytes early" if short else "went on after its end"
            if not short:
                self.restart()
            raise RetryDownload(f"the body {missing}")
        has_known_end = terminated or self.total is not None
        try:
            self._validator.finish()
        except TruncatedMp4 as error:
            if has_known_end:  # the server sent all of it, so the rest cannot be requested
                self.restart()
            raise RetryDownload(f"the body is not a complete MP4 file: it {error}") from None
        if not (has_known_end or self._validator.proves_its_end):
            raise AbortDownload("the server sent no length, and the file does not show that it is complete")
