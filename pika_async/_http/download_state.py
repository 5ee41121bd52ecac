"""Progress of one download over all attempts, and the meaning of each answer. Does no I/O and keeps only an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from pika_async._http.byte_walk import NotMedia, TruncatedMedia
from pika_async._http.media import MediaValidator
from pika_async.errors import ErrorKind, shorten
from pika_async.providers._verdicts import retry_after

__all__ = ["MAX_RETRY_DELAY_S", "REDIRECT_STATUSES", "AbortDownload", "DownloadState", "NotThereYet", "RetryDownload"]

#: Longest delay between two attempts in seconds, whatever Retry-After asks for.
MAX_RETRY_DELAY_S: Final = 60.0
#: Statuses with a Location to follow.
REDIRECT_STATUSES: Final = frozenset({301, 302, 303, 307, 308})
#: Statuses of an address that has expired; the provider may return a new address.
EXPIRED_STATUSES: Final = frozenset({401, 410})
#: Statuses of a result that is not there: not yet, or, once it could have been published, not any more.
ABSENT_STATUSES: Final = frozenset({202, 204, 403, 404})
#: Statuses that ask to try again later, besides every 5xx.
RETRY_STATUSES: Final = frozenset({408, 425, 429})
#: Values of Content-Encoding under which a body is sent as it is. Object stores keep whatever an uploader has stated.
PLAIN_CODINGS: Final = frozenset({"", "identity", "none", "binary", "utf-8", "utf8", "aws-chunked"})
#: A range with its total, without which the range cannot be checked. 18 digits exceed every file size and bound `int`.
CONTENT_RANGE_PATTERN: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)


class RetryDownload(Exception):  # noqa: N818 - a signal inside one fetch
    """The attempt failed; another one may succeed, after `min_delay` seconds at least."""

    def __init__(self, reason: str, min_delay: float = 0.0, kind: ErrorKind = "provider") -> None:
        super().__init__(reason)
        self.min_delay = min_delay
        self.kind = kind


class NotThereYet(Exception):  # noqa: N818 - a signal inside one fetch
    """The host has nothing, or a page, at the address: the result is not published yet, or has expired."""


class AbortDownload(Exception):  # noqa: N818 - a signal inside one fetch
    """No further attempt will succeed. If `expired`, one with a new address may."""

    def __init__(self, reason: str, *, expired: bool = False, kind: ErrorKind = "other") -> None:
        super().__init__(reason)
        self.expired = expired
        self.kind = kind


class DownloadState:
    """Bytes received so far, their structure, and whether the rest may be requested as a range.

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
        self._validator = MediaValidator()
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
        :raises NotThereYet: if the host has no result at the address.
        :raises RetryDownload: if another attempt may succeed.
        :raises AbortDownload: if no further attempt will.
        """
        if status in ABSENT_STATUSES:
            raise NotThereYet(f"HTTP {status}")
        if status in EXPIRED_STATUSES:
            raise AbortDownload(f"HTTP {status}: the address has expired", expired=True, kind="provider")
        if status in RETRY_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise RetryDownload(f"HTTP {status}", min(retry_after(headers, now) or 0.0, MAX_RETRY_DELAY_S))
        if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self.restart()
            raise RetryDownload(f"HTTP {status}")
        if status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
            raise AbortDownload(f"HTTP {status}", kind="provider")
        codings = {coding.strip().lower() for coding in headers.get("Content-Encoding", "").split(",")}
        if encoded := sorted(codings - PLAIN_CODINGS):
            raise AbortDownload(f"the body is compressed ({shorten(', '.join(encoded))}), which was not asked for")
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

    @property
    def suffix(self) -> str:
        """Ending of file names of the kind of file that the bytes are."""
        return self._validator.suffix

    @property
    def is_whole(self) -> bool:
        """Whether the bytes so far prove by themselves that the file is complete, whatever length was stated."""
        return self._validator.is_whole

    @property
    def skippable(self) -> int:
        """Number of the next bytes whose check takes one step."""
        return self._validator.skippable

    def on_chunk(self, chunk: bytes) -> None:
        """Count and check the next bytes of the body.

        :raises NotThereYet: if they are a page.
        :raises AbortDownload: if they cannot belong to a result, or exceed `max_bytes`.
        """
        self.size += len(chunk)
        if self.size > self.max_bytes:
            raise AbortDownload(f"the body is longer than the {self.max_bytes:,} bytes allowed")
        try:
            self._validator.feed(chunk)
        except NotMedia as error:
            self._refuse_page(error)
            raise AbortDownload(f"the body is not a video or a picture: it {error}", kind="provider") from None

    def _refuse_page(self, error: NotMedia) -> None:
        if self._validator.is_page:
            self.restart()  # so that no rest of the page is requested
            raise NotThereYet(f"a page in place of the result: it {error}") from None

    def on_body_end(self, *, terminated: bool) -> None:
        """Check that the file is complete at the end of the body.

        :param terminated: whether the body ended by its own framing, rather than with the connection.
        :raises NotThereYet: if the body is empty, or a page.
        :raises RetryDownload: if bytes are missing.
        :raises AbortDownload: if nothing proves that the file is complete.
        """
        if self._validator.is_whole:
            return
        has_known_end = terminated or self.total is not None
        if has_known_end and not self.size:
            raise NotThereYet("the body is empty")
        if self.total is not None and self.size != self.total:
            short = self.size < self.total
            missing = f"ended {self.total - self.size:,} bytes early" if short else "went on after its end"
            if not short:
                self.restart()
            raise RetryDownload(f"the body {missing}")
        try:
            self._validator.finish()
        except TruncatedMedia as error:
            self._refuse_page(error)
            text = f"the body is not a complete {self._validator.name} file: it {error}"
            if has_known_end:  # the server sent all of it, so the rest cannot be requested
                self.restart()
            raise RetryDownload(text) from None
        if not (has_known_end or self._validator.proves_its_end):
            reason = "the server sent no length, and the file does not show that it is complete"
            raise AbortDownload(reason, kind="provider")
