"""A gateway that answers from memory and is never the bottleneck, in a process of its own.

It answers in the words of native Pika, and at other paths in those of the peers' services (see `wires.py`). It checks
nothing, so it proves nothing about the SDK; `gateway.py` runs the emulator, which does. Tasks take lognormal
durations from a seed. It writes down when each task settled and when a poll first saw that, which gives the detection
delay of any client.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import attrs
from wires import TaskState, wire_of

#: Bytes of the video that every task yields, about the size of a poster's clip.
VIDEO_BYTES = 40_000
#: Least and most seconds until a submission is answered: without them, clients that start together would poll in step.
SUBMIT_LATENCY_S = (0.3, 1.0)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def make_video(size: int) -> bytes:
    """Return the boxes of an MP4 of about `size` bytes; it passes a walk over its boxes and plays nothing."""
    head = _box(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + _box(b"moov", _box(b"mvhd", bytes(100)))
    return head + _box(b"mdat", bytes(max(0, size - len(head) - 8)))


@attrs.define
class _Task:
    settles_at: float
    duration: float
    polls: int = 0
    seen_at: float = 0.0


@attrs.define
class Gateway:
    """Tasks, and the replies to requests about them."""

    median: float
    sigma: float
    seed: int
    latency: float
    video: bytes
    base_url: str = ""
    tasks: dict[str, _Task] = attrs.field(factory=dict)
    #: Bytes of all requests so far, by method: `b"POST"` or `b"GET"`.
    received: Counter[bytes] = attrs.field(factory=Counter)
    #: Time and CPU time when the first task was submitted.
    began: tuple[float, float] = (0.0, 0.0)
    chance: random.Random = attrs.field(factory=lambda: random.Random(0))

    def reply(self, line: bytes) -> bytes:
        """Return the whole response to the request that starts with `line`."""
        method, path, _ = line.split(b" ", 2)
        path = path.partition(b"?")[0]
        if method == b"POST":
            number = len(self.tasks)
            self.began = self.began if self.tasks else (time.monotonic(), time.process_time())
            name = f"task-{number:06}"
            duration = self.median * 2.718281828 ** (self.sigma * random.Random(f"{self.seed}/{number}").gauss(0, 1))
            self.tasks[name] = _Task(time.monotonic() + duration, duration)
            return self._task_response(path, name, 0, is_settled=False)
        if path.startswith(b"/video/") or path.endswith(b"/content"):
            return _response(self.video, b"video/mp4")
        name = path.removesuffix(b"/status").rsplit(b"/", 1)[1].decode()
        if path.startswith(b"/bench/") and not path.endswith(b"/status"):
            return _response(json.dumps({"video": {"url": f"{self.base_url}/video/{name}.mp4"}}).encode())
        task, now = self.tasks[name], time.monotonic()
        task.polls += 1
        is_settled = now >= task.settles_at
        if is_settled and not task.seen_at:
            task.seen_at = now
        progress = 100 if is_settled else min(99, int(100 * (1 - (task.settles_at - now) / task.duration)))
        return self._task_response(path, name, progress, is_settled=is_settled)

    def _task_response(self, path: bytes, name: str, progress: int, *, is_settled: bool) -> bytes:
        state = TaskState(name, self.base_url, progress, is_settled)
        return _response(json.dumps(wire_of(path)(state)).encode())

    @property
    def polls(self) -> int:
        """Number of polls so far."""
        return sum(task.polls for task in self.tasks.values())

    def figures(self) -> dict[str, float]:
        """Return the number of tasks, polls per task, and the mean delay of detection in seconds.

        `busy` is the CPU time of this process over the time since the first task.
        """
        seen = [task for task in self.tasks.values() if task.seen_at]
        return {
            "tasks": len(self.tasks),
            "polls": sum(task.polls for task in seen) / max(1, len(seen)),
            "delay": sum(task.seen_at - task.settles_at for task in seen) / max(1, len(seen)),
            "busy": (time.process_time() - self.began[1]) / max(1e-9, time.monotonic() - self.began[0]),
        }


def _response(body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)


class Connection(asyncio.Protocol):
    """One connection to a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        while (end := self._bytes.find(b"\r\n\r\n")) >= 0:
            head = self._bytes[:end].lower()
            found = head.find(b"content-length:")
            size = int(head[found + 15 :].split(b"\r\n", 1)[0]) if found >= 0 else 0
            if len(self._bytes) < end + 4 + size:
                return
            line = self._bytes[: self._bytes.find(b"\r\n")]
            self._bytes = self._bytes[end + 4 + size :]
            self._gateway.received[line.split(b" ", 1)[0]] += end + 4 + size
            mean = self._gateway.latency
            low, high = SUBMIT_LATENCY_S if line.startswith(b"POST") else (0.4 * mean, 1.6 * mean)
            delay = low + (high - low) * self._gateway.chance.random()
            reply, is_last = self._gateway.reply(line), b"connection: close" in head
            if delay:
                asyncio.get_running_loop().call_later(delay, self._answer, reply, is_last)
            else:
                self._answer(reply, is_last)

    def _answer(self, reply: bytes, is_last: bool) -> None:
        self._transport.write(reply)
        if is_last:
            self._transport.close()


@attrs.frozen
class LeanServer:
    """Running gateway: its address, and its figures so far."""

    url: str
    _requests: IO[str] = attrs.field(repr=False)
    _replies: IO[str] = attrs.field(repr=False)

    def figures(self) -> dict[str, float]:
        """Return what `Gateway.figures` does."""
        print("figures", file=self._requests, flush=True)
        return json.loads(self._replies.readline())  # type: ignore[no-any-return]


@contextmanager
def run_lean_server(median: float, sigma: float = 0.5, seed: int = 1, latency: float = 0.0) -> Iterator[LeanServer]:
    """Run a gateway whose tasks take lognormal durations, while the context is open.

    :param median: in seconds.
    :param latency: mean seconds until a poll is answered, 60 % more or less; default 0, at once.
    """
    command = [sys.executable, __file__, str(median), str(sigma), str(seed), str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield LeanServer(json.loads(server.stdout.readline()), requests=server.stdin, replies=server.stdout)
        finally:
            server.stdin.close()
            server.wait(20)


async def _serve(gateway: Gateway) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(gateway), "127.0.0.1", 0, backlog=4096)
    gateway.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    print(json.dumps(gateway.base_url), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(gateway.figures()), flush=True)


if __name__ == "__main__":
    median, sigma, number, latency = map(float, sys.argv[1:])
    asyncio.run(_serve(Gateway(median, sigma, int(number), latency, make_video(VIDEO_BYTES))))
