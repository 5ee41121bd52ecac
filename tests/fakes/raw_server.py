"""TCP server that sends exactly the bytes of an act: half a response, a reset, silence. It has no named faults."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import secrets
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Literal, Self

import attrs

PROVIDERS = ("cometapi", "yescale", "gptge", "native")
TASK = "task-5e1f"
RESULT = "https://cdn.example/video.mp4"

#: A self-signed certificate of `localhost` and 127.0.0.1 and its key, 2024 to 2124: without any value.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmDCCAT6gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjQwMTAxMDAwMDAwWhgPMjEyNDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLUuO9Spc3J9VdyM
tgtxp8K0sXHR1KzBGbsv8CrZYhpSJHYnpfKJ9fDV5a3uiVzkNQyNn8sw66E30JyJ
+yqGo3WjfzB9MA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKEMB0GA1Ud
DgQWBBR7BBFWuPve3ltFGKB/EtWBLnw9JTAfBgNVHSMEGDAWgBR7BBFWuPve3ltF
GKB/EtWBLnw9JTAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZIzj0E
AwIDSAAwRQIhAO6y5gFss9413wC5E+TkuubvadHFXDNx+Di5vasNjpqxAiBBOWWy
UkzK1jBnfDDKg8FqmBorfn/1npg2/YF9RokaEQ==
-----END CERTIFICATE-----
"""
CERTIFICATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgNLd51Py9vmQ2j4et
o7C5voNp/j0QlndLR5IjgUYublOhRANCAAS1LjvUqXNyfVXcjLYLcafCtLFx0dSs
wRm7L/Aq2WIaUiR2J6XyifXw1eWt7olc5DUMjZ/LMOuhN9CcifsqhqN1
-----END PRIVATE KEY-----
"""


@attrs.frozen
class Act:
    """The bytes of a response and what follows them.

    `then`: `keep` leaves the connection open, `fin` closes it, `rst` resets it, `stall` leaves it open and silent.
    `when`: an event to wait for before the response. `later`: bytes that follow in a segment of their own.
    """

    raw: bytes = b""
    then: Literal["keep", "fin", "rst", "stall"] = "keep"
    when: asyncio.Event | None = None
    later: bytes = b""


@attrs.frozen
class ReceivedRequest:
    """A complete request and the number of its connection, from 1."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return "/" + self.target.split("://", 1)[1].partition("/")[2] if "://" in self.target else self.target


def answer(status: int | str, body: bytes | str = b"", headers: dict[str, str] | None = None) -> bytes:
    """Return a complete HTTP/1.1 response with its length; its content type is JSON unless `headers` has another."""
    data = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status}{' Said' if isinstance(status, int) else ''}\r\n{head}\r\n".encode() + data


def receipt(provider: str, task_id: str = TASK) -> str:
    """Return the body of a response that accepts a submission."""
    if provider == "cometapi":
        return json.dumps(
            {"code": 200, "msg": "success", "ip": "1.2.3.4", "exec_time": 0, "data": {"task_id": task_id}}
        )
    return json.dumps({"id": task_id, "message": "ok"} if provider == "yescale" else {"id": task_id})


def finished(provider: str, task_id: str = TASK) -> str:
    """Return the body of a response to a poll of a succeeded task."""
    if provider == "cometapi":
        task = {"task_id": task_id, "status": "3", "state": "succeeded", "video_url": RESULT}
        return json.dumps({"code": 200, "msg": "", "data": task, "exec_time": 0})
    return json.dumps({"id": task_id, "videos": [{"id": task_id, "status": "finished", "resultUrl": RESULT}]})


