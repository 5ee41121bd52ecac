"""PostgreSQL servers of the tests: each in a temporary folder, on a socket of its own, run by an unprivileged user."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import attrs
import psycopg

#: Users that may run the server where the tests run as root, which it refuses; the first that exists.
USERS = ("postgres", "nobody")
_numbers = itertools.count()
PROGRAMS = "/usr/lib/postgresql/*/bin"


def find_program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL: on the path, or where Debian has it; None if there is none."""
    installed = sorted(Path("/").glob(f"{PROGRAMS[1:]}/{name}"))
    return shutil.which(name) or (str(installed[-1]) if installed else None)


@attrs.define
class PostgresServer:
    """A server with its own data; started and stopped by the test that has it."""

    folder: Path
    port: int

    @classmethod
    def create(cls, *, fsync: bool = False) -> Self:
        """Make the data of a new server, and start it.

        :param fsync: whether each commit waits for the disk; a server that is killed loses nothing without it.
        """
        folder = Path(tempfile.mkdtemp(prefix="pika-postgres-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = cls(folder, port)
        if os.geteuid() == 0:
            shutil.chown(folder, _user())
        server._run("initdb", "--auth=trust", "--no-sync", "--username=pika", "--encoding=UTF8", "--locale=C")
        with (folder / "data" / "postgresql.conf").open("a") as file:
            file.write(f"port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n")
            file.write(f"max_connections = 200\nfsync = {'on' if fsync else 'off'}\n")
        server.start()
        return server

    def start(self) -> None:
        self._run("pg_ctl", "--wait", "--timeout=60", f"--log={self.folder / 'log'}", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: "immediate", as a power cut does, or "fast"."""
        self._run("pg_ctl", "--wait", "--timeout=60", f"--mode={mode}", "stop")

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://pika@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *options: str) -> None:
        path = find_program(program)
        assert path is not None, f"{program} is missing: apt-get install postgresql"
        command = [path, f"--pgdata={self.folder / 'data'}", *options]
        if os.geteuid() == 0:
            command = ["runuser", "-u", _user(), "--", *command]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        assert done.returncode == 0, done.stderr.decode()


def _user() -> str:
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(user for user in USERS if user in known)


def new_database(server: PostgresServer) -> str:
    """Make an empty database, and return its address."""
    name = f"cluster_{next(_numbers)}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.url(name)
