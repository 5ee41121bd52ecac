"""One GET of a small public document, such as the keys of a gateway, without any credential. Follows no redirect."""

from __future__ import annotations

from typing import Final

import aiohttp
from yarl import URL

from pika_async._http.failures import classify_exception
from pika_async._http.proxies import environment_proxy, proxy_url

__all__ = ["MAX_DOCUMENT_BYTES", "DocumentUnavailable", "get_document"]

MAX_DOCUMENT_BYTES: Final = 1 << 16
#: In seconds: shorter than a sender of callbacks waits for its answer.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=4)


class DocumentUnavailable(Exception):  # noqa: N818 - named after the document
    """A document that could not be fetched; the text says why."""


async def get_document(url: str, *, proxy: str | None = None) -> bytes:
    """Return the content of the document at `url`.

    :param url: an http(s) URL, which is the package's or the user's own.
    :param proxy: an http(s) URL. Default: the environment's proxy, except for loopback addresses.
    :raises DocumentUnavailable: if it cannot be fetched within 4 s, or is longer than 64 KiB.
    """
    through = proxy_url(proxy) if proxy is not None else environment_proxy(url)
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, timeout=_TIMEOUT) as session,
            session.get(URL(url, encoded=True), allow_redirects=False, proxy=through) as response,
        ):
            if response.status != 200:
                raise DocumentUnavailable(f"{url} answers HTTP {response.status}")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_DOCUMENT_BYTES:
                    raise DocumentUnavailable(f"{url} is longer than {MAX_DOCUMENT_BYTES:,} bytes")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise DocumentUnavailable(f"{url}: {classify_exception(error, sent=True).detail}") from None
    return bytes(content)
