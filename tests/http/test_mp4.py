"""MP4 validator: complete files, truncated files, and bytes that are not a video."""

from __future__ import annotations

import contextlib
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async._http.mp4 import Mp4Validator, NotMp4, TruncatedMp4


def box(kind: bytes, content: bytes = b"", *, size: int | None = None) -> bytes:
    return (8 + len(content) if size is None else size).to_bytes(4, "big") + kind + content


def long_box(kind: bytes, content: bytes, *, size: int | None = None) -> bytes:
    return (1).to_bytes(4, "big") + kind + (16 + len(content) if size is None else size).to_bytes(8, "big") + content


FTYP = box(b"ftyp", b"isom\0\0\2\0isom")
WHOLE = FTYP + box(b"free") + box(b"mdat", b"m" * 50) + box(b"moov", b"i" * 30)


def walk(*chunks: bytes) -> Mp4Validator:
    walker = Mp4Validator()
    for chunk in chunks:
        walker.feed(chunk)
    walker.finish()
    return walker


def verdict(*chunks: bytes) -> str:
    """Return the validator's verdict on a file, as one word or as the text of the error."""
    try:
        walk(*chunks)
    except NotMp4 as error:
        return str(error)
    return "whole"


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


LAYOUTS = ("", "faststart", "frag_keyframe+empty_moov")


@pytest.mark.parametrize("movflags", LAYOUTS)
def test_a_real_file_is_complete(movflags: str) -> None:
    """A file written by FFmpeg proves its end, with its index last, first or in fragments."""
    assert walk(real_mp4(movflags)).proves_its_end


@pytest.mark.parametrize("movflags", LAYOUTS[:2])
def test_a_real_file_cut_at_any_byte_is_refused(movflags: str) -> None:
    """A prefix of a real file is never complete, and the error is always truncation."""
    whole = real_mp4(movflags)
    for length in range(len(whole)):
        with pytest.raises(TruncatedMp4):
            walk(whole[:length])


def test_a_cut_fragmented_file_proves_no_end() -> None:
    """A truncated fragmented file is refused or does not prove its end."""
    whole = real_mp4(LAYOUTS[2])
    for length in range(len(whole)):
        with contextlib.suppress(TruncatedMp4):
            assert not walk(whole[:length]).proves_its_end


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_a_verdict(data: bytes, lead: bool) -> None:
    """Any bytes are either accepted or refused with NotMp4; no other exception is raised."""
    assert isinstance(verdict(FTYP + data if lead else data), str)


@given(st.data())
def test_any_damage_gives_a_verdict(data: st.DataObject) -> None:
    """Changed bytes in a real file give a verdict and no other error."""
    damaged = bytearray(real_mp4("faststart"))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(verdict(bytes(damaged)), str)


@given(st.lists(st.integers(0, 400), max_size=12), st.sampled_from(["", "faststart"]), st.integers(0, 3000))
def test_the_verdict_is_independent_of_chunks(cuts: list[int], movflags: str, length: int) -> None:
    """The verdict on a file, and its text, is the same however the file is cut into chunks."""
    whole = real_mp4(movflags)[:length]
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    chunks = [whole[a:b] for a, b in pairwise(edges)]
    assert verdict(*chunks) == verdict(whole)


@given(st.binary(max_size=120))
def test_single_bytes_give_the_same_verdict(data: bytes) -> None:
    """Random bytes get the same verdict one at a time as all at once."""
    assert verdict(*(bytes([byte]) for byte in data)) == verdict(data)


def test_only_a_header_is_buffered() -> None:
    """The validator buffers at most 16 bytes of a box of any length."""
    walker = Mp4Validator()
    walker.feed(FTYP + box(b"mdat", size=1 << 30))
    for _ in range(64):
        walker.feed(bytes(1 << 16))
        assert len(walker._header) <= 16


