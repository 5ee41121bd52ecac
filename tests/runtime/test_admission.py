"""Admission of requests: each is validated once, and a local image is read once, when it is sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest

from pika_async import FixedInterval, GenerationRequest, InvalidRequest, JobStatus, Limits, PikaClient
from pika_async._runtime import images
from pika_async._runtime.gateway import GatewayClient
from pika_async._runtime.images import check_request, load_media
from pika_async.errors import shorten
from pika_async.models import evolve_unchecked
from pika_async.providers import PROVIDERS
from pika_async.providers._provider import Provider
from pika_async.providers._verdicts import SubmitOutcome, SubmitVerdict
from tests.fakes import virtual_clock
from tests.fakes.memory_gateway import ORIGIN, MemoryTransport, client, gateway
from tests.http.media_files import made

NATIVE = PROVIDERS["native"]
PNG = made("png")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of validations of requests, of checks by providers, and of files that were read."""
    counter: Counter[str] = Counter()
    validate, check, read = GenerationRequest.__attrs_post_init__, Provider.check, images._read

    def counted_validate(self: GenerationRequest) -> None:
        counter["validated"] += 1
        validate(self)

    def counted_check(self: Provider, request: GenerationRequest) -> None:
        counter["checked"] += 1
        check(self, request)

    def counted_read(file: Any) -> Any:
        counter["read"] += 1
        return read(file)

    monkeypatch.setattr(GenerationRequest, "__attrs_post_init__", counted_validate)
    monkeypatch.setattr(Provider, "check", counted_check)
    monkeypatch.setattr(images, "_read", counted_read)
    return counter


@pytest.mark.parametrize("way", ["submit", "a list", "a generator", "a list with a journal"])
def test_a_request_is_validated_once(way: str, calls: Counter[str], tmp_path: Path) -> None:
    """Three prompts are validated three times and checked by the provider three times, however they are passed."""
    prompts = ["a", "b", "c"]

    async def story(pika: PikaClient) -> None:
        async with pika:
            if way == "submit":
                for prompt in prompts:
                    await pika.submit(prompt)
            else:
                source: Any = (prompt for prompt in prompts) if way == "a generator" else prompts
                assert (await pika.run(source)).ok
        assert calls["checked"] == 3
        # A journal in a file validates again what it has read: once for each job here.
        assert calls["validated"] == (6 if way == "a list with a journal" else 3)

    if way == "a list with a journal":
        at = gateway(durations="constant:0.01")
        asyncio.run(story(client(at, "native", journal=tmp_path / "j.db", polling=FixedInterval(0.01))))
    else:
        virtual_clock.run(story(client(gateway(), "native")))


@pytest.mark.parametrize("way", ["submit", "run"])
def test_a_local_image_is_read_once(way: str, calls: Counter[str], tmp_path: Path) -> None:
    """Its file is read when its request is sent; the rest of the batch is not in memory by then."""
    image = tmp_path / "cat.png"
    image.write_bytes(PNG)
    read_when_sent: list[int] = []

    class Counting(MemoryTransport):
        async def send(self, request: Any) -> Any:
            if request.paid:
                read_when_sent.append(calls["read"])
            return await super().send(request)

    async def story() -> None:
        at = gateway(durations="constant:0.01")
        limits = Limits(submitting=1)
        transport = Counting(at, latency=0)
        async with client(at, "native", transport=transport, limits=limits, polling=FixedInterval(0.01)) as pika:
            requests = [GenerationRequest("a cat", image=image, key=f"k{number}") for number in range(4)]
            if way == "submit":
                for request in requests:
                    await pika.submit(request)
            else:
                assert (await pika.run(requests)).ok

    asyncio.run(story())  # files are read in a thread
    assert read_when_sent == [1, 2, 3, 4]


@pytest.mark.anyio
async def test_an_image_that_grows_after_admission_is_not_sent(tmp_path: Path) -> None:
    """The size of a file is checked again before it is read, and its submission is rejected."""
    image = tmp_path / "cat.png"
    image.write_bytes(PNG)
    request = GenerationRequest("a cat", image=image)
    await check_request(NATIVE, request)
    image.write_bytes(PNG.ljust(900_000, b"\0"))
    encoded = await GatewayClient(NATIVE, ORIGIN, MemoryTransport(gateway())).encode(request, "")
    assert isinstance(encoded, SubmitOutcome)
    assert encoded.verdict is SubmitVerdict.REJECTED
    assert "900,000 bytes" in encoded.reason


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["missing", "a folder", "empty", "not readable", "too large"])
async def test_an_image_that_cannot_be_sent_is_refused(kind: str, tmp_path: Path) -> None:
    """`check_request` and `load_media` refuse the same files with the same text, which names the file or the size."""
    image = tmp_path / "cat.png"
    if kind == "a folder":
        image.mkdir()
    elif kind == "not readable":
        image.symlink_to(image)  # a loop: root cannot read it either
    elif kind != "missing":
        image.write_bytes({"empty": b"", "too large": PNG.ljust(900_000, b"\0")}.get(kind, PNG))
    request = GenerationRequest("a cat", image=image)
    texts = []
    for function in (check_request, load_media):
        with pytest.raises(InvalidRequest) as caught:
            await function(NATIVE, request)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert ("900,000 bytes" if kind == "too large" else shorten(str(image))) in texts[0]


@pytest.mark.anyio
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_url_of_this_machine_is_never_sent_to_a_public_gateway(provider: str) -> None:
    """Calls, batches, estimates and the encoding of a stored job refuse it alike; nothing is sent."""
    at = gateway()
    request = GenerationRequest("a cat", image="http://localhost:8000/cat.png", key="k")
    base_url = "https://pika.example"
    async with PikaClient(provider, base_url=base_url, transport=MemoryTransport(at)) as pika:
        with pytest.raises(InvalidRequest, match="must be a public URL") as caught:
            await pika.submit(request)
        refusal = str(caught.value)
        assert (await pika.estimate([request])).refused == {0: refusal}
        job = (await pika.run([request])).jobs[0]
    assert job.status is JobStatus.REJECTED
    assert str(job.error) == refusal
    outcome = await GatewayClient(PROVIDERS[provider], base_url, MemoryTransport(at)).encode(request, "")
    assert isinstance(outcome, SubmitOutcome)
    assert (outcome.verdict, outcome.reason) == (SubmitVerdict.REJECTED, refusal)
    assert len(at.ledger) == len(at.requests) == 0
    assert not isinstance(
        await GatewayClient(PROVIDERS[provider], ORIGIN, MemoryTransport(at)).encode(request, ""), SubmitOutcome
    )


def test_an_unchecked_copy_equals_a_checked_one() -> None:
    """`evolve_unchecked` changes only the fields that are passed, and leaves the original as it is."""
    request = GenerationRequest("a cat", effect="melt", camera={"pan": "left"}, metadata={"row": 1})
    copied = evolve_unchecked(request, key="k")
    assert copied == attrs.evolve(request, key="k")
    assert request.key is None
    assert hash(copied.fingerprint()) == hash(request.fingerprint())
