"""One PUT of a file to an address that a gateway has named, without the gateway's credential.

Follows no redirect. Only public addresses are connected to, over https, and the gateway's own origin where that is this
machine.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import aiohttp
from yarl import URL

from pika_async._http.addresses import forbidden_url_reason, is_loopback
from pika_async._http.connector import Connector, open_socket
from pika_async._http.failures import classify_exception
from pika_async._http.proxies import environment_proxy, proxy_url
from pika_async._http.transport import origin_of
from pika_async.providers._abilities import UploadPlace

__all__ = ["PutFailed", "put_file"]

#: In seconds; the whole time is the caller's to limit.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=30, sock_connect=15, sock_read=60)
#: Headers that aiohttp would add.
_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class PutFailed(Exception):  # noqa: N818 - named after the request
    """A file that was not stored.

    :param lasting: whether every further attempt would fail in the same way.
    """

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


async def put_file(place: UploadPlace, data: bytes, *, base_url: str, proxy: str | None = None) -> None:
    """Send the content of a file to its place, with exactly the headers of that place.

    :param base_url: where the gateway is; if that is this machine, the place may be at the same origin.
    :param proxy: an http(s) URL. Default: the environment's proxy, except for loopback addresses.
    :raises PutFailed: if the address is forbidden or the content was not stored. The text holds no address.
    """
    try:
        url = URL(place.put_url, encoded=True)
        is_own = is_loopback(base_url) and url.origin() == origin_of(base_url)
        refusal = forbidden_url_reason(url.scheme, url.host, userinfo=bool(url.user or url.password), loopback=is_own)
    except (ValueError, TypeError):
        refusal, is_own, url = "the address is not valid", False, URL()
    if refusal is not None:
        raise PutFailed(f"the gateway has named no address to which a file may be sent: {refusal}", lasting=True)
    through = proxy_url(proxy) if proxy is not None else environment_proxy(url)
    connector = Connector(socket_factory=None if through else partial(open_socket, loopback=is_own))
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, timeout=_TIMEOUT
            ) as session,
            session.put(
                url,
                data=data,
                headers=place.headers,
                skip_auto_headers=_AUTOMATIC,
                allow_redirects=False,
                proxy=through,
            ) as response,
        ):
            status = response.status
    except (aiohttp.ClientError, OSError, ValueError, TypeError) as error:
        raise PutFailed(f"its storage did not take it: {classify_exception(error, sent=True).detail}") from None
    if not 200 <= status < 300:
        raise PutFailed(f"its storage answered HTTP {status}")
