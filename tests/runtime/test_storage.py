"""Uploads to a gateway's own storage over loopback sockets: a place with the key, the file without it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pika_async import FixedInterval, GenerationRequest, InvalidRequest, JobStatus, PikaClient
from pika_async._http.put_file import PutFailed, put_file
from pika_async._journal.memory import MemoryJournal
from pika_async._runtime.images import UploadFailed
from pika_async._runtime.uploads import GatewayStorage
from pika_async.providers._abilities import UploadPlace
from pika_async.providers._wire import HttpRequest, HttpResponse, SendPhase, TransportFailure
from pika_async.providers.gptge import GPTGE
from pika_async.providers.pika import PIKA
from tests.fakes.raw_server import Act, RawServer, answer
from tests.http.media_files import made

pytestmark = pytest.mark.anyio
KEY = "sk-canary/0123456789-abcdef"
PNG, JPEG = made("png"), made("jpeg")


class Storage:
    """A gateway with a storage of its own, at one origin."""

    def __init__(self) -> None:
        self.places: list[dict[str, Any]] = []
        self.puts: list[tuple[str, dict[str, str], bytes]] = []
        self.bodies: list[dict[str, Any]] = []
        self.put_status = 200
        self.refusal: web.Response | None = None
        self.base_url = ""

    async def place(self, request: web.Request) -> web.Response:
        assert request.headers["x-api-key"] == KEY
        if self.refusal is not None:
            return self.refusal
        self.places.append(await request.json())
        name = len(self.places)
        return web.json_response({
            "upload_url": f"{self.base_url}/put/{name}?signature=s%2Fx", "headers": {"Content-Type": "image/png", "x-a": "b"},
            "url": f"{self.base_url}/files/{name}",
        })  # fmt: skip

    async def put(self, request: web.Request) -> web.Response:
        self.puts.append((request.raw_path, {k.lower(): v for k, v in request.headers.items()}, await request.read()))
        return web.Response(status=self.put_status)

    async def create(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return web.json_response({"id": f"j-{len(self.bodies)}", "status": "queued", "error": None, "output": None})

    async def poll(self, request: web.Request) -> web.Response:
        output = {"video": {"url": f"{self.base_url}/1.mp4"}}
        job = {"id": request.match_info["id"], "status": "completed", "error": None, "output": output}
        return web.json_response(job)


@asynccontextmanager
async def storage() -> AsyncIterator[Storage]:
    made_up, app = Storage(), web.Application()
    app.router.add_post("/v1/media/uploads", made_up.place)
    app.router.add_put("/put/{name}", made_up.put)
    app.router.add_post("/v1/media/pika/{model}/{operation}", made_up.create)
    app.router.add_get("/v1/media/jobs/{id}", made_up.poll)
    async with TestServer(app) as server:
        made_up.base_url = str(server.make_url("")).rstrip("/")
        yield made_up


def client(at: Storage, **options: Any) -> PikaClient:
    return PikaClient(PIKA, api_key=KEY, base_url=at.base_url, polling=FixedInterval(0.01), **options)


async def test_a_local_file_goes_to_the_gateways_own_storage(tmp_path: Path) -> None:
    """The place is asked for with the key; the file goes there with exactly its headers, and its URL into the request."""
    file = tmp_path / "cat.png"
    file.write_bytes(PNG)
    async with storage() as at, client(at) as pika:
        report = await pika.run([GenerationRequest(f"a cat {number}", image=file) for number in range(3)])
        assert report.counts == {JobStatus.SUCCEEDED: 3}
        assert at.places == [{"content_type": "image/png", "size_bytes": len(PNG), "filename": "cat.png"}]
        (path, headers, data), *others = at.puts
        assert (path, data, others) == ("/put/1?signature=s%2Fx", PNG, [])
        headers.pop("host")
        assert headers == {"content-type": "image/png", "x-a": "b", "content-length": str(len(PNG))}
        assert [body["image"] for body in at.bodies] == [f"{at.base_url}/files/1"] * 3


async def test_two_pictures_are_uploaded_apart() -> None:
    """Each content has a URL of its own, also bytes without a name."""
    async with storage() as at, client(at) as pika:
        await pika.generate(GenerationRequest("a cat", image=PNG, last_image=JPEG))
        assert [place["content_type"] for place in at.places] == ["image/png", "image/jpeg"]
        assert [data for _, _, data in at.puts] == [PNG, JPEG]
        assert at.bodies[0]["images"] == [f"{at.base_url}/files/1", f"{at.base_url}/files/2"]


async def test_the_users_uploader_goes_first() -> None:
    """Where the user gave an uploader, the gateway's own storage is not asked."""

    async def upload(_data: bytes, _name: str, _content_type: str) -> str:
        return "https://host.example/cat.png"

    async with storage() as at, client(at, uploader=upload) as pika:
        await pika.generate(GenerationRequest("a cat", image=PNG))
        assert (at.places, at.bodies[0]["image"]) == ([], "https://host.example/cat.png")


