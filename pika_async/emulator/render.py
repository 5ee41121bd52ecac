"""Renderer of H.264 MP4s and JPEG posters that show a prompt. The same prompt and seed give the same bytes.

PyAV and Pillow are imported when the first file is rendered, so the emulator can be imported without them.
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

#: Approximate number of pixels of a video; small enough to render hundreds of videos in seconds.
AREA_PIXELS = 320 * 180
# Text stays legible at this JPEG quality.
_JPEG_QUALITY = 85


class RenderError(RuntimeError):
    """PyAV or Pillow is not installed."""


@attrs.frozen(kw_only=True)
class Picture:
    """Content of a video. ``frame_rate`` is in frames per second, ``seconds`` is the duration."""

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
        raise RenderError('rendering videos needs PyAV and Pillow: pip install "pika_async[emulator]"') from None
    return av, Image, ImageDraw, ImageFont


def even_size(aspect_ratio: float) -> tuple[int, int]:
    """Return an even width and height of about 57,600 pixels with the nearest ratio (limited to 1:5 to 5:1)."""
    ratio = min(5.0, max(0.2, aspect_ratio))
    middle = round(math.sqrt(AREA_PIXELS / ratio) / 2)
    heights = [2 * half for half in range(middle - 6, middle + 7)]
    sizes = [(2 * round(height * ratio / 2), height) for height in heights]
    # By ratio first, then by area: 320 x 180 for 16:9.
    return min(sizes, key=lambda size: (round(abs(size[0] / size[1] - ratio), 4), abs(size[0] * size[1] - AREA_PIXELS)))


@functools.lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return _libraries()[3].load_default(size)  # type: ignore[no-any-return]


# The rendering threads share FreeType faces, which are not thread-safe.
_FONT_LOCK = threading.Lock()


def _background(picture: Picture) -> Image.Image:
    """Draw the still part of a video: a colour gradient with the prompt as its title."""
    _, image_module, draw_module, _ = _libraries()
    random = Random(f"{picture.prompt!r}:{picture.seed}")
    width, height = even_size(picture.aspect_ratio)
    hue = random.randrange(256)
    with _FONT_LOCK:
        # Twelve random colours, interpolated: cheap to draw, and different for every prompt.
        points = image_module.new("RGB", (4, 3))
        colours = [_colour((hue + random.randrange(90)) % 256, random.randrange(50, 170)) for _ in range(12)]
        points.putdata(colours)
        image = points.resize((width, height), image_module.Resampling.BICUBIC)
        draw = draw_module.Draw(image)
        size = max(11, round(math.sqrt(width * height) / 13))
        lines = _wrapped(_printable(picture.prompt), max(8, int(width / size * 1.7)), 3)
        for row, line in enumerate(lines):
            position = (round(width * 0.06), round(height * 0.08 + row * size * 1.25))
            draw.text(position, line, font=_font(size), fill="white", stroke_width=1, stroke_fill="#00000080")
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
    words = [word[start : start + columns] for word in text.split() for start in range(0, len(word), columns)]
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > columns:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    lines = [line for line in lines if line]
    return lines if len(lines) <= rows else [*lines[: rows - 1], lines[rows - 1][: columns - 3] + "..."]


def _disc_spans(radius: int) -> list[tuple[int, int]]:
    """Return the rows of a disc: offset from its centre and half width."""
    return [(row, round(math.sqrt(radius * radius - row * row))) for row in range(-radius, radius + 1)]


@attrs.define
class _Plane:
    """One colour plane of the still picture, and the disc that is painted over a copy of it."""

    stride: int
    still: bytes
    level: int
    spans: list[tuple[int, int]]
    scale: int

    def with_disc(self, x: int, y: int) -> bytearray:
        painted = bytearray(self.still)
        centre = y // self.scale * self.stride + x // self.scale
        disc_row = bytes((self.level,)) * self.stride
        for row, half_width in self.spans:
            start = centre + row * self.stride - half_width
            painted[start : start + 2 * half_width + 1] = disc_row[: 2 * half_width + 1]
        return painted


def render_video(picture: Picture) -> bytes:
    """Return an MP4 (H.264, yuv420p, ``moov`` first) of the prompt with a moving disc."""
    av = _libraries()[0]
    image = _background(picture)
    width, height = image.size
    frames = max(1, round(picture.seconds * picture.frame_rate))
    with tempfile.TemporaryDirectory(prefix="pika-emulator-") as folder:
        # A real file, because "faststart" reads it a second time to move the moov box to the front.
        path = Path(folder) / "video.mp4"
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=picture.frame_rate)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "28", "threads": "1", "g": "48"}
            planes = _planes(av, image, picture)
            for number in range(frames):
                frame = av.VideoFrame(width, height, "yuv420p")
                x, y = _disc_position(number / frames, width, height, picture.seed)
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
        _Plane(plane.line_size, bytes(plane), level, _disc_spans(radius // scale), scale)
        for plane, level, scale in zip(still.planes, levels, (1, 2, 2), strict=True)
    ]


def _disc_position(phase: float, width: int, height: int, seed: int) -> tuple[int, int]:
    """Return the position of the disc at *phase* (0 to 1) of a video.

    The disc moves once around an ellipse below the title. Its coordinates are even, so that they are exact in the
    subsampled colour planes.
    """
    radius = min(width, height) // 8
    angle = 2 * math.pi * (phase + (seed % 360) / 360)
    x = width / 2 + (width / 2 - radius - 4) * math.cos(angle)
    y = height * 0.64 + (height * 0.36 - radius - 4) * math.sin(angle)
    return int(x) // 2 * 2, int(y) // 2 * 2


def render_poster(picture: Picture, *, thumbnail: bool = False) -> bytes:
    """Return a JPEG of the still picture. The thumbnail has half its width and height."""
    image = _background(picture)
    if thumbnail:
        image = image.resize((image.width // 2, image.height // 2))
    file = BytesIO()
    image.save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


@attrs.define
class Renderer:
    """Thread pool that renders files, with a cache of the most recently used.

    :param shared: a picture to render instead of every requested one, for load tests; default none.
    :param workers: number of threads; default 2.
    :param cache_bytes: maximum size of the cache in bytes; default 64 MiB. Evicted files are rendered again.
    """

    shared: Picture | None = None
    workers: int = 2
    cache_bytes: int = 64 * 2**20
    _cache: OrderedDict[tuple[Picture, str], bytes] = attrs.field(init=False, factory=OrderedDict, repr=False)
    #: Size of the cached files in bytes.
    cached_bytes: int = attrs.field(init=False, default=0)
    _pending: dict[tuple[Picture, str], Future[bytes]] = attrs.field(init=False, factory=dict, repr=False)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock, repr=False)
    _pool: ThreadPoolExecutor | None = attrs.field(init=False, default=None, repr=False)

    def request(self, picture: Picture, kind: Literal["video", "poster", "thumbnail"]) -> Future[bytes]:
        """Return a future of the file's bytes. It raises :class:`RenderError` if PyAV or Pillow is missing."""
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
                self._pending[key] = self._pool.submit(self._render, key)
            return self._pending[key]

    def _render(self, key: tuple[Picture, str]) -> bytes:
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
            self.cached_bytes += len(content)
            while self.cached_bytes > self.cache_bytes and len(self._cache) > 1:
                self.cached_bytes -= len(self._cache.popitem(last=False)[1])
        return content

    def close(self) -> None:
        """Stop the threads after the files that they are rendering."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
