"""An uploader for gateways that take addresses only: each content is uploaded once, and no failure of it costs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pika_async import (
    ConfigurationError,
    FixedInterval,
    GenerationRequest,
    InvalidRequest,
    JobStatus,
    PikaClient,
    SubmissionsStopped,
)
from pika_async._journal.memory import MemoryJournal
from pika_async._journal.protocol import Upload
from pika_async._runtime.uploads import UPLOAD_TIMEOUT_S
from pika_async.emulator import Gateway
from pika_async.errors import JournalFailed, SubmissionRejected
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import MemoryTransport, client, gateway, with_journal
from tests.http.media_files import made, real_mp4

PNG, JPEG, LARGE = made("png"), made("jpeg"), made("png").ljust(900_000, b"\0")
S = JobStatus


class Host:
    """A host of files: the uploader, and what it was given."""

    def __init__(self, *failures: Exception | None, seconds: float = 0.0, answer: Any = None) -> None:
        self.calls: list[tuple[bytes, str, str]] = []
        self._failures = list(failures)
        self._seconds = seconds
        self._answer = answer

    async def __call__(self, data: bytes, name: str, content_type: str) -> str:
        self.calls.append((data, name, content_type))
        await asyncio.sleep(self._seconds)
        failure = self._failures.pop(0) if len(self._failures) > 1 else (self._failures or [None])[0]
        if failure is not None:
            raise failure
        answer: str = self.url_of(data) if self._answer is None else self._answer
        return answer

    @staticmethod
    def url_of(data: bytes) -> str:
        return f"https://host.example/{hashlib.sha256(data).hexdigest()[:8]}"


def requests_with(data: bytes, count: int, **fields: Any) -> list[GenerationRequest]:
    return [GenerationRequest(f"a cat {number}", image=data, key=f"k{number}", **fields) for number in range(count)]


def images_of(at: Gateway) -> list[Any]:
    return [charge.body.get("image") for charge in at.ledger]


def in_virtual_time(story: Callable[[Gateway], Awaitable[None]]) -> None:
    async def run() -> None:
        await story(gateway(durations="constant:1"))

    virtual_clock.run(run())


# --- what is uploaded -------------------------------------------------------------------------------------------------


def test_a_hundred_jobs_share_one_upload() -> None:
    """They are submitted side by side while the upload runs; the uploader is called once, and each is sent its URL."""

    async def story(at: Gateway) -> None:
        host = Host(seconds=5)
        async with client(at, uploader=host) as pika:
            assert (await pika.run(requests_with(PNG, 100))).counts == {S.SUCCEEDED: 100}
        assert host.calls == [(PNG, f"{hashlib.sha256(PNG).hexdigest()[:16]}.png", "image/png")]
        assert images_of(at) == [host.url_of(PNG)] * 100

    in_virtual_time(story)


def test_what_the_provider_takes_inside_a_request_is_not_uploaded() -> None:
    """Only a picture that is too large for the body, and the fields that take URLs only, are uploaded."""

    async def story(at: Gateway) -> None:
        host = Host()
        async with client(at, "native", uploader=host) as pika:
            assert (await pika.run(requests_with(PNG, 2))).ok
            assert host.calls == []
            await pika.generate("large", image=LARGE)
            await pika.generate("two", ingredients=[JPEG, "https://x.example/a.png", PNG])
        assert [data for data, _, _ in host.calls] == [LARGE, JPEG, PNG]
        assert images_of(at)[2] == host.url_of(LARGE)
        assert at.ledger[3].body["ingredient"] == [host.url_of(JPEG), "https://x.example/a.png", host.url_of(PNG)]

    in_virtual_time(story)


def test_a_local_video_is_uploaded(tmp_path: Path) -> None:
    """A video has the content type of its own marks."""
    file = tmp_path / "clip.MP4"
    file.write_bytes(real_mp4(""))

    async def story() -> None:
        at, host = gateway(durations="constant:0.01"), Host()
        async with client(at, uploader=host, polling=FixedInterval(0.01)) as pika:
            await pika.generate("a cat", video=file, effect="Melt")
        assert host.calls == [(real_mp4(""), "clip.MP4", "video/mp4")]
        assert at.ledger[0].body["video"] == host.url_of(real_mp4(""))

    asyncio.run(story())


@pytest.mark.parametrize(
    "name, sent",
    [("cat.png", "cat.png"), ("cat.jpg", "cat.png"), ("cat", "cat.png"), (".png", ".png"), ("a.b.PNG", "a.b.PNG")],
)
def test_the_name_of_an_upload_fits_its_content(name: str, sent: str, tmp_path: Path) -> None:
    """A host that goes by the ending serves the right content type, whatever the file was called."""
    (tmp_path / name).write_bytes(PNG)

    async def story() -> None:
        at, host = gateway(durations="constant:0.01"), Host()
        async with client(at, uploader=host, polling=FixedInterval(0.01)) as pika:
            await pika.generate("a cat", image=str(tmp_path / name))
        assert host.calls == [(PNG, sent, "image/png")]

    asyncio.run(story())


def test_an_address_is_remembered_across_restarts(tmp_path: Path) -> None:
    """A later process sends the same content by the same URL, until its lifetime is over."""

    async def story() -> None:
        at, host = gateway(durations="constant:0.01"), Host()
        for number, lifetime in enumerate((None, None, 1e-9)):
            options: dict[str, Any] = {"uploader": host, "journal": tmp_path / "j.db", "polling": FixedInterval(0.01)}
            async with client(at, upload_lifetime=lifetime, **options) as pika:
                await pika.generate(GenerationRequest("a cat", image=PNG, key=f"k{number}"))
            assert len(host.calls) == (1 if lifetime is None else 2)
        assert images_of(at) == [host.url_of(PNG)] * 3

    asyncio.run(story())


def test_another_url_replaces_the_earlier_one(tmp_path: Path) -> None:
    """The journal keeps the latest address of a content, with its time."""

    async def story() -> None:
        at = gateway(durations="constant:0.01")
        for number, url in enumerate(("https://one.example/a", "https://two.example/a")):
            options: dict[str, Any] = {"journal": tmp_path / "j.db", "polling": FixedInterval(0.01)}
            async with client(at, uploader=Host(answer=url), upload_lifetime=1e-9, **options) as pika:
                await pika.generate(GenerationRequest("a cat", image=PNG, key=f"k{number}"))
                upload = pika._journal.get_upload(hashlib.sha256(PNG).hexdigest())
                assert upload is not None
                assert upload.url == url
        assert images_of(at) == ["https://one.example/a", "https://two.example/a"]

    asyncio.run(story())


# --- what fails -------------------------------------------------------------------------------------------------------


def test_an_upload_that_fails_and_then_passes_costs_nothing() -> None:
    """Its jobs stay planned meanwhile, and each is sent once."""

    async def story(at: Gateway) -> None:
        host = Host(ConnectionError("reset"), ConnectionError("reset"), None)
        async with client(at, uploader=host) as pika:
            assert (await pika.run(requests_with(PNG, 5))).ok
        assert len(host.calls) == 3
        assert len(at.ledger) == 5

    in_virtual_time(story)


@pytest.mark.parametrize("kind", ["raises", "times out", "cancels itself", "hangs"])
def test_an_uploader_that_never_works_stops_the_rest(kind: str) -> None:
    """Rows without a file are sent; the others stay planned, and the stop has the reason, the file and its size."""

    async def upload(data: bytes, name: str, content_type: str) -> str:
        if kind == "hangs":
            await asyncio.sleep(1e6)
        if kind == "times out":
            raise TimeoutError
        if kind == "cancels itself":
            raise asyncio.CancelledError
        raise PermissionError("bucket \x1b[31m is closed")

    async def story(at: Gateway) -> None:
        requests = [*requests_with(PNG, 3), *(GenerationRequest(f"dog {number}") for number in range(3))]
        async with client(at, uploader=upload) as pika:
            report = await pika.run(requests)
            assert report.counts == {S.SUCCEEDED: 3, S.PLANNED: 3}
        assert type(report.stopped) is SubmissionsStopped
        text = report.stopped.message
        assert f"the upload of {hashlib.sha256(PNG).hexdigest()[:16]}.png ({len(PNG):,} bytes) failed: " in text
        reasons = {
            "raises": "PermissionError",
            "times out": "failed: TimeoutError()",
            "cancels itself": "CancelledError()",
            "hangs": f"the uploader did not return within {UPLOAD_TIMEOUT_S:g} s",
        }
        assert reasons[kind] in text
        assert text.isprintable()
        assert [charge.prompt for charge in at.ledger] == ["dog 0", "dog 1", "dog 2"]

    in_virtual_time(story)


@pytest.mark.parametrize(
    "answer", ["", "cat.png", "ftp://host.example/a", "https:///a", "https://h.example/a b", 7, b"https://h.example/a"]
)
def test_an_uploader_that_returns_no_url_stops_at_once(answer: Any) -> None:
    """Another attempt would upload the same again for nothing."""

    async def story(at: Gateway) -> None:
        host = Host(answer=answer)
        async with client(at, uploader=host) as pika:
            report = await pika.run(requests_with(PNG, 20))
            assert report.counts == {S.PLANNED: 20}
        assert len(host.calls) == 1
        assert type(report.stopped) is SubmissionsStopped
        assert f"the uploader must return a complete http(s) URL, not {answer!r}" in report.stopped.message
        assert not at.ledger

    in_virtual_time(story)


def test_an_uploader_whose_urls_the_gateway_cannot_reach_stops_at_once() -> None:
    """A bucket on this machine serves an emulator, not a gateway on the public internet: nothing is sent there."""

    async def story(at: Gateway) -> None:
        host = Host(answer="http://localhost:9000/bucket/cat.png")
        transport = MemoryTransport(at)
        async with PikaClient("cometapi", base_url="https://pika.example", transport=transport, uploader=host) as pika:
            report = await pika.run(requests_with(PNG, 20))
            assert report.counts == {S.PLANNED: 20}
        assert len(host.calls) == 1
        assert "must return a public URL, not 'http://localhost:9000/bucket/cat.png'" in str(report.stopped)
        assert at.ledger == []

    in_virtual_time(story)


def test_an_uploader_that_is_not_async_stops_at_once() -> None:
    """The text says what the function must be."""

    async def story(at: Gateway) -> None:
        uploader: Any = lambda data, name, content_type: "https://h.example/a"  # noqa: E731
        async with client(at, uploader=uploader) as pika:
            report = await pika.run(requests_with(PNG, 2))
        assert report.stopped is not None
        assert "the uploader must be an async function" in report.stopped.message
        assert not at.ledger

    in_virtual_time(story)


def test_an_uploader_may_refuse_a_row() -> None:
    """`InvalidRequest` from it is that row's own; the others are sent."""

    async def story(at: Gateway) -> None:
        refusal = InvalidRequest(field="image", value="cat", reason="must be smaller than the host allows")
        host = Host(refusal, None)
        async with client(at, uploader=host) as pika:
            requests = [GenerationRequest("bad", image=JPEG, key="bad"), *requests_with(PNG, 3)]
            report = await pika.run(requests)
        assert report.counts == {S.REJECTED: 1, S.SUCCEEDED: 3}
        bad = next(job for job in report.jobs if job.key == "bad")
        assert isinstance(bad.error, SubmissionRejected)
        assert "must be smaller than the host allows" in bad.error.message
        assert "bad" not in {charge.prompt for charge in at.ledger}

    in_virtual_time(story)