async def test_a_stored_file_is_not_for_other_gateways() -> None:
    """The URL in a gateway's own storage is remembered under another digest than that of the content alone."""
    journal = MemoryJournal()
    async with storage() as at, client(at, journal=journal) as pika:
        await pika.generate(GenerationRequest("a cat", image=PNG))
        assert journal.get_upload(hashlib.sha256(PNG).hexdigest()) is None
        await pika.generate(GenerationRequest("a cat", image=PNG, key="again"))
        assert len(at.places) == 1


async def test_a_file_that_is_too_large_is_refused_before_anything_is_sent() -> None:
    """The limit of the gateway's own storage is checked at admission, with both sizes."""
    async with storage() as at, client(at) as pika:
        with pytest.raises(InvalidRequest, match="must be at most 20,000,000 bytes to be uploaded to Pika"):
            await pika.submit(GenerationRequest("a cat", image=PNG.ljust(20_000_001, b"\0")))
        assert (at.places, at.bodies) == ([], [])


@pytest.mark.parametrize(("status", "lasting"), [(401, True), (403, True), (429, False), (500, False)])
async def test_a_refused_place_says_whether_it_lasts(status: int, lasting: bool) -> None:
    """A refused account refuses every further file; any other failure may pass."""
    with pytest.raises(UploadFailed, match=f"to Pika failed: HTTP {status}: no room") as caught:
        await store(HttpResponse(status=status, body=b'{"message": "no room"}'))
    assert caught.value.lasting is lasting


@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_refused_file_is_refused_for_good(status: int) -> None:
    """A gateway that does not take a file settles the job that needs it, uncharged."""
    with pytest.raises(InvalidRequest, match="must be a file that Pika takes: no cats; put it elsewhere"):
        await store(HttpResponse(status=status, body=b'{"error": {"code": "invalid_input", "message": "no cats"}}'))


async def test_a_lost_answer_to_an_upload_may_be_asked_for_again() -> None:
    """An upload is free: without an answer it has failed for now."""
    with pytest.raises(UploadFailed, match="to Pika failed: no answer in time") as caught:
        await store(TransportFailure(phase=SendPhase.SENT, kind="timeout", detail="no answer in time"))
    assert caught.value.lasting is False


class OneAnswer:
    """Transport that returns one answer."""

    def __init__(self, response: HttpResponse | TransportFailure) -> None:
        self.response = response

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def send(self, _request: HttpRequest) -> HttpResponse | TransportFailure:
        return self.response


async def store(response: HttpResponse | TransportFailure) -> str:
    upload = GatewayStorage(PIKA, "https://pika.example", OneAnswer(response))
    return await upload(PNG, "cat.png", "image/png")


