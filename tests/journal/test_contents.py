"""Bytes in requests: stored once however many jobs share them, and read back with each job."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import attrs
import pytest

from pika_async._journal.sqlite import SqliteJournal
from pika_async.errors import JournalUnusable
from pika_async.jobs import Job
from pika_async.models import GenerationRequest
from tests.journal.builders import a_job

pytestmark = pytest.mark.anyio
PICTURE = bytes(range(256)) * 4000


def job_with(key: str, **fields: object) -> Job:
    return attrs.evolve(a_job(), key=key, request=GenerationRequest("a cat", **fields))  # type: ignore[arg-type]


async def test_many_jobs_with_one_picture_keep_it_once(tmp_path: Path) -> None:
    """The file grows by one picture, not by a hundred; each job is read with it, before and after a restart."""
    jobs = [job_with(f"k{number}", image=PICTURE, metadata={"row": number}) for number in range(100)]
    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    await journal.save(*jobs)
    assert journal.get("k7") == jobs[7]
    await journal.close()
    assert (tmp_path / "j.db").stat().st_size < 2 * len(PICTURE)
    again = SqliteJournal(tmp_path / "j.db")
    assert list(again.all()) == jobs
    assert again.get("k99") == jobs[99]
    await again.open()
    assert [job for _, job in await again.changes(98)] == jobs[98:]
    archived = await again.archive(jobs[5])
    assert again.get(archived.key) == attrs.evolve(jobs[5], key=archived.key)
    await again.close()


async def test_every_field_with_bytes_comes_back(tmp_path: Path) -> None:
    """Ingredients and a video beside each other, and metadata that has the form of a stored content."""
    digest = {"sha256": "0" * 64}
    jobs = [
        job_with("a", ingredients=[PICTURE, "https://x.example/a.png", b"2", PICTURE]),
        job_with("b", video=b"3", metadata={"one": digest, "text": json.dumps(digest)}),
    ]
    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    await journal.save(*jobs)
    await journal.close()
    assert list(SqliteJournal(tmp_path / "j.db").all()) == jobs


async def test_a_missing_content_is_named(tmp_path: Path) -> None:
    """A damaged journal sends no other picture: the job is named."""
    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    await journal.save(job_with("a", image=PICTURE))
    await journal.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "j.db")) as connection, connection:
        connection.execute("DELETE FROM contents")
    with pytest.raises(JournalUnusable, match="holds a record of job 'a' that cannot be read"):
        SqliteJournal(tmp_path / "j.db").get("a")


async def test_a_last_image_is_kept_like_the_first(tmp_path: Path) -> None:
    """A picture that ends one video and starts the next is stored once."""
    job = job_with("k", image=PICTURE, last_image=PICTURE)
    other = job_with("m", image="https://x/a.png", last_image=b"another one")
    journal = SqliteJournal(tmp_path / "j.db")
    await journal.open()
    await journal.save(job, other)
    await journal.close()
    assert list(SqliteJournal(tmp_path / "j.db").all()) == [job, other]
    with contextlib.closing(sqlite3.connect(tmp_path / "j.db")) as connection:
        assert connection.execute("SELECT count(*) FROM contents").fetchone() == (2,)
