"""Results that are late or odd: real files over real sockets, kept where their own structure proves them whole."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from pika_async._http import downloads
from pika_async._http.addresses import allowable_kind
from pika_async._http.download_state import AbortDownload, DownloadState, NotThereYet
from pika_async._http.downloads import Downloader
from pika_async._http.file_threads import FileThreads
from pika_async._http.partial_file import PartialFile, TargetFolders
from tests.fakes import virtual_clock
from tests.http.media_files import MAKERS, frames_in, made, real_mp4, shifted
from tests.http.result_server import (
    TAG,
    Answer,
    ReceivedRequest,
    chunked,
    failure,
    fetch,
    names,
    ok,
    part,
    quick,
    serve,
)

pytestmark = pytest.mark.anyio

PAGE = b"<!DOCTYPE html><html><body>Your video is being prepared</body></html>"
ABSENT: dict[str, Answer] = {
    "404": ok(b"no such key", status="404 Not Found"),
    "403": ok(b"<Error><Code>AccessDenied</Code></Error>", status="403 Forbidden"),
    "202": ok(b"", status="202 Accepted"),
    "204": ok(b"", status="204 No Content", length=None),
    "page": ok(PAGE, "Content-Type: text/html", TAG),
    "short page": ok(b"<p>soon</p>", TAG),
    "json": ok(b'{"status": "processing", "progress": 99}', TAG),
    "empty": ok(b"", TAG),
    "empty chunked": b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


# Late results


@pytest.mark.parametrize("first", ABSENT.values(), ids=ABSENT)
async def test_a_late_result_is_asked_for_again(target: Path, waits: list[float], first: Answer) -> None:
    """Within its patience the same address is requested again, whole, until the result is there."""
    whole = real_mp4("faststart")
    async with serve(first, first, ok(whole)) as server, quick() as downloader:
        await downloader.fetch(server.url("/v.mp4?sig=a"), target, patience=120)
    assert target.read_bytes() == whole
    assert [seconds for seconds in waits if seconds] == [1.0, 2.0]
    assert {asked.target for asked in server.asked} == {"GET /v.mp4?sig=a HTTP/1.1"}
    assert not any("range" in asked.headers for asked in server.asked)


@pytest.mark.parametrize("first", ABSENT.values(), ids=ABSENT)
async def test_without_patience_the_address_has_expired(target: Path, first: Answer) -> None:
    """Later on, the same answers mean at once that another address is needed."""
    async with serve(first) as server:
        error = await failure(server.url(), target)
    assert error.expired
    assert error.reason.endswith("the address has expired")
    assert len(server.asked) == 1


async def test_a_late_result_costs_no_attempt(target: Path, waits: list[float]) -> None:
    """Requests for a result that is not there do not count against the attempts of a failing connection."""
    answers = [ABSENT["404"], ok(b"", status="503 Busy"), ABSENT["404"], ABSENT["404"], ok(real_mp4(""))]
    async with serve(*answers) as server, quick(attempts=2) as downloader:
        await downloader.fetch(server.url(), target, patience=120)
    assert [seconds for seconds in waits if seconds] == [1.0, 2.0, 4.0]


class LateHost(Downloader):
    """Downloader whose host has a result after `published_at` seconds, if ever, by the clock of the loop."""

    published_at = float("inf")
    asked: list[float]

    async def _fetch_once(self, url: URL, state: DownloadState, partial: PartialFile, files: FileThreads) -> None:
        now = asyncio.get_running_loop().time()
        self.asked.append(now)
        if now < self.published_at:
            raise NotThereYet("HTTP 404")


def requests_until(patience: float, published_at: float) -> tuple[list[float], str]:
    """Return the times of all requests in virtual seconds, and the outcome."""
    host = LateHost()
    host.published_at, host.asked = published_at, []

    async def run() -> str:
        try:
            return await host._fetch_with_retries(
                URL("https://cdn.example/v"),
                PartialFile(Path("v.mp4"), TargetFolders()),
                FileThreads(TargetFolders()),
                patience,
            )
        except AbortDownload as stop:
            return f"expired: {stop.expired}"

    return host.asked, virtual_clock.run(run())


@pytest.mark.parametrize(
    "patience, published_at, times, outcome",
    [
        (120, float("inf"), [0, 1, 3, 7, 15, 30, 60, 90, 120], "expired: True"),
        (120, 119, [0, 1, 3, 7, 15, 30, 60, 90, 120], ".mp4"),
        (120, 20, [0, 1, 3, 7, 15, 30], ".mp4"),
        (50, float("inf"), [0, 1, 3, 7, 15, 30, 50], "expired: True"),
        (0.5, 0.2, [0, 0.5], ".mp4"),
        (0, float("inf"), [0], "expired: True"),
    ],
)
def test_delays_grow_until_the_patience_ends(
    patience: float, published_at: float, times: list[float], outcome: str
) -> None:
    """Requests come after 1, 2, 4, 8, 15 and then 30 s each, the last one when the patience ends."""
    assert requests_until(patience, published_at) == (times, outcome)


# Encodings that encode nothing


@pytest.mark.parametrize(
    "coding",
    ["identity", "none", "binary", "utf-8", "UTF-8", "aws-chunked", "", "aws-chunked,identity", "aws-chunked,"],
)
async def test_an_encoding_that_encodes_nothing_is_accepted(target: Path, coding: str) -> None:
    """A body whose stated encoding changes no byte is kept as it is."""
    async with serve(ok(real_mp4(""), f"Content-Encoding: {coding}")) as server:
        await fetch(server.url(), target)
    assert target.read_bytes() == real_mp4("")


# Lengths that are wrong


def cut_short(body: bytes) -> Answer:
    """An answer that states more bytes than come."""
    return ok(body, length=len(body) + 1000)


def stalls(body: bytes) -> Answer:
    """An answer that states more bytes than come, on a connection that stays open."""

    async def answer(_: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(body, length=len(body) + 1000))
        await writer.drain()
        await asyncio.sleep(60)

    return answer


LYING = {
    "a length too long": cut_short,
    "a length too long, and the connection stays": stalls,
    "no last chunk": lambda body: chunked(body, end=False),
    "neither length nor framing": lambda body: ok(body, length=None),
}
LAYOUTS = {"mp4": "", "faststart": "faststart", "fragmented": "frag_keyframe+empty_moov"}


def file_of(kind: str) -> bytes:
    return real_mp4(LAYOUTS[kind]) if kind in LAYOUTS else made(kind)


@pytest.mark.parametrize("lie", LYING.values(), ids=LYING)
@pytest.mark.parametrize("kind", [*LAYOUTS, *MAKERS])
async def test_a_file_that_proves_itself_whole_is_kept(target: Path, kind: str, lie: Any) -> None:
    """With any stated length, a file whose own structure is complete is kept at the first attempt."""
    body = file_of(kind)
    async with serve(lie(body)) as server:
        done = await fetch(server.url(), target, attempts=1, stall_timeout=0.1)
    assert done.file.read_bytes() == body
    assert done.sha256 == hashlib.sha256(body).hexdigest()
    assert len(server.asked) == 1


@pytest.mark.parametrize("lie", [cut_short, LYING["no last chunk"]])
@pytest.mark.parametrize("missing", [1, 40])
async def test_a_file_that_lacks_bytes_is_fetched_again(target: Path, lie: Any, missing: int) -> None:
    """The same lies about a file that is cut lead to another attempt."""
    whole = real_mp4("faststart")
    async with serve(lie(whole[:-missing]), ok(whole)) as server:
        await fetch(server.url(), target)
    assert target.read_bytes() == whole
    assert len(server.asked) == 2


#: A file that arrives in several reads, and one that arrives in a single one.
SMALL = real_mp4("faststart")
LARGE = shifted(real_mp4("faststart"), 1 << 20)


@pytest.mark.parametrize("whole", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("framing", ["length", "chunk"])
async def test_an_answer_that_goes_wrong_behind_the_file_is_kept(target: Path, framing: str, whole: bytes) -> None:
    """Bytes behind the stated length, or a chunk that is none, do not spoil a file that is whole before them."""
    by_length = ok(whole + b"more", length=len(whole))
    async with serve(by_length if framing == "length" else chunked(whole, end=False) + b"zz\r\n") as server:
        await fetch(server.url(), target, attempts=1)
    assert target.read_bytes() == whole


async def test_a_length_too_short_is_an_error(target: Path) -> None:
    """Bytes behind the stated length are not part of a body, so a file that needs them is not complete."""
    async with serve(ok(LARGE, length=len(LARGE) - 5)) as server:
        error = await failure(server.url(), target, attempts=2)
    assert "ends 5 bytes early inside box 'mdat'" in error.reason
    assert len(server.asked) == 2


async def test_bytes_behind_the_end_are_kept(target: Path) -> None:
    """A file is stored as the host sent it, and plays with what follows its end."""
    body = real_mp4("") + b"\r\n<!-- served by cache -->"
    async with serve(ok(body)) as server:
        done = await fetch(server.url(), target)
    assert done.sha256 == hashlib.sha256(body).hexdigest()
    assert frames_in(target.read_bytes()) == 3


async def test_padding_in_front_is_kept(target: Path) -> None:
    """A file with a box of padding in front of its header is kept, and it plays."""
    body = shifted(real_mp4("faststart"), 512)
    async with serve(ok(body)) as server:
        await fetch(server.url(), target)
    assert target.read_bytes() == body
    assert frames_in(body) == 3


async def test_a_resumed_file_may_end_without_a_length(target: Path) -> None:
    """The rest of a file completes it, although the range states more bytes than there are."""
    whole = real_mp4("faststart")
    rest = part(100, TAG, body=whole + b"more").replace(b"Content-Length: ", b"X-Length: ").removesuffix(b"more")
    async with serve(ok(whole[:100], TAG, length=len(whole) + 4), rest) as server:
        await fetch(server.url(), target)
    assert target.read_bytes() == whole
    assert server.asked[1].headers["range"] == "bytes=100-"


async def test_a_file_of_many_parts_gives_other_tasks_turns(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk in which each byte costs a step is checked in pieces, between which other tasks run."""
    monkeypatch.setattr(downloads, "MAX_TURN_S", 0.0)
    turns: list[int] = []
    state, partial = DownloadState(1 << 30), PartialFile(target, TargetFolders())

    async def count_turns() -> None:
        while True:
            turns.append(state.size)
            await asyncio.sleep(0)

    files = FileThreads(TargetFolders())
    async with asyncio.TaskGroup() as tasks:
        counting = tasks.create_task(count_turns())
        await downloads._take(b"GIF89a" + bytes(7) + b"!\0" + b"\1x" * 50_000, state, partial, files)
        counting.cancel()
    assert len(set(turns)) >= 6
    assert max(later - earlier for earlier, later in pairwise(turns)) <= downloads.PIECE_BYTES


