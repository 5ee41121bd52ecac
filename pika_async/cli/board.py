"""`board`: serve the live page of a folder or a database until Ctrl-C. Writes nothing into either."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import secrets
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import attrs
from cyclopts import Parameter

from pika_async._journal.lock import is_owner_alive
from pika_async.cli.batch_folder import BatchFolder
from pika_async.cli.board_control import BatchControl
from pika_async.cli.cluster_board import database_board
from pika_async.cli.database import DatabaseOption, required_folder
from pika_async.cli.exits import ExitCode, Interrupted, UsageError
from pika_async.cli.loop import run_in_loop
from pika_async.cli.options import CommonOptions, Port, UserPath
from pika_async.cli.signals import interruptible
from pika_async.cli.terminal import Terminal, logging_to
from pika_async.errors import shorten
from pika_async.report.board_access import BOARD_TOKEN_BYTES, LOOPBACK_NAMES, BoardAccess

if TYPE_CHECKING:
    from pika_async.report.board import Board

__all__ = ["BoardOptions", "board", "board_beside", "folder_board", "with_board_port"]

#: Name of a host, or an IPv6 address in brackets, as a browser sends it.
HOST_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")
#: Address of a board without `--host`.
BOARD_HOST: Final = "127.0.0.1"


def folder_board(folder: BatchFolder, host: str, names: Collection[str], *, price: float | None = None) -> Board:
    """Return the board of `folder`, which only reads it.

    :param host: address to listen on.
    :param names: further names under which browsers reach it.
    :param price: price of one charge; default None, unknown.
    """
    from pika_async.report.board import Board  # noqa: PLC0415 - most commands have no board
    from pika_async.report.board_source import JournalFollower  # noqa: PLC0415

    root = folder.root.absolute()
    source = JournalFollower(root, folder.journal_file, price)
    return Board(source, new_access(host, names), root.name, partial(is_owner_alive, folder.journal_file))


def new_access(host: str, names: Collection[str]) -> BoardAccess:
    """Return the rules of a new board, with a secret of its own; see `folder_board`."""
    own = {host.lower()} if host not in {"", "0.0.0.0", "::"} else set()  # noqa: S104 - compared, not bound
    return BoardAccess(
        secrets.token_urlsafe(BOARD_TOKEN_BYTES),
        hosts=LOOPBACK_NAMES | own | {name.lower().strip("[]") for name in names},
        any_address=_is_unspecified(host),
    )


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class BoardOptions:
    """The live page of a command that runs."""

    board: Annotated[Port | None, Parameter(name="--board")] = None
    """Serve the live page while the command runs, at an address that is printed; a port may follow. [default: no
    board; without a port any free one]"""

    control: Annotated[bool, Parameter(name="--board-control", negative=())] = False
    """Give the page of --board buttons to pause and resume, set the most in flight, cancel what is planned and resolve
    doubts. [default: it only reads]"""

    def new_control(self, terminal: Terminal) -> BatchControl | None:
        """Return the control of a batch; None without `--board-control`.

        :raises UsageError: without `--board`.
        """
        if not self.control:
            return None
        if self.board is None:
            raise UsageError("--board-control needs --board, whose page it gives buttons; nothing was sent")
        return BatchControl(terminal)


def with_board_port(argv: Sequence[str]) -> list[str]:
    """Return the arguments of a command with the port 0 behind a `--board` that has none."""
    found: list[str] = []
    for place, argument in enumerate(argv):
        if argument == "--":
            return [*found, *argv[place:]]
        found.append(argument)
        following = argv[place + 1] if place + 1 < len(argv) else ""
        if argument == "--board" and not (following.isascii() and following.isdecimal()):
            found.append("0")
    return found


@asynccontextmanager
async def board_beside(
    folder: BatchFolder,
    options: BoardOptions,
    terminal: Terminal,
    control: BatchControl | None = None,
    price: float | None = None,
) -> AsyncIterator[None]:
    """Serve the board of `folder` while the body runs, if `options` ask for it.

    :param control: carries out the changes that the page asks for; default None, it only reads.
    :param price: price of one charge; default None, unknown.
    :raises ConfigurationError: if the port is taken.
    """
    if options.board is None:
        yield
        return
    from pika_async.report.board_servers import serving  # noqa: PLC0415

    made = folder_board(folder, BOARD_HOST, (), price=price)
    if control is not None:
        made.access = attrs.evolve(made.access, control=True)
        made.control, made.state = control.change, control.state
    async with serving(made, BOARD_HOST, options.board) as url:
        terminal.note_whole(f"board: {url}")
        yield


def _is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def board(
    folder: UserPath | None = None,
    /,
    *,
    database: DatabaseOption = DatabaseOption(),  # noqa: B008 - frozen
    port: Port = 0,
    host: str = BOARD_HOST,
    allow_host: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    common: CommonOptions = CommonOptions(),  # noqa: B008 - frozen
) -> int:
    """Serve the live page of a folder until Ctrl-C, also while its batch runs.

    Example: `pika-async board clips`

    It only reads, also beside a batch with --board-control. The address that it prints holds a secret:
    everyone who has it sees the prompts and the videos. With --database the page shows all jobs there, the workers
    and the accounts.

    :param folder: The --out folder of a batch, in place of --database.
    :param port: Port to listen on; 0 takes any free one.
    :param host: Address of this machine to listen on. The connection is not encrypted: leave it, or put a proxy with
        TLS in front.
    :param allow_host: Name under which browsers reach the board besides its address; may be given several times.
    """
    terminal = Terminal()
    with logging_to(terminal, common.log_level):
        for name in allow_host:
            if not HOST_NAME.fullmatch(name):
                way_out = 'must be a bare name without a scheme or a port, such as "board.example.org"'
                raise UsageError(f"--allow-host: {shorten(name)} {way_out}")
        if database.database is not None:
            made_board = database_board(database.place("board", folder), new_access(host, allow_host))
            return run_in_loop(_serve(made_board, host, port, terminal))
        batch_folder = BatchFolder(required_folder("board", folder))
        batch_folder.require_existing()
        made = folder_board(batch_folder, host, allow_host, price=batch_folder.options().price)
        return run_in_loop(_serve(contextlib.nullcontext(made), host, port, terminal))


async def _serve(opening: AbstractAsyncContextManager[Board], host: str, port: int, terminal: Terminal) -> ExitCode:
    from pika_async.report.board_servers import serving  # noqa: PLC0415

    async def work() -> None:
        async with opening as made, serving(made, host, port) as url:
            await made.source.refresh()
            if made.source.error is not None:
                raise made.source.error
            terminal.note_whole(f"board: {url}")
            terminal.note("press Ctrl-C to stop")
            await anyio.sleep_forever()

    with contextlib.suppress(Interrupted):
        await interruptible(work(), lambda: terminal.note("stopping"))
    return ExitCode.OK
