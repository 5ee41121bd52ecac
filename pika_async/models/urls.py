"""Addresses of results without user names and passwords. Pure text; an address need not be valid."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["strip_userinfo"]

#: Scheme and slashes, in each way that some program accepts.
_START_PATTERN: Final = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]*:)?[/\\]+")
#: End of the part with the host.
_END_PATTERN: Final = re.compile(r"[/\\?#]")
#: A host with or without a port.
_HOST_PATTERN: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::[0-9]+)?")
#: The end of user information, also where it was encoded by mistake.
_AT_PATTERN: Final = re.compile(r"@|%40")


def strip_userinfo(url: str) -> str:
    """Return `url` without a user name and a password, which a gateway has no reason to send along.

    If the text before the first slash, question mark or number sign is not a host, it may be the beginning of a
    password that holds such a character: then everything up to the last `@` is removed.
    """
    if not _AT_PATTERN.search(url):
        return url
    start = _START_PATTERN.match(url)
    begin = start.end() if start else 0
    rest = url[begin:]
    authority = _END_PATTERN.split(rest, maxsplit=1)[0]
    if "@" in authority:
        return url[:begin] + rest[authority.rindex("@") + 1 :]
    if _HOST_PATTERN.fullmatch(authority):
        return url
    *_, last = _AT_PATTERN.finditer(rest)
    return url[:begin] + rest[last.end() :]
