"""Emulator: HTTP over sockets, faults of connections, rendered videos."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import socket
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import av
import pytest
from aiohttp import web
from av.container import InputContainer
from PIL import Image

from pika_async.emulator import EMULATED_GATEWAYS, Emulator, Picture, Renderer
from pika_async.emulator.render import even_size, render_poster, render_video

OPTIONS = {"aspectRatio": 16 / 9, "frameRate": 12, "parameters": {"seed": 5}, "extend": False}
BODIES: dict[str, dict[str, Any]] = {
    "cometapi": {"callback_url": "http://none.invalid", "prompt": "a cat", "ratio": "16:9"},
    "yescale": {"promptText": "a cat", "model": "1.5", "options": OPTIONS},
    "gptge": {"promptText": "a cat", "options": OPTIONS},
    "native": {"promptText": "a cat", "model": "1.5", "options": OPTIONS},
}
TIMEOUT = aiohttp.ClientTimeout(total=20, sock_read=1.0)
#: Seconds after which closing counts as hanging, on a busy machine too.
HANG_S = 15


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        yield session


def emulator(*rules: dict[str, Any], **options: Any) -> Emulator:
    return Emulator(scenario=rules, **{"durations": "constant:0.05", "video_seconds": 0.5, **options})


def open_video(content: bytes) -> InputContainer:
    container = av.open(io.BytesIO(content), "r")
    assert isinstance(container, InputContainer)
    return container


class Client:
    """Minimal client, written from the gateways' pages."""

    def __init__(self, session: aiohttp.ClientSession, emulator: Emulator, provider: str = "gptge") -> None:
        self.session, self.provider, self.base = session, provider, emulator.base_url(provider)
        self.headers = {"Authorization": f"Bearer {emulator.api_key}"}

    async def create(self, **changes: Any) -> Any:
        path = "/pika/pro/generate" if self.provider == "cometapi" else "/pika/generate"
        body = {**BODIES[self.provider], **changes}
        async with self.session.post(self.base + path, json=body, headers=self.headers, allow_redirects=False) as reply:
            return reply.status, await reply.read()

    async def create_id(self, **changes: Any) -> str:
        _, body = await self.create(**changes)
        reply = json.loads(body)
        found: str = reply["data"]["task_id"] if "data" in reply else reply["id"]
        return found

    async def feed(self, task_id: str) -> Any:
        if self.provider == "cometapi":
            request = self.session.post(f"{self.base}/pika/feed", json={"task_id": task_id}, headers=self.headers)
        else:
            request = self.session.get(f"{self.base}/pika/feed/{task_id}", headers=self.headers)
        async with request as reply:
            return await reply.json()

    async def url(self, task_id: str) -> str:
        """Poll until the task has a result URL, and return it."""
        while True:
            reply = await self.feed(task_id)
            videos = [reply["data"]["video_url"]] if "data" in reply else [v["resultUrl"] for v in reply["videos"]]
            if any(videos):
                found: str = videos[0]
                return found
            await asyncio.sleep(0.01)


# -- regular answers -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("provider", EMULATED_GATEWAYS)
async def test_a_create_leads_to_a_playable_video(session: aiohttp.ClientSession, provider: str) -> None:
    """The result of a create is an H.264 MP4 with the moov box before the media data."""
    async with emulator() as served:
        client = Client(session, served, provider)
        task_id = await client.create_id()
        async with session.get(await client.url(task_id)) as reply:
            content = await reply.read()
            assert reply.content_length == len(content)
            assert reply.content_type == "video/mp4"
        with open_video(content) as container:
            stream = container.streams.video[0]
            frames = len(list(container.decode(stream)))
            rate = 24 if provider == "cometapi" else 12
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height) == (320, 180)
            assert stream.average_rate == rate
            assert frames == rate // 2
        assert content[4:8] == b"ftyp"
        assert 0 < content.index(b"moov") < content.index(b"mdat")
        assert [charge.task_id for charge in served.ledger] == [task_id]
        assert served.polls.of(task_id) == served.polls.total >= 1
        assert served.requests[0].status == 200
        assert served.cdn_credentials == []
        assert served.refusals == []


