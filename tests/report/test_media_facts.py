"""Shape and length of files from their headers; whatever the bytes are, nothing fails."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async.emulator.render import Picture, render_video
from pika_async.report.media_facts import MediaFacts, read_media_facts
from pika_async.report.posters import draw_posters

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 640, 360)
GIF = b"GIF89a" + struct.pack("<HH", 64, 36)
JPEG = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + struct.pack(">HH", 90, 160)


@pytest.mark.parametrize(("content", "shape"), [(PNG, (640, 360)), (GIF, (64, 36)), (JPEG, (160, 90)), (b"no", None)])
def test_a_picture_has_its_shape(tmp_path: Path, content: bytes, shape: tuple[int, int] | None) -> None:
    """It stands in the header of a PNG, a GIF and a JPEG."""
    (tmp_path / "a").write_bytes(content)
    assert read_media_facts(tmp_path / "a") == MediaFacts(shape=shape)


def test_a_video_has_its_shape_and_its_length(tmp_path: Path) -> None:
    """Its poster is drawn once, and again for a newer video of the same name."""
    video, poster = tmp_path / "a.mp4", tmp_path / "posters" / "a.jpg"
    video.write_bytes(render_video(Picture(prompt="a cat", seed=1, aspect_ratio=9 / 16, seconds=1.5)))
    facts = read_media_facts(video)
    assert facts == MediaFacts(shape=(180, 320), seconds=1.5)
    assert draw_posters([video], poster.parent) == 1
    assert read_media_facts(poster).shape == facts.shape
    poster.write_bytes(b"kept")
    assert draw_posters([video], poster.parent) == 1
    assert poster.read_bytes() == b"kept"
    os.utime(poster, ns=(1, 1))
    draw_posters([video], poster.parent)
    assert read_media_facts(poster).shape == facts.shape


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: bytes(4) + b"ftyp" + tail))
def test_any_bytes_are_read_without_an_error(content: bytes) -> None:
    """Files come from gateways."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a")
        path.write_bytes(content)
        facts = read_media_facts(path)
    assert facts.seconds is None or facts.seconds > 0
    assert facts.shape is None or min(facts.shape) > 0


def test_a_missing_file_has_no_facts(tmp_path: Path) -> None:
    """A video may have been moved away."""
    assert read_media_facts(tmp_path / "none.mp4") == MediaFacts()


def test_a_file_that_is_not_a_video_gets_no_poster(tmp_path: Path) -> None:
    """This raises no error."""
    (tmp_path / "a.mp4").write_bytes(b"no video")
    assert draw_posters([tmp_path / "a.mp4", tmp_path / "none.mp4"], tmp_path / "posters") == 0
