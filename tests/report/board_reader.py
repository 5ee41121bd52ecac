"""Reader of a board over real sockets, with the cookies of a browser."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs

from pika_async._journal.sqlite import SqliteJournal
from pika_async.report.board import Board
from pika_async.report.board_access import BoardAccess
from pika_async.report.board_servers import serving
from pika_async.report.board_source import JournalFollower

__all__ = ["TOKEN", "Reader", "board_of", "reading"]

TOKEN = "t" * 43


def board_of(root: Path, **more: Any) -> Board:
    source = JournalFollower(root, root / "journal.db")
    access = BoardAccess(TOKEN, control="control" in more)
    return Board(source, access, "a board", **more)


@attrs.define
class Reader:
    """Browser with cookies, and the board that it reads."""

    session: aiohttp.ClientSession
    url: str
    board: Board
    journal: SqliteJournal

    async def get(self, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(self.url + path, headers=named, allow_redirects=False) as response:
            return response.status, response.headers, await response.read()

    async def enter(self) -> None:
        status, _, _ = await self.get(f"/?token={TOKEN}")
        assert status == 200

    async def events(self, query: str = "", **headers: str) -> AsyncIterator[tuple[str, str, Any]]:
        """Yield the id, the name and the data of each event."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(f"{self.url}/events{query}", headers=named) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "event" in fields:
                    yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
                    fields = {}

    async def cards(self, query: str = "", *, count: int, **headers: str) -> list[tuple[str, str]]:
        """Return the id of its message and the key of each card, once there are `count`."""
        found: list[tuple[str, str]] = []
        async for number, name, data in self.events(query, **headers):
            if name == "cards":
                found += [(number, card["key"]) for card in data]
            if len(found) >= count:
                return found
        raise AssertionError(f"the stream ended after {found}")


@asynccontextmanager
async def reading(root: Path, **more: Any) -> AsyncIterator[Reader]:
    journal = SqliteJournal(root / "journal.db")
    await journal.open()
    try:
        board = board_of(root, **more)
        async with (
            serving(board, "127.0.0.1", 0) as url,
            aiohttp.ClientSession(
                cookie_jar=aiohttp.CookieJar(unsafe=True), timeout=aiohttp.ClientTimeout(60)
            ) as session,
        ):
            assert url.endswith(f"/?token={TOKEN}")
            yield Reader(session, url.partition("/?")[0], board, journal)
    finally:
        await journal.close()
