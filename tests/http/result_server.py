"""Server of results for tests: sends exactly the given answers, and records the requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async._http.downloads import Downloader
from pika_async._http.partial_file import Download
from pika_async.errors import DownloadFailed


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def mp4(size: int = 1000, fill: bytes = b"m") -> bytes:
    """An MP4 of about `size` bytes with its index behind."""
    return box(b"ftyp", b"isom\0\0\2\0isom") + box(b"mdat", fill * size) + box(b"moov", b"i" * 30)


VIDEO = mp4()
FRAGMENTED = mp4() + box(b"moof", b"f" * 20) + box(b"mdat", b"m" * 20)


@attrs.define
class ReceivedRequest:
    """Request as received: its target and its headers in lower case."""

    target: str
    headers: dict[str, str]


Answer = bytes | Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Server that answers the n-th request with the n-th answer, repeats the last one, and closes each connection."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self.answers = answers
        self.asked: list[ReceivedRequest] = []
        self.connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    def url(self, path: str = "/video.mp4") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            lines = (line.split(": ", 1) for line in head[1:] if line)
            asked = ReceivedRequest(head[0], {name.lower(): value for name, value in lines})
            self.asked.append(asked)
            answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
            if isinstance(answer, bytes):
                writer.write(answer)
            else:
                await answer(asked, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def serve(*answers: Answer) -> AsyncIterator[Server]:
    server = Server(answers)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.stop()
        await listener.wait_closed()


def ok(body: bytes = VIDEO, *headers: str, length: int | None = -1, status: str = "200 OK") -> bytes:
    """Build an answer with *body*; a *length* of None sends no Content-Length, -1 the true one."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def part(first: int, *headers: str, total: int | None = None, body: bytes = VIDEO) -> bytes:
    span = f"Content-Range: bytes {first}-{len(body) - 1}/{len(body) if total is None else total}"
    return ok(body[first:], span, *headers, status="206 Partial Content")


def moved(location: str, status: str = "302 Found") -> bytes:
    return ok(b"", f"Location: {location}", status=status)


def chunked(body: bytes, *, end: bool = True) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n" % len(body) + body + b"\r\n" + (b"0\r\n\r\n" if end else b"")


TAG = 'ETag: "one"'


def quick(**options: Any) -> Downloader:
    return Downloader(**{"loopback": True, "first_delay": 0.0, "stall_timeout": 5.0, "connect_timeout": 5.0} | options)


async def fetch(url: str, target: Path, **options: Any) -> Download:
    async with quick(**options) as downloader:
        return await downloader.fetch(url, target)


async def failure(url: str, target: Path, **options: Any) -> DownloadFailed:
    """Return the error of a fetch that must fail, leave no file and chain no exception."""
    before = sorted(target.parent.iterdir())
    with pytest.raises(DownloadFailed) as caught:
        await fetch(url, target, **options)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert sorted(target.parent.iterdir()) == before
    return caught.value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
