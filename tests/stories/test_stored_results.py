"""Batches whose results go into a store: stored whole before they count, paid once, nothing lost while it is down."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pika_async import ConfigurationError, DownloadFailed, FixedInterval, GenerationRequest, Job, JobStatus, PikaClient
from pika_async._http.downloads import Downloader
from pika_async.emulator import Emulator
from tests.cli.command_line import KEY, serving
from tests.fakes.object_stores import BUCKET, Fault, StoreProxy

pytestmark = pytest.mark.anyio
TARGET = f"s3://{BUCKET}/lanterns"


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serving() as running:
        yield running


def client(emulator: Emulator, journal: Path | None = None) -> PikaClient:
    return PikaClient(
        "native", api_key=KEY, base_url=emulator.base_url("native"), journal=journal, polling=FixedInterval(0.05)
    )


def requests(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"lantern {number}", key=f"key-{number}") for number in range(count)]


def charges(emulator: Emulator) -> int:
    return len(emulator.ledger)


def assert_stored(job: Job, store: StoreProxy, key: str) -> None:
    """The object has the bytes that the journal says, and there is no file."""
    assert (job.status, job.error, job.file) == (JobStatus.SUCCEEDED, None, None)
    assert job.object_url == f"s3://{BUCKET}/{key}"
    assert hashlib.sha256(store.get(key)).hexdigest() == job.sha256


async def test_results_are_objects_under_their_keys(emulator: Emulator, store: StoreProxy, tmp_path: Path) -> None:
    """Nothing of them stays on the disk, and the same batch again stores and pays for nothing."""
    journal = tmp_path / "j.db"
    async with client(emulator, journal) as pika:
        report = await pika.run(requests(3), download_to=TARGET)
        assert report.ok
        for number, job in enumerate(report.jobs):
            assert_stored(job, store, f"lanterns/key-{number}.mp4")
    assert sorted(store.object_keys()) == [f"lanterns/key-{number}.mp4" for number in range(3)]
    assert store.uploads() == 0
    assert {path.name for path in tmp_path.iterdir()} <= {"j.db", "j.db.lock"}
    async with client(emulator, journal) as pika:
        again = await pika.run(requests(3), download_to=TARGET)
        rest = await pika.resume(download_to=TARGET)
    assert [job.object_url for job in again.jobs] == [job.object_url for job in report.jobs]
    assert (rest.jobs, again.ok) == ([], True)
    assert (charges(emulator), store.count("PUT")) == (3, 3)


async def test_a_store_that_goes_down_loses_nothing(emulator: Emulator, store: StoreProxy, tmp_path: Path) -> None:
    """The videos are listed as not downloaded; a later resume stores them, and nothing is paid again."""
    journal = tmp_path / "j.db"
    store.faults = [Fault("PUT", 503, "SlowDown", times=99)]
    async with client(emulator, journal) as pika:
        report = await pika.run(requests(2), download_to=TARGET)
    assert not report.ok
    for job in report.jobs:
        assert (job.status, job.object_url) == (JobStatus.SUCCEEDED, None)
        assert isinstance(job.error, DownloadFailed)
        assert "it was fetched whole and not stored: the store answered SlowDown" in job.error.reason
    assert store.object_keys() == []
    store.faults = []
    async with client(emulator, journal) as pika:
        resumed = await pika.resume(download_to=TARGET)
        assert resumed.ok
        for job in resumed.jobs:
            assert_stored(job, store, f"lanterns/{job.key}.mp4")
    assert (len(resumed.jobs), charges(emulator)) == (2, 2)
    assert [path for path in tmp_path.iterdir() if path.suffix == ".part"] == []


@pytest.mark.parametrize(
    "target, fault, reason",
    [
        ("s3://missing/x", None, "there is no such bucket"),
        (TARGET, Fault("POST", 403, "AccessDenied", times=9), "the credentials do not allow it"),
        (TARGET, Fault("POST", 403, "InvalidAccessKeyId", times=9), "the store does not know the access key"),
        (TARGET, Fault("POST", 503, "SlowDown", times=99), "the store answered SlowDown"),
        ("gs://clips/x", None, "no other kind of store is supported"),
        (Path(TARGET), None, "as text"),
    ],
)
async def test_a_store_that_cannot_be_used_is_named_before_it_costs(
    emulator: Emulator, store: StoreProxy, target: str | Path, fault: Fault | None, reason: str
) -> None:
    """Nothing was sent to the gateway, and nothing stored."""
    store.faults = [] if fault is None else [fault]
    async with client(emulator) as pika:
        with pytest.raises(ConfigurationError, match=reason) as caught:
            await pika.run(requests(2), download_to=target)
        assert caught.value.setting == "download_to"
        assert await pika.jobs() == []
    assert (charges(emulator), store.object_keys()) == (0, [])


async def test_a_result_whose_record_was_lost_is_found_in_the_store(
    emulator: Emulator, store: StoreProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends between the upload and its record leaves the digest in the journal: nothing is fetched twice."""
    journal = tmp_path / "j.db"
    async with client(emulator, journal) as pika:
        (job,) = (await pika.run(requests(1), download_to=TARGET)).jobs
        monkeypatch.setattr(Downloader, "fetch", None)
        found = await pika.store(job, f"{TARGET}/key-0.mp4")
    assert found == job.object_url
    assert store.count("PUT") == 1


