"""Live board of a client, to mount in a service: as an aiohttp sub-application or as an ASGI application."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pika_async._http.callbacks import Asgi
from pika_async._journal.protocol import Journal
from pika_async.errors import ConfigurationError

if TYPE_CHECKING:
    from aiohttp import web

    from pika_async.report.board import Board

__all__ = ["BoardView", "ClientBoard"]


class ClientBoard:
    """The live page of a client's journal. Open it at the place where it is mounted, with `?token=` and its `token`.

    The page needs Jinja2, which the extra `cli` installs. Everything but a request with the token, or with the cookie
    that the first one gets, is answered 403. The board only reads, also while the client is not open.

    :param journal: the file of the journal; links of videos are relative to its folder.
    :param title: the title of the page.
    :param is_open: returns whether the client is open.
    """

    def __init__(self, journal: Path, title: str, is_open: Callable[[], bool]) -> None:
        from pika_async.report.board_access import BOARD_TOKEN_BYTES  # noqa: PLC0415 - most clients have no board

        #: The secret of this board, made anew for each client.
        self.token = secrets.token_urlsafe(BOARD_TOKEN_BYTES)
        self._journal = journal
        self._title = title
        self._is_open = is_open

    def __repr__(self) -> str:
        return f"<ClientBoard of {self._journal}>"

    def app(self, *, hosts: Iterable[str] = ()) -> web.Application:
        """Return a new aiohttp application, for `add_subapp`.

        :param hosts: the names under which browsers reach the service, without ports, as they stand in `Host`;
            default: none but those of loopback.
        """
        from pika_async.report.board_servers import aiohttp_board  # noqa: PLC0415 - most clients have no board

        return aiohttp_board(self._board(hosts))

    def asgi(self, *, hosts: Iterable[str] = ()) -> Asgi:
        """Return a new ASGI 3 application, to mount in FastAPI, Starlette and the like.

        :param hosts: the names under which browsers reach the service, without ports, as they stand in `Host`;
            default: none but those of loopback.
        """
        from pika_async.report.board_servers import asgi_board  # noqa: PLC0415

        return asgi_board(self._board(hosts))

    def _board(self, hosts: Iterable[str]) -> Board:
        from pika_async.report.board import Board  # noqa: PLC0415
        from pika_async.report.board_access import LOOPBACK_NAMES, BoardAccess  # noqa: PLC0415
        from pika_async.report.board_source import JournalFollower  # noqa: PLC0415

        access = BoardAccess(self.token, hosts=LOOPBACK_NAMES | {host.lower() for host in hosts})
        return Board(JournalFollower(self._journal.parent, self._journal), access, self._title, self._is_open)


class BoardView:
    """The board of a client."""

    _journal: Journal

    @cached_property
    def board(self) -> ClientBoard:
        """The live page of the jobs in the journal, to mount in a service.

        :raises ConfigurationError: if the journal is in memory only.
        """
        if self._journal.path is None:
            reason = "must be a file, which the board reads; give a path"
            raise ConfigurationError(setting="journal", reason=reason)
        path = self._journal.path
        return ClientBoard(path, path.parent.name, lambda: getattr(self, "_session", None) is not None)
