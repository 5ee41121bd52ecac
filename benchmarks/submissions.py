"""Submissions over TLS, far from the gateway: connections opened ahead, or one that each opens, interleaved.

    python benchmarks/submissions.py [JOBS] [ROUNDS] [SIDE_BY_SIDE]

The gateway is a TLS server in a process of its own, with an RSA certificate that `openssl` makes, behind a relay that
delivers everything 25 ms later in both directions; the handshake of TCP, which the relay answers at once, is added to
the first bytes. It answers a submission at once, after 0.2 s or after 1 s; its tasks do not end. Each round is a client
in a process of its own, without a journal. CPU is that of the client; "ready" is the share of submissions that found a
connection.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import uvloop
from aiohttp.connector import Connection

from pika_async import FixedInterval, GenerationRequest, Limits, PikaClient
from pika_async._http.connector import SubmissionConnector
from pika_async._http.spare_connections import SpareConnections

#: Seconds that bytes take in one direction.
ONE_WAY_S = 0.025
#: Seconds until the gateway answers a submission.
ANSWERS_S = (0.0, 0.2, 1.0)


def make_certificate(folder: str) -> Path:
    """Make a key and a certificate of 127.0.0.1 in one file, and return its path."""
    path = Path(folder) / "gateway.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=gateway"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(Path(f"{path}.key").read_text() + Path(f"{path}.crt").read_text())
    return path


# -- the gateway -------------------------------------------------------------------------------------------------------


class Relay(asyncio.Protocol):
    """One direction of a connection: delivers what it gets to `peer` later, in order."""

    peer: Relay
    transport: Any = None

    def __init__(self) -> None:
        self.ready_at = 0.0
        #: Due, while the other side is not connected yet.
        self.waiting: list[Any] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._later(lambda: self.peer.transport.is_closing() or self.peer.transport.write(data))

    def connection_lost(self, _error: Exception | None) -> None:
        self._later(lambda: self.peer.transport.close())  # noqa: PLW0108 - it may have no transport yet

    def _later(self, deliver: Any) -> None:
        loop = asyncio.get_running_loop()
        self.ready_at = max(self.ready_at, loop.time() + ONE_WAY_S)
        loop.call_at(self.ready_at, self._deliver, deliver)

    def _deliver(self, deliver: Any) -> None:
        self.waiting.append(deliver)
        while self.waiting and self.peer.transport is not None:
            self.waiting.pop(0)()


class Near(Relay):
    """The client's side of the relay."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.peer = Relay()
        self.peer.peer = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        loop = asyncio.get_running_loop()
        self.ready_at = loop.time() + 3 * ONE_WAY_S  # SYN and its answer, before the first bytes
        self.task = loop.create_task(self._connect())

    async def _connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self.peer, "127.0.0.1", self.port)
        self._deliver(lambda: None)


class Tally:
    """What the gateway has seen."""

    connections = submissions = 0


async def serve(certificate: str, answer_s: float) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        Tally.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int((head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]) or b"0")
                await reader.readexactly(size)
                name = head.split(b" ", 2)[1].rpartition(b"/")[2].decode()
                body = json.dumps({"id": name, "videos": [{"id": name, "status": "generating"}]})
                if head.startswith(b"POST"):
                    Tally.submissions += 1
                    body = json.dumps({"id": f"task-{Tally.submissions:06}"})
                    await asyncio.sleep(answer_s)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(body), body.encode())
                )
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context, backlog=512)
    port = server.sockets[0].getsockname()[1]
    relay = await asyncio.get_running_loop().create_server(lambda: Near(port), "127.0.0.1", 0, backlog=512)
    print(relay.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps([Tally.connections, Tally.submissions]), flush=True)


@contextmanager
def gateway(certificate: Path, answer_s: float) -> Iterator[Any]:
    """Run a gateway and yield its process, the first line of whose output is its port."""
    command = [sys.executable, __file__, "gateway", str(certificate), str(answer_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


# -- the client --------------------------------------------------------------------------------------------------------


async def accept(port: str, certificate: str, count: int, room: int) -> dict[str, float]:
    """Submit until every job is accepted; return the elapsed and the CPU seconds."""
    context = ssl.create_default_context(cafile=f"{certificate}.crt")
    limits, polling = Limits(submitting=room), FixedInterval(3600)
    take, found = SpareConnections.take, list[bool]()

    def counted(spares: SpareConnections) -> Connection | None:
        connection = take(spares)
        found.append(connection is not None)
        return connection

    with (
        mock.patch.object(SpareConnections, "take", counted),
        mock.patch("aiohttp.connector._SSL_CONTEXT_VERIFIED", context),
    ):
        url = f"https://127.0.0.1:{port}"
        async with PikaClient("native", api_key="none", base_url=url, limits=limits, polling=polling) as pika:
            began, cpu = time.perf_counter(), time.process_time()
            batch = asyncio.create_task(pika.run([GenerationRequest(f"prompt {number}") for number in range(count)]))
            while len(pika.active_jobs()) < count or any(job.task_id is None for job in pika.active_jobs()):
                await asyncio.sleep(0.02)
            result = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
            result["ready"] = sum(found) / count
            batch.cancel()
            await asyncio.wait({batch})
    return result


def measure(certificate: Path, answer_s: float, ahead: bool, count: int, room: int) -> dict[str, float]:
    """Run one side; return its figures, and the connections that the gateway saw for each submission."""
    with gateway(certificate, answer_s) as server:
        side = "ahead" if ahead else "own"
        arguments = [side, server.stdout.readline().strip(), str(certificate), str(count), str(room)]
        output = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
        result: dict[str, float] = json.loads(output.stdout)
        server.stdin.write("\n")
        server.stdin.flush()
        connections, submissions = json.loads(server.stdout.readline())
    assert submissions == count, f"{submissions} of {count} submissions were sent"
    return result | {"connections": connections / count}


def main(count: int, rounds: int, room: int) -> None:
    """Measure both sides in alternating order; print the medians and the median of the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(folder)
        for answer_s in ANSWERS_S:
            pairs = []
            for number in range(rounds):
                sides = {}
                for ahead in (True, False) if number % 2 else (False, True):
                    sides[ahead] = measure(certificate, answer_s, ahead, count, room)
                pairs.append(sides)
            print(f"{count} submissions, {room} side by side, answers after {answer_s:.1f} s, {rounds} rounds")
            for ahead, title in ((False, "a connection each"), (True, "opened ahead")):
                seconds, cpu, connections, ready = (
                    statistics.median(pair[ahead][name] for pair in pairs)
                    for name in ("seconds", "cpu", "connections", "ready")
                )
                print(
                    f"  {title}: {count / seconds:.0f} accepted a second, CPU {1e3 * cpu / count:.2f} ms a submission, "
                    f"{connections:.2f} connections a submission, {ready:.0%} ready"
                )
            ratios = {
                name: statistics.median(pair[True][name] / pair[False][name] for pair in pairs)
                for name in ("seconds", "cpu")
            }
            print(f"  ratio: time {ratios['seconds']:.2f}, CPU {ratios['cpu']:.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["gateway"]:
        uvloop.run(serve(sys.argv[2], float(sys.argv[3])))  # the gateway is not to be the bottleneck
    elif sys.argv[1:2] in (["ahead"], ["own"]):
        if sys.argv[1] == "own":
            SubmissionConnector.prepare = lambda *_: None  # type: ignore[method-assign]
        print(json.dumps(asyncio.run(accept(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))))
    else:
        given = [int(argument) for argument in sys.argv[1:]]
        main(*(given + [512, 5, 64][len(given) :]))