@pytest.mark.parametrize(("seconds", "uploads_again"), [(200, 1), (3, 0)], ids=["not done", "done within the grace"])
def test_closing_during_an_upload_leaves_the_jobs_planned(seconds: float, uploads_again: int) -> None:
    """The close waits for the grace, not for the upload; nothing is sent, and the next run uploads what is missing."""

    async def story(at: Gateway) -> None:
        journal = MemoryJournal()
        slow = Host(seconds=seconds)
        async with with_journal(client(at, uploader=slow), journal) as pika:
            batch = asyncio.create_task(pika.run(requests_with(PNG, 3)))
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 20
        with pytest.raises(Exception, match="closed"):
            await batch
        assert [job.status for job in journal.all()] == [S.PLANNED] * 3
        assert not at.ledger
        assert (journal.get_upload(hashlib.sha256(PNG).hexdigest()) is None) == bool(uploads_again)
        host = Host()
        async with with_journal(client(at, uploader=host), journal) as pika:
            assert (await pika.run(requests_with(PNG, 3))).ok
        assert (len(host.calls), len(at.ledger)) == (uploads_again, 3)

    in_virtual_time(story)


def test_an_address_that_cannot_be_saved_is_not_sent() -> None:
    """Without the address in the journal the file might be uploaded once more after each crash: nothing is sent."""

    class Failing(MemoryJournal):
        async def save_upload(self, upload: Upload) -> None:
            raise JournalFailed(provider="", reason="disk full", path="j.db", fallback_file=None)

    async def story(at: Gateway) -> None:
        host = Host()
        async with with_journal(client(at, uploader=host), Failing()) as pika:
            report = await pika.run(requests_with(PNG, 3))
            assert isinstance(report.stopped, JournalFailed)
            assert report.counts == {S.PLANNED: 3}
        assert not at.ledger

    in_virtual_time(story)


