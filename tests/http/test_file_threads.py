"""Turns of threads, syncs and passes over the bytes that the files of downloads take."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from pika_async import GenerationRequest, Job, JobStatus, Video
from pika_async._http import file_threads, partial_file
from pika_async._http.download_state import AbortDownload
from pika_async._http.file_threads import MAX_GROUP, MAX_THREADS, FileThreads
from pika_async._http.partial_file import PartialFile, TargetFolders
from pika_async._journal.memory import MemoryJournal
from pika_async._runtime.results import ResultDownloader
from pika_async.errors import DownloadFailed
from tests.fakes.only_account import OneDownloader
from tests.http.result_server import VIDEO, mp4, names, ok, quick, serve

pytestmark = pytest.mark.anyio


@attrs.define
class Calls:
    """What was done to files: turns of threads, and system calls in order."""

    turns: int = 0
    log: list[tuple[str, int]] = attrs.field(factory=list)

    @property
    def counts(self) -> Counter[str]:
        return Counter(name for name, _ in self.log)

    def bytes_of(self, name: str) -> int:
        return sum(size for call, size in self.log if call == name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Count the turns of the threads of downloads, and the system calls that they make."""
    seen = Calls()

    class Pool(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            seen.turns += 1
            return super().submit(*args, **kwargs)

    def watch(name: str, describe: Callable[..., tuple[str, int]]) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            if threading.current_thread().name.startswith("pika-download"):
                seen.log.append(describe(result, *args))
            return result

        monkeypatch.setattr(os, name, call, raising=False)

    def synced(_: object, descriptor: int) -> tuple[str, int]:
        return ("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file", 0)

    monkeypatch.setattr(file_threads, "ThreadPoolExecutor", Pool)
    watch("fsync", synced)
    watch("pwrite", lambda written, *_: ("write", written))
    watch("posix_fadvise", lambda *_: ("flush", 0))
    watch("link", lambda *_: ("link", 0))
    watch("open", lambda _, path, flags, *__: ("read" if flags & os.O_ACCMODE == os.O_RDONLY else "open", 0))
    return seen


async def test_a_small_file_takes_one_turn_of_a_thread(target: Path, calls: Calls) -> None:
    """Its write, hash, sync, name and the sync of the folder go together; only the folder is opened to be synced."""
    async with serve(ok(mp4(40_000))) as server, quick() as downloader:
        await downloader.fetch(server.url(), target)
        assert calls.turns == 1
    assert [name for name, _ in calls.log if name != "open"] == ["write", "sync file", "link", "read", "sync folder"]


async def test_a_step_before_the_name_splits_the_turn(target: Path, calls: Calls) -> None:
    """The file is on disk before the step, and gets its name after it, in another turn."""
    before: list[tuple[int, Counter[str]]] = []

    async def note(sha256: str) -> None:
        assert sha256 == hashlib.sha256(VIDEO).hexdigest()
        before.append((calls.turns, calls.counts))

    async with serve(ok()) as server, quick() as downloader:
        await downloader.fetch(server.url(), target, note)
    [(turns, counts)] = before
    assert (turns, calls.turns) == (1, 2)
    assert (counts["sync file"], counts["link"], calls.counts["link"]) == (1, 0, 1)


async def test_a_large_file_is_passed_over_once(target: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is hashed and written once, while others arrive; the file is never read."""
    hashed: list[int] = []
    sha256 = hashlib.sha256

    class Digest:
        def __init__(self) -> None:
            self._real = sha256()

        def update(self, data: bytes) -> None:
            hashed.append(len(data))
            self._real.update(data)

        def hexdigest(self) -> str:
            return self._real.hexdigest()

    monkeypatch.setattr(hashlib, "sha256", Digest)
    body = mp4(5_000_000)
    async with serve(ok(body)) as server, quick() as downloader:
        done = await downloader.fetch(server.url(), target)
    monkeypatch.undo()
    assert done.sha256 == hashlib.sha256(body).hexdigest()
    assert (sum(hashed), calls.bytes_of("write"), calls.counts["sync file"]) == (len(body), len(body), 1)
    assert calls.counts["read"] == 1  # the folder
    assert calls.turns <= len(body) // partial_file.WRITE_BATCH_BYTES + 1


async def test_files_that_are_due_together_share_one_sync_of_their_folder(tmp_path: Path, calls: Calls) -> None:
    """Eight files whose digests are recorded together get their names in one turn, and their folder one sync."""
    recorded, waiting = asyncio.Event(), asyncio.Semaphore(0)

    async def note(_: str) -> None:
        waiting.release()
        await recorded.wait()

    folders = [tmp_path / "a", tmp_path / "b"]
    async with serve(ok()) as server, quick() as downloader, asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(downloader.fetch(server.url(), folders[number % 2] / f"{number}.mp4", note))
        for _ in range(8):
            await waiting.acquire()
        turns, counts = calls.turns, calls.counts
        recorded.set()
    assert counts["sync folder"] == 0
    assert calls.turns == turns + 1
    assert calls.counts - counts == Counter({"link": 8, "read": 2, "sync folder": 2})
    assert [name for name, _ in calls.log if name in {"link", "sync folder"}] == ["link"] * 8 + ["sync folder"] * 2
    assert [len(names(folder)) for folder in folders] == [4, 4]


async def test_the_journal_learns_of_a_file_after_its_folder_is_synced(tmp_path: Path, calls: Calls) -> None:
    """A file that was recorded as downloaded survives a power cut under its name."""

    class Journal(MemoryJournal):
        async def save(self, *jobs: Job, linger: bool = False) -> None:
            calls.log.extend(("recorded" if job.file else "digest recorded", 0) for job in jobs)
            await super().save(*jobs, linger=linger)

    async with serve(ok()) as server, quick() as downloader:
        job = Job(
            key="k", request=GenerationRequest("a cat"), provider="native", base_url="http://h", task_id="t",
            status=JobStatus.SUCCEEDED, video=Video(url=server.url(), task_id="t"),
        )  # fmt: skip
        await ResultDownloader(cast("Any", None), cast("Any", OneDownloader(downloader)), Journal()).collect(
            job, tmp_path / "k.mp4"
        )
    wanted = ["sync file", "digest recorded", "link", "sync folder", "recorded"]
    assert [name for name, _ in calls.log if name in wanted] == wanted


async def test_a_folder_that_cannot_be_synced_fails_all_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file of the group in that folder; those in another folder are downloaded."""
    recorded, waiting = asyncio.Event(), asyncio.Semaphore(0)
    sync = TargetFolders.sync

    def failing(self: TargetFolders, folder: Path) -> None:
        if folder.name == "bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(self, folder)

    async def note(_: str) -> None:
        waiting.release()
        await recorded.wait()

    monkeypatch.setattr(TargetFolders, "sync", failing)
    async with serve(ok()) as server, quick() as downloader:
        tasks = [
            asyncio.create_task(downloader.fetch(server.url(), tmp_path / folder / f"{number}.mp4", note))
            for folder in ("bad", "good")
            for number in range(2)
        ]
        for _ in tasks:
            await waiting.acquire()
        recorded.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(it, DownloadFailed) for it in found] == [True, True, False, False]
    assert "Input/output error" in str(found[0])


# --- without a server -------------------------------------------------------------------------------------------------


class Recorded(PartialFile):
    """Partial file whose writes and last steps may be held back."""

    def __init__(self, target: Path, folders: TargetFolders, *, error: Exception | None = None) -> None:
        super().__init__(target, folders)
        self.may_go_on = threading.Event()
        self.began = threading.Event()
        self.error = error

    def write(self, batch: partial_file.Batch) -> None:
        self.began.set()
        assert self.may_go_on.wait(5)
        if self.error is not None:
            raise self.error
        super().write(batch)


@contextlib.contextmanager
def open_threads() -> Iterator[tuple[FileThreads, TargetFolders]]:
    folders = TargetFolders()
    files = FileThreads(folders)
    try:
        yield files, folders
    finally:
        files.close()


async def turns_of_the_loop() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def began(*files: Recorded) -> None:
    for file in files:
        assert await asyncio.to_thread(file.began.wait, 20)


async def test_files_that_come_due_while_all_threads_are_busy_share_a_turn(tmp_path: Path, calls: Calls) -> None:
    """The next thread that is free takes all of them, in the order in which they came due."""
    with open_threads() as (files, folders):
        first = [Recorded(tmp_path / f"first-{number}", folders) for number in range(MAX_THREADS)]
        tasks = []
        for file in first:
            tasks.append(asyncio.create_task(files.publish(file, finish=True)))
            await turns_of_the_loop()
        await began(*first)
        later = [Recorded(tmp_path / f"later-{number}", folders) for number in range(5)]
        for file in later:
            file.may_go_on.set()
            tasks.append(asyncio.create_task(files.publish(file, finish=True)))
            await turns_of_the_loop()
        assert calls.turns == MAX_THREADS
        for file in first:
            file.may_go_on.set()
        await asyncio.gather(*tasks)
    assert calls.turns == MAX_THREADS + 1
    assert calls.counts["sync file"] == MAX_THREADS + 5
    assert calls.counts["sync folder"] == MAX_THREADS + 1


async def test_a_download_is_over_only_after_the_sync_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is there while the folder is being synced, and the download is not over."""
    began, may_go_on = threading.Event(), threading.Event()

    def slow(self: TargetFolders, folder: Path) -> None:
        began.set()
        assert may_go_on.wait(5)

    monkeypatch.setattr(TargetFolders, "sync", slow)
    with open_threads() as (files, folders):
        file = PartialFile(tmp_path / "a", folders)
        file.append(b"one", 1)
        publishing = asyncio.create_task(files.publish(file, finish=True))
        assert await asyncio.to_thread(began.wait, 20)
        await turns_of_the_loop()
        assert (publishing.done(), names(tmp_path)) == (False, ["a"])
        may_go_on.set()
        await publishing


async def test_reading_goes_on_while_a_batch_is_written(tmp_path: Path) -> None:
    """A batch is written beside the reading of the next one, and no third one is held in memory."""
    with open_threads() as (files, folders):
        file = Recorded(tmp_path / "a", folders)
        file.append(b"one", 1)
        await files.write(file)
        file.append(b"two", 1)
        second = asyncio.create_task(files.write(file))
        await turns_of_the_loop()
        assert not second.done()
        file.may_go_on.set()
        await second
        file.append(b"three", 1)
        done = await files.publish(file, finish=True)
    assert (tmp_path / "a").read_bytes() == b"onetwothree"
    assert done.sha256 == hashlib.sha256(b"onetwothree").hexdigest()


async def test_a_restart_replaces_what_is_being_written(tmp_path: Path) -> None:
    """Bytes of an earlier start are neither kept nor hashed, also if their write had begun."""
    with open_threads() as (files, folders):
        file = Recorded(tmp_path / "a", folders)
        file.append(b"an earlier file", 1)
        await files.write(file)
        file.append(b"more of it", 1)
        file.append(b"the file", 2)
        file.may_go_on.set()
        done = await files.publish(file, finish=True)
    assert (done.size, (tmp_path / "a").read_bytes()) == (8, b"the file")
    assert done.sha256 == hashlib.sha256(b"the file").hexdigest()


@pytest.mark.parametrize("step", ["write", "finish", "publish"])
async def test_a_write_that_failed_fails_the_next_step(tmp_path: Path, step: str) -> None:
    """A full disk is noticed although no task waited for the write, and the partial file can be removed."""
    with open_threads() as (files, folders):
        file = Recorded(tmp_path / "a", folders, error=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        file.may_go_on.set()
        file.append(b"one", 1)
        await files.write(file)
        with pytest.raises(AbortDownload, match="No space left on device"):
            await getattr(files, step)(file)
        await files.discard(file)
    assert names(tmp_path) == []


async def test_a_partial_file_is_removed_after_its_write(tmp_path: Path) -> None:
    """A write that has begun could otherwise create the file after its removal."""
    with open_threads() as (files, folders):
        file = Recorded(tmp_path / "a", folders)
        file.append(b"one", 1)
        await files.write(file)
        await began(file)
        removal = asyncio.create_task(files.discard(file))
        await turns_of_the_loop()
        assert not removal.done()
        file.may_go_on.set()
        await removal
    assert names(tmp_path) == []


@pytest.mark.parametrize("times", [1, 2])
async def test_a_cancellation_does_not_keep_a_partial_file(tmp_path: Path, times: int) -> None:
    """The file is removed after its write, then the cancellation is raised."""
    with open_threads() as (files, folders):
        file = Recorded(tmp_path / "a", folders)
        file.append(b"one", 1)
        await files.write(file)
        await began(file)
        removal = asyncio.create_task(files.discard(file))
        for _ in range(times):
            await turns_of_the_loop()
            removal.cancel()
        await turns_of_the_loop()
        assert not removal.done()
        file.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await removal
    assert names(tmp_path) == []


async def test_the_disk_writes_the_files_of_a_turn_at_once(tmp_path: Path, calls: Calls) -> None:
    """All of them are passed to the disk before the first sync waits; a lone file is only synced."""
    with open_threads() as (files, folders):
        for number in (4, 1):
            group = [PartialFile(tmp_path / f"{number}-{index}", folders) for index in range(number)]
            for file in group:
                file.append(b"one", 1)
            await asyncio.gather(*(files.publish(file, finish=True) for file in group))
    seen = [name for name, _ in calls.log if name in {"write", "flush", "sync file", "link", "sync folder"}]
    assert seen == [
        *["write"] * 4, *["flush"] * 4, *["sync file"] * 4, *["link"] * 4, "sync folder",
        "write", "sync file", "link", "sync folder",
    ]  # fmt: skip


async def test_a_turn_has_a_bounded_number_of_files(tmp_path: Path, calls: Calls) -> None:
    """Each file of a turn is open at once, and the descriptors of a process are few."""
    with open_threads() as (files, folders):
        group = [PartialFile(tmp_path / f"{index}", folders) for index in range(2 * MAX_GROUP + 1)]
        for file in group:
            file.append(b"one", 1)
        await asyncio.gather(*(files.publish(file, finish=True) for file in group))
    assert (calls.turns, calls.counts["sync folder"], calls.counts["link"]) == (3, 3, 2 * MAX_GROUP + 1)


async def test_one_file_that_fails_leaves_the_others_of_its_turn(tmp_path: Path) -> None:
    """The error of one file is that file's."""
    (tmp_path / "b").write_bytes(b"somebody else's")
    with open_threads() as (files, folders):
        tasks = []
        for name in "abc":
            file = PartialFile(tmp_path / name, folders)
            file.append(name.encode(), 1)
            tasks.append(asyncio.create_task(files.publish(file, finish=True)))
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(it).__name__ for it in found] == ["Download", "AbortDownload", "Download"]
    assert [(tmp_path / name).read_bytes() for name in "abc"] == [b"a", b"somebody else's", b"c"]
