"""A database with the tables of a cluster, for tests of its statements."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.rows import Rows


@pytest.fixture
def rows(database_url: str) -> Iterator[Rows]:
    """A database of each kind."""
    made = Rows.create(database_url)
    yield made
    made.engine.dispose()
