"""Live board of the jobs of a folder or a database: turns requests into replies. Opens no socket; see `board_servers`.

Every reply depends on the token; see `board_access`. Only files that a card links are served.
"""

from __future__ import annotations

import json
import mimetypes
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, quote

import anyio
import anyio.to_thread
import attrs

from pika_async.errors import PikaError
from pika_async.report.board_access import BoardAccess, Verdict
from pika_async.report.board_feed import message
from pika_async.report.board_source import ChangeFollower
from pika_async.report.page import BOARD_POLICY, page_text, script_json, static_files

__all__ = ["Board", "BoardReply", "BoardRequest", "Control"]

#: Seconds after which a reader without news gets a sign of life; the page calls itself stale after three of them.
BEAT_S: Final = 5.0
#: Bytes of a file that are sent at once.
FILE_PART_BYTES: Final = 1 << 18
#: Longest body of a request that changes something, in bytes.
MAX_CONTROL_BYTES: Final = 1 << 16
#: Headers of every reply.
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": BOARD_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".mp4": "video/mp4", ".svg": "image/svg+xml"}

#: Carries out one change: its name and its arguments; returns what the page shows.
Control: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[str]]


@attrs.frozen(kw_only=True)
class BoardRequest:
    """A request, as every server knows it.

    :param method: its method, in upper case.
    :param path: path below the place where the board is mounted, with the slash in front.
    :param prefix: path of that place, without a slash at its end; "" for a server of its own.
    :param query: its query, without the question mark.
    :param headers: by their names in lower case.
    :param read: returns the body up to a number of bytes, and one byte more of a longer one.
    """

    method: str
    path: str
    prefix: str = ""
    query: str = ""
    headers: Mapping[str, str]
    read: Callable[[int], Awaitable[bytes]]


@attrs.frozen
class BoardReply:
    """A reply: its status, its headers, and its body, which is whole or comes in parts."""

    status: int
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: bytes | AsyncIterator[bytes] = b""


def _reply(
    status: int, body: bytes = b"", type_: str = "text/plain; charset=utf-8", more: Mapping[str, str] | None = None
) -> BoardReply:
    return BoardReply(
        status, {**_HEADERS, "Content-Type": type_, "Content-Length": str(len(body)), **(more or {})}, body
    )