# Other kinds of results


@pytest.mark.parametrize("kind", MAKERS)
async def test_each_kind_gets_its_own_ending(tmp_path: Path, kind: str) -> None:
    """A result is stored whole under the ending of its kind, whatever ending was asked for."""
    async with serve(ok(made(kind), "Content-Type: video/mp4")) as server:
        done = await fetch(server.url("/video.mp4"), tmp_path / "a.b.mp4")
    assert names(tmp_path) == [f"a.b{MAKERS[kind][0]}"]
    assert done.file == tmp_path / names(tmp_path)[0]
    assert done.file.read_bytes() == made(kind)


@pytest.mark.parametrize("name", ["clip", "clip.bin", "clip.v1"])
async def test_a_name_without_a_media_ending_is_kept(tmp_path: Path, name: str) -> None:
    """A name whose ending is not that of a kind of result is the user's own choice."""
    async with serve(ok(made("gif"))) as server:
        done = await fetch(server.url(), tmp_path / name)
    assert done.file.name == name


async def test_a_file_of_another_ending_is_not_overwritten(tmp_path: Path) -> None:
    """A picture does not replace a file that has its name already."""
    (tmp_path / "a.png").write_bytes(b"mine")
    async with serve(ok(made("png"))) as server:
        error = await failure(server.url(), tmp_path / "a.mp4")
    assert "exists with other content" in error.reason
    assert (tmp_path / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_cut_picture_is_fetched_again(tmp_path: Path, kind: str) -> None:
    """A result of another kind that is cut is fetched again, with any stated length."""
    whole = made(kind)
    async with serve(ok(whole[:-1]), cut_short(whole[: len(whole) // 2]), ok(whole)) as server:
        done = await fetch(server.url(), tmp_path / "a.mp4")
    assert done.file.read_bytes() == whole
    assert len(server.asked) == 3


# The environment's proxy


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No proxy variable is set."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
async def test_the_environments_proxy_serves_downloads(
    target: Path, proxied: pytest.MonkeyPatch, variable: str
) -> None:
    """A download uses the proxy that the calls use, and nothing is resolved or dialled here but the proxy."""
    proxied.setattr(socket, "getaddrinfo", None)
    async with serve(ok(b"", status="502 No")) as proxy:
        proxied.setenv(variable, f"127.0.0.1:{proxy.port}")
        error = await failure("https://cdn.example.com/v?sig=secret", target, attempts=1, loopback=False)
    assert proxy.asked[0].target == "CONNECT cdn.example.com:443 HTTP/1.1"
    assert error.reason.startswith("the proxy refused to connect")


@pytest.mark.parametrize("excluded", ["*", "example.com", ".example.com", "cdn.example.com:443"])
async def test_no_proxy_excludes_a_host(target: Path, proxied: pytest.MonkeyPatch, excluded: str) -> None:
    """A host in NO_PROXY is dialled directly, and only at public addresses."""
    proxied.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
    )
    async with serve(ok()) as proxy:
        proxied.setenv("HTTPS_PROXY", proxy.url(""))
        proxied.setenv("NO_PROXY", excluded)
        error = await failure("https://cdn.example.com/v", target, loopback=False)
    assert "10.0.0.7 is a private address" in error.reason
    assert proxy.asked == []


@pytest.mark.parametrize(
    "url, expected_text",
    [
        ("https://10.0.0.1/v", "private"),
        ("https://169.254.169.254/latest", "link-local"),
        ("https://localhost/v", "loopback"),
        ("https://0x7f000001/v", "host name"),
        ("http://cdn.example.com/v", "https://"),
        ("https://me:secret@cdn.example.com/v", "user name"),
    ],
)
async def test_addresses_are_checked_before_a_proxy(
    target: Path, proxied: pytest.MonkeyPatch, url: str, expected_text: str
) -> None:
    """Through a proxy too, an address that is forbidden by its text is not requested at all."""
    async with serve(ok()) as proxy:
        for variable in ("HTTP_PROXY", "HTTPS_PROXY"):
            proxied.setenv(variable, proxy.url(""))
        error = await failure(url, target, loopback=False)
    assert expected_text in error.reason
    assert proxy.asked == []


async def test_loopback_needs_no_proxy(target: Path, proxied: pytest.MonkeyPatch) -> None:
    """Results of an emulator on this machine do not go through the environment's proxy."""
    async with serve(ok()) as proxy, serve(ok()) as server:
        proxied.setenv("ALL_PROXY", proxy.url(""))
        proxied.setenv("HTTP_PROXY", proxy.url(""))
        await fetch(server.url(), target)
    assert proxy.asked == []


async def test_a_proxy_that_cannot_be_used_is_named(target: Path, proxied: pytest.MonkeyPatch) -> None:
    """A variable that was set after the client was created is named by the download that needs it."""
    proxied.setenv("ALL_PROXY", "socks5://me:secret@127.0.0.1:1")
    error = await failure("https://cdn.example.com/v", target, loopback=False)
    assert error.reason.startswith("ALL_PROXY: SOCKS proxies are not supported")
    assert "secret" not in str(error)


# Results that the user must allow


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Make every name resolve to `addresses`; return the names that are asked for."""
    asked: list[str] = []

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


async def test_a_name_in_a_tunnel_is_refused_by_name(target: Path, proxied: pytest.MonkeyPatch) -> None:
    """A name that resolves into 198.18.0.0/15 is not dialled, and the error has the way out."""
    resolving_to(proxied, "198.18.0.42")
    error = await failure("https://cdn.example.com/v", target, loopback=False)
    assert "198.18.0.42 is the address of a tunnel" in error.reason
    assert allowable_kind(error.reason) == "tunnel"


async def test_an_allowed_tunnel_is_dialled(proxied: pytest.MonkeyPatch) -> None:
    """With the user's consent a socket for such an address is created, and for no private one."""
    info = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("198.18.0.42", 443))
    quick(loopback=False, allow=["tunnel"])._open_socket(info).close()
    with pytest.raises(PermissionError, match="private"):
        quick(loopback=False, allow=["tunnel", "http"])._open_socket((*info[:4], ("10.0.0.1", 443)))


async def test_allowed_http_is_fetched_through_a_redirect(target: Path, proxied: pytest.MonkeyPatch) -> None:
    """With the user's consent an http address is requested; without, neither it nor a redirect to it."""
    async with serve(ok(made("gif"))) as proxy:
        options = {"loopback": False, "proxy": proxy.url("")}
        error = await failure("http://cdn.example.com/v", target, **options)
        assert (allowable_kind(error.reason), proxy.asked) == ("http", [])
        await fetch("http://cdn.example.com/v", target, allow=["http"], **options)
        assert proxy.asked[0].target == "GET http://cdn.example.com/v HTTP/1.1"


@pytest.mark.parametrize(
    "addresses, options, variables, refused",
    [
        (["198.18.0.42"], {}, {}, True),
        (["198.18.0.42", "198.19.0.1"], {}, {}, True),
        (["198.18.0.42", "93.184.216.34"], {}, {}, False),
        (["93.184.216.34"], {}, {}, False),
        (["10.0.0.7"], {}, {}, False),
        (["198.18.0.42"], {"allow": ["tunnel"]}, {}, False),
        (["198.18.0.42"], {"allow": ["http"]}, {}, True),
        (["198.18.0.42"], {"proxy": "http://127.0.0.1:1"}, {}, False),
        (["198.18.0.42"], {}, {"HTTPS_PROXY": "http://127.0.0.1:1"}, False),
        (["198.18.0.42"], {"loopback": True}, {}, False),
        ([], {}, {}, False),
    ],
)
async def test_a_tunnel_is_noticed_before_there_is_a_result(
    proxied: pytest.MonkeyPatch, addresses: list[str], options: dict[str, Any], variables: dict[str, str], refused: bool
) -> None:
    """The host of results is resolved once; only where a download itself would have to dial a tunnel is it refused."""
    for name, value in variables.items():
        proxied.setenv(name, value)
    asked = resolving_to(proxied, *addresses)
    reason = await quick(**{"loopback": False, **options}).route_refusal("cdn.example.com")
    assert (reason is not None) == refused
    if reason is not None:
        assert reason.startswith(f"cdn.example.com resolves to {addresses[0]}, which is the address of a tunnel")
        assert asked == ["cdn.example.com"]


async def test_a_name_that_cannot_be_resolved_refuses_nothing(proxied: pytest.MonkeyPatch) -> None:
    """Without an answer about the host of results, nothing is known about it."""

    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    proxied.setattr(socket, "getaddrinfo", fail)
    assert await quick(loopback=False).route_refusal("cdn.example.com") is None