@pytest.mark.parametrize(
    "data, expected_text",
    [
        (b"", "is empty"),
        (b"Not found", "is only 9 bytes long: 'Not found'"),
        (b"<!DOCTYPE html><html>", "begins with '<!DOCTYPE html><', not with an MP4 header"),
        (b'{"error": "expired"}', 'begins with \'{"error": "expir\', not with an MP4 header'),
        (b"\x1b]0;pwned\x07 and some more", "begins with '\\x1b]0;pwned\\x07 and s', not with an MP4 header"),
        (box(b"moov", b"i" * 30), "not with an MP4 header"),
        (box(b"ftyp", size=8) + bytes(20), "has box 'ftyp' with an impossible size of 8 bytes"),
        (box(b"ftyp", bytes(20), size=0), "has a box 'ftyp' that runs to the end and leaves no room for a video"),
        (FTYP + box(b"free", size=7), "has box 'free' with an impossible size of 7 bytes"),
        (FTYP + long_box(b"mdat", b"", size=15), "has box 'mdat' with an impossible size of 15 bytes"),
        (WHOLE + box(b"moov"), "has a second box 'moov'"),
        (FTYP, "ends after box 'ftyp' without a box 'moov'"),
        (FTYP + box(b"mdat", b"m"), "ends after box 'mdat' without a box 'moov'"),
        (FTYP + box(b"moov", b"i"), "ends after box 'moov' without a box 'mdat'"),
        (FTYP + box(b"mdat", b"m" * 8, size=1220), "ends 1,204 bytes early inside box 'mdat'"),
        (WHOLE + b"\0\0\0", "ends inside the header of the box after 'moov'"),
    ],
)
def test_each_fault_has_its_error_text(data: bytes, expected_text: str) -> None:
    """The text names the box, the bytes, or the content found instead."""
    assert verdict(data).endswith(expected_text)


def test_64_bit_sizes_are_supported() -> None:
    """A box with a 64-bit size, including the first, is validated like any other."""
    assert verdict(long_box(b"ftyp", b"isom\0\0\2\0") + long_box(b"mdat", b"m" * 9) + box(b"moov")) == "whole"


def test_last_box_may_run_to_the_end() -> None:
    """A last box of size 0 takes the rest of the file, and so does not prove the end."""
    walker = walk(FTYP + box(b"moov", b"i") + box(b"mdat", b"m" * 99, size=0))
    assert not walker.proves_its_end


def test_headers_alone_suffice() -> None:
    """A reader that seeks from header to header gets the verdict of a reader of every byte."""
    walker = Mp4Validator()
    walker.add_box(0, 20, b"ftyp")
    walker.add_box(20, 100, b"mdat")
    walker.add_box(120, 0, b"moov")
    walker.finish(400)


def test_headers_must_be_contiguous() -> None:
    """A header that does not start where the previous box ended is refused."""
    walker = Mp4Validator()
    walker.add_box(0, 20, b"ftyp")
    with pytest.raises(NotMp4, match="has box 'mdat' at byte 24, where no box begins"):
        walker.add_box(24, 100, b"mdat")


@pytest.mark.parametrize(
    "length, expected_text",
    [(219, "ends 1 bytes early inside box 'moov'"), (223, "ends inside the header"), (0, "is empty")],
)
def test_headers_are_checked_against_the_length(length: int, expected_text: str) -> None:
    """After headers alone, a length that differs from their sum is refused."""
    walker = Mp4Validator()
    walker.add_box(0, 20, b"ftyp")
    walker.add_box(20, 100, b"mdat")
    walker.add_box(120, 100, b"moov")
    with pytest.raises(TruncatedMp4, match=expected_text):
        walker.finish(length)


def test_headers_alone_begin_with_ftyp() -> None:
    """The first header must be a `ftyp` header of a possible size."""
    with pytest.raises(NotMp4, match="begins with box 'moov'"):
        Mp4Validator().add_box(0, 20, b"moov")
    with pytest.raises(NotMp4, match="impossible size"):
        Mp4Validator().add_box(0, 15, b"ftyp")
