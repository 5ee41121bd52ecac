"""Real results for tests, written by FFmpeg and Pillow."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import av
from PIL import Image


def box(kind: bytes, content: bytes = b"", *, size: int | None = None) -> bytes:
    return (8 + len(content) if size is None else size).to_bytes(4, "big") + kind + content


def long_box(kind: bytes, content: bytes, *, size: int | None = None) -> bytes:
    return (1).to_bytes(4, "big") + kind + (16 + len(content) if size is None else size).to_bytes(8, "big") + content


@cache
def real_mp4(movflags: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "made.mp4")
        write_mp4(file, movflags)
        return file.read_bytes()


def write_mp4(file: Path, movflags: str) -> None:
    options = {"movflags": movflags} if movflags else {}
    with av.open(str(file), "w", format="mp4", options=options) as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for number in range(3):
            frame = av.VideoFrame(16, 16, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number * 60]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def shifted(whole: bytes, by: int) -> bytes:
    """Return a file with `by` bytes of padding in front, and every position in its index moved."""
    index = bytearray(whole)
    at = index.index(b"stco") + 8
    count = int.from_bytes(index[at : at + 4], "big")
    for n in range(count):
        entry = slice(at + 4 + 4 * n, at + 8 + 4 * n)
        index[entry] = (int.from_bytes(index[entry], "big") + by).to_bytes(4, "big")
    return box(b"free", bytes(by - 8)) + bytes(index)


def picture(seed: int = 0) -> Image.Image:
    """A small picture with noise, so that its encoding holds every kind of byte."""
    pixels = bytes((x * x * 7 + x * seed * 13 + x // 3) % 256 for x in range(24 * 16 * 3))
    return Image.frombytes("RGB", (24, 16), pixels)


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture().save(file, kind, **options)
    return file.getvalue()


def webm(**options: str) -> bytes:
    """A WebM; with `live="1"` its segment and clusters have no size, as a recorder writes them."""
    file = io.BytesIO()
    file.name = "made.webm"
    with av.open(file, "w", format="webm", options=options) as container:
        stream = container.add_stream("libvpx", rate=8)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for number in range(6):
            frame = av.VideoFrame(16, 16, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([number * 40]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def animation() -> bytes:
    file = io.BytesIO()
    frames = [picture(n).quantize(16) for n in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], loop=0, comment=b"made")
    return file.getvalue()


MAKERS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "webm": (".webm", webm),
    "gif": (".gif", lambda: saved("GIF")),
    "animation": (".gif", animation),
    "png": (".png", lambda: saved("PNG")),
    "jpeg": (".jpg", lambda: saved("JPEG", quality=90, comment=b"made")),
    "progressive jpeg": (".jpg", lambda: saved("JPEG", progressive=True, restart_marker_blocks=1)),
    "webp": (".webp", lambda: saved("WEBP")),
    "lossless webp": (".webp", lambda: saved("WEBP", lossless=True)),
}


@cache
def made(name: str) -> bytes:
    return MAKERS[name][1]()


@cache
def made_live() -> bytes:
    return webm(live="1", cluster_time_limit="200")


def frames_in(data: bytes) -> int:
    """Return the number of frames that FFmpeg decodes."""
    with av.open(io.BytesIO(data), "r") as container:
        return len(list(container.decode(video=0)))