@attrs.define
class Board:
    """The board.

    :param source: what it shows.
    :param access: who may read it.
    :param title: title of the page.
    :param is_running: returns whether a batch runs; default: unknown, shown as running.
    :param control: carries out changes; default None, there are none.
    :param state: returns what the buttons of the page show of the batch; default: nothing.
    """

    source: ChangeFollower
    access: BoardAccess
    title: str
    is_running: Callable[[], bool] = lambda: True
    control: Control | None = None
    state: Callable[[], Mapping[str, Any]] = dict
    #: Name of this process's numbers of changes.
    _epoch: str = attrs.field(factory=lambda: secrets.token_hex(8), init=False)
    _is_closing: bool = attrs.field(default=False, init=False)
    #: Wakes the streams of events; None before the first one waits.
    _wake: anyio.Event | None = attrs.field(default=None, init=False)

    def close(self) -> None:
        """End every stream of events after the last changes."""
        self._is_closing = True
        self._wake_streams()

    def _wake_streams(self) -> None:
        if self._wake is not None:
            self._wake.set()
            self._wake = None

    async def handle(self, request: BoardRequest) -> BoardReply:
        """Return the reply to a request."""
        if request.path.startswith("/control/"):
            return await self._change(request)
        if request.method not in {"GET", "HEAD"}:
            return _reply(403, b"forbidden\n")
        tokens = parse_qs(request.query).get("token")
        verdict = self.access.judge(request.headers, None if tokens is None else tokens[0])
        if verdict is Verdict.FORBIDDEN:
            return _reply(403, b"forbidden: open the whole address that the command has printed\n")
        if verdict is Verdict.ALLOWED:
            return await self._read(request)
        place = quote(f"{request.prefix}/")
        cookie = {"Set-Cookie": self.access.set_cookie(place)}
        if request.path in {"", "/"} and "text/html" in request.headers.get("accept", ""):  # a browser
            return _reply(303, more={"Location": place, **cookie})
        reply = await self._read(request)
        return attrs.evolve(reply, headers={**reply.headers, **cookie})

    async def _read(self, request: BoardRequest) -> BoardReply:
        path = request.path
        await self.source.refresh()
        if path in {"", "/"}:
            return _reply(200, await self._page(), "text/html; charset=utf-8")
        if path == "/timeline":
            return _reply(200, await self._page(with_cards=False), "text/html; charset=utf-8")
        if path == "/events":
            return self._events(request)
        if path == "/healthz":
            return self._health()
        name = path.removeprefix("/assets/")
        if path.startswith("/assets/") and (content := (await self._static()).get(name)) is not None:
            return _reply(200, content, _TYPES[Path(name).suffix])
        file = self.source.feed.files.get("." + quote(path, safe="/"))
        return _reply(404, b"not found\n") if file is None else await self._file(file, request.headers.get("range"))

    async def _static(self) -> dict[str, bytes]:
        return await anyio.to_thread.run_sync(partial(static_files, live=True))

    def _health(self) -> BoardReply:
        error = self.source.error
        facts = {"ok": error is None, "revision": self.source.feed.revision, "running": self.is_running()}
        body = json.dumps(facts if error is None else {**facts, "error": error.message}).encode()
        return _reply(200 if error is None else 503, body, "application/json")

    # --- the page and its events -------------------------------------------------------------------------------------

    def _head(self) -> dict[str, Any]:
        written = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        head = {**self.source.feed.head(is_running=self.is_running(), written=written), "batch": self.state()}
        error = self.source.error
        return head if error is None else {**head, "trouble": error.message}

    async def _page(self, *, with_cards: bool = True) -> bytes:
        timeline, durations = await self.source.figures(time.time())
        feed = self.source.feed
        head = {**self._head(), "epoch": self._epoch, "number": feed.number, "beat": BEAT_S}
        if self.control is not None and self.access.control:
            head["control"] = self.access.control_token
        render = partial(
            page_text, head, feed.cards() if with_cards else [], title=self.title, maker="board", timeline=timeline,
            durations=durations, live=True,
        )  # fmt: skip
        text = await anyio.to_thread.run_sync(render)
        return text.encode()

    def _events(self, request: BoardRequest) -> BoardReply:
        query = parse_qs(request.query)
        last = request.headers.get("last-event-id")
        after = _number(last if last is not None else query.get("after", ["0"])[0])
        seen = None
        if last is None and query.get("epoch") == [self._epoch]:
            seen = _number(query.get("seen", [""])[0])
        if after is None:
            return _reply(400, b"the id of an event must be a number\n")
        headers = {**_HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        return BoardReply(200, headers, self._stream(after, seen))

    async def _stream(self, after: int, seen: int | None) -> AsyncIterator[bytes]:
        feed = self.source.feed
        yield b"retry: 1000\n" + message("hello", script_json({"epoch": self._epoch}))
        shown, sent_at = None, time.monotonic()
        while True:
            is_last = self._is_closing
            number, state = feed.number, (feed.number, self.source.error is None, self.is_running(), self.state())
            parts = list(feed.messages(after, seen))
            after, seen = feed.revision, number
            if state != shown:
                parts.append(message("head", script_json(self._head())))
                shown, sent_at = state, time.monotonic()
            elif time.monotonic() - sent_at >= BEAT_S:
                parts.append(message("beat", "{}"))
                sent_at = time.monotonic()
            for part in parts:
                yield part
            if is_last:
                yield message("end", "{}")
                return
            if self._wake is None:
                self._wake = anyio.Event()
            wake = self._wake
            with anyio.move_on_after(self.source.pause_s):
                await wake.wait()
            await self.source.refresh(at_once=wake.is_set())

    # --- files -------------------------------------------------------------------------------------------------------

    async def _file(self, path: Path, wanted: str | None) -> BoardReply:
        try:
            size = (await anyio.Path(path).stat()).st_size
        except OSError:
            return _reply(404, b"not found\n")
        part = byte_range(wanted, size)
        type_ = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        start, end = part or (0, size)
        headers = {**_HEADERS, "Content-Type": type_, "Accept-Ranges": "bytes", "Content-Length": str(end - start)}
        if part is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return BoardReply(200 if part is None else 206, headers, _chunks(path, start, end))

    # --- changes -----------------------------------------------------------------------------------------------------

    async def _change(self, request: BoardRequest) -> BoardReply:
        if self.control is None or not self.access.may_change(request.method, request.headers):
            return _reply(403, b"forbidden\n")
        body = await request.read(MAX_CONTROL_BYTES)
        try:
            arguments = json.loads(body) if len(body) <= MAX_CONTROL_BYTES else None
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            return _reply(400, b"the body must be a JSON object\n")
        try:
            outcome = await self.control(request.path.removeprefix("/control/"), arguments)
        except (LookupError, ValueError, PikaError) as error:
            return _reply(409, json.dumps({"error": str(error)}).encode(), "application/json")
        self._wake_streams()
        return _reply(200, json.dumps({"done": outcome}).encode(), "application/json")


def byte_range(wanted: str | None, size: int) -> tuple[int, int] | None:
    """Return the first byte and the end of the one range that a `Range` header asks for; None for the whole file.

    :param wanted: the header; None if there is none.
    :param size: size of the file in bytes.
    """
    unit, _, span = (wanted or "").partition("=")
    first, separator, last = span.partition("-")
    numbers = [_number(each) for each in (first, last) if each]
    if unit.strip() != "bytes" or not separator or not numbers or None in numbers:
        return None
    if not first:
        start, end = max(size - (numbers[0] or 0), 0), size
    else:
        start, end = numbers[0] or 0, min((numbers[1] or 0) + 1, size) if last else size
    return (start, end) if start < end else None


async def _chunks(path: Path, start: int, end: int) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        await file.seek(start)
        while start < end:
            chunk = await file.read(min(FILE_PART_BYTES, end - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
