"""Downloads over real sockets: complete or absent, and only from permitted addresses."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import pickle
import re
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from pika_async._http.download_state import AbortDownload, DownloadState, RetryDownload
from pika_async._http.downloads import FAILURE_KINDS, Downloader, _classify_error
from pika_async._http.partial_file import Download
from pika_async.errors import ConfigurationError, DownloadFailed
from tests.http.result_server import (
    FRAGMENTED,
    TAG,
    VIDEO,
    ReceivedRequest,
    chunked,
    failure,
    fetch,
    moved,
    mp4,
    names,
    ok,
    part,
    quick,
    serve,
)

pytestmark = pytest.mark.anyio


def resolve_names_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Make every host name resolve to *addresses*."""

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        kinds = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        rest = {socket.AF_INET: (), socket.AF_INET6: (0, 0)}
        return [
            (kind, socket.SOCK_STREAM, 6, "", (address, port, *rest[kind]))
            for kind, address in zip(kinds, addresses, strict=True)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# Complete downloads


async def test_a_video_arrives_complete(target: Path) -> None:
    """The downloaded file holds every byte, and the reported facts about it are true."""
    async with serve(ok()) as server:
        download = await fetch(server.url(), target)
    assert target.read_bytes() == VIDEO
    assert download == Download(file=target, sha256=hashlib.sha256(VIDEO).hexdigest(), size=len(VIDEO))
    assert names(target.parent) == [target.name]


async def test_a_large_video_arrives_complete(target: Path) -> None:
    """A file of many batches arrives as it was sent."""
    large = mp4(5_000_000)
    async with serve(chunked(large)) as server:
        download = await fetch(server.url(), target)
    assert target.read_bytes() == large
    assert download.sha256 == hashlib.sha256(large).hexdigest()


async def test_a_missing_folder_is_created(tmp_path: Path) -> None:
    """The folder of the target is created with its parents."""
    async with serve(ok()) as server:
        download = await fetch(server.url(), tmp_path / "a" / "b" / "video.mp4")
    assert download.file.read_bytes() == VIDEO


async def test_a_line_of_64_kib_in_the_headers_is_read(target: Path) -> None:
    """A host with a long policy or cookie serves its videos like any other."""
    line = "Content-Security-Policy: "
    async with serve(ok(VIDEO, line + "x" * (65536 - len(line)))) as server:
        download = await fetch(server.url(), target, attempts=1)
    assert download.file.read_bytes() == VIDEO


async def test_requests_carry_no_private_data(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request holds no credential, no cookie set by a server, and does not ask for compression."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serve(ok(b"", "Set-Cookie: a=b", status="503 Busy"), moved("/b"), ok()) as server:
        await fetch(server.url(), target)
    for asked in server.asked:
        assert asked.headers["accept-encoding"] == "identity"
        assert set(asked.headers) == {"host", "accept", "accept-encoding", "user-agent"}
        assert asked.headers["user-agent"] == "pika_async"


async def test_a_signed_query_is_sent_unchanged(target: Path) -> None:
    """The query of a URL, and of a redirect, is sent with its original quoting."""
    odd = "?X-Sig=a%2Fb%2bc+d%7Ee/f==&x=%20"
    async with serve(moved("/b" + odd), ok()) as server:
        await fetch(server.url("/a" + odd), target)
    assert [asked.target for asked in server.asked] == [f"GET /{name}{odd} HTTP/1.1" for name in "ab"]


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
async def test_the_file_mode_follows_the_umask(target: Path, mask: int, mode: int) -> None:
    """The published file has the mode of any new file of the user."""
    with umask(mask):
        async with serve(ok()) as server:
            await fetch(server.url(), target)
    assert stat.S_IMODE(target.stat().st_mode) == mode


async def test_a_partial_file_is_hidden_and_private(target: Path) -> None:
    """Until it is complete, a file has a hidden random name and mode 0600, and the target does not exist."""
    large = mp4(3_000_000)
    go_on = asyncio.Event()

    async def half(_: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(large)[:2_000_000])
        await go_on.wait()
        writer.write(ok(large)[2_000_000:])

    async with serve(half) as server, asyncio.TaskGroup() as tasks:
        tasks.create_task(fetch(server.url(), target))
        with anyio.fail_after(5):
            while not (found := list(target.parent.iterdir())):
                await asyncio.sleep(0.005)
        assert len(found) == 1
        assert re.fullmatch(r"\.pika-[0-9a-f]{24}\.part", found[0].name)
        assert stat.S_IMODE(found[0].stat().st_mode) == 0o600
        go_on.set()
    assert target.read_bytes() == large


async def test_disk_access_runs_in_threads(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening, writing, syncing and renaming run in worker threads, in batches of at least 1 MiB."""
    calls: list[tuple[str, str]] = []

    def watched(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append((name, threading.current_thread().name))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("open", "pwrite", "fsync", "link", "unlink", "fchmod"):
        watched(name)
    async with serve(ok(mp4(4_000_000))) as server:
        await fetch(server.url(), target)
    assert {"open", "pwrite", "fsync", "link", "fchmod"} <= {name for name, _ in calls}
    assert all(thread.startswith("pika-download") for _, thread in calls)
    assert sum(name == "pwrite" for name, _ in calls) <= 4
    assert [name for name, _ in calls if name in {"fsync", "link"}] == ["fsync", "link", "fsync"]


async def test_two_concurrent_fetches_of_one_file(target: Path) -> None:
    """Two concurrent fetches into one target both succeed if the bytes are the same."""
    async with serve(ok()) as server, quick() as downloader:
        got = await asyncio.gather(*(downloader.fetch(server.url(), target) for _ in range(2)))
    assert got[0] == got[1]
    assert names(target.parent) == [target.name]


async def test_fetch_needs_the_context(target: Path) -> None:
    """A fetch without `async with` raises a programming error."""
    with pytest.raises(RuntimeError, match="async with"):
        await Downloader().fetch("https://example.com/", target)


# Refused bodies and statuses


@pytest.mark.parametrize("status", [202, 401, 403, 404, 410])
async def test_an_expired_url_is_reported_at_once(target: Path, status: int) -> None:
    """401 and 410, and without patience 403, 404 and no content, report at once that a new URL is needed."""
    async with serve(ok(b"<html>", status=f"{status} No")) as server:
        error = await failure(server.url(), target)
    assert error.expired
    assert f"HTTP {status}" in error.reason
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [304, 400, 402, 451])
async def test_final_statuses(target: Path, status: int) -> None:
    """Other permanent failures end the download at once without reporting an expired URL."""
    async with serve(ok(b"", status=f"{status} No")) as server:
        error = await failure(server.url(), target)
    assert (error.expired, error.reason) == (False, f"HTTP {status}")
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body, expected_text",
    [
        (b"PK\3\4 this is an archive", "begins with 'PK\\x03\\x04 this is an ', which is none of MP4, WebM, GIF"),
        (b"\x1b]0;owned\x07 and more", "begins with '\\x1b]0;owned\\x07 and m'"),
        (mp4() + mp4(), "has a second box 'moov'"),
    ],
)
async def test_an_unknown_kind_of_body_is_refused(target: Path, body: bytes, expected_text: str) -> None:
    """It fails at once, and the error shows its first bytes without control characters."""
    async with serve(ok(body, "Content-Type: video/mp4")) as server:
        error = await failure(server.url(), target)
    assert expected_text in error.reason
    assert len(server.asked) == 1


async def test_a_page_is_refused_from_its_first_bytes(target: Path) -> None:
    """An endless web page is refused by its beginning."""

    async def page(_: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(b"<!DOCTYPE html>" + bytes(100), length=10_000_000))
        await writer.drain()
        await asyncio.sleep(30)

    async with serve(page) as server:
        assert "<!DOCTYPE html" in (await failure(server.url(), target)).reason


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "x\x1b[31m"])
async def test_a_compressed_body_is_refused(target: Path, coding: str) -> None:
    """A body with any content coding is refused; nothing is decompressed."""
    async with serve(ok(VIDEO, f"Content-Encoding: {coding}")) as server:
        error = await failure(server.url(), target, attempts=1)
    assert "\x1b" not in error.message
    assert "compressed" in error.reason or "\x1b" in coding


async def test_identity_coding_is_accepted(target: Path) -> None:
    """The coding `identity` is an uncompressed body."""
    async with serve(ok(VIDEO, "Content-Encoding: identity")) as server:
        assert (await fetch(server.url(), target)).size == len(VIDEO)


async def test_a_content_length_over_the_cap_is_refused(target: Path) -> None:
    """A body whose Content-Length exceeds the cap is not read."""
    async with serve(ok(VIDEO)) as server:
        error = await failure(server.url(), target, max_bytes=len(VIDEO) - 1)
    assert error.reason == f"the body of {len(VIDEO):,} bytes is longer than the {len(VIDEO) - 1:,} bytes allowed"
    assert len(server.asked) == 1


async def test_an_endless_body_is_cut(target: Path) -> None:
    """An endless body is cut at the cap, and no part of it is saved."""

    async def endless(_: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(VIDEO[:20] + (1).to_bytes(4, "big") + b"mdat" + (1 << 50).to_bytes(8, "big"), length=None))
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    async with serve(endless) as server:
        error = await failure(server.url(), target, max_bytes=4 << 20)
    assert error.reason == "the body is longer than the 4,194,304 bytes allowed"
    assert len(server.asked) == 1


async def test_size_at_the_cap_is_allowed(target: Path) -> None:
    """A file of exactly the largest size is downloaded."""
    async with serve(ok()) as server:
        assert (await fetch(server.url(), target, max_bytes=len(VIDEO))).size == len(VIDEO)


# Attempts


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("announced", [True, False])
async def test_a_truncated_body_is_fetched_again(target: Path, tenth: int, announced: bool) -> None:
    """A body that ends early at any tenth, with or without a Content-Length, is detected and fetched again."""
    cut = ok(VIDEO[: len(VIDEO) * tenth // 10], length=len(VIDEO) if announced else None)
    async with serve(cut, ok()) as server:
        await fetch(server.url(), target)
    assert target.read_bytes() == VIDEO
    assert len(server.asked) == 2
    assert "range" not in server.asked[1].headers


async def test_a_truncated_chunked_body_is_fetched_again(target: Path) -> None:
    """A chunked body without its last chunk is truncated, even if the file seems complete."""
    async with serve(chunked(VIDEO, end=False), ok()) as server:
        await fetch(server.url(), target)
    assert len(server.asked) == 2


async def test_a_reset_connection_is_retried(target: Path) -> None:
    """A connection reset inside the body is retried."""

    async def reset(_: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(ok()[:500])
        await writer.drain()
        writer.transport.abort()

    async with serve(reset, ok()) as server:
        await fetch(server.url(), target)
    assert len(server.asked) == 2


async def test_a_truncated_original_is_not_complete(target: Path) -> None:
    """A body of the announced length that is not a complete MP4 is fetched again from zero, and fails in the end."""
    async with serve(ok(VIDEO[:-10], TAG)) as server:
        error = await failure(server.url(), target)
    assert error.reason.startswith("the body is not a complete MP4 file: it ends 10 bytes early inside box 'moov'")
    assert len(server.asked) == 5
    assert not any("range" in asked.headers for asked in server.asked)


async def test_an_unproven_end_is_refused(target: Path) -> None:
    """Without length or framing, a file whose boxes do not prove its end is refused."""
    async with serve(ok(FRAGMENTED, length=None)) as server:
        error = await failure(server.url(), target)
    assert "sent no length" in error.reason
    async with serve(chunked(FRAGMENTED)) as server:
        assert (await fetch(server.url(), target)).size == len(FRAGMENTED)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
async def test_temporary_statuses_are_retried(target: Path, status: int) -> None:
    """408, 425, 429 and every 5xx are retried."""
    async with serve(ok(b"busy", status=f"{status} No"), ok()) as server:
        await fetch(server.url(), target)
    assert len(server.asked) == 2


async def test_the_number_of_attempts_is_limited(target: Path, waits: list[float]) -> None:
    """After five attempts the fetch fails with the last reason; delays are random below a doubling bound."""
    async with serve(ok(b"", status="503 Busy")) as server:
        error = await failure(server.url(), target, first_delay=0.5)
    assert error.reason == "HTTP 503 (attempt 5, the last)"
    assert not error.expired
    assert len(server.asked) == 5
    assert len(waits) == 4
    assert all(wait <= step for wait, step in zip(waits, (0.5, 1, 2, 4), strict=True))


@pytest.mark.parametrize(
    "headers, wait",
    [
        (["Retry-After: 7"], 7),
        (["Retry-After: 86400"], 60),
        (["Retry-After: soon"], 0),
        (["Retry-After: Wed, 21 Oct 2015 07:28:09 GMT", "Date: Wed, 21 Oct 2015 07:28:00 GMT"], 9),
    ],
)
async def test_retry_after(target: Path, waits: list[float], headers: list[str], wait: float) -> None:
    """`Retry-After` is respected in seconds and as a date, up to a minute; an invalid value is ignored."""
    async with serve(ok(b"", *headers, status="429 Slow"), ok()) as server:
        await fetch(server.url(), target)
    assert waits == [wait]


async def test_a_stalled_body_is_fetched_again(target: Path) -> None:
    """The attempt ends after the stall timeout, and the next one follows."""

    async def stall(_: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(ok()[:700])
        await writer.drain()
        await asyncio.sleep(30)

    async with serve(stall) as server:
        error = await failure(server.url(), target, stall_timeout=0.05, attempts=2)
    assert error.reason == "no data for too long (attempt 2, the last)"
    assert len(server.asked) == 2


async def test_a_silent_server_times_out(target: Path) -> None:
    """A server that never answers is abandoned after the stall timeout."""

    async def silence(_: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with serve(silence) as server:
        error = await failure(server.url(), target, stall_timeout=0.05, attempts=1)
    assert error.reason.startswith("no data for too long")


async def test_the_connect_timeout_covers_name_resolution(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow name server exceeds the connect timeout."""

    def slow(*args: Any, **kwargs: Any) -> list[Any]:
        time.sleep(0.3)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    error = await failure("https://cdn.example.com/v", target, connect_timeout=0.05, attempts=1)
    assert error.reason.startswith("no connection in time")
    await asyncio.sleep(0.3)  # the thread of the name resolution ends inside the patch


async def test_a_refused_connection_is_retried_then_reported(target: Path) -> None:
    """A closed port is retried, and the last refusal is the error."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        error = await failure(f"http://127.0.0.1:{port}/v", target, attempts=2)
    assert error.reason == "no connection could be made (Connection refused) (attempt 2, the last)"


async def test_an_answer_that_is_not_http_is_a_connection_error(target: Path) -> None:
    """It is retried, then reported without its text."""
    async with serve(b"\x1b[31m secret\r\n\r\n") as server:
        error = await failure(server.url(), target, attempts=2)
    assert error.reason.startswith("the answer is not valid HTTP")
    assert "secret" not in str(error)


async def test_https_to_a_plain_server_fails(target: Path) -> None:
    """A port without TLS cannot be requested over https."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        error = await failure(f"https://127.0.0.1:{port}/v", target, attempts=1)
    assert error.reason == "no TLS connection could be made (attempt 1, the last)"


# Resuming


async def test_a_download_is_resumed(target: Path) -> None:
    """With a strong ETag only the missing bytes are requested, on condition that the file is unchanged."""
    async with serve(ok(VIDEO[:400], TAG, length=len(VIDEO)), part(400, TAG)) as server:
        download = await fetch(server.url(), target)
    assert target.read_bytes() == VIDEO
    assert download.sha256 == hashlib.sha256(VIDEO).hexdigest()
    assert server.asked[1].headers["range"] == "bytes=400-"
    assert server.asked[1].headers["if-range"] == '"one"'


async def test_a_download_is_resumed_many_times(target: Path) -> None:
    """A large file that is cut four times, with busy answers in between, is assembled from its parts."""
    large = mp4(3_000_000)
    step = len(large) // 3

    async def cut(asked: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        first = int(asked.headers["range"][6:-1])
        writer.write(part(first, TAG, body=large)[: step + 200])

    busy = ok(b"", status="503 Busy")
    async with serve(ok(large, TAG)[: step + 200], busy, cut, cut) as server:
        download = await fetch(server.url(), target)
    assert target.read_bytes() == large
    assert download.sha256 == hashlib.sha256(large).hexdigest()


@pytest.mark.parametrize("headers", [(), ('ETag: W/"one"',), ("Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT",)])
async def test_no_resume_without_a_strong_etag(target: Path, headers: tuple[str, ...]) -> None:
    """Without a strong ETag a truncated body is fetched from zero."""
    async with serve(ok(VIDEO[:400], *headers, length=len(VIDEO)), ok()) as server:
        await fetch(server.url(), target)
    assert "range" not in server.asked[1].headers


OTHER = mp4(1000, b"o")


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(part(399, TAG), id="starts before"),
        pytest.param(part(401, TAG), id="starts behind"),
        pytest.param(part(0, TAG), id="starts at zero"),
        pytest.param(part(400, TAG, total=5000), id="another total"),
        pytest.param(part(400, 'ETag: "two"', body=OTHER), id="another ETag"),
        pytest.param(part(400, 'ETag: W/"one"', body=OTHER), id="a weak ETag"),
        pytest.param(ok(VIDEO[400:], TAG, status="206 Partial Content"), id="no Content-Range"),
        pytest.param(ok(VIDEO[400:], "Content-Range: bytes 400-*/*", status="206 Part"), id="garbage"),
        pytest.param(ok(VIDEO[400:500], "Content-Range: bytes 400-900/1066", status="206 Part"), id="another length"),
        pytest.param(ok(b"", "Content-Range: bytes */1066", status="416 No"), id="416"),
    ],
)
async def test_a_mismatched_part_restarts_the_download(target: Path, second: bytes) -> None:
    """A part that does not start at the requested byte of the same file is discarded with the partial file."""
    async with serve(ok(VIDEO[:400], TAG, length=len(VIDEO)), second, ok(OTHER)) as server:
        await fetch(server.url(), target)
    assert "range" in server.asked[1].headers
    assert "range" not in server.asked[2].headers
    assert target.read_bytes() == OTHER


@pytest.mark.parametrize("tag", [TAG, 'ETag: "two"', "X: y"])
async def test_a_full_answer_restarts_the_download(target: Path, tag: str) -> None:
    """A 200 to a range request is the whole file and replaces the partial file."""
    large, other = mp4(2_500_000), mp4(500_000, b"o")  # shorter than the first written batch
    async with serve(ok(large[:2_000_000], TAG, length=len(large)), ok(other, tag)) as server:
        download = await fetch(server.url(), target)
    assert "range" in server.asked[1].headers
    assert target.read_bytes() == other
    assert download.sha256 == hashlib.sha256(other).hexdigest()


@pytest.mark.parametrize("headers", [(), (TAG,)])
async def test_an_unrequested_part_is_refused(target: Path, headers: tuple[str, ...]) -> None:
    """A 206 to a request without a range is refused."""
    async with serve(part(0, *headers), ok()) as server:
        await fetch(server.url(), target)
    assert len(server.asked) == 2


async def test_a_short_part_is_continued(target: Path) -> None:
    """A server may send less than requested: the next attempt continues after it."""
    middle = ok(VIDEO[400:700], f"Content-Range: bytes 400-699/{len(VIDEO)}", TAG, status="206 Partial Content")
    async with serve(ok(VIDEO[:400], TAG, length=len(VIDEO)), middle, part(700, TAG)) as server:
        await fetch(server.url(), target)
    assert server.asked[2].headers["range"] == "bytes=700-"
    assert target.read_bytes() == VIDEO


async def test_a_download_is_not_resumed_from_another_source(target: Path) -> None:
    """A redirect to another place is requested in full, one to the same place from the missing byte."""
    cut = ok(VIDEO[:400], TAG, length=len(VIDEO))
    async with serve(moved("/a?sig=1"), cut, moved("/b?sig=2"), ok(OTHER)) as server:
        await fetch(server.url(), target)
    assert not any("range" in asked.headers for asked in server.asked)
    assert target.read_bytes() == OTHER
    target.unlink()
    async with serve(moved("/a?sig=1"), cut, moved("/a?sig=2"), part(400, TAG)) as server:
        await fetch(server.url(), target)
    assert ["range" in asked.headers for asked in server.asked] == [False, False, False, True]


# Permitted addresses


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(target: Path, status: int) -> None:
    """Five redirects in a row, including relative ones, lead to the file."""
    hops = [moved(f"/{hop}?q", status=f"{status} Moved") for hop in range(5)]
    async with serve(*hops, ok()) as server:
        await fetch(server.url(), target)
    assert len(server.asked) == 6


async def test_redirects_are_limited(target: Path) -> None:
    """A sixth redirect is not followed."""
    async with serve(moved("/again")) as server:
        error = await failure(server.url(), target)
    assert error.reason == "redirected more than 5 times"
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "location, expected_text",
    [
        ("http://cdn.example.com/v.mp4", "begins with http://"),
        ("https://10.0.0.1/v.mp4", "private"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://[::ffff:10.0.0.1]/", "private"),
        ("https://[64:ff9b::a9fe:a9fe]/", "link-local"),
        ("https://0x7f.1/", "plain IP address"),
        ("//192.168.1.1/v.mp4", "private"),
        ("https://me:secret@cdn.example.com/", "user name"),
        ("https://:secret@cdn.example.com/", "user name"),
        ("https://secret@cdn.example.com/", "user name"),
        ("ftp://cdn.example.com/v.mp4", "begins with ftp://"),
        ("file:///etc/passwd", "no host"),
        ("data:video/mp4;base64,AAAA", "no host"),
        ("https://[", "malformed"),
        ("https://", "no host"),
    ],
)
async def test_each_redirect_is_checked(target: Path, location: str, expected_text: str) -> None:
    """A redirect to a forbidden address ends the download at once."""
    async with serve(moved(location)) as server:
        error = await failure(server.url(), target)
    assert expected_text in error.reason
    assert "secret" not in str(error)
    assert len(server.asked) == 1


async def test_a_redirect_without_a_location_fails(target: Path) -> None:
    """A redirect without a usable target ends the download."""
    async with serve(ok(b"", status="302 Found")) as server:
        error = await failure(server.url(), target)
    assert "redirected" in error.reason


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{}/v", "https://127.0.0.1:{}/v", "https://localhost:{}/v", "https://[::ffff:127.0.0.1]:{}/v",
     "https://127.1:{}/v", "https://2130706433:{}/v", "https://0:{}/v"],
)  # fmt: skip
async def test_loopback_is_forbidden_by_default(target: Path, url: str) -> None:
    """Without the option no spelling of loopback is dialled."""
    async with serve(ok()) as server:
        await failure(url.format(server.port), target, loopback=False)
    assert server.connections == 0


