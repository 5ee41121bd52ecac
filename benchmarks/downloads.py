"""CPU and wall time of downloads beside a bare aiohttp client that verifies nothing, interleaved.

    python benchmarks/downloads.py [ROUNDS] [SCALE] [FOLDER]

Four loads: files of 40 KB, four in each tenth of a second and many at once, 1,000 of 2 MB, and one of 500 MB. SCALE
divides the number of files, and the size of the last (default 1). Files are written below FOLDER (default: the folder
of temporary files), which must be on a real disk, and removed after each side.

- `bare` opens a file, and writes each chunk of `iter_chunked` in a thread. Nothing is checked, hashed or synced.
- `by hand` reads a whole body, and writes it in the thread of the loop; only for small files.
- `SDK` is `Downloader.fetch`: the structure checked, SHA-256, file and folder synced, no partial file under its name.
- `with journal` is what a client does: `ResultDownloader.collect` with an SQLite journal.

Each side runs in a process of its own against a server in another one, on 127.0.0.1. CPU is that of the client after
its imports, user and system together. The dirty pages of one side are written before the next one begins. At the end
stand the costs of the parts, each alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import aiohttp
from lean_gateway import make_video

from pika_async import GenerationRequest, Job, JobStatus, Video
from pika_async._http.downloads import Downloader
from pika_async._http.media import MediaValidator
from pika_async._journal.sqlite import SqliteJournal
from pika_async._journal.system_calls import sync_folder
from pika_async._runtime.results import ResultDownloader

#: Bytes of a file, number of files, how many are downloaded at a time, and seconds from one start of them to the next.
LOADS: Final = {
    "paced": (40_000, 640, 4, 0.1),
    "small": (40_000, 2_000, 16, 0.0),
    "medium": (2_000_000, 1_000, 8, 0.0),
    "large": (500_000_000, 1, 1, 0.0),
}
SIDES: Final = ("bare", "by hand", "SDK", "with journal")
CHUNK_BYTES: Final = 1 << 20

Fetch = Callable[[str, Path], Awaitable[object]]
Load = tuple[int, int, int, float]
#: CPU of the process, CPU of the thread of the loop, and wall time, in seconds.
Figures = tuple[float, float, float]


def serve(size: int) -> None:
    """Serve one video of `size` bytes under every path until standard input ends."""
    with tempfile.TemporaryFile() as file, socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        file.write(make_video(size))
        file.flush()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {file.tell()}\r\n\r\n".encode()

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(ConnectionError):
                while connection.recv(1 << 16):  # a request comes in one piece, and the next one after the answer
                    connection.sendall(head, socket.MSG_MORE)
                    sent = 0
                    while sent < size:  # the kernel copies, so that the client has almost two cores
                        sent += os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)

        def accept() -> None:
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        print(server.getsockname()[1], flush=True)
        sys.stdin.read()


@contextmanager
def run_server(size: int) -> Iterator[str]:
    """Run the server in a process of its own, while the context is open; return its address."""
    command = [sys.executable, __file__, "serve", str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.stdin.close()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


async def fetch_all(fetch: Fetch, url: str, folder: Path, load: Load) -> Figures:
    """Fetch all files of a load."""
    _, count, width, pause = load
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            if pause:
                await asyncio.sleep(pause - time.monotonic() % pause)
            await fetch(f"{url}/{number}.mp4", folder / f"{number}.mp4")

    cpu, loop, wall = time.process_time(), time.thread_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(width)))
    return time.process_time() - cpu, time.thread_time() - loop, time.perf_counter() - wall


async def run_bare(url: str, folder: Path, load: Load, *, by_hand: bool) -> Figures:
    """Download with aiohttp alone."""
    async with aiohttp.ClientSession() as session:

        async def in_a_thread(address: str, target: Path) -> None:
            async with session.get(address) as answer:
                with target.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                        await asyncio.to_thread(file.write, chunk)

        async def in_the_loop(address: str, target: Path) -> None:
            async with session.get(address) as answer:
                target.write_bytes(await answer.read())

        return await fetch_all(in_the_loop if by_hand else in_a_thread, url, folder, load)


async def run_sdk(url: str, folder: Path, load: Load, *, journal: bool) -> Figures:
    """Download as the SDK does."""
    store = SqliteJournal(folder / "journal.db")
    async with Downloader(loopback=True) as downloader:
        if not journal:
            return await fetch_all(downloader.fetch, url, folder, load)
        downloaders = SimpleNamespace(of=lambda _base_url: downloader)
        results = ResultDownloader(cast("Any", None), cast("Any", downloaders), store)

        async def collect(address: str, target: Path) -> None:
            job = Job(
                key=target.stem, request=GenerationRequest("a cat"), provider="native", base_url=url,
                status=JobStatus.SUCCEEDED, task_id=target.stem, video=Video(url=address, task_id=target.stem),
            )  # fmt: skip
            assert (await results.collect(job, target)).file == target

        await store.open()
        try:
            return await fetch_all(collect, url, folder, load)
        finally:
            await store.close()


def run_side(side: str, url: str, folder: Path, load: Load) -> Figures:
    """Run one side in this process."""
    if side in {"bare", "by hand"}:
        return asyncio.run(run_bare(url, folder, load, by_hand=side == "by hand"))
    return asyncio.run(run_sdk(url, folder, load, journal=side == "with journal"))


def measure(side: str, load: Load, root: Path) -> Figures:
    """Run one side in a new process."""
    size, count = load[:2]
    with run_server(size) as url, tempfile.TemporaryDirectory(dir=root) as folder:
        command = [sys.executable, __file__, "side", side, url, folder, *map(str, load)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        files = list(Path(folder).glob("*.mp4"))
        assert (len(files), {file.stat().st_size for file in files}) == (count, {len(make_video(size))})
    os.sync()
    return float(found[0]), float(found[1]), float(found[2])


def measure_parts(root: Path) -> None:
    """Print the cost of each part of a download, alone."""
    data = make_video(64 << 20)

    def rate(work: Callable[[bytes], object], piece: int) -> float:
        pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
        began = time.process_time()
        for each in pieces:
            work(each)
        return len(data) / (time.process_time() - began) / 1e6

    print(f"SHA-256 {rate(hashlib.sha256().update, CHUNK_BYTES):,.0f} MB/s")
    print(f"walk over the boxes, in chunks of 64 KiB {rate(MediaValidator().feed, 1 << 16):,.0f} MB/s")
    for size in (40_000, 2_000_000, 64 << 20):
        times: list[tuple[float, float]] = []
        for number in range(9):
            with tempfile.NamedTemporaryFile(dir=root, delete=False) as file:
                file.write(data[:size])
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                middle = time.perf_counter()
                os.replace(file.name, root / f"part-{number}")  # noqa: PTH105
                sync_folder(root)
                times.append((middle - began, time.perf_counter() - middle))
            (root / f"part-{number}").unlink()
        own, folder = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
        print(f"{size:,} bytes: fsync {own:.2f} ms, its name and the folder's fsync {folder:.2f} ms")


def main(rounds: int, scale: int, root: Path) -> None:
    """Measure each load and side in turn; print the medians, and the ratios to the bare client."""
    for name, (size, count, width, pause) in LOADS.items():
        load = (size, count // scale, width, pause) if count > 1 else (size // scale, 1, 1, pause)
        sides = [side for side in SIDES if side != "by hand" or size < CHUNK_BYTES]
        results: dict[str, list[Figures]] = {side: [] for side in sides}
        for number in range(rounds):
            for side in sides if number % 2 else reversed(sides):
                results[side].append(measure(side, load, root))
        print(f"{name}: {load[1]:,} of {load[0]:,} bytes, {width} at a time, {rounds} rounds")
        for side, rows in results.items():
            cpu, loop, wall = (statistics.median(column) for column in zip(*rows, strict=True))
            pairs = list(zip(rows, results["bare"], strict=True))
            more, in_loop, time_of = (statistics.median(row[at] / base[at] for row, base in pairs) for at in range(3))
            speed = load[0] * load[1] / wall / 1e6
            print(
                f"  {side:13} CPU {cpu / load[1] * 1e3:8.2f} ms a file ({more:.2f} of bare), in the loop "
                f"{loop / load[1] * 1e3:8.2f} ({in_loop:.2f}), {speed:7.1f} MB/s ({1 / time_of:.2f})"
            )
    with tempfile.TemporaryDirectory(dir=root) as folder:
        measure_parts(Path(folder))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    elif sys.argv[1:2] == ["side"]:
        size, count, width, pause = sys.argv[5:]
        found = run_side(sys.argv[2], sys.argv[3], Path(sys.argv[4]), (int(size), int(count), int(width), float(pause)))
        print(*found)
    else:
        values = [*sys.argv[1:], *["3", "1", tempfile.gettempdir()][len(sys.argv) - 1 :]]
        main(int(values[0]), int(values[1]), Path(values[2]))
