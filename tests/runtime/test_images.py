"""Local images on machines in trouble: which failures are the row's own, which are the machine's, and what follows."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

from pika_async import (
    FixedInterval,
    GenerationRequest,
    InvalidRequest,
    JobStatus,
    Limits,
    PikaClient,
    SubmissionsStopped,
)
from pika_async._runtime import images, submitter
from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.images import ImageUnreadable, check_request, check_request_blocking, load_media
from pika_async.emulator import Gateway
from pika_async.providers import PROVIDERS
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, client, gateway
from tests.http.media_files import made

NATIVE = PROVIDERS["native"]
PNG = made("png")
#: Errors of the machine: descriptors, disks, permissions, mounts, memory.
TROUBLES = ("EMFILE", "ENFILE", "EIO", "EACCES", "EPERM", "ESTALE", "ENOMEM", "ETIMEDOUT", "ENOTCONN")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    return path


@pytest.fixture
def break_reads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let reads of images fail: the first `times` of them, all of a path, or all."""
    monkeypatch.setattr(submitter, "random", SimpleNamespace(random=lambda: 0.0))  # no waits between attempts
    read = images._read

    def apply(name: str, *, times: float = float("inf"), only: Path | None = None) -> None:
        failed = 0

        def broken(file: Any) -> Any:
            nonlocal failed
            if failed < times and only in {None, file.media}:
                failed += 1
                raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
            return read(file)

        monkeypatch.setattr(images, "_read", broken)

    return apply


def _client(at: Gateway, **options: Any) -> PikaClient:
    transport = MemoryTransport(at, latency=0)
    return client(at, "native", transport=transport, polling=FixedInterval(0.01), **options)


def _gateway() -> Gateway:
    return gateway(durations="constant:0.01")


