"""Draws real H.264 MP4s and JPEG posters of a prompt; the same prompt and seed give the same bytes.

PyAV and Pillow are imported when the first picture is drawn, so that the emulator imports without them.
"""

from __future__ import annotations

import functools
import math
import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from PIL import Image, ImageFont

__all__ = ["Picture", "RenderError", "Renderer", "even_size", "render_poster", "render_video"]

#: Pixels of a video, about; small enough that hundreds are drawn in seconds.
AREA = 320 * 180
# JPEG quality at which text stays legible.
_QUALITY = 85


class RenderError(RuntimeError):
    """The libraries that draw videos are not installed."""


@attrs.frozen(kw_only=True)
class Picture:
    """What a video shows: a prompt, its seed, width by height, frames per second, seconds."""

    prompt: str
    seed: int
    aspect_ratio: float = 16 / 9
    frame_rate: int = 24
    seconds: float = 5.0


def _libraries() -> tuple[Any, Any, Any, Any]:
    try:
        import av  # noqa: PLC0415 - see the module's docstring
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415
    except ImportError:
        raise RenderError('drawing videos needs PyAV and Pillow: pip install "pika_async[emulator]"') from None
    return av, Image, ImageDraw, ImageFont


def even_size(aspect_ratio: float) -> tuple[int, int]:
    """Even width and height of about 57,600 pixels in all, nearest to a ratio (held between 1:5 and 5:1)."""
    ratio = min(5.0, max(0.2, aspect_ratio))
    middle = round(math.sqrt(AREA / ratio) / 2)
    heights = [2 * half for half in range(middle - 6, middle + 7)]
    sizes = [(2 * round(height * ratio / 2), height) for height in heights]
    # The best fit first, then the nearest to the area: 320 x 180 for 16:9.
    return min(sizes, key=lambda size: (round(abs(size[0] / size[1] - ratio), 4), abs(size[0] * size[1] - AREA)))


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return _libraries()[3].load_default(size)  # type: ignore[no-any-return]


# FreeType faces are shared by the drawing threads and are not safe to use from two at once.
_DRAWING = threading.Lock()