async def test_an_object_of_somebody_else_is_left_as_it_is(emulator: Emulator, store: StoreProxy) -> None:
    """The job has its video and says what is in the way; another name takes it."""
    store.put("lanterns/key-0.mp4", b"of somebody else")
    async with client(emulator) as pika:
        (job,) = (await pika.run(requests(1), download_to=TARGET)).jobs
        assert isinstance(job.error, DownloadFailed)
        assert "lanterns/key-0.mp4 exists with other content and is not overwritten" in job.error.reason
        assert await pika.store(job.key, f"{TARGET}/other.mp4") == f"{TARGET}/other.mp4"
        assert_stored((await pika.jobs())[0], store, "lanterns/other.mp4")
        assert await pika.store(job.key, f"{TARGET}/key-0.mp4", overwrite=True) == f"{TARGET}/key-0.mp4"
    assert store.get("lanterns/key-0.mp4") == store.get("lanterns/other.mp4")
    assert charges(emulator) == 1


@pytest.mark.parametrize("may_delete", [True, False])
async def test_a_job_that_is_paid_for_again_leaves_its_object_under_the_archive_name(
    store: StoreProxy, may_delete: bool
) -> None:
    """The new result takes the name of its key, also where the old object could not be removed."""
    if not may_delete:
        store.faults = [Fault("DELETE", 403, "AccessDenied", times=9, where="lanterns/key-0.mp4")]
    with serving(render=True) as emulator:  # each task has a video of its own
        await pay_again(emulator, store, may_delete)


async def pay_again(emulator: Emulator, store: StoreProxy, may_delete: bool) -> None:
    async with client(emulator) as pika:
        (first,) = (await pika.run(requests(1), download_to=TARGET)).jobs
        old = store.get("lanterns/key-0.mp4")
        archived = await pika.resubmit("key-0")
        assert archived.object_url == f"{TARGET}/key-0~1.mp4"
        assert (store.object_keys() == ["lanterns/key-0~1.mp4"]) is may_delete
        assert store.get("lanterns/key-0~1.mp4") == old
        (second,) = (await pika.run(requests(1), download_to=TARGET)).jobs
        assert_stored(second, store, "lanterns/key-0.mp4")
        assert second.task_id != first.task_id
        assert store.get("lanterns/key-0.mp4") != old
    assert charges(emulator) == 2


async def test_a_store_that_cannot_copy_archives_nothing(emulator: Emulator, store: StoreProxy) -> None:
    """Nothing is paid again, and the job keeps its object."""
    async with client(emulator) as pika:
        await pika.run(requests(1), download_to=TARGET)
        store.faults = [Fault("PUT", 403, "AccessDenied", times=9)]
        with pytest.raises(ValueError, match=r"cannot be copied to s3://clips/lanterns/key-0~1\.mp4: the credentials"):
            await pika.resubmit("key-0")
        assert [job.key for job in await pika.jobs()] == ["key-0"]


async def test_a_single_video_is_stored_and_a_url_is_not_a_path(emulator: Emulator, store: StoreProxy) -> None:
    """`download` takes paths, `store` takes URLs of objects."""
    async with client(emulator) as pika:
        video = await pika.generate("a heron")
        assert await pika.store(video, f"s3://{BUCKET}/heron.mp4") == f"s3://{BUCKET}/heron.mp4"
        for url in (f"s3://{BUCKET}", f"s3://{BUCKET}/x/", "heron.mp4"):
            with pytest.raises(ConfigurationError, match="url: must"):
                await pika.store(video, url)
        with pytest.raises(ConfigurationError, match=r"path: must be a path; store\(video, url\)"):
            await pika.download(video, f"s3://{BUCKET}/heron.mp4")
    assert store.get("heron.mp4")[4:8] == b"ftyp"