# --- whose fault ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("name", TROUBLES)
async def test_trouble_of_the_machine_is_not_the_rows(
    name: str, image: Path, break_reads: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The submission counts as not sent, and admission lets the request pass; the reason names file and error."""
    break_reads(name)
    request = GenerationRequest("a cat", image=image)
    outcome = await GatewayClient(NATIVE, ORIGIN, MemoryTransport(gateway())).encode(request, "")
    assert isinstance(outcome, SubmitOutcome)
    assert (outcome.verdict, outcome.local) == (SubmitVerdict.NOT_SENT, True)
    assert outcome.reason == f"image: {str(image)!r} cannot be read: {os.strerror(getattr(errno, name))}"

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    monkeypatch.setattr(Path, "stat", broken)
    await check_request(NATIVE, request)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        check_request_blocking(NATIVE, request)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["missing", "below a file", "a folder", "a loop", "too long"])
async def test_a_path_that_leads_to_no_file_is_the_rows(kind: str, image: Path) -> None:
    """Whatever happens to the machine, such a row cannot be sent: it is refused at admission and when it is sent."""
    path = {
        "missing": image.with_name("none.png"),
        "below a file": image / "cat.png",
        "a folder": image.parent,
        "a loop": image.with_name("loop.png"),
        "too long": image.with_name("x" * 300),
    }[kind]
    if kind == "a loop":
        path.symlink_to(path)
    request = GenerationRequest("a cat", image=str(path))
    for function in (check_request, load_media):
        with pytest.raises(InvalidRequest) as caught:
            await function(NATIVE, request)
        assert caught.value.field == "image"


@contextlib.contextmanager
def _no_descriptors() -> Iterator[None]:
    """Use up every descriptor of this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    highest = max(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208 - names only
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.anyio
async def test_a_process_out_of_descriptors_refuses_no_row(image: Path) -> None:
    """Without a descriptor left an image cannot be read; with one again, it is."""
    request = GenerationRequest("a cat", image=image)
    await load_media(NATIVE, request)  # starts the thread
    with _no_descriptors():
        await check_request(NATIVE, request)
        with pytest.raises(ImageUnreadable, match="Too many open files"):
            await load_media(NATIVE, request)
    assert (await load_media(NATIVE, request)).image == PNG


@pytest.mark.anyio
@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
async def test_a_codec_that_cannot_be_loaded_now_refuses_no_row(
    error: Exception, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that is imported on first use may find no descriptor: the request is not at fault."""

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(type(NATIVE), "encode_submission", fail)
    outcome = await GatewayClient(NATIVE, ORIGIN, MemoryTransport(gateway())).encode(GenerationRequest("a cat"), "")
    assert isinstance(outcome, SubmitOutcome)
    assert (outcome.verdict, outcome.local) == (SubmitVerdict.NOT_SENT, True)


# --- what follows -----------------------------------------------------------------------------------------------------


def test_trouble_that_passes_costs_nothing(image: Path, break_reads: Callable[..., None]) -> None:
    """After three failed reads every job is sent and succeeds."""

    async def story() -> None:
        at = _gateway()
        break_reads("EMFILE", times=3)
        async with _client(at, limits=Limits(submitting=1)) as pika:
            report = await pika.run([GenerationRequest("a cat", image=image, key=f"k{n}") for n in range(4)])
        assert report.ok
        assert len(at.ledger) == 4

    asyncio.run(story())


def test_trouble_that_lasts_stops_and_leaves_the_jobs_planned(
    image: Path, break_reads: Callable[..., None], tmp_path: Path
) -> None:
    """Nothing is refused or paid; the same run succeeds once the machine is mended."""

    async def story() -> None:
        at = _gateway()
        requests = [GenerationRequest("a cat", image=image, key=f"k{number}") for number in range(3)]
        break_reads("EIO")
        async with _client(at, journal=tmp_path / "j.db") as pika:
            report = await pika.run(requests)
            assert type(report.stopped) is SubmissionsStopped
            assert "Input/output error" in report.stopped.message
            assert str(image) in report.stopped.message
            assert [job.status for job in await pika.jobs()] == [JobStatus.PLANNED] * 3
        assert not at.ledger
        break_reads("EIO", times=0)
        async with _client(at, journal=tmp_path / "j.db") as pika:
            assert (await pika.run(requests)).ok
        assert len(at.ledger) == 3

    asyncio.run(story())


def test_one_unreadable_image_holds_no_other_row(image: Path, break_reads: Callable[..., None]) -> None:
    """The other rows are sent; that one stays planned, and the stop names it."""

    async def story() -> None:
        at = _gateway()
        locked = image.with_name("locked.png")
        locked.write_bytes(PNG)
        break_reads("EACCES", only=locked)
        requests = [
            GenerationRequest("a cat", image=locked if number == 1 else image, key=f"k{number}") for number in range(6)
        ]
        async with _client(at) as pika:
            report = await pika.run(requests)
        assert type(report.stopped) is SubmissionsStopped
        assert "locked.png" in report.stopped.message
        assert report.counts == {JobStatus.SUCCEEDED: 5, JobStatus.PLANNED: 1}

    asyncio.run(story())


def test_an_image_that_was_missing_is_read_when_it_is_asked_for_again(image: Path, tmp_path: Path) -> None:
    """The same run refuses the row again while the file is missing, and sends it once the file is there."""

    async def story() -> None:
        at = _gateway()
        late = image.with_name("late.png")
        request = GenerationRequest("a cat", image=late, key="k")
        for attempt in range(3):
            if attempt == 2:
                late.write_bytes(PNG)
            async with _client(at, journal=tmp_path / "j.db") as pika:
                report = await pika.run([request])
            assert report.counts == {JobStatus.SUCCEEDED if attempt == 2 else JobStatus.REJECTED: 1}
            assert len(at.ledger) == (attempt == 2)

    asyncio.run(story())


def test_an_image_that_vanished_before_it_was_sent_is_read_again(image: Path, tmp_path: Path) -> None:
    """A file that was there at admission and missing at the send is treated like one that was never there."""

    async def story() -> None:
        at = _gateway()
        request = GenerationRequest("a cat", image=image, key="k")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(images, "_read", lambda file: images._check(attrs.evolve(file, media=file.media / "x")))
            async with _client(at, journal=tmp_path / "j.db") as pika:
                assert (await pika.run([request])).counts == {JobStatus.REJECTED: 1}
        async with _client(at, journal=tmp_path / "j.db") as pika:
            assert (await pika.run([request])).ok
        assert len(at.ledger) == 1

    asyncio.run(story())


def test_a_row_that_the_gateway_refused_is_not_sent_again(image: Path, tmp_path: Path) -> None:
    """Only what was refused on this machine is checked anew; a refusal of the gateway stays."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "refuse", "as": "invalid"}}], durations="constant:0.01")
        request = GenerationRequest("a cat", image=image, key="k")
        for _ in range(2):
            async with _client(at, journal=tmp_path / "j.db") as pika:
                assert (await pika.run([request])).counts == {JobStatus.REJECTED: 1}
        assert len([entry for entry in at.requests if entry.method == "POST"]) == 1

    asyncio.run(story())


@pytest.mark.anyio
@pytest.mark.parametrize("content", [PNG[:-1], b"<html>403</html>", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"])
async def test_an_image_that_changed_after_admission_is_not_sent(content: bytes, image: Path) -> None:
    """The content is checked again when it is read, and its submission is rejected with the same text."""
    request = GenerationRequest("a cat", image=image)
    await check_request(NATIVE, request)
    image.write_bytes(content)
    outcome = await GatewayClient(NATIVE, ORIGIN, MemoryTransport(gateway())).encode(request, "")
    assert isinstance(outcome, SubmitOutcome)
    assert outcome.verdict is SubmitVerdict.REJECTED
    with pytest.raises(InvalidRequest) as caught:
        await check_request(NATIVE, request)
    assert outcome.reason == str(caught.value)


def test_a_file_that_has_grown_is_not_read(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of many gigabytes is refused by its size and its first bytes alone."""

    def read(reader: Any) -> bytes:
        raise AssertionError("the rest of the file was read")

    monkeypatch.setattr(images, "_read_rest", read)
    os.truncate(image, 5 << 30)
    for provider in (NATIVE, PROVIDERS["cometapi"]):
        for can_upload in (False, True):
            with pytest.raises(InvalidRequest, match=r"cat.png.* must be "):
                check_request_blocking(provider, GenerationRequest("a cat", image=image), can_upload=can_upload)
    with pytest.raises(InvalidRequest, match=r"must be at most 100,000,000 bytes long, not 5,368,709,120"):
        asyncio.run(load_media(NATIVE, GenerationRequest("a cat", image=image)))
    image.write_bytes(PNG.ljust(2_000_000, b"\0"))
    with pytest.raises(InvalidRequest, match=r"cat.png \(2,000,000 bytes\)' must be at most 735,000 bytes"):
        asyncio.run(load_media(NATIVE, GenerationRequest("a cat", image=image)))
