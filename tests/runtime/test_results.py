"""Downloads of results by the age of their jobs, with a stand-in for the host."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest

from pika_async import DownloadFailed, GenerationRequest, Job, JobStatus, Video
from pika_async._http.partial_file import Download
from pika_async._journal.memory import MemoryJournal
from pika_async._runtime.results import FolderDownload, ResultDownloader, patience_for
from pika_async.models import Snapshot, TaskState
from tests.fakes.only_account import OneAccount, OneDownloader

pytestmark = pytest.mark.anyio

SETTLED = datetime(2026, 5, 1, 12, tzinfo=UTC)


@attrs.define
class Host:
    """Host that has a result at some of the URLs, and records how each was requested."""

    good: set[str] = attrs.field(factory=set)
    asked: list[tuple[str, float]] = attrs.field(factory=list)

    async def fetch(
        self, url: str, target: Path, before_publish: Any = None, *, patience: float = 0.0, **_: Any
    ) -> Download:
        self.asked.append((url, patience))
        if url not in self.good:
            raise DownloadFailed(url=url, reason="HTTP 404", expired=True)
        return Download(file=target, sha256="0" * 64, size=1)


@attrs.define
class Feed:
    """Feed that returns one fresh URL, or none."""

    url: str | None = None
    polls: int = 0

    async def poll(self, task_id: str, *, handle: str | None = None) -> Any:
        self.polls += 1
        video = None if self.url is None else Video(url=self.url, task_id=task_id)
        state = TaskState.RUNNING if video is None else TaskState.SUCCEEDED
        return attrs.make_class("Polled", ["snapshot"])(Snapshot(task_id=task_id, state=state, video=video))


def downloader(host: Host, feed: Feed) -> ResultDownloader:
    return ResultDownloader(
        cast("Any", OneAccount(SimpleNamespace(poller=feed))), cast("Any", OneDownloader(host)), MemoryJournal()
    )


def job(**changes: Any) -> Job:
    made = Job(
        key="k", request=GenerationRequest("a cat"), provider="native", base_url="http://h", task_id="t",
        status=JobStatus.SUCCEEDED, settled_at=SETTLED, video=Video(url="https://cdn.example/old", task_id="t"),
    )  # fmt: skip
    return attrs.evolve(made, **changes)


@pytest.mark.parametrize(
    "age, patience", [(0.0, 120.0), (50.0, 70.0), (119.0, 1.0), (120.0, 0.0), (86_400.0, 0.0), (-3600.0, 120.0)]
)
async def test_patience_ends_two_minutes_after_settling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, age: float, patience: float
) -> None:
    """A result may be late for 120 s after its job settled, also where the clock went back."""
    now = (SETTLED + timedelta(seconds=age)).timestamp
    monkeypatch.setattr("pika_async._runtime.results.time.time", now)
    host = Host()
    await downloader(host, Feed()).collect(job(), tmp_path / "k.mp4")
    assert host.asked == [("https://cdn.example/old", patience)]


def test_an_unknown_age_counts_as_now() -> None:
    """A video without a job may just have been made."""
    assert patience_for(None, 1e9) == 120.0


async def test_a_fresh_address_is_asked_for_before_a_result_has_expired(tmp_path: Path) -> None:
    """One poll brings another address, which is requested at once; if it has no result either, that is the error."""
    host, feed = Host(good={"https://cdn.example/new"}), Feed(url="https://cdn.example/new")
    done = await downloader(host, feed).collect(job(), tmp_path / "k.mp4")
    assert [url for url, _ in host.asked] == ["https://cdn.example/old", "https://cdn.example/new"]
    assert host.asked[1][1] == 0.0
    assert (done.video and done.video.url, done.error, feed.polls) == ("https://cdn.example/new", None, 1)
    host.good.clear()
    failed = await downloader(host, feed).collect(job(), tmp_path / "k.mp4")
    assert isinstance(failed.error, DownloadFailed)
    assert (failed.error.expired, feed.polls) == (True, 2)


@pytest.mark.parametrize("name", ["a.b.mp4", "a.b.webm", "a.b.png"])
async def test_a_file_renamed_before_a_crash_is_found_under_its_ending(tmp_path: Path, name: str) -> None:
    """A verified file that has its name already is not requested again, whatever its kind."""
    (tmp_path / name).write_bytes(b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()
    host = Host()
    done = await downloader(host, Feed()).collect(job(sha256=sha256), tmp_path / "a.b.mp4")
    assert (done.file, done.sha256, host.asked) == (tmp_path / name, sha256, [])


async def test_a_result_of_a_batch_is_in_its_folder_under_its_key(tmp_path: Path) -> None:
    """Whatever the position of the job and the address of its video."""
    host = Host(good={"https://cdn.example/old"})
    done = await FolderDownload(downloader(host, Feed()), tmp_path / "videos").fetch(job(key="cat.7", index=3))
    assert done.file == tmp_path / "videos" / "cat.7.mp4"


async def test_a_second_link_of_an_archived_file_is_removed(tmp_path: Path) -> None:
    """After a crash between the two names of an earlier picture, the new result can take the old name."""
    (tmp_path / "k~1.png").write_bytes(b"earlier")
    (tmp_path / "k.png").hardlink_to(tmp_path / "k~1.png")
    await downloader(Host(), Feed()).collect(job(), tmp_path / "k.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["k~1.png"]
