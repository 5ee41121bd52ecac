"""Access to the live board: who may read it and who may change what runs. Pure decisions over the head of a request.

The token stands in the URL that is printed once. The first request with it gets a cookie and the same URL without it,
so that the token is in no history, screenshot or `Referer`. A request is judged by its `Host` before all else: a page
of another site can let its own name point to this machine, and its requests then carry that name.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Collection, Mapping
from enum import Enum
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

import attrs

__all__ = ["BOARD_TOKEN_BYTES", "LOOPBACK_NAMES", "BoardAccess", "Verdict"]

#: Random bytes of a token.
BOARD_TOKEN_BYTES: Final = 32
#: Names of this machine for itself.
LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
#: Name of the header of a request that changes something: no form and no simple request of another site can set it.
CONTROL_HEADER: Final = "x-board-token"
#: Longest token that is compared, in characters.
MAX_TOKEN_CHARS: Final = 256


class Verdict(Enum):
    """Answer to a request."""

    #: It is answered.
    ALLOWED = "allowed"
    #: It has the token in its URL: it gets the cookie, and a browser the same URL without the token.
    ENTERS = "enters"
    #: It gets 403, without a reason.
    FORBIDDEN = "forbidden"


@attrs.frozen
class BoardAccess:
    """Rules of one board.

    :param token: secret of the board, at least 32 random bytes as text.
    :param hosts: names in `Host` that are answered, in lower case and without a port; default those of loopback.
    :param any_address: whether every IP address in `Host` is answered too, for a board that listens on all of them;
        default False. An address cannot be made to point elsewhere, as a name can.
    :param control: whether requests may change what runs; default False.
    """

    token: str = attrs.field(repr=False)
    hosts: Collection[str] = LOOPBACK_NAMES
    any_address: bool = False
    control: bool = False

    @property
    def cookie_name(self) -> str:
        """Name of the cookie: cookies know no ports, and two boards of one machine must not displace each other's."""
        return f"pika_board_{_digest('name', self.token)[:12]}"

    @property
    def cookie_value(self) -> str:
        """Value of the cookie, from which the token cannot be found."""
        return _digest("cookie", self.token)

    @property
    def control_token(self) -> str:
        """Token that the page sends with each change; a page of another site cannot read it."""
        return _digest("control", self.token)

    def set_cookie(self, path: str) -> str:
        """Return the value of `Set-Cookie`.

        :param path: path of the page, where other programs behind the same name are to be kept from the cookie.
        """
        return f"{self.cookie_name}={self.cookie_value}; Path={path}; HttpOnly; SameSite=Strict"

    def judge(self, headers: Mapping[str, str], query_token: str | None) -> Verdict:
        """Return the answer to a request that reads.

        :param headers: by their names in lower case.
        :param query_token: token of its URL; None if there is none.
        """
        if not self._is_addressed(headers.get("host", "")) or not self._is_own_origin(headers, required=False):
            return Verdict.FORBIDDEN
        if _equal(_cookies(headers.get("cookie", "")).get(self.cookie_name), self.cookie_value):
            return Verdict.ALLOWED if query_token is None else Verdict.ENTERS
        return Verdict.ENTERS if _equal(query_token, self.token) else Verdict.FORBIDDEN

    def may_change(self, method: str, headers: Mapping[str, str]) -> bool:
        """Return whether a request may change what runs: on purpose, from the page itself, where that is allowed.

        :param method: its method.
        :param headers: by their names in lower case.
        """
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        return (
            self.control
            and method == "POST"
            and self.judge(headers, None) is Verdict.ALLOWED
            and self._is_own_origin(headers, required=True)
            and media_type == "application/json"
            and _equal(headers.get(CONTROL_HEADER), self.control_token)
        )

    def _is_addressed(self, host: str) -> bool:
        name = _name_of(host)
        return name is not None and (name in self.hosts or (self.any_address and _is_ip_address(name)))

    def _is_own_origin(self, headers: Mapping[str, str], *, required: bool) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return not required
        scheme, separator, rest = origin.partition("://")
        is_web = scheme in {"http", "https"} and separator != ""
        return is_web and rest.lower() == headers.get("host", "").lower()


def _digest(purpose: str, token: str) -> str:
    return hmac.new(token.encode(), purpose.encode(), sha256).hexdigest()


def _equal(given: str | None, secret: str) -> bool:
    if given is None or len(given) > MAX_TOKEN_CHARS:
        return False
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), secret.encode())


def _name_of(host: str) -> str | None:
    """Return the name in `Host` in lower case, without its port; None if it is not one."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return None
    is_plain = parts.netloc == host and "@" not in host and not (parts.path or parts.query or parts.fragment)
    is_plain = is_plain and "[" not in host[1:]  # some versions of Python drop what stands before a bracket
    return name.removesuffix(".") if name and is_plain else None


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _cookies(header: str) -> dict[str, str]:
    """Return cookies by name; the first of a name counts, which is that of the longest path."""
    found: dict[str, str] = {}
    for pair in header.split(";"):
        name, separator, value = pair.strip().partition("=")
        if separator:
            found.setdefault(name, value)
    return found
