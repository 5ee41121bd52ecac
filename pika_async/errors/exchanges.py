"""Errors of one poll or one download; neither settles a job."""

from __future__ import annotations

import attrs

from pika_async.errors.base import PikaError


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ExchangeFailed(PikaError):  # noqa: N818
    """A poll without a usable answer; `http_status` is None when none was read."""

    provider: str
    reason: str
    http_status: int | None = None

    @property
    def charged(self) -> bool | None:
        return True

    @property
    def retryable(self) -> bool:
        return True

    def _text(self) -> str:
        status = f"HTTP {self.http_status}: " if self.http_status else ""
        return f"{self.provider}: no usable answer: {status}{self.reason}; polling again is free"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class DownloadFailed(PikaError):  # noqa: N818
    """A result that was not fetched whole. The generation stands: download it again, never pay again.

    `expired` means that the host does not serve the URL (401, 403, 404, 410, a page): a poll brings a fresh one.
    """

    url: str
    reason: str
    expired: bool = False

    @property
    def charged(self) -> bool | None:
        return True

    @property
    def retryable(self) -> bool:
        return self.kind in {"provider", "timeout", "network"}

    def _text(self) -> str:
        return f"download of {self.url} failed: {self.reason}; the video stays paid, fetch it again"
