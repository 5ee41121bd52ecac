"""Connections to a cluster's database, and its transactions, which run in threads. Holds no statement of its own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import random
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from weakref import WeakSet

import attrs
import sqlalchemy as sa
from backoff import constant, on_exception

from pika_async._http.addresses import redact_text
from pika_async.engines import tables
from pika_async.errors import ClusterUnusable, JournalFailed, shorten

__all__ = ["IDLE_TRANSACTION_S", "Database", "StatementRefused", "checked_url"]

#: Connections of one process, and threads that use them.
CONNECTIONS: Final = 4
#: Milliseconds that SQLite waits for the lock of another process.
SQLITE_BUSY_MS: Final = 30_000
#: Seconds after which PostgreSQL ends a transaction whose process was stopped in the middle, for the sake of those that
#: wait for its locks.
IDLE_TRANSACTION_S: Final = 3.0
#: Waits before a transaction is tried again after its connection was lost, in seconds: about a minute in all, which a
#: restart of the server takes.
RETRY_WAITS_S: Final = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
#: SQLSTATE of a transaction that PostgreSQL ended for another's sake, and that may be tried again: serialization
#: failure, deadlock, idle for too long.
_RETRIED_STATES: Final = frozenset({"40001", "40P01", "25P03"})

#: Of SQLite, the errors that may end: another process has the lock, or the disk fails or is full.
_RETRIED_NAMES: Final = (
    "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN",
)  # fmt: skip

_log = logging.getLogger("pika_async.database")


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class StatementRefused(JournalFailed):
    """A failure of the statement or its values, not of the connection: the same again would fail again."""


P = ParamSpec("P")
R = TypeVar("R")


def checked_url(url: object) -> sa.URL:
    """Return the address of a database, with the driver that is used.

    :raises ClusterUnusable: unless it is `postgresql://...`, or `sqlite:///` with an absolute path.
    """
    ways = "give postgresql://USER@HOST/DATABASE, or sqlite:/// and an absolute path"
    try:
        parsed = sa.make_url(str(url))
    except (sa.exc.ArgumentError, ValueError):  # a port that is not a number; not shown, since it may hold a password
        raise ClusterUnusable(setting="database", reason=f"is not the address of one; {ways}") from None
    if "@" in (parsed.host or ""):
        reason = "must have %40 for each @ in the password"
        raise ClusterUnusable(setting="database", reason=reason)
    backend = parsed.get_backend_name()
    if backend == "postgresql" or parsed.drivername == "postgres":
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise ClusterUnusable(setting="database", reason=f"{backend!r} is not a database that is supported; {ways}")
    if not (parsed.database or "").startswith("/"):
        reason = f"{shorten(parsed.database)} must have an absolute path; {ways}"
        raise ClusterUnusable(setting="database", reason=reason)
    return parsed.set(drivername="sqlite")


class Database:
    """A database of a cluster: PostgreSQL, or a SQLite file for several processes of one machine.

    :param url: the address of the database.
    :raises ClusterUnusable: if `url` cannot be one.
    """

    def __init__(self, url: str | sa.URL) -> None:
        self.url = checked_url(url)
        self.engine = _create_engine(self.url)
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="pika_async database")
        #: Whether it has not answered since it was lost: all that wait for it say so once.
        self._is_away = False
        #: Whether the database is not waited for any more: every call fails at once.
        self.is_given_up = False
        #: What is being waited for: answers, and times to try again; and since when.
        self._waiting: dict[asyncio.Future[Any], float] = {}
        #: What was waited for when the database was given up.
        self._abandoned: frozenset[asyncio.Future[Any]] = frozenset()
        #: The connections to PostgreSQL.
        self._connections: WeakSet[Any] = WeakSet()
        if not self.is_sqlite:
            sa.event.listen(self.engine, "connect", lambda connection, _: self._connections.add(connection))

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite."""
        return self.engine.dialect.name == "sqlite"

    @property
    def text(self) -> str:
        """The address without its password and its options, which may hold one too."""
        shown = self.url.set(drivername=self.url.get_backend_name(), query={})
        return shown.render_as_string(hide_password=True)

    async def open(self) -> None:
        """Connect, and make the tables or bring them to this version.

        :raises ClusterUnusable: if the database cannot be reached, or has tables of a later version.
        """
        try:
            await self._in_thread(self._transact, tables.migrate)
        except sa.exc.DBAPIError as error:
            await self.close()
            reason = f"{self.text} cannot be used: {(words := _words(error))}; {_way_out(words)}"
            raise ClusterUnusable(setting="database", reason=reason) from None
        except ClusterUnusable:
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection."""
        if self.is_given_up:
            sa.event.listen(self.engine, "checkin", _close_returned)  # of threads that still wait for an answer
            self._threads.shutdown(wait=False, cancel_futures=True)
        else:
            await asyncio.to_thread(self._threads.shutdown)
        self.engine.dispose()

    @contextlib.contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Give the database up within the block once a call has waited for `seconds`, tries included.

        Calls that are waiting already have as long from now on.
        """
        loop, begun = asyncio.get_running_loop(), time.monotonic()
        timer: asyncio.TimerHandle

        def check() -> None:
            nonlocal timer
            at = time.monotonic()
            left = seconds - max((at - max(begun, since) for since in self._waiting.values()), default=0.0)
            if left > 0 or not self._waiting:
                timer = loop.call_later(max(left, 0.01), check)
            else:
                self.give_up()

        timer = loop.call_later(seconds, check)
        try:
            yield
        finally:
            timer.cancel()

    def give_up(self) -> None:
        """Let every call fail, those that are waiting too, and close its connections, so that no thread waits on."""
        _log.error("the database %s is given up: it does not answer", self.text)
        self.is_given_up = True
        self._abandoned = frozenset(waiting for waiting in list(self._waiting) if waiting.cancel())
        for connection in list(self._connections):
            if not connection.closed:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as own:
                    own.shutdown(socket.SHUT_RDWR)

    async def run(self, statements: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `statements(connection, ...)` in one transaction, in a thread; try again if the connection is lost.

        The function may run several times; only the last run is committed. A commit whose answer was lost may have
        taken place, so what it does must bear being done twice.

        :raises StatementRefused: if the database refused a statement.
        :raises JournalFailed: if it could not be reached for about a minute, or is given up.
        """
        call: Callable[[sa.Connection], R] = functools.partial(_swapped, statements, args, kwargs)
        since = time.monotonic()
        for wait in (*RETRY_WAITS_S, None):
            try:
                result: R = await self._in_thread(self._transact, call, since=since)
            except sa.exc.DBAPIError as error:
                if wait is None or self.is_given_up or not _may_be_retried(error):
                    raise self.failure(error) from None
                self._log_retry(error)
                pause = asyncio.sleep(wait * (0.75 + 0.5 * random.random()))
                await self._wait(asyncio.ensure_future(pause), since)
            else:
                if self._is_away:
                    self._is_away = False
                    _log.warning("the database answers again")
                return result
        raise AssertionError

    async def run_once(
        self, statements: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run `statements(connection, ...)` as `run` does, but do not try again.

        :raises JournalFailed: if the database could not be reached, refused a statement, or is given up.
        """
        call: Callable[[sa.Connection], R] = functools.partial(_swapped, statements, args, kwargs)
        try:
            return await self._in_thread(self._transact, call)
        except sa.exc.DBAPIError as error:
            raise self.failure(error) from None

    def _log_retry(self, error: sa.exc.DBAPIError) -> None:
        """Log that a transaction is tried again: as a warning only the first time that the database is away."""
        if getattr(error.orig, "sqlstate", None) in _RETRIED_STATES:
            _log.debug("a transaction was ended for another's sake, trying again: %s", _words(error))
            return
        level = logging.DEBUG if self._is_away else logging.WARNING
        self._is_away = True
        _log.log(level, "the database does not answer, trying again: %s", _words(error))

    def failure(self, error: sa.exc.DBAPIError) -> JournalFailed:
        """Return an error of the database as one that holds neither the statement nor its values."""
        kind = JournalFailed if _may_be_retried(error) else StatementRefused
        return kind(provider="", reason=_words(error), path=self.text)

    async def _in_thread(self, function: Callable[..., R], *args: Any, since: float | None = None) -> R:
        if self.is_given_up:
            raise self._given_up()
        work = asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(function, *args))
        return await self._wait(work, time.monotonic() if since is None else since)

    async def _wait(self, waiting: asyncio.Future[R], since: float) -> R:
        """Wait for something unless the database is given up meanwhile."""
        self._waiting[waiting] = since
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting in self._abandoned:
                raise self._given_up() from None
            raise
        finally:
            del self._waiting[waiting]

    def _given_up(self) -> JournalFailed:
        return JournalFailed(provider="", reason="the database is given up: it did not answer", path=self.text)

    def _transact(self, call: Callable[[sa.Connection], R]) -> R:
        with self.engine.begin() as connection:
            return call(connection)