def _background(picture: Picture) -> Image.Image:
    """The still part of a video: two colours run into each other, and the prompt as its title."""
    _, image_module, draw_module, _ = _libraries()
    random = Random(f"{picture.prompt!r}:{picture.seed}")
    width, height = even_size(picture.aspect_ratio)
    hue = random.randrange(256)
    with _DRAWING:
        # A few coloured points, smoothed into one another: cheap, and no two prompts look alike.
        points = image_module.new("RGB", (4, 3))
        colours = [_colour((hue + random.randrange(90)) % 256, random.randrange(50, 170)) for _ in range(12)]
        points.putdata(colours)
        image = points.resize((width, height), image_module.Resampling.BICUBIC)
        draw = draw_module.Draw(image)
        size = max(11, round(math.sqrt(width * height) / 13))
        lines = _wrapped(_printable(picture.prompt), max(8, int(width / size * 1.7)), 3)
        for row, line in enumerate(lines):
            at = (round(width * 0.06), round(height * 0.08 + row * size * 1.25))
            draw.text(at, line, font=_font(size), fill="white", stroke_width=1, stroke_fill="#00000080")
        footer = f"seed {picture.seed}   {width} x {height}   emulated"
        draw.text((round(width * 0.06), round(height * 0.9)), footer, font=_font(max(8, size // 2)), fill="#e8e8e8")
    return image  # type: ignore[no-any-return]


def _colour(hue: int, light: int) -> tuple[int, int, int]:
    red, green, blue = _libraries()[1].new("HSV", (1, 1), (hue, 170, light)).convert("RGB").getpixel((0, 0))
    return red, green, blue


def _printable(prompt: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in prompt[:400])


def _wrapped(text: str, columns: int, rows: int) -> list[str]:
    lines = [""]
    words = [word[at : at + columns] for word in text.split() for at in range(0, len(word), columns)]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > columns:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    lines = [line for line in lines if line]
    return lines if len(lines) <= rows else [*lines[: rows - 1], lines[rows - 1][: columns - 3] + "..."]


def _spans(radius: int) -> list[tuple[int, int]]:
    """A disc as rows: offset from its middle and half width."""
    return [(row, round(math.sqrt(radius * radius - row * row))) for row in range(-radius, radius + 1)]


@attrs.define
class _Plane:
    """One colour plane: the still picture, and the disc painted over a copy of it row by row."""

    stride: int
    still: bytes
    level: int
    spans: list[tuple[int, int]]
    scale: int

    def with_disc(self, x: int, y: int) -> bytearray:
        painted = bytearray(self.still)
        middle = y // self.scale * self.stride + x // self.scale
        row_of_disc = bytes((self.level,)) * self.stride
        for row, half in self.spans:
            start = middle + row * self.stride - half
            painted[start : start + 2 * half + 1] = row_of_disc[: 2 * half + 1]
        return painted


def render_video(picture: Picture) -> bytes:
    """An MP4 (H.264, yuv420p, ``moov`` first) of the prompt with a disc that moves over it."""
    av = _libraries()[0]
    image = _background(picture)
    width, height = image.size
    frames = max(1, round(picture.seconds * picture.frame_rate))
    with tempfile.TemporaryDirectory(prefix="pika-emulator-") as folder:
        # On disk, because moving the moov box to the front reads the file a second time.
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=picture.frame_rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "28", "threads": "1", "g": "48"}
            planes = _planes(av, image, picture)
            for number in range(frames):
                frame = av.VideoFrame(width, height, "yuv420p")
                x, y = _path(number / frames, width, height, picture.seed)
                for target, plane in zip(frame.planes, planes, strict=True):
                    target.update(plane.with_disc(x, y))
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.read_bytes()


def _planes(av: Any, image: Image.Image, picture: Picture) -> list[_Plane]:
    still = av.VideoFrame.from_image(image).reformat(format="yuv420p")
    random = Random(f"disc:{picture.prompt!r}:{picture.seed}")
    levels = (random.randrange(150, 235), random.randrange(60, 200), random.randrange(60, 200))
    radius = min(image.size) // 8
    return [
        _Plane(plane.line_size, bytes(plane), level, _spans(radius // scale), scale)
        for plane, level, scale in zip(still.planes, levels, (1, 2, 2), strict=True)
    ]


def _path(phase: float, width: int, height: int, seed: int) -> tuple[int, int]:
    """Where the disc is: once around an ellipse below the title per video, on even pixels so that all planes agree."""
    radius = min(width, height) // 8
    angle = 2 * math.pi * (phase + (seed % 360) / 360)
    x = width / 2 + (width / 2 - radius - 4) * math.cos(angle)
    y = height * 0.64 + (height * 0.36 - radius - 4) * math.sin(angle)
    return int(x) // 2 * 2, int(y) // 2 * 2


def render_poster(picture: Picture, *, thumbnail: bool = False) -> bytes:
    """A JPEG of the still picture; the thumbnail is half as wide and high."""
    image = _background(picture)
    if thumbnail:
        image = image.resize((image.width // 2, image.height // 2))
    file = BytesIO()
    image.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


@attrs.define
class Renderer:
    """Renders on a few threads and keeps the newest files, up to ``cache_bytes``; later ones are drawn again.

    ``shared`` makes one clip serve for every prompt, for tests of load rather than of pictures.
    """

    shared: Picture | None = None
    workers: int = 2
    cache_bytes: int = 64 * 2**20
    _cache: OrderedDict[tuple[Picture, str], bytes] = attrs.field(init=False, factory=OrderedDict, repr=False)
    #: Bytes in the cache.
    held: int = attrs.field(init=False, default=0)
    _pending: dict[tuple[Picture, str], Future[bytes]] = attrs.field(init=False, factory=dict, repr=False)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock, repr=False)
    _pool: ThreadPoolExecutor | None = attrs.field(init=False, default=None, repr=False)

    def request(self, picture: Picture, kind: Literal["video", "poster", "thumbnail"]) -> Future[bytes]:
        """The file's bytes, some time; raises :class:`RenderError` there when the libraries are missing."""
        key = (self.shared or picture, kind)
        with self._lock:
            content = self._cache.get(key)
            if content is not None:
                self._cache.move_to_end(key)
                ready: Future[bytes] = Future()
                ready.set_result(content)
                return ready
            if key not in self._pending:
                self._pool = self._pool or ThreadPoolExecutor(self.workers, thread_name_prefix="pika-render")
                self._pending[key] = self._pool.submit(self._draw, key)
            return self._pending[key]

    def _draw(self, key: tuple[Picture, str]) -> bytes:
        picture, kind = key
        try:
            content = render_video(picture) if kind == "video" else render_poster(picture, thumbnail=kind != "poster")
        except BaseException:
            with self._lock:
                self._pending.pop(key, None)
            raise
        with self._lock:
            self._pending.pop(key, None)
            self._cache[key] = content
            self.held += len(content)
            while self.held > self.cache_bytes and len(self._cache) > 1:
                self.held -= len(self._cache.popitem(last=False)[1])
        return content

    def close(self) -> None:
        """Stops the threads; what is being drawn is finished first."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
