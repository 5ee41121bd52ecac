"""MP4 validator: complete files, truncated files, and bytes that are not a video."""

from __future__ import annotations

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pika_async._http.mp4 import Mp4Validator, NotMp4, TruncatedMp4
from tests.http.media_files import box, frames_in, long_box, real_mp4, shifted

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


def test_no_content_but_the_index_is_buffered() -> None:
    """The validator buffers at most 16 bytes of a box of any length, unless it is a small index."""
    for kind in (b"mdat", b"moov"):
        walker = Mp4Validator()
        walker.feed(FTYP + box(kind, size=1 << 30))
        for _ in range(64):
            walker.feed(bytes(1 << 16))
            assert len(walker._header) <= 16
            assert walker._index_bytes is None


@pytest.mark.parametrize(
    "data, expected_text",
    [
        (b"", "is empty"),
        (b"Not", "is only 3 bytes long: 'Not'"),
        (b"\x1b]0;p\x07wned", "begins with box 'p\\x07wn', not with 'ftyp'"),
        (box(b"moov", b"i" * 30), "begins with box 'moov', not with 'ftyp'"),
        (box(b"free", b"i" * 30) + box(b"moov", b"i" * 30), "begins with box 'free', not with 'ftyp'"),
        (box(b"free", b"i" * 30, size=0), "has a box 'free' that runs to the end and leaves no room for a video"),
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


# What the boxes prove


@pytest.mark.parametrize("movflags", LAYOUTS[:2])
@pytest.mark.parametrize(
    "tail",
    [
        b"\n",
        b"\0" * 40,
        b"<!-- cache hit -->",
        b"\0\0\0\1mdat",
        b"\0\0\0\4none",
        b"\0\0\0\x20moov",
        b"\0\0\4\0free" + b"x" * 9,
    ],
)
def test_bytes_behind_the_end_do_not_matter(movflags: str, tail: bytes) -> None:
    """A file whose index is satisfied is complete with any bytes behind it, and plays with them."""
    data = real_mp4(movflags) + tail
    assert walk(data).is_whole
    assert walk(*(data[n : n + 1] for n in range(len(data)))).is_whole
    assert frames_in(data) == 3


@pytest.mark.parametrize("kind", [b"free", b"skip", b"wide"])
@pytest.mark.parametrize("size", [8, 9, 2000])
def test_padding_may_come_first(kind: bytes, size: int) -> None:
    """A box of padding in front of `ftyp` changes nothing, and the file plays."""
    data = shifted(real_mp4("faststart"), size).replace(b"free", kind, 1)
    assert walk(data).is_whole
    assert frames_in(data) == 3
    assert verdict(data[: size + 4]) != "whole"


@pytest.mark.parametrize("movflags", LAYOUTS)
def test_a_cut_file_is_never_proven(movflags: str) -> None:
    """No prefix of a real file counts as proven by its boxes, at box borders too."""
    whole = real_mp4(movflags)
    walker = Mp4Validator()
    for number in range(len(whole) - 1):
        walker.feed(whole[number : number + 1])
        assert not walker.is_whole, number
    walker.feed(whole[-1:])
    assert walker.is_whole


def test_a_file_cut_between_two_boxes_of_media_is_refused() -> None:
    """A file without the last box that its index points to is cut off, although its boxes have no gap."""
    offsets = (16 + 8 + 200, 16 + 8 + 300)
    for width, kind in ((4, b"stco"), (8, b"co64")):
        table = box(kind, bytes(4) + (2).to_bytes(4, "big") + b"".join(at.to_bytes(width, "big") for at in offsets))
        index = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table)))))
        first = FTYP + index + box(b"mdat", b"m" * (offsets[0] - len(FTYP) - len(index)))
        assert len(first) <= offsets[1]
        assert verdict(first) == "ends before the last chunk of its index"
        assert walk(first, box(b"mdat", b"m" * 200)).is_whole


@pytest.mark.parametrize("damage", [b"\xff" * 4, b"\0\0\0\2"])
def test_a_damaged_index_proves_nothing(damage: bytes) -> None:
    """An index that cannot be read leaves the verdict to the boxes and the length."""
    data = bytearray(real_mp4("faststart"))
    at = data.index(b"trak") - 4
    data[at : at + 4] = damage
    walker = walk(bytes(data))
    assert not walker.is_whole
    assert walker.proves_its_end
    assert verdict(bytes(data) + b"\n") != "whole"


def test_an_index_of_many_boxes_proves_nothing() -> None:
    """An index with more boxes than any video has is not read to its end, so that it cannot block the event loop."""
    table = box(b"stco", bytes(4) + (1).to_bytes(4, "big") + (21).to_bytes(4, "big"))
    for count, proven in ((100, True), (20_000, False)):
        index = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table)))) + box(b"free") * count)
        assert walk(FTYP, box(b"mdat", b"m" * 50), index).is_whole == proven


def test_a_large_index_is_not_read() -> None:
    """An index above the cap is neither kept nor trusted, so that a host cannot fill the memory or block the loop."""
    table = box(b"stco", bytes(4) + (1).to_bytes(4, "big") + (21).to_bytes(4, "big"))
    large = box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", table)))) + box(b"free", bytes(2 << 20)))
    assert not walk(FTYP, box(b"mdat", b"m" * 50), large).is_whole
