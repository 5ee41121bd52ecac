"""What the answers to a download mean, and how much of the file has come; does no I/O and keeps no bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from pika_async._http.mp4 import Mp4Validator, NotMp4, TruncatedMp4
from pika_async.errors import shorten
from pika_async.providers._verdicts import retry_after

__all__ = ["MAX_WAIT", "REDIRECTS", "AbortDownload", "DownloadState", "RetryDownload"]

#: Seconds: no server makes a download wait longer between two attempts.
MAX_WAIT: Final = 60.0
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
#: The address is no longer good (or never was): a fresh one may be.
EXPIRED: Final = frozenset({401, 403, 404, 410})
#: The server asks for patience; so does every 5xx.
PATIENCE: Final = frozenset({408, 425, 429})
#: 18 digits are beyond every file and within every integer; only a range whose total is told can be checked.
CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)


class RetryDownload(Exception):  # noqa: N818 - a signal inside one fetch
    """This attempt failed; another may not, after `wait` seconds at least."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class AbortDownload(Exception):  # noqa: N818 - a signal inside one fetch
    """No attempt will succeed. `expired`: a fresh address may."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired


class DownloadState:
    """How far one file has come, over all attempts: bytes, boxes, and what tells whether the rest may be asked for.

    `limit` is the most bytes that the file may have.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: Counts how often it began at zero: what is kept of the bytes elsewhere is of one such round.
        self.rounds = 0
        self.restart()

    def restart(self) -> None:
        """Forgets every byte."""
        self.rounds += 1
        self._boxes = Mp4Validator()
        self.size = 0
        #: Bytes of the whole file, once an answer told.
        self.total: int | None = None
        #: A strong ETag, and the address without its query that gave it: no other bytes are ever resumed.
        self._etag: str | None = None
        self._source: str | None = None

    def range_headers(self, source: str) -> dict[str, str]:
        """What asks `source`, an address without its query, for the rest: nothing, unless the bytes came from there."""
        if self._etag is None or not self.size or self._source != source:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self._etag}

    def judge(
        self, status: int, headers: Mapping[str, str], *, source: str, length: int | None, asked: bool, now: float
    ) -> None:
        """Takes the head of an answer from `source`. On return a body follows that belongs behind the bytes so far.

        `headers` are looked up by any case; `length` is the body's, where told; `asked` says that a range was asked
        for; `now` is unix seconds.

        :raises Again: for what time or another attempt may mend.
        :raises Stop: for what it will not.
        """
        if status in EXPIRED:
            raise AbortDownload(f"HTTP {status}: the address has expired", expired=True)
        if status in PATIENCE or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise RetryDownload(f"HTTP {status}", min(retry_after(headers, now) or 0.0, MAX_WAIT))
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
        elif not (asked and self._continues(headers.get("Content-Range", ""), etag, length)):
            self.restart()
            raise RetryDownload("the server sent another part than the one asked for")
        if (self.total or 0) > self.limit:
            raise AbortDownload(f"the body of {self.total:,} bytes is longer than the {self.limit:,} bytes allowed")

    def _continues(self, content_range: str, etag: str, length: int | None) -> bool:
        found = CONTENT_RANGE.fullmatch(content_range.strip())
        if found is None:
            return False
        first, last, total = (int(number) for number in found.groups())
        fits = first == self.size <= last < total and length in {None, last - first + 1}
        if not fits or etag not in {"", self._etag} or self.total not in {None, total}:
            return False
        self.total = total
        return True

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes of a body.

        :raises Stop: when they cannot belong to an MP4 file, or are too many.
        """
        self.size += len(chunk)
        if self.size > self.limit:
            raise AbortDownload(f"the body is longer than the {self.limit:,} bytes allowed")
        try:
            self._boxes.feed(chunk)
        except NotMp4 as error:
            raise AbortDownload(f"what came is no MP4: it {error}") from None

    def complete(self, *, terminated: bool) -> None:
        """Says that the body is over; `terminated`: by its own framing, and not by the end of the connection.

        :raises Again: when bytes are missing.
        :raises Stop: when nothing proves that none are.
        """
        if self.total is not None and self.size != self.total:
            short = self.size < self.total
            missing = f"ended {self.total - self.size:,} bytes early" if short else "went on behind its end"
            if not short:
                self.restart()
            raise RetryDownload(f"the body {missing}")
        told = terminated or self.total is not None
        try:
            self._boxes.finish()
        except TruncatedMp4 as error:
            if told:  # whole, says the server: then there is no rest to ask for
                self.restart()
            raise RetryDownload(f"what came is no whole MP4: it {error}") from None
        if not (told or self._boxes.proves_its_end):
            raise AbortDownload("the server told no length, and the file does not prove that it is whole")