def _close_returned(connection: Any, _record: object) -> None:
    if connection is not None:  # as it is where it was lost
        connection.close()


def _swapped(statements: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any], connection: Any) -> R:
    return statements(connection, *args, **kwargs)


def _create_engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        options = {"application_name": "pika_async", "connect_timeout": 10}
        engine = sa.create_engine(url, pool_size=CONNECTIONS, max_overflow=0, connect_args=options)
        sa.event.listen(engine, "connect", _prepare_postgresql)
        return engine
    engine = sa.create_engine(url, pool_size=CONNECTIONS, max_overflow=0)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_postgresql(connection: Any, _record: object) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = {int(IDLE_TRANSACTION_S * 1000)}")
    connection.commit()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin_sqlite` alone
    connection.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_MS}")
    _set_wal(connection)
    connection.execute("PRAGMA synchronous=FULL")


def _is_not_busy(error: Exception) -> bool:
    return not str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_BUSY")


@on_exception(
    constant, sqlite3.OperationalError, interval=0.05, max_time=SQLITE_BUSY_MS / 1000, giveup=_is_not_busy, logger=None
)
def _set_wal(connection: Any) -> None:
    """Let readers and a writer go on beside each other.

    Where several processes do so with a new file at once, SQLite refuses all but one without waiting for it.
    """
    connection.execute("PRAGMA journal_mode=WAL")


def _complete_sqlite(connection: Any, _record: object) -> None:
    """Give a connection the argument of `unixepoch` that SQLite has from 3.42 on.

    DBOS uses it on Python 3.12 and later, whatever SQLite that Python was built with.
    """
    if isinstance(connection, sqlite3.Connection) and sqlite3.sqlite_version_info < (3, 42):
        connection.create_function("unixepoch", -1, _unixepoch)


def _unixepoch(*arguments: str) -> float:
    return time.time() if "subsec" in arguments else int(time.time())


# For the connections of DBOS too, which makes its own.
sa.event.listen(sa.Engine, "connect", _complete_sqlite)


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _may_be_retried(error: sa.exc.DBAPIError) -> bool:
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        return str(name).startswith(_RETRIED_NAMES)
    state = getattr(error.orig, "sqlstate", None)
    lost = error.connection_invalidated or (isinstance(error, sa.exc.OperationalError) and state is None)
    # 57P01 to 57P03: the server is shutting down or starting; class 08: the connection.
    return lost or state in _RETRIED_STATES or str(state).startswith(("57P", "08"))


def _words(error: sa.exc.DBAPIError) -> str:
    """Return the first line of an error, which holds neither the statement nor its values."""
    return redact_text((str(error.orig).strip().splitlines() or [type(error.orig).__name__])[0])


def _way_out(words: str) -> str:
    """Return what helps where a database cannot be connected to: PostgreSQL gives such errors no code."""
    if "password" in words:
        return "check the user, and give the password in PGPASSWORD or ~/.pgpass"
    if "database" in words and "does not exist" in words:
        return "check its name, or make it with createdb"
    if "refused" in words or "timed out" in words or "timeout" in words:
        return "check the host and the port, and that it is running"
    return "mend that or give another one"