@pytest.mark.parametrize(
    "provider, data, size",
    [
        ("cometapi", PNG, f"'{len(PNG):,} bytes' must be a URL"),
        ("native", LARGE, "'900,000 bytes' must be at most 735,000 bytes"),
    ],
)
def test_without_an_uploader_the_error_has_the_size_and_the_ways_out(provider: str, data: bytes, size: str) -> None:
    """The text names an uploader beside a URL, before anything costs."""

    async def story(at: Gateway) -> None:
        async with client(at, provider) as pika:
            with pytest.raises(InvalidRequest) as caught:
                await pika.generate("a cat", image=data)
        assert size in str(caught.value)
        assert "let an uploader do that (PikaClient(uploader=...), --uploader)" in str(caught.value)
        if provider == "cometapi":
            assert "use a provider that takes files" in str(caught.value)
        assert not at.requests

    in_virtual_time(story)


def test_a_field_that_the_provider_lacks_is_not_uploaded() -> None:
    """An uploader makes a URL of a file, not a capability of a provider."""

    async def story(at: Gateway) -> None:
        host = Host()
        async with client(at, "yescale", uploader=host) as pika:
            with pytest.raises(InvalidRequest, match="must be left out at YEScale"):
                await pika.generate("a cat", video=real_mp4(""))
            with pytest.raises(InvalidRequest, match="must be left out at YEScale"):
                await pika.generate("a cat", ingredients=[PNG])
        assert not host.calls
        assert not at.requests

    in_virtual_time(story)


