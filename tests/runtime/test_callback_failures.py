"""Callbacks that come while the journal cannot be read or the client closes, and files that cannot be archived."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Intent
from pika_async._runtime.callback_handler import JobCallbackHandler
from pika_async._runtime.job_table import JobTable
from pika_async._runtime.resolution import _link_archived
from pika_async.errors import ClientClosed, InvalidRequest, JournalUnusable
from pika_async.jobs import Job, utc_from_timestamp
from pika_async.models import GenerationRequest
from tests.fakes.only_account import OneAccount

pytestmark = pytest.mark.anyio

TOKEN = "ab" * 32
JOB = Job(key="k", request=GenerationRequest("a"), provider="p", base_url="https://x.example").submitting()
UNREADABLE = JournalUnusable(setting="journal", reason="j.db cannot be read: Input/output error")


def handler(journal: Any, spawn: Any = None) -> JobCallbackHandler:
    table = SimpleNamespace(journal=journal, jobs={}, wake=lambda: None)
    gateway = SimpleNamespace(callback_task_id=lambda body: body.decode())
    accounts = OneAccount(gateway, (JOB.provider, JOB.base_url))
    return JobCallbackHandler(cast("JobTable", table), cast("Any", accounts), spawn)


class HalfReadableJournal(MemoryJournal):
    """Journal that knows the owners of tokens, and cannot read a job."""

    def get(self, key: str) -> Job | None:
        raise UNREADABLE


class UnreadableJournal(MemoryJournal):
    """Journal that cannot be read at all."""

    def key_for_token(self, callback_sha256: str) -> str | None:
        raise UNREADABLE


@pytest.mark.parametrize("journal", [HalfReadableJournal(), UnreadableJournal()])
async def test_a_callback_while_the_journal_cannot_be_read_is_logged(
    journal: MemoryJournal, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is started for it and nothing is raised into the server; the log says why."""
    intent = Intent(at=utc_from_timestamp(0.0), body_sha256="", callback_sha256=TOKEN)
    await journal.record_intent(JOB, intent)
    made = handler(journal, spawn=None)  # a task that is started would fail
    assert await made.accepts(TOKEN) == isinstance(journal, HalfReadableJournal)
    made.handle(TOKEN, b"t-1")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert errors != []
    assert {record.getMessage() for record in errors} == {str(UNREADABLE)}


async def test_a_callback_while_the_client_closes_leaves_nothing_behind() -> None:
    """No task is started any more; the next client gets the job, and the next callback is handled like a first one."""
    closed = []

    def refuse(*_: Any, **__: Any) -> NoReturn:
        closed.append(1)
        raise ClientClosed(provider="p")

    journal = MemoryJournal()
    await journal.record_intent(JOB, Intent(at=utc_from_timestamp(0.0), body_sha256="", callback_sha256=TOKEN))
    made = handler(journal, refuse)
    for _ in range(2):
        made.handle(TOKEN, b"t-1")
        assert (made._named, made._running) == ({}, set())
    assert len(closed) == 2


def test_an_archive_name_of_another_file_is_refused(tmp_path: Path) -> None:
    """Neither file is touched, and the error names the one that is in the way."""
    video, archived = tmp_path / "k.mp4", tmp_path / "k~1.mp4"
    video.write_bytes(b"new")
    archived.write_bytes(b"of someone")
    with pytest.raises(InvalidRequest, match=r"k~1\.mp4, which exists already; remove one of them"):
        _link_archived(video, archived)
    assert (video.read_bytes(), archived.read_bytes()) == (b"new", b"of someone")


def test_an_archive_name_that_a_crash_left_is_kept(tmp_path: Path) -> None:
    """The same file under both names counts as linked; so does a file that was deleted."""
    video, archived = tmp_path / "k.mp4", tmp_path / "k~1.mp4"
    assert _link_archived(video, archived)
    video.write_bytes(b"new")
    archived.hardlink_to(video)
    assert _link_archived(video, archived)
    assert archived.read_bytes() == b"new"


def test_a_folder_without_hard_links_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the caller renames the file after the record is saved."""

    def refuse(*_: Any) -> NoReturn:
        raise PermissionError(1, "no hard links")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert not _link_archived(tmp_path / "k.mp4", tmp_path / "k~1.mp4")
