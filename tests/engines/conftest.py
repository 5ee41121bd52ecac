"""Databases for tests of a cluster: a file of SQLite, and a database of a PostgreSQL server that each process starts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.engines.postgres import PostgresServer, find_program
from tests.fakes.requirements import require_program

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running server; its databases are made by `database_url`."""
    if find_program("initdb") is None:
        require_program("initdb")
    server = PostgresServer.create()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cluster.db"
    return new_database(request.getfixturevalue("postgres"))


def new_database(server: PostgresServer) -> str:
    """Make an empty database, and return its address."""
    name = f"cluster_{next(_numbers)}"
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return server.url(name)