async def test_a_gateway_without_storage_has_no_uploads() -> None:
    """A provider without storage never reaches the uploader: its files are refused, or go inside the request."""
    upload = GatewayStorage(GPTGE, "https://gptge.example", OneAnswer(HttpResponse(status=200)))
    with pytest.raises(TypeError, match=r"gpt\.ge has no storage"):
        await upload(PNG, "cat.png", "image/png")


# --- the file itself --------------------------------------------------------------------------------------------------


def place(url: str, **headers: str) -> UploadPlace:
    return UploadPlace(put_url=url, headers=headers, url="https://cdn.example/cat.png")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://storage.example/x", "not with https://"),
        ("https://user:password@storage.example/x", "a user name or a password"),
        ("https://169.254.169.254/x", "link-local"),
        ("https://10.0.0.1/x", "private"),
        ("https://127.0.0.1/x", "loopback"),
        ("https://localhost/x", "loopback"),
        ("ftp://storage.example/x", "begins with ftp://"),
        ("https://[/x", "the address is not valid"),
        ("", "no host|not valid"),
    ],
)
@pytest.mark.parametrize("base_url", ["https://api.dev.pika.art", "http://127.0.0.1:9"])
async def test_a_file_goes_to_public_https_addresses_alone(url: str, reason: str, base_url: str) -> None:
    """A place inside the user's network, or over plain http, is refused for good; nothing is sent."""
    with pytest.raises(PutFailed, match=reason) as caught:
        await put_file(place(url), PNG, base_url=base_url)
    assert caught.value.lasting is True
    assert "password@" not in str(caught.value)


async def test_another_origin_of_this_machine_is_refused() -> None:
    """A gateway on this machine may store files at its own origin, and at no other port."""
    async with RawServer() as own, RawServer() as other:
        with pytest.raises(PutFailed, match="loopback"):
            await put_file(place(f"{other.url}/x"), PNG, base_url=own.url)
        assert other.connections == 0


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Act(answer(403, "<Error/>")), "answered HTTP 403"),
        (Act(answer(307, "", {"Location": "https://evil.example/"})), "answered HTTP 307"),
        (Act(b"", "rst"), "did not take it"),
        (Act(b"nonsense\r\n\r\n", "fin"), "did not take it"),
    ],
)
async def test_a_file_that_was_not_stored_may_be_sent_again(act: Act, reason: str) -> None:
    """A refusal, a redirect and a lost connection are failures for now, and no redirect is followed."""
    async with RawServer() as server:
        server.poll_acts.extend([act] * 2)  # aiohttp sends a PUT again over another connection
        with pytest.raises(PutFailed, match=reason) as caught:
            await put_file(place(f"{server.url}/x"), PNG, base_url=server.url)
        assert caught.value.lasting is False
        assert server.url not in str(caught.value)


async def test_a_header_that_cannot_be_sent_is_a_failure() -> None:
    """A header with a line break sends nothing else."""
    async with RawServer() as server:
        bad = attrs.evolve(place(f"{server.url}/x"), headers={"x-a": "b\r\nAuthorization: x"})
        with pytest.raises(PutFailed, match="did not take it"):
            await put_file(bad, PNG, base_url=server.url)
        assert server.received == []


async def test_a_failed_put_keeps_the_job_unsent(tmp_path: Path) -> None:
    """A job whose file could not be stored is not submitted; it succeeds once the storage takes the file."""
    async with storage() as at, client(at, journal=tmp_path / "j.db") as pika:
        at.put_status = 500
        with pytest.raises(Exception, match="its storage answered HTTP 500"):
            await pika.submit(GenerationRequest("a cat", image=PNG, key="k"))
        assert at.bodies == []
        at.put_status = 200
        assert (await pika.wait(await pika.submit(GenerationRequest("a cat", image=PNG, key="k")))).status is (
            JobStatus.SUCCEEDED
        )
        assert at.bodies[0]["image"].startswith(at.base_url)
