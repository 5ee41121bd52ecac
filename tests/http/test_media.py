"""Media validator: real files of each kind, cut, damaged and with bytes behind their end."""

from __future__ import annotations

import contextlib
import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pika_async._http.byte_walk import NotMedia, TruncatedMedia
from pika_async._http.media import MEDIA_SUFFIXES, MediaValidator
from tests.http.media_files import MAKERS, frames_in, made, made_live


def walk(*chunks: bytes) -> MediaValidator:
    validator = MediaValidator()
    for chunk in chunks:
        validator.feed(chunk)
    validator.finish()
    return validator


def verdict(*chunks: bytes) -> str:
    """Return the ending of a complete file, or the text of the error."""
    try:
        return walk(*chunks).suffix
    except NotMedia as error:
        return str(error)


kinds = pytest.mark.parametrize("name", MAKERS)


@kinds
def test_a_real_file_is_complete_under_its_own_ending(name: str) -> None:
    """A file written by FFmpeg or Pillow is recognized, proven complete, and proven only with its last byte."""
    validator = walk(made(name))
    assert validator.suffix == MAKERS[name][0]
    assert validator.is_whole
    assert validator.proves_its_end
    assert validator.suffix in MEDIA_SUFFIXES


@kinds
def test_a_file_cut_at_any_byte_is_truncated(name: str) -> None:
    """A prefix of a real file is never complete, and the error is always truncation."""
    whole = made(name)
    for length in range(len(whole)):
        with pytest.raises(TruncatedMedia):
            walk(whole[:length])


@kinds
@pytest.mark.parametrize("tail", [b"\n", b"\0" * 100, b"<!-- cached -->"], ids=["line", "zeros", "text"])
def test_bytes_behind_the_end_do_not_matter(name: str, tail: bytes) -> None:
    """Bytes behind the end mark leave a file complete, and readers open it with them."""
    data = made(name) + tail
    assert walk(data).is_whole
    if name == "webm":
        assert frames_in(data) == 6
    else:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.size == (24, 16)


def test_a_recorded_webm_proves_no_end() -> None:
    """Without sizes, a WebM is complete where an element ends, and only if the end of the body is known."""
    whole = made_live()
    validator = walk(whole)
    assert validator.suffix == ".webm"
    assert not validator.proves_its_end
    complete = 0
    for length in range(len(whole)):
        with contextlib.suppress(TruncatedMedia):
            assert not walk(whole[:length]).proves_its_end
            complete += 1
    assert 0 < complete < len(whole) / 20


def test_clusters_without_sizes_are_walked() -> None:
    """A recorder that never went back to fill in sizes leaves clusters whose own elements are walked."""
    block = b"\xa3\x85\x81\0\0\x80v"
    whole = EBML + SEGMENT + b"\x01" + b"\xff" * 7 + (CLUSTER + b"\xff" + b"\xe7\x81\0" + block * 2) * 2
    assert verdict(whole) == ".webm"
    assert verdict(whole[:-1]) != ".webm"
    assert not walk(whole).proves_its_end


@given(st.sampled_from(sorted(MAKERS)), st.lists(st.integers(0, 4000), max_size=12), st.integers(0, 8000))
def test_the_verdict_is_independent_of_chunks(name: str, cuts: list[int], length: int) -> None:
    """The verdict on a file is the same however the file is cut into chunks."""
    whole = (made(name) + b"tail")[:length]
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    assert verdict(*(whole[a:b] for a, b in pairwise(edges))) == verdict(whole)


@given(st.sampled_from(sorted(MAKERS)), st.data())
def test_any_damage_gives_a_verdict(name: str, data: st.DataObject) -> None:
    """Changed bytes in a real file give a verdict and no other error."""
    damaged = bytearray(made(name))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(verdict(bytes(damaged)), str)


@given(
    st.sampled_from([made("webm")[:60], b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b""]), st.binary(max_size=99)
)
def test_any_bytes_give_a_verdict(lead: bytes, data: bytes) -> None:
    """Any bytes behind a mark are either accepted or refused with NotMedia; no other exception is raised."""
    assert isinstance(verdict(lead + data), str)


EBML = bytes.fromhex("1a45dfa3") + b"\x87\x42\x82\x84webm"
SEGMENT = bytes.fromhex("18538067")
CLUSTER = bytes.fromhex("1f43b675")


@pytest.mark.parametrize(
    "data, expected_text",
    [
        (b"", "is empty"),
        (b"Not found", "is only 9 bytes long: 'Not found'"),
        (b"<!DOCTYPE html><html>", "begins with '<!DOCTYPE html><', which is none of MP4, WebM, GIF, PNG, JPEG, WebP"),
        (b"\x1b]0;pwned\x07 and some more", "begins with '\\x1b]0;pwned\\x07 and s', which is none of"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "begins with 'RIFF$\\x00\\x00\\x00WAVEfmt ', which is none of"),
        (b"RIFF\x24\0\0\0WEBPfmt " + bytes(40), "has a chunk 'fmt ' where no WebP has one"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0IEND" + bytes(4), "has a chunk 'IEND' where no PNG has one"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0IHDR\0\0\0\0\0\0\0\0IEND\0\0\0\0", "is a PNG without a picture"),
        (b"GIF89a\1\0\1\0\0\0\0;" + bytes(4), "is a GIF without a picture"),
        (b"GIF89a\1\0\1\0\0\0\0x" + bytes(4), "has a block 'x' where no GIF has one"),
        (b"\xff\xd8\xff\xd9" + bytes(14), "is a JPEG without a picture"),
        (b"\xff\xd8\xff\xe0\0\1" + bytes(14), "has a segment that no JPEG has"),
        (b"\xff\xd8\xff\xe0\0\2\0" + bytes(14), "ends after 21 bytes, before its end mark"),
        (b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska" + bytes(9), "has an EBML header, but not that of a WebM"),
        (EBML + CLUSTER + b"\x81" + bytes(9), "has another element than a segment behind its header"),
        (EBML + SEGMENT + b"\x80" + bytes(9), "has a segment without a cluster"),
        (EBML + SEGMENT + b"\x86" + CLUSTER + b"\x89" + bytes(9), "has an element larger than its segment"),
        (EBML + b"\xec\x81\0" + SEGMENT + b"\x86" + CLUSTER + b"\x81\0" + b"more", ".webm"),
        (EBML + SEGMENT + b"\xff" + b"\xec\xff" + bytes(9), "has an element of unknown size that is not a cluster"),
    ],
)
def test_each_fault_has_its_error_text(data: bytes, expected_text: str) -> None:
    """The text names the part or the bytes that were found, with control characters escaped."""
    assert expected_text in verdict(data)


@pytest.mark.parametrize(
    "text", [b"<!DOCTYPE html>", b"\xef\xbb\xbf \r\n<html>", b'{"error": 1}', b"<?xml version='1.0'?><Error/>", b"<p>"]
)
def test_a_page_is_recognized(text: bytes) -> None:
    """A web page, XML or JSON in place of a file is recognized by its first character."""
    validator = MediaValidator()
    with contextlib.suppress(NotMedia):
        validator.feed(text)
    assert validator.is_page
    other = MediaValidator()
    other.feed(made("png"))
    assert not other.is_page
