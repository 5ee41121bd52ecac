"""A store with the protocol of S3: moto in a process of its own, behind a proxy that fails as a test wants.

moto is the server of its project, started as a program, so that neither its imports nor its threads are in the suite. It
neither checks signatures nor checksums; the proxy checks the checksum, as S3 does.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import aiohttp
import attrs
from aiohttp import web

from tests.fakes.child_process import ChildProcess

__all__ = ["BUCKET", "ENVIRONMENT", "Fault", "StoreProxy", "moto", "store_proxy"]

BUCKET: Final = "clips"
START_TIMEOUT_S: Final = 60
#: moto wants one, and does not check it.
SIGNATURE: Final = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
#: What every tool of AWS reads; the endpoint is the proxy's.
ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "canary-access-key", "AWS_SECRET_ACCESS_KEY": "canary-secret-4be1c07d", "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "no-such-file", "AWS_SHARED_CREDENTIALS_FILE": "no-such-file",
}  # fmt: skip


@attrs.define
class Fault:
    """What happens to the next requests of a method.

    :param status: answered without asking the store; 0: the request is passed on.
    :param code: the code of that answer.
    :param lose: whether the connection is closed in place of the answer.
    :param hold: whether the body is read to its half, and then no further.
    :param times: how many requests it befalls.
    :param where: part of the path and query.
    """

    method: str
    status: int = 0
    code: str = "InternalError"
    lose: bool = False
    hold: bool = False
    times: int = 1
    where: str = ""


@attrs.frozen
class Seen:
    method: str
    path: str
    headers: dict[str, str]


@attrs.define
class StoreProxy:
    """Proxy before a store.

    :param upstream: address of the store.
    """

    upstream: str
    faults: list[Fault] = attrs.field(factory=list)
    seen: list[Seen] = attrs.field(factory=list)
    url: str = ""
    #: Set once the body of a held request was read to its half.
    is_holding: threading.Event = attrs.field(factory=threading.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request as the next fault says, or as the store does."""
        path = request.raw_path
        self.seen.append(Seen(request.method, path, {k.lower(): v for k, v in request.headers.items()}))
        fault = next((it for it in self.faults if it.method == request.method and it.where in path and it.times), None)
        if fault is not None:
            fault.times -= 1
        if fault is not None and fault.hold:
            await request.content.readexactly(int(request.headers["Content-Length"]) // 2)
            self.is_holding.set()
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0.02)
            raise ConnectionResetError
        body = await request.read()
        if fault is not None and fault.status:
            text = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>as the test wants</Message></Error>"
            return web.Response(status=fault.status, body=text.encode(), content_type="application/xml")
        wanted = request.headers.get("x-amz-checksum-sha256")
        if wanted is not None and base64.b64encode(hashlib.sha256(body).digest()).decode() != wanted:
            text = "<?xml version='1.0'?><Error><Code>BadDigest</Code><Message>not the content</Message></Error>"
            return web.Response(status=400, body=text.encode(), content_type="application/xml")
        headers = {k: v for k, v in request.headers.items() if k.lower() not in {"host", "content-length", "expect"}}
        async with (
            aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Content-Type",)) as session,
            session.request(request.method, f"{self.upstream}{path}", data=io.BytesIO(body), headers=headers) as found,
        ):
            content = await found.read()
        if fault is not None and fault.lose:
            assert request.transport is not None
            request.transport.abort()
        kept = {k: v for k, v in found.headers.items() if k.lower() not in {"transfer-encoding", "content-encoding"}}
        if request.method != "HEAD":
            kept.pop("Content-Length", None)
        return web.Response(status=found.status, body=content if request.method != "HEAD" else None, headers=kept)

    def count(self, method: str, where: str = "") -> int:
        """Count the requests of a method."""
        return sum(it.method == method and where in it.path for it in self.seen)

    # --- the store, without the proxy ------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return the store's own answer."""
        parts = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=START_TIMEOUT_S)
        try:
            connection.request(method, path, body=body or None, headers={"Authorization": SIGNATURE})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.status < 300, (method, path, answer.status, content)
        return content

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        return self.ask("GET", f"/{BUCKET}/{quote(key)}")

    def put(self, key: str, content: bytes) -> None:
        """Store an object, as another program does."""
        self.ask("PUT", f"/{BUCKET}/{quote(key)}", content)

    def object_keys(self) -> list[str]:
        """Return the keys of all objects."""
        found = ET.fromstring(self.ask("GET", f"/{BUCKET}?list-type=2"))  # noqa: S314 - our own process
        return [each.text or "" for each in found.iter() if each.tag.endswith("}Key") or each.tag == "Key"]

    def uploads(self) -> int:
        """Count the uploads in parts that were begun and neither ended nor given up."""
        found = ET.fromstring(self.ask("GET", f"/{BUCKET}?uploads"))  # noqa: S314 - our own process
        return sum(each.tag.endswith("UploadId") for each in found.iter())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def moto() -> Iterator[str]:
    """Run moto; yield its address."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = ChildProcess(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            assert process.poll() is None, "moto has ended"
            assert time.monotonic() < deadline, "moto does not listen"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def store_proxy(upstream: str) -> Iterator[StoreProxy]:
    """Serve a proxy before an empty store with one bucket, in a thread."""
    proxy = StoreProxy(upstream)
    proxy.ask("POST", "/moto-api/reset")
    proxy.ask("PUT", f"/{BUCKET}")
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", proxy.answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="store proxy")
    thread.start()
    try:
        assert ready.wait(START_TIMEOUT_S)
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