@pytest.mark.anyio
async def test_posters_are_jpegs(session: aiohttp.ClientSession) -> None:
    """Poster and thumbnail are JPEGs, and the thumbnail has half the width and height."""
    async with emulator() as served:
        client = Client(session, served, "native")
        task_id = await client.create_id()
        await client.url(task_id)
        (video,) = (await client.feed(task_id))["videos"]
        sizes = []
        for name in ("videoPoster", "imageThumb"):
            async with session.get(video[name]) as reply:
                with Image.open(io.BytesIO(await reply.read())) as image:
                    sizes.append((image.format, image.size))
        assert sizes == [("JPEG", (320, 180)), ("JPEG", (160, 90))]


@pytest.mark.anyio
async def test_without_rendering_all_tasks_share_a_clip(session: aiohttp.ClientSession) -> None:
    """With `render=False` two prompts get the same playable video."""
    async with emulator(render=False) as served:
        client = Client(session, served)
        contents = []
        for prompt in ("a", "b"):
            async with session.get(await client.url(await client.create_id(promptText=prompt))) as reply:
                contents.append(await reply.read())
        assert contents[0] == contents[1]
        with open_video(contents[0]) as container:
            assert len(list(container.decode(video=0))) == 12


def test_in_thread_serves_synchronous_code() -> None:
    """`in_thread` answers a blocking client, and stops serving when the block ends."""
    with emulator().in_thread() as served:
        request = urllib.request.Request(  # noqa: S310
            f"{served.base_url('gptge')}/pika/generate",
            data=json.dumps(BODIES["gptge"]).encode(),
            headers={"Authorization": f"Bearer {served.api_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as reply:  # noqa: S310
            task_id = json.load(reply)["id"]
        assert [charge.task_id for charge in served.ledger] == [task_id]
        url = served.url
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=1)  # noqa: S310
    with pytest.raises(RuntimeError, match="not serving"):
        _ = served.url


@pytest.mark.anyio
async def test_binds_loopback_addresses_only() -> None:
    """A host that is not a loopback address is refused, and so is a provider that is not emulated."""
    for host in ("0.0.0.0", "192.0.2.1", "example.com"):  # noqa: S104
        with pytest.raises(ValueError, match="loopback"):
            Emulator(host=host)
    async with emulator() as served:
        assert served.url.startswith("http://127.0.0.1:")
        assert served.cdn_url != served.url
        with pytest.raises(ValueError, match="provider"):
            served.base_url("runway")


@pytest.mark.anyio
async def test_a_port_in_use_is_an_error() -> None:
    """Entering raises OSError when the port is in use."""
    async with emulator() as served:
        port = int(served.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            async with emulator(port=port):
                pass


@pytest.mark.anyio
async def test_a_body_above_the_maximum_is_413(session: aiohttp.ClientSession) -> None:
    """A body larger than `max_body` is refused with 413 and not charged."""
    async with emulator(max_body=1_000) as served:
        status, _ = await Client(session, served).create(promptText="x" * 1_000)
        assert (status, served.ledger) == (413, [])


@pytest.mark.anyio
async def test_answers_a_thousand_concurrent_requests() -> None:
    """A thousand concurrent creates and a thousand concurrent polls are all answered and counted."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with emulator(render=False) as served, aiohttp.ClientSession(timeout=timeout) as session:
        client = Client(session, served)
        ids = await asyncio.gather(*(client.create_id() for _ in range(1_000)))
        await asyncio.gather(*(client.feed(task_id) for task_id in ids))
        assert (len(served.ledger), served.polls.total) == (1_000, 1_000)


# -- faults of the connection --------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("do", "error"),
    [
        ({"fault": "drop"}, aiohttp.ServerDisconnectedError),
        ({"fault": "drop", "when": "before-read"}, aiohttp.ServerDisconnectedError),
        ({"fault": "drop", "how": "rst"}, aiohttp.ClientOSError),
        ({"fault": "stall"}, aiohttp.SocketTimeoutError),
        ({"fault": "stall", "seconds": 0.1}, aiohttp.ServerDisconnectedError),
        ({"fault": "delay", "seconds": 4}, aiohttp.SocketTimeoutError),
        ({"fault": "cut", "at": "headers"}, aiohttp.ServerDisconnectedError),
        ({"fault": "cut", "at": "body"}, aiohttp.ClientPayloadError),
        ({"fault": "cut", "at": "body", "how": "rst"}, aiohttp.ClientError),
        ({"fault": "body-stall"}, aiohttp.SocketTimeoutError),
        ({"fault": "garbage-status"}, aiohttp.ClientResponseError),
        ({"fault": "oversized-header"}, aiohttp.ClientResponseError),
        ({"fault": "bad-chunk"}, (aiohttp.ClientPayloadError, aiohttp.ClientResponseError)),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
async def test_a_fault_of_the_connection_is_a_client_error(
    session: aiohttp.ClientSession, do: dict[str, Any], error: Any
) -> None:
    """Each fault of the connection raises the client error of a real one; the ledger records whether it was charged."""
    async with emulator({"on": "create", "do": do}) as served:
        with pytest.raises(error):
            await Client(session, served).create()
        assert len(served.ledger) == (do.get("when") != "before-read")
        assert [entry.fault for entry in served.requests] == [do["fault"]]


@pytest.mark.anyio
async def test_a_cut_body_without_a_length_raises_no_error(session: aiohttp.ClientSession) -> None:
    """Without Content-Length a client cannot detect that a body was cut."""
    rule = {"on": "create", "do": {"fault": "cut", "length": False, "fraction": 0.5}}
    async with emulator(rule) as served:
        status, body = await Client(session, served).create()
        assert status == 200
        assert 0 < len(body) < len(b'{"id": ""}') + 36


@pytest.mark.anyio
async def test_a_delayed_answer_is_the_regular_one(session: aiohttp.ClientSession) -> None:
    """A delayed create gets the regular answer after the delay."""
    async with emulator({"on": "create", "do": {"fault": "delay", "seconds": 0.1}}) as served:
        started = time.monotonic()
        task_id = await Client(session, served).create_id()
        assert time.monotonic() - started >= 0.1
        assert served.ledger[0].task_id == task_id


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_charged(session: aiohttp.ClientSession, status: int) -> None:
    """A redirected create is answered with the status of the scenario and is not charged."""
    async with emulator({"on": "create", "do": {"fault": "redirect", "status": status}}) as served:
        assert (await Client(session, served).create())[0] == status
        assert served.ledger == []


@pytest.mark.anyio
async def test_a_gzip_bomb_is_small_on_the_wire(session: aiohttp.ClientSession) -> None:
    """A gzip bomb is less than 10 kB on the wire and 2 MiB after decompression."""
    rule = {"on": "feed", "do": {"fault": "body", "kind": "gzip-bomb", "size": 2 * 2**20}}
    async with emulator(rule) as served:
        client = Client(session, served)
        url = f"{client.base}/pika/feed/{await client.create_id()}"
        async with session.get(url, headers=client.headers) as reply:
            assert int(reply.headers["Content-Length"]) < 10_000
            assert len(await reply.read()) == 2 * 2**20


@pytest.mark.anyio
async def test_closing_ends_stalled_requests(session: aiohttp.ClientSession) -> None:
    """Stalled requests do not delay the closing of the emulator."""
    async with asyncio.TaskGroup() as group:
        async with emulator({"on": "create", "do": "stall"}) as served:

            async def stalled_create() -> None:
                with pytest.raises(aiohttp.ClientError):
                    await Client(session, served).create()

            group.create_task(stalled_create())
            await asyncio.sleep(0.1)
            started = time.monotonic()
        assert time.monotonic() - started < HANG_S, "closing waited for a stalled request"


# -- faults of the CDN ---------------------------------------------------------------------------------------------


async def download(session: aiohttp.ClientSession, **do: Any) -> tuple[int, bytes, dict[str, str]]:
    async with emulator({"on": "cdn", "do": do}) as served:
        client = Client(session, served)
        url = await client.url(await client.create_id())
        async with session.get(url, allow_redirects=False) as reply:
            return reply.status, await reply.read(), dict(reply.headers)


@pytest.mark.anyio
async def test_downloads_can_be_cut(session: aiohttp.ClientSession) -> None:
    """A cut download is an error if it has a length, and a shorter body otherwise."""
    with pytest.raises(aiohttp.ClientPayloadError):
        await download(session, fault="cut", fraction=0.3)
    _, content, _ = await download(session, fault="no-range")
    status, cut, headers = await download(session, fault="cut", fraction=0.3, length=False)
    assert (status, "Content-Length" in headers) == (200, False)
    assert cut == content[: int(len(content) * 0.3)]


@pytest.mark.anyio
async def test_the_cdn_can_answer_without_a_video(session: aiohttp.ClientSession) -> None:
    """The CDN can answer with an HTML page, with an error status or with a redirect to a link-local address."""
    status, body, headers = await download(session, fault="body", kind="html")
    assert (status, body[:9], headers["Content-Type"]) == (200, b"<!DOCTYPE", "text/html; charset=utf-8")
    assert (await download(session, fault="expired", status=410))[0] == 410
    status, _, headers = await download(session, fault="redirect", status=302, location="http://169.254.169.254/")
    assert (status, headers["Location"]) == (302, "http://169.254.169.254/")


@pytest.mark.anyio
async def test_an_endless_body_lasts_until_the_client_disconnects(session: aiohttp.ClientSession) -> None:
    """An endless body has no length and exceeds 20 MiB, and it does not delay the closing of the emulator."""
    async with emulator({"on": "cdn", "do": "endless"}) as served:
        client = Client(session, served)
        url = await client.url(await client.create_id())
        async with session.get(url) as reply:
            assert reply.content_length is None
            assert len(await reply.content.readexactly(20 * 2**20)) == 20 * 2**20
        started = time.monotonic()
    assert time.monotonic() - started < HANG_S, "closing waited for an endless body"


@pytest.mark.anyio
async def test_a_file_can_change_between_two_ranges(session: aiohttp.ClientSession) -> None:
    """A conditional range with an outdated ETag gets the whole file; a shifted range starts one byte later."""
    async with emulator({"on": "cdn", "first": 2, "do": "etag"}, {"on": "cdn", "do": "wrong-range"}) as served:
        client = Client(session, served)
        url = await client.url(await client.create_id())
        async with session.get(url) as reply:
            tag = reply.headers["ETag"]
        async with session.get(url, headers={"Range": "bytes=100-", "If-Range": tag}) as reply:
            assert reply.status == 200
        async with session.get(url, headers={"Range": "bytes=100-"}) as reply:
            assert reply.headers["Content-Range"].startswith("bytes 101-")


@pytest.mark.anyio
async def test_head_and_range_requests(session: aiohttp.ClientSession) -> None:
    """A HEAD request gets the length without a body, and a range request gets the range."""
    async with emulator() as served:
        client = Client(session, served)
        url = await client.url(await client.create_id())
        async with session.get(url) as reply:
            content = await reply.read()
        async with session.head(url) as reply:
            assert (reply.status, reply.content_length) == (200, len(content))
        async with session.get(url, headers={"Range": "bytes=10-19"}) as reply:
            assert (reply.status, await reply.read()) == (206, content[10:20])


@pytest.mark.anyio
async def test_a_url_with_a_hostile_name_works(session: aiohttp.ClientSession) -> None:
    """A hostile file name is percent-encoded in the URL, and the URL serves the video."""
    async with emulator({"on": "feed", "do": "hostile-name"}) as served:
        client = Client(session, served)
        url = await client.url(await client.create_id())
        assert "%2Fetc%2F" in url
        async with session.get(url) as reply:
            assert (await reply.read())[4:8] == b"ftyp"


# -- callbacks -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_callbacks_are_posted_to_loopback_only(session: aiohttp.ClientSession) -> None:
    """A callback to a loopback address delivers the feed's data; any other host is recorded and not called."""
    received: list[Any] = []

    async def receive(request: web.BaseRequest) -> web.Response:
        received.append((request.path, await request.json()))
        return web.Response(status=202)

    runner = web.ServerRunner(web.Server(receive))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with emulator() as served:
            client = Client(session, served, "cometapi")
            address = f"http://127.0.0.1:{runner.addresses[0][1]}/callbacks/token"
            task_id = await client.create_id(callback_url=address)
            await client.create_id(callback_url="http://192.0.2.1/x")
            await client.create_id(callback_url="http://127.0.0.1:1/unreachable")
            while len(served.callbacks) < 3:
                await asyncio.sleep(0.01)
            results = {result.url: result for result in served.callbacks}
            assert results[address].status == 202
            assert "loopback" in (results["http://192.0.2.1/x"].error or "")
            assert "ClientConnectorError" in (results["http://127.0.0.1:1/unreachable"].error or "")
            assert received == [("/callbacks/token", (await client.feed(task_id))["data"])]
    finally:
        await runner.cleanup()


# -- rendering -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [16 / 9, 9 / 16, 1.0, 4 / 3, 0.4, 2.5, 2.35, 1.85, 100.0])
def test_sizes_are_even_and_keep_the_ratio(ratio: float) -> None:
    """Width and height are even, with nearly the requested ratio and nearly the same area for every ratio."""
    width, height = even_size(ratio)
    assert width % 2 == height % 2 == 0
    assert width / height == pytest.approx(min(ratio, 5.0), rel=0.01)
    assert width * height == pytest.approx(320 * 180, rel=0.15)


def test_rendering_is_deterministic() -> None:
    """Equal pictures give equal bytes; a different seed or prompt gives different bytes."""
    picture = Picture(prompt="a fox, 狐, \ud800 \u202e", seed=1, seconds=0.5)
    assert render_video(picture) == render_video(picture)
    assert render_poster(picture) == render_poster(picture)
    assert render_video(picture) != render_video(Picture(prompt=picture.prompt, seed=2, seconds=0.5))
    assert render_poster(picture) != render_poster(Picture(prompt="a dog", seed=1))


def test_videos_move() -> None:
    """All frames of a video are different."""
    with open_video(render_video(Picture(prompt="a fox", seed=1, seconds=1.0))) as container:
        frames = [bytes(frame.planes[0]) for frame in container.decode(video=0)]
    assert len(frames) == 24
    assert len(set(frames)) == 24


def test_the_cache_is_bounded_and_rendering_is_cheap() -> None:
    """Forty videos of five seconds take less than 8 s of CPU time, and the cache evicts the oldest."""
    renderer = Renderer(cache_bytes=300_000)
    cpu_before = time.process_time()  # of all threads; wall-clock time depends on what else the machine does
    pictures = [Picture(prompt=f"number {number}", seed=number) for number in range(40)]
    contents = [future.result() for future in [renderer.request(picture, "video") for picture in pictures]]
    cpu_seconds = time.process_time() - cpu_before
    assert cpu_seconds < 8, f"40 videos took {cpu_seconds:.1f} s of CPU time"
    assert len(set(contents)) == 40
    assert renderer.cached_bytes <= 300_000
    assert renderer.request(pictures[0], "video").result() == contents[0]
    renderer.close()


@pytest.mark.parametrize("turns", range(5))
def test_connections_that_come_with_the_end_are_closed(turns: int) -> None:
    """Python leaves open what it accepts in the turns before its server is closed."""

    async def main() -> None:
        async with emulator() as served:
            host, _, port = served.url.removeprefix("http://").partition(":")
            for client in clients:
                client.setblocking(False)
                client.connect_ex((host, int(port)))
            for _ in range(turns):
                await asyncio.sleep(0)

    clients = [socket.socket() for _ in range(3)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    for client in clients:
        client.close()
    assert [str(warning.message) for warning in caught] == []
