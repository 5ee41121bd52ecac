"""Journals of each kind for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pika_async._journal.protocol import Journal
from tests.journal.kinds import KINDS, Journals


@pytest.fixture(params=KINDS)
async def journals(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journals]:
    """Journals of one kind, one after the other."""
    made = Journals(request.param, request, tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def journal(journals: Journals) -> AsyncIterator[Journal]:
    """The first of `journals`, open."""
    made = await journals.open()
    yield made
    await made.close()
