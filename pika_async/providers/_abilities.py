"""Abilities that some gateways have beside submitting and polling, as records. Pure: sends nothing."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

import attrs

from pika_async.providers._wire import HttpRequest, HttpResponse

__all__ = [
    "BEARER",
    "Authorization",
    "CancelOutcome",
    "FileUploads",
    "Idempotency",
    "UploadPlace",
    "origin",
    "refused_address",
]

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _check_header(_instance: object, _attribute: object, name: str) -> None:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} must be the name of a header: letters, digits and hyphens")


@attrs.frozen(kw_only=True)
class Authorization:
    """Header that carries the API key.

    :param header: its name (default `Authorization`).
    :param scheme: the word before the key (default `Bearer`); "" sends the bare key.
    """

    header: str = attrs.field(default="Authorization", validator=_check_header)
    scheme: str = "Bearer"

    def value(self, key: str) -> str:
        """Return the value of the header."""
        return f"{self.scheme} {key}" if self.scheme else key


#: The usual header.
BEARER: Final = Authorization()


@attrs.frozen(kw_only=True)
class Idempotency:
    """Answers of a gateway to a submission that repeats an earlier one: the first job again, instead of another.

    :param window: seconds for which the gateway keeps a key; later, a lost answer is a doubt.
    :param header: the header of the key (default `Idempotency-Key`).
    :param conflict: the HTTP status of a key that came before with another body, or whose first submission is still
        being processed (default 409).
    :param replays_failed: whether a first job that has failed is returned again, so that a new attempt needs a new key
        (default True).
    """

    window: float
    header: str = attrs.field(default="Idempotency-Key", validator=_check_header)
    conflict: int = 409
    replays_failed: bool = True


class CancelOutcome(enum.Enum):
    """Answer of a gateway to the request to cancel a task. Only a poll shows whether the task has ended."""

    #: It will be canceled, unless it settles before.
    REQUESTED = "requested"
    #: It has settled already.
    TOO_LATE = "too_late"
    #: There is no such task.
    MISSING = "missing"
    #: The gateway refused.
    REFUSED = "refused"
    #: No usable answer came: ask again, or poll.
    UNCLEAR = "unclear"


@attrs.frozen(kw_only=True)
class UploadPlace:
    """Place for the content of one file: it takes one PUT, without the credential."""

    #: Where the content goes, at any https origin.
    put_url: str
    #: Exactly the headers of that request.
    headers: Mapping[str, str]
    #: The URL of the file, for a request.
    url: str


@attrs.frozen(kw_only=True)
class FileUploads:
    """Storage of a gateway for the local files of requests.

    :param create: (base URL, file name, content type, bytes) -> the free request for a place.
    :param read: (the answer to that) -> the place; raises `DecodeError` if there is none in it.
    :param max_bytes: the largest file, by the first word of its content type: `image`, `video`.
    :param lifetime: seconds for which the URL of a file is used again.
    """

    create: Callable[[str, str, str, int], HttpRequest]
    read: Callable[[HttpResponse], UploadPlace]
    max_bytes: Mapping[str, int]
    lifetime: float


def origin(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an http(s) URL; None for everything else, and for one that names a user."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname or "@" in parts.netloc or "\\" in url or not url.isprintable():
        return None
    return parts.scheme, parts.hostname, port


def refused_address(addresses: Iterable[str], trusted: Iterable[str]) -> str | None:
    """Return the first of `addresses` that is not at the origin of one of `trusted`; None if all of them are."""
    origins = {origin(url) for url in trusted} - {None}
    return next((address for address in addresses if origin(address) not in origins), None)
