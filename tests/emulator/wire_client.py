"""Plain HTTP client for the pages of Pika's own API and of fal, written from their documents."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import attrs

from pika_async.emulator import Emulator

__all__ = ["FAL_BODY", "FAL_ENDPOINT", "PIKA_BODY", "PIKA_OPERATION", "Reply", "WireClient"]

PIKA_OPERATION = "pika/pika-2.5/text-to-video"
PIKA_BODY: dict[str, Any] = {"prompt": "a cat", "resolution": "720p", "duration_s": 5}
FAL_ENDPOINT = "fal-ai/pika/v2.2/text-to-video"
FAL_BODY: dict[str, Any] = {"prompt": "a cat", "resolution": "720p", "duration": 5}


@attrs.frozen
class Reply:
    """Answer that was read to its end."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


@attrs.define
class WireClient:
    """Client of one emulator. Each header can be replaced, or left out with ``None``."""

    session: aiohttp.ClientSession
    emulator: Emulator
    _keys: int = 0

    async def call(self, method: str, url: str, body: Any = None, **headers: str | None) -> Reply:
        """Send one request; *body* is bytes or JSON. Underscores in the names of *headers* stand for hyphens."""
        given = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        async with self.session.request(
            method, url, data=data, headers=given, skip_auto_headers=["Content-Type"]
        ) as reply:
            return Reply(reply.status, dict(reply.headers), await reply.read())

    def _json_headers(self, body: Any, headers: dict[str, str | None]) -> dict[str, str | None]:
        return {**({} if body is None else {"Content_Type": "application/json"}), **headers}

    async def pika(self, method: str, path: str, body: Any = None, **headers: str | None) -> Reply:
        """Send one request to Pika's own API, with the key."""
        given = self._json_headers(body, {"X_API_Key": self.emulator.api_key, **headers})
        return await self.call(method, self.emulator.base_url("pika") + path, body, **given)

    async def pika_submit(
        self, body: Any = None, key: str | None = "", operation: str = PIKA_OPERATION, **headers: str | None
    ) -> Reply:
        """Submit a job under *key*: by default a new one."""
        self._keys += 1
        key = f"key-{self._keys}" if key == "" else key
        body = PIKA_BODY if body is None else body
        return await self.pika("POST", f"/v1/media/{operation}", body, **{"Idempotency_Key": key, **headers})

    async def pika_job(self, job_id: str) -> Any:
        """Poll a job and return its document."""
        return (await self.pika("GET", f"/v1/media/jobs/{job_id}")).json()

    async def fal(self, method: str, url: str, body: Any = None, **headers: str | None) -> Reply:
        """Send one request to fal, with the key; *url* is an address of a receipt, or a path below the base URL."""
        given = self._json_headers(body, {"Authorization": f"Key {self.emulator.api_key}", **headers})
        whole = url if url.startswith("http") else self.emulator.base_url("fal") + url
        return await self.call(method, whole, body, **given)

    async def fal_submit(
        self, body: Any = None, query: str = "", endpoint: str = FAL_ENDPOINT, **headers: str | None
    ) -> Reply:
        """Submit a request."""
        return await self.fal("POST", f"/{endpoint}{query}", FAL_BODY if body is None else body, **headers)
