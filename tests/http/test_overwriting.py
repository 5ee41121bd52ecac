"""Downloads that replace an existing file: the old one stays whole until the new one is, and then one rename ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pika_async import FixedInterval, PikaClient, Video
from pika_async._http.downloads import Downloader
from pika_async.errors import DownloadFailed
from tests.cli.command_line import KEY, serving
from tests.http.result_server import VIDEO, mp4, names, ok, quick, serve

pytestmark = pytest.mark.anyio

OLD = mp4(400, b"o")


async def replace(downloader: Downloader, url: str, target: Path, *, overwrite: bool = True) -> Path:
    return (await downloader.fetch(url, target, overwrite=overwrite)).file


async def test_an_existing_file_is_replaced_only_on_request(target: Path) -> None:
    """Without the request the download fails and the file stays; with it the new bytes have the name, and nothing else."""
    target.write_bytes(OLD)
    async with serve(ok()) as server, quick() as downloader:
        with pytest.raises(DownloadFailed, match="exists with other content and is not overwritten"):
            await replace(downloader, server.url(), target, overwrite=False)
        assert target.read_bytes() == OLD
        assert await replace(downloader, server.url(), target) == target
    assert (target.read_bytes(), names(target.parent)) == (VIDEO, [target.name])


async def test_the_old_file_stays_if_the_new_one_does_not_arrive(target: Path) -> None:
    """A cut body or a full disk leaves the old bytes, and no partial file."""
    target.write_bytes(OLD)
    async with serve(ok(VIDEO[:-10])) as server, quick(attempts=2) as downloader:
        with pytest.raises(DownloadFailed):
            await replace(downloader, server.url(), target)
    assert (target.read_bytes(), names(target.parent)) == (OLD, [target.name])


async def test_a_reader_sees_the_old_bytes_or_the_new_ones(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name leads to the old file until one rename, also to a reader that opened the file before."""
    target.write_bytes(OLD)
    seen: list[bytes] = []
    replace_file = Path.replace

    def watched(self: Path, other: Path) -> Path:
        seen.append(target.read_bytes())
        return replace_file(self, other)

    monkeypatch.setattr(Path, "replace", watched)
    with target.open("rb") as reader:
        async with serve(ok()) as server, quick() as downloader:
            await replace(downloader, server.url(), target)
        assert (seen, reader.read(), target.read_bytes()) == ([OLD], OLD, VIDEO)


async def test_a_link_is_replaced_and_not_followed(target: Path, tmp_path: Path) -> None:
    """The file that a symbolic link leads to is not touched."""
    elsewhere = tmp_path / "precious.mp4"
    elsewhere.write_bytes(OLD)
    target.parent.mkdir(exist_ok=True)
    target.symlink_to(elsewhere)
    async with serve(ok()) as server, quick() as downloader:
        await replace(downloader, server.url(), target)
    assert (elsewhere.read_bytes(), target.read_bytes(), target.is_symlink()) == (OLD, VIDEO, False)


async def test_a_folder_is_not_replaced(target: Path) -> None:
    """The error says that the file cannot be written."""
    target.mkdir(parents=True)
    (target / "inside").touch()
    async with serve(ok()) as server, quick() as downloader:
        with pytest.raises(DownloadFailed, match="the file cannot be written: Is a directory"):
            await replace(downloader, server.url(), target)
    assert (target / "inside").exists()


async def test_the_client_replaces_a_file_for_a_key_a_job_and_a_video(tmp_path: Path) -> None:
    """`download(overwrite=True)` takes each of them; without it the file of somebody else stays."""
    target = tmp_path / "cat.mp4"
    with serving() as emulator:
        base_url = emulator.base_url("native")
        async with PikaClient("native", api_key=KEY, base_url=base_url, polling=FixedInterval(0.05)) as pika:
            job = await pika.wait(await pika.submit("a cat", key="k"))
            assert job.video is not None
            for what in ("k", job, Video(url=job.video.url)):
                target.write_bytes(b"other")
                with pytest.raises(DownloadFailed, match="exists with other content"):
                    await pika.download(what, target)
                assert target.read_bytes() == b"other"
                assert await pika.download(what, target, overwrite=True) == target
                assert target.read_bytes()[4:8] == b"ftyp"
            done = await pika.job("k")
            assert done is not None
            assert done.file == target
