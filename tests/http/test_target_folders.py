"""Target folders on shares and FUSE file systems, which refuse calls that a whole file does not need."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pika_async._http.partial_file import STALE_S, TargetFolders
from pika_async.errors import DownloadFailed
from tests.http.result_server import VIDEO, fetch, mp4, names, ok, quick, serve

pytestmark = pytest.mark.anyio

STALE, LIVE, OTHER = f".pika-{'0' * 24}.part", f".pika-{'1' * 24}.part", ".pika-note.part"

REFUSALS = [errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP]


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refused)


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("call", ["fsync", "fchmod"])
async def test_a_folder_that_refuses_a_call_keeps_a_verified_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str, number: int
) -> None:
    """The files are there with their digests, and one warning names the folder, however many files follow."""
    refuse(monkeypatch, call, number)
    async with serve(ok(), ok(mp4(50)), ok()) as server, quick() as downloader:
        done = [await downloader.fetch(server.url(), tmp_path / "in" / f"{name}.mp4") for name in "ab"]
        elsewhere = await downloader.fetch(server.url(), tmp_path / "c.mp4")
    assert [it.file.read_bytes() for it in done] == [VIDEO, mp4(50)]
    assert elsewhere.file.read_bytes() == VIDEO
    assert names(tmp_path / "in") == ["a.mp4", "b.mp4"]
    assert caplog.messages == [
        f"the folder {folder} refuses {call.replace('fch', 'ch')} ({os.strerror(number)}): "
        "files in it are whole and verified, but may not survive a power cut"
        for folder in (tmp_path / "in", tmp_path)
    ]


@pytest.mark.parametrize("number", [*REFUSALS, errno.EXDEV])
async def test_a_folder_that_refuses_all_of_them_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A mounted phone: neither links nor modes nor syncs; an existing file is still not overwritten."""
    for call in ("link", "fsync", "fchmod"):
        refuse(monkeypatch, call, number if call == "link" else errno.EPERM)
    async with serve(ok(), ok(mp4(50))) as server:
        await fetch(server.url(), tmp_path / "a.mp4")
        with pytest.raises(DownloadFailed, match="is not overwritten"):
            await fetch(server.url(), tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
    assert names(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_a_failing_sync_is_not_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The bytes may not be on the disk, so the file gets no name."""
    refuse(monkeypatch, "fsync", number)
    async with serve(ok()) as server:
        with pytest.raises(DownloadFailed, match=os.strerror(number)):
            await fetch(server.url(), tmp_path / "a.mp4")
    assert names(tmp_path) == []


def age(file: Path, seconds: float) -> None:
    """Write a file that was last written to so many seconds ago, by the clock of its file system."""
    file.write_bytes(b"")
    now = file.stat().st_mtime
    os.utime(file, (now, now - seconds))


async def test_what_a_killed_process_left_is_removed_and_a_download_under_way_is_not(tmp_path: Path) -> None:
    """By the next download into the folder; of other names none is touched."""
    age(tmp_path / STALE, STALE_S + 60)
    age(tmp_path / STALE.replace("part", "mode"), STALE_S + 60)
    age(tmp_path / LIVE, STALE_S - 60)
    age(tmp_path / OTHER, 10 * STALE_S)
    (tmp_path / f".pika-{'2' * 24}.part").mkdir()
    async with serve(ok()) as server:
        await fetch(server.url(), tmp_path / "a.mp4")
    assert names(tmp_path) == sorted([LIVE, f".pika-{'2' * 24}.part", OTHER, "a.mp4"])


async def test_a_folder_is_searched_again_only_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with each of thousands of downloads; but a worker that runs for weeks searches too."""
    clock = [100.0]
    monkeypatch.setattr("pika_async._http.partial_file.time.monotonic", lambda: clock[0])
    folders = TargetFolders()
    found = []
    for at in (100.0, 100.0 + STALE_S - 1, 100.0 + STALE_S):
        clock[0] = at
        age(tmp_path / STALE, STALE_S + 60)
        folders.remove_stale(tmp_path, (tmp_path / STALE).stat().st_mtime + STALE_S + 60)
        found.append((tmp_path / STALE).exists())
    assert found == [False, True, False]


async def test_a_folder_that_cannot_be_searched_takes_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", lambda _: (_ for _ in ()).throw(PermissionError(errno.EACCES, "denied")))
    async with serve(ok()) as server:
        await fetch(server.url(), tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == VIDEO