async def test_a_name_that_resolves_to_loopback_is_refused(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dialled address is checked, not only the name."""
    async with serve(ok()) as server:
        resolve_names_to(monkeypatch, "127.0.0.1")
        error = await failure(f"https://cdn.example.com:{server.port}/v", target, loopback=False)
    assert error.reason == "127.0.0.1 is a loopback address; only public ones are dialled"
    assert server.connections == 0


@pytest.mark.parametrize("addresses", [("10.0.0.1",), ("169.254.169.254",), ("fd00::1",), ("10.0.0.1", "192.168.0.1"),
                                       ("10.0.0.1", "fe80::1"), ("::ffff:10.0.0.1",), ("0.0.0.1",)])  # fmt: skip
async def test_a_name_that_resolves_to_private_addresses_is_refused(
    target: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float], addresses: tuple[str, ...]
) -> None:
    """It is refused at once, with loopback allowed or not."""
    resolve_names_to(monkeypatch, *addresses)
    for loopback in (True, False):
        error = await failure("https://cdn.example.com/v", target, loopback=loopback)
        assert "only public ones are dialled" in error.reason
    assert waits == []


async def test_only_the_allowed_addresses_of_a_host_are_dialled(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other addresses of the host get no connection."""
    async with serve(ok()) as server:
        resolve_names_to(monkeypatch, "10.0.0.1", "127.0.0.1")
        assert (await fetch(f"http://localhost:{server.port}/v", target)).size == len(VIDEO)


@pytest.mark.parametrize(
    "url", ["", "video.mp4", "https://", "http://[", "https://me:secret@example.com/", "file:///etc/passwd", "https://a b/",
            "https://" + "a" * 70 + ".example.com/", "https://example.com:99999/", "https://\udce4.example.com/"]
)  # fmt: skip
async def test_an_invalid_url_is_a_failed_download(target: Path, url: str) -> None:
    """Every invalid or forbidden URL raises DownloadFailed."""
    error = await failure(url, target, attempts=1)
    assert "secret" not in str(error)


async def test_errors_hide_the_query(target: Path) -> None:
    """An error shows the URL without its query, does not store the query, and survives pickling."""
    async with serve(ok(b"", status="404 No")) as server:
        error = await failure(server.url("/v.mp4?X-Signature=secret"), target)
    assert error.url == server.url("/v.mp4")
    pickled = pickle.dumps(error)
    assert b"secret" not in pickled
    assert str(pickle.loads(pickled)) == str(error)


async def test_a_proxy_receives_the_request(target: Path) -> None:
    """A proxy may be at any address; the literal address of a download is still checked."""
    async with serve(ok()) as proxy:
        await fetch("http://localhost:1/v.mp4", target, proxy=proxy.url(""))
        assert proxy.asked[0].target == "GET http://localhost:1/v.mp4 HTTP/1.1"
        target.unlink()
        error = await failure("https://10.0.0.1/v", target, proxy=proxy.url(""))
    assert "private" in error.reason
    assert len(proxy.asked) == 1


async def test_a_refusing_proxy_is_reported_without_credentials(target: Path) -> None:
    """The error contains no header of the proxy's answer either."""
    async with serve(ok(b"", "X: secret", status="407 No")) as proxy:
        url = proxy.url("").replace("//", "//me:secret@")
        error = await failure("https://cdn.example.com/v", target, proxy=url, attempts=1, loopback=False)
    assert error.reason.startswith("the proxy refused to connect")
    assert "secret" not in str(error)


def test_a_proxy_must_be_a_url() -> None:
    """A proxy that is not an http(s) URL is a configuration error that does not repeat it."""
    with pytest.raises(ConfigurationError) as caught:
        Downloader(proxy="socks5://me:secret@example.com")
    assert caught.value.setting == "proxy"
    assert "secret" not in str(caught.value)


# The target


async def test_an_identical_target_is_a_success(target: Path) -> None:
    """A target with the same bytes is a success and is not changed."""
    target.write_bytes(VIDEO)
    before = target.stat()
    async with serve(ok()) as server:
        download = await fetch(server.url(), target)
    assert download.sha256 == hashlib.sha256(VIDEO).hexdigest()
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names(target.parent) == [target.name]


def other_bytes(target: Path) -> None:
    target.write_bytes(OTHER)


def empty_file(target: Path) -> None:
    target.touch()


def folder(target: Path) -> None:
    target.mkdir()


def fifo(target: Path) -> None:
    os.mkfifo(target)


def dangling_link(target: Path) -> None:
    target.symlink_to("nowhere.mp4")


def link_to_the_same(target: Path) -> None:
    elsewhere = target.parent / "elsewhere.mp4"
    elsewhere.write_bytes(VIDEO)
    target.symlink_to(elsewhere)


@pytest.mark.parametrize("make", [other_bytes, empty_file, folder, fifo, dangling_link, link_to_the_same])
async def test_an_existing_target_is_not_overwritten(target: Path, make: Callable[[Path], None]) -> None:
    """A target of any other kind or content stays, and the error says so."""
    make(target)
    before = target.lstat()
    async with serve(ok()) as server:
        error = await failure(server.url(), target)
    assert "exists with other content and is not overwritten" in error.reason
    after = target.lstat()  # reading it to compare may change its time of access, and nothing else
    assert (after.st_ino, after.st_mode, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_mode,
        before.st_size,
        before.st_mtime_ns,
    )


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("no_links")
async def test_a_file_system_without_links(target: Path) -> None:
    """Without hard links the file is still published, and a second fetch of it succeeds."""
    async with serve(ok()) as server:
        await fetch(server.url(), target)
        await fetch(server.url(), target)
    assert target.read_bytes() == VIDEO
    assert names(target.parent) == [target.name]


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("make", [other_bytes, folder, fifo, dangling_link, link_to_the_same])
async def test_nothing_is_overwritten_without_links(target: Path, make: Callable[[Path], None]) -> None:
    """Without hard links no existing file is overwritten either."""
    make(target)
    inode = target.lstat().st_ino
    async with serve(ok()) as server:
        error = await failure(server.url(), target)
    assert "is not overwritten" in error.reason
    assert target.lstat().st_ino == inode


@pytest.mark.usefixtures("no_links")
async def test_an_empty_target_of_a_killed_run_is_filled(target: Path) -> None:
    """Without hard links an empty target is the reservation of a killed run."""
    target.touch()
    async with serve(ok()) as server:
        await fetch(server.url(), target)
    assert target.read_bytes() == VIDEO


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "link", "fchmod"])
async def test_a_full_disk_fails_the_download(target: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A full disk at any call raises DownloadFailed with the reason, leaves no file and is not retried."""

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with serve(ok()) as server:
        monkeypatch.setattr(os, call, full)
        with pytest.raises(DownloadFailed) as caught:
            await fetch(server.url(), target)
        monkeypatch.undo()
    assert caught.value.reason == "the file cannot be written: No space left on device"
    assert len(server.asked) == 1
    assert names(target.parent) == []


@pytest.mark.usefixtures("no_links")
async def test_a_failed_last_move_removes_the_reservation(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last move fails, the empty target is removed."""

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with serve(ok()) as server:
        monkeypatch.setattr(Path, "replace", full)
        error = await failure(server.url(), target)
    assert "Input/output error" in error.reason


async def test_short_writes_are_completed(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of a short write is written."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:100], at))
    async with serve(ok()) as server:
        await fetch(server.url(), target)
    assert target.read_bytes() == VIDEO


async def test_a_target_below_a_file_fails(tmp_path: Path) -> None:
    """A target below a file raises DownloadFailed."""
    (tmp_path / "file").touch()
    async with serve(ok()) as server:
        with pytest.raises(DownloadFailed, match="cannot be written"):
            await fetch(server.url(), tmp_path / "file" / "video.mp4")


# Cancellation


@pytest.mark.parametrize("how", ["task", "scope"])
async def test_cancelling_while_reading(target: Path, how: str) -> None:
    """A fetch cancelled inside the body leaves no file, and the cancellation propagates."""
    large = mp4(3_000_000)

    async def half(_: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(ok(large)[:2_000_000])
        await writer.drain()
        await asyncio.sleep(30)

    async def until_file() -> None:
        while not list(target.parent.iterdir()):
            await asyncio.sleep(0.005)

    async with serve(half) as server:
        if how == "task":
            work = asyncio.create_task(fetch(server.url(), target))
            await asyncio.wait_for(until_file(), 5)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(fetch, server.url(), target)
                await until_file()
                group.cancel_scope.cancel()
    assert names(target.parent) == []


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "link"])
async def test_cancelling_while_writing(target: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A fetch cancelled twice during a slow write waits for the write and leaves no temporary file."""
    real = getattr(os, call)
    reached, go_on = threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        reached.set()
        go_on.wait(5)
        return real(*args, **kwargs)

    async with serve(ok()) as server:
        monkeypatch.setattr(os, call, slow)
        work = asyncio.create_task(fetch(server.url(), target))
        await asyncio.to_thread(reached.wait, 5)
        for _ in range(2):
            work.cancel()
            await asyncio.sleep(0.01)
        assert not work.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert not [name for name in names(target.parent) if name.startswith(".")]


async def test_cancelling_between_attempts(target: Path) -> None:
    """A cancellation between two attempts propagates at once."""
    async with serve(ok(b"", "Retry-After: 60", status="503 Busy")) as server:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fetch(server.url(), target), 0.1)
    assert names(target.parent) == []


# The map of errors


def kinds_of(kind: type[Exception]) -> set[type[Exception]]:
    return {kind}.union(*(kinds_of(below) for below in kind.__subclasses__()))


def test_every_client_error_is_mapped() -> None:
    """Each exception class of aiohttp's client has a row besides the last, except its root, web sockets and uploads."""
    rows = tuple(kind for kinds, _, _ in FAILURE_KINDS[:-1] for kind in kinds)
    named = {getattr(aiohttp.client_exceptions, name) for name in aiohttp.client_exceptions.__all__}
    classes = {kind for kind in kinds_of(aiohttp.ClientError) | named if kind.__module__.startswith("aiohttp.")}
    assert len(classes) > 25
    others = {"ClientError", "WSMessageTypeError", "UploadAbortedError"}  # the last since aiohttp 3.14.4
    assert {kind.__name__ for kind in classes if not issubclass(kind, rows)} <= others


def test_no_row_hides_another() -> None:
    """No row of the map follows a row that matches all of its errors."""
    for number, (kinds, _, _) in enumerate(FAILURE_KINDS):
        above = tuple(kind for earlier, _, _ in FAILURE_KINDS[:number] for kind in earlier)
        assert not any(issubclass(kind, above) for kind in kinds)


@pytest.mark.parametrize("error", [aiohttp.ClientError("secret"), TimeoutError(), UnicodeError("label too long")])
def test_base_errors_are_mapped(error: Exception) -> None:
    """A base error of the client, of time or of an address becomes a signal that does not repeat its text."""
    assert "secret" not in str(_classify_error(error))
    assert isinstance(_classify_error(error), RetryDownload | AbortDownload)


# Decisions without a socket


@given(st.text() | st.from_regex(r"https?://\[?[^\x00]*", fullmatch=True), st.none() | st.just("https://example.com/a"))
def test_any_url_is_accepted_or_aborts(text: str, base: str | None) -> None:
    """Any text as a URL or a redirect gives a checked https URL or aborts."""
    try:
        url = Downloader()._parse_url(text, None if base is None else URL(base))
    except AbortDownload:
        return
    assert url.scheme == "https"
    assert url.raw_host
    assert "@" not in url.raw_authority


def test_a_body_longer_than_announced_is_refused() -> None:
    """More bytes than the Content-Length are not a file."""
    progress = DownloadState(1 << 20)
    progress.on_response(200, {}, source="", length=len(VIDEO) - 8, range_requested=False, now=0.0)
    progress.on_chunk(VIDEO)
    with pytest.raises(RetryDownload, match="went on after its end"):
        progress.on_body_end(terminated=True)
