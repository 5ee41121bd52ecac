"""Target folders on shares and FUSE file systems, which refuse calls that a whole file does not need."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pika_async.errors import DownloadFailed
from tests.http.result_server import VIDEO, fetch, mp4, names, ok, quick, serve

pytestmark = pytest.mark.anyio

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