class RawServer:
    """Server on 127.0.0.1: submissions get `acts` in turn and then acceptance, polls `poll_acts` and then success.

    As a proxy it answers requests for absolute URLs itself; a CONNECT gets `connect_acts` and then a tunnel.
    """

    def __init__(self, provider: str = "gptge", *, tls: bool = False, port: int = 0, task_id: str = TASK) -> None:
        self.provider = provider
        #: The id of the first task that is accepted without an act; later ones are numbered.
        self._task_id = task_id
        self._accepted = 0
        self.acts: deque[Act] = deque()
        self.poll_acts: deque[Act] = deque()
        self.connect_acts: deque[Act] = deque()
        #: What happens to each connection before a byte is read; None serves it.
        self.connection_acts: deque[Literal["rst", "fin", "stall"] | None] = deque()
        self.received: list[ReceivedRequest] = []
        self.connections = 0
        self.port = port
        self._tls = server_context() if tls else None
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tunnels: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._over.set()
        tasks = self._tasks | self._tunnels
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def submissions(self) -> list[ReceivedRequest]:
        return [request for request in self.received if request.path.endswith("/generate")]

    @property
    def polls(self) -> list[ReceivedRequest]:
        return [request for request in self.received if "/feed" in request.path]

    async def until_received(self, submissions: int) -> None:
        """Wait until that many submissions have arrived."""
        while len(self.submissions) < submissions:
            self._changed.clear()
            await self._changed.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        # Cancelled and reset connections are expected here; they are not errors of the test.
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            try:
                ending = self.connection_acts.popleft() if self.connection_acts else None
                if ending is None:
                    await self._serve(reader, writer, self.connections)
                else:
                    await self._end(ending, writer)
            finally:
                writer.close()
        self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = ReceivedRequest(method, target, headers, body, number)
            self.received.append(request)
            self._changed.set()
            act = self._next(request)
            if method == "CONNECT" and act is None:
                await self._tunnel(target, reader, writer)
                return
            assert act is not None
            if act.when is not None:
                await act.when.wait()
            writer.write(act.raw)
            await writer.drain()
            if act.later:
                await asyncio.sleep(0.05)  # no event shows that the other side has read
                writer.write(act.later)
                await writer.drain()
            if act.then != "keep":
                await self._end(act.then, writer)
                return

    def _next(self, request: ReceivedRequest) -> Act | None:
        if request.method == "CONNECT":
            return self.connect_acts.popleft() if self.connect_acts else None
        if request.path.endswith("/generate"):
            return self.acts.popleft() if self.acts else Act(answer(200, receipt(self.provider, self._next_id())))
        if self.poll_acts:
            return self.poll_acts.popleft()
        task_id = json.loads(request.body)["task_id"] if request.body else request.path.rpartition("/")[2]
        return Act(answer(200, finished(self.provider, task_id)))

    def _next_id(self) -> str:
        self._accepted += 1
        return self._task_id if self._accepted == 1 else f"{self._task_id}-{self._accepted}"

    async def _end(self, how: str, writer: asyncio.StreamWriter) -> None:
        if how == "stall":
            await self._over.wait()
        elif how == "rst":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _tunnel(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = target.rpartition(":")
        there, out = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Established\r\n\r\n")
        back = asyncio.create_task(_pump(there, writer))
        self._tunnels.add(back)
        try:
            await _pump(reader, out)
        finally:
            out.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()


def server_context() -> ssl.SSLContext:
    """Return the context of a TLS server with `CERTIFICATE`."""
    import tempfile
    from pathlib import Path

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both.pem"
        path.write_text(CERTIFICATE_KEY + CERTIFICATE)
        context.load_cert_chain(path)
    return context


def trusting_context() -> ssl.SSLContext:
    """Return the context of a TLS client that trusts `CERTIFICATE` only."""
    return ssl.create_default_context(cadata=CERTIFICATE)


#: Below the ports that Linux, macOS and Windows give to outgoing connections and to servers that ask for port 0.
RESERVABLE_PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which no socket listens, and that no other test gets.

    A UDP socket on the same number reserves it: TCP stays free for the test, and the reservation ends with the process.
    """
    while True:
        port = secrets.choice(RESERVABLE_PORTS)
        reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        atexit.register(reservation.close)  # which also keeps it open until then
        return port


@contextlib.asynccontextmanager
async def unresponsive_server() -> AsyncIterator[str]:
    """Yield a URL that neither accepts nor refuses connections: its queue of one is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers: list[Any] = []
    try:
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for each in [listener, *fillers]:
            each.close()