@pytest.mark.parametrize(
    "options", [{"uploader": "https://h.example"}, {"upload_lifetime": 0}, {"upload_lifetime": "1 day"}]
)
def test_a_wrong_uploader_is_refused_by_name(options: dict[str, Any]) -> None:
    """The error names the argument."""
    with pytest.raises(ConfigurationError) as caught:
        PikaClient("cometapi", api_key="k", **options)
    assert caught.value.setting == next(iter(options))


# --- not sent after all -----------------------------------------------------------------------------------------------


def test_a_cancelled_call_is_withdrawn_while_its_file_is_uploaded() -> None:
    """The upload may end; the request is not sent after it, and its job is canceled without a charge."""

    async def story(at: Gateway) -> None:
        host = Host(seconds=30)
        async with client(at, uploader=host) as pika:
            call = asyncio.create_task(pika.generate(GenerationRequest("a cat", image=PNG, key="k")))
            await asyncio.sleep(5)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.sleep(60)
            job = await pika.job("k")
            assert job is not None
            assert (job.status, job.attempts, pika.active_jobs()) == (S.CANCELED, 0, [])
            assert not at.ledger
            assert (await pika.run([GenerationRequest("a cat", image=PNG, key="k")])).ok
        assert (len(host.calls), len(at.ledger)) == (1, 1)

    in_virtual_time(story)


def test_a_call_that_joins_an_upload_keeps_its_job() -> None:
    """Of two calls for one key, one is cancelled during the upload: the job is sent once, for the other."""

    async def story(at: Gateway) -> None:
        host = Host(seconds=30)
        async with client(at, uploader=host) as pika:
            request = GenerationRequest("a cat", image=PNG, key="k")
            calls = [asyncio.create_task(pika.generate(request)) for _ in range(2)]
            await asyncio.sleep(5)
            calls[0].cancel()
            assert (await calls[1]).url
        assert len(at.ledger) == 1

    in_virtual_time(story)


def test_what_is_uploaded_when_the_account_stops_is_not_sent() -> None:
    """A key that is refused meanwhile stops the jobs behind the upload too; all of them are planned."""

    async def story() -> None:
        at = gateway([{"on": "create", "do": {"fault": "refuse", "as": "key"}}])
        host = Host(seconds=30)
        requests = [*requests_with(PNG, 2), GenerationRequest("a dog"), GenerationRequest("a bird")]
        async with client(at, uploader=host) as pika:
            report = await pika.run(requests)
            await asyncio.sleep(60)
        assert report.stopped is not None
        assert report.counts == {S.PLANNED: 4}
        assert [entry.status for entry in at.requests if entry.method == "POST"] == [401]
        assert len(host.calls) == 1

    virtual_clock.run(story())
