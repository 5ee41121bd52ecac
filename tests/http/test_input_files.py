"""Files to send: what is not a picture by its first bytes is named, and what was cut is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pika_async._http.input_files import WrongInput, check_structure, kind_of_input
from pika_async._http.marks import FOREIGN_KINDS, MARK_BYTES, PICTURE_KINDS, VIDEO_KINDS, recognize
from tests.http.media_files import MAKERS, made, picture, real_mp4

PICTURES = [name for name in MAKERS if name != "webm"]


def check(data: bytes, field: str = "image") -> str:
    """Return the content type of a file that may be sent, or the text of the refusal."""
    try:
        kind = kind_of_input(field, data[:MARK_BYTES])
        check_structure(field, kind, [data])
    except WrongInput as error:
        return str(error)
    return kind.content_type


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = b"".join(compatible)
    return (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + major + b"\0\0\0\0" + brands + b"\0\0\0\x08mdat"


def saved(kind: str) -> bytes:
    file = io.BytesIO()
    picture().save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_passes_and_a_cut_one_does_not(name: str) -> None:
    """A real picture passes with its content type; without its last byte it is named as cut."""
    whole = made(name)
    assert check(whole).startswith("image/")
    assert check(whole + b"\n\0 behind the end") == check(whole)
    for length in (1 + len(whole) // 2, len(whole) - 1):
        assert "must be a whole file, but ends after" in check(whole[:length])
    assert "must be an MP4, QuickTime or WebM video, but is a" in check(whole, "video")


CONVERTED: dict[str, tuple[bytes, str]] = {
    **({"AVIF of Pillow": (saved("AVIF"), "an AVIF picture")} if ".avif" in Image.registered_extensions() else {}),
    "TIFF of Pillow": (saved("TIFF"), "a TIFF picture"),
    "BMP of Pillow": (saved("BMP"), "a BMP picture"),
    "ICO of Pillow": (saved("ICO"), "an icon (ICO)"),
    "JPEG 2000 of Pillow": (saved("JPEG2000"), "a JPEG 2000 picture"),
    "PDF of Pillow": (saved("PDF"), "a PDF document"),
    "EPS of Pillow": (saved("EPS"), "a PostScript document"),
    "HEIC of a phone": (ftyp(b"heic", b"mif1", b"heic"), "a HEIC picture"),
    "HEIC as HEIF": (ftyp(b"mif1", b"mif1", b"heic", b"miaf"), "a HEIC picture"),
    "AVIF as HEIF": (ftyp(b"mif1", b"avif", b"miaf"), "an AVIF picture"),
    "HEIF": (ftyp(b"mif1", b"mif1"), "a HEIF picture"),
    "AVIF sequence": (ftyp(b"avis", b"avif"), "an AVIF picture"),
    "raw of Canon": (ftyp(b"crx ", b"crx "), "a camera's raw picture"),
    "raw of Fuji": (b"FUJIFILMCCD-RAW 0201", "a camera's raw picture"),
    "big-endian TIFF": (b"MM\0*\0\0\0\x08", "a TIFF picture"),
    "JPEG XL": (b"\xff\x0a\xfa\x1f", "a JPEG XL picture"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG picture"),
    "SVG with a declaration": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- made -->\n<svg/>', "an SVG picture"),
    "Photoshop": (b"8BPS\0\1", "a Photoshop document"),
}
OTHERS: dict[str, tuple[bytes, str]] = {
    "MP4": (real_mp4(""), "an MP4 video"),
    "MOV": (ftyp(b"qt  ", b"qt  "), "a QuickTime video"),
    "MOV of old": (b"\0\0\x10\0moov", "a QuickTime video"),
    "WebM": (made("webm"), "a WebM"),
    "AVI": (b"RIFF\0\0\0\0AVI LIST", "an AVI video"),
    "HTML": (b"<!DOCTYPE html><html><body>403", "an HTML page"),
    "HTML after white space": (b"\r\n \xef\xbb\xbf"[:3] + b"<HTML>", "an HTML page"),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied", "an XML document"),
    "JSON": (b'{"error": "not found"}', "a JSON document"),
    "base64": (b"iVBORw0KGgoAAAANSUhEUgAA", "text in base64"),
    "data URI": (b"data:image/png;base64,iVBORw0KGgo", "a data URI"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "a pointer of Git LFS"),
    "ZIP": (b"PK\3\4\x14\0", "a ZIP archive"),
    "WAV": (b"RIFF\0\0\0\0WAVEfmt ", "a sound file"),
}


@pytest.mark.parametrize("name", [*CONVERTED, *OTHERS])
def test_another_kind_of_file_is_named(name: str) -> None:
    """The refusal names the kind and the way out; a picture or a document is to be converted."""
    data, title = (CONVERTED | OTHERS)[name]
    text = check(data)
    assert f"must be a PNG, JPEG, WebP or GIF picture, but is {title}; " in text
    assert ("; convert it to PNG or JPEG" in text) == (name in CONVERTED)


@pytest.mark.parametrize("data", [b"\0", b"hello world", b"\x89PNG", b"GIF", b"BM", b"RIFF", b"\0\0\2\0" + bytes(14)])
def test_an_unknown_file_is_shown_by_its_first_bytes(data: bytes) -> None:
    """Bytes that are the mark of nothing, or the beginning of a mark, are shown without control characters."""
    text = check(data)
    assert ", but begins with " in text
    assert text.isprintable()


def test_a_video_is_taken_where_a_video_belongs() -> None:
    """MP4, QuickTime and WebM pass in the field for videos, cut ones do not."""
    assert check(real_mp4(""), "video") == "video/mp4"
    assert check(made("webm"), "video") == "video/webm"
    whole = real_mp4("")
    assert check(whole[:8] + b"qt  " + whole[12:], "video") == "video/quicktime"
    assert "must be a whole file" in check(real_mp4("")[:-9], "video")
    assert "must be a whole file" in check(made("webm")[:-9], "video")


def test_a_jpeg_with_bytes_between_its_segments_passes() -> None:
    """Decoders skip such bytes with a warning, so they are not a reason to refuse a picture that can be shown."""
    whole = made("jpeg")
    second = 4 + int.from_bytes(whole[4:6], "big")
    odd = whole[:second] + b"\0\0junk" + whole[second:]
    with Image.open(io.BytesIO(odd)) as image:
        image.load()
    assert check(odd) == "image/jpeg"


@pytest.mark.parametrize(
    "data", [b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a\1\0\1\0\0\0\0x" + bytes(9), b"\xff\xd8\xff\xd9" + bytes(20)]
)
def test_a_picture_that_no_decoder_reads_is_refused(data: bytes) -> None:
    """The mark alone makes no picture."""
    assert "must be a sound " in check(data)
    with pytest.raises(Exception, match=r".+"), Image.open(io.BytesIO(data)) as image:
        image.load()


marks = st.sampled_from([made(name)[:40] for name in MAKERS] + [data[:40] for data, _ in (CONVERTED | OTHERS).values()])


@given(
    st.binary(max_size=40)
    | st.builds(lambda a, b, cut: a[:cut] + b, marks, st.binary(max_size=600), st.integers(0, 40))
)
def test_any_first_bytes_give_a_verdict(data: bytes) -> None:
    """Any bytes are a known kind or not, and no other error is raised; only the first bytes decide the kind."""
    kind = recognize(data[:MARK_BYTES])
    assert kind is None or kind in (*PICTURE_KINDS, *VIDEO_KINDS, *FOREIGN_KINDS)
    for field in ("image", "video", "ingredients[0]"):
        assert check(data, field).isprintable()


@given(st.sampled_from(PICTURES), st.binary(max_size=2000), st.integers(0, 3000))
def test_no_picture_is_taken_for_another_kind(name: str, tail: bytes, cut: int) -> None:
    """The mark of a picture is not the mark of anything else, whatever stands behind it."""
    head = made(name)[:16] + made(name)[16 : 16 + cut] + tail
    kinds: list[Any] = [
        kind for kind in (*PICTURE_KINDS, *VIDEO_KINDS, *FOREIGN_KINDS) if kind.matches(head[:MARK_BYTES])
    ]
    assert len(kinds) == 1


def test_chunks_give_the_same_verdict_as_the_whole() -> None:
    """A file may be checked in pieces: a whole picture passes, a cut one does not."""
    data = made("png")
    kind = kind_of_input("image", data)
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    check_structure("image", kind, pieces)
    with pytest.raises(WrongInput, match="must be a whole file, but ends after"):
        check_structure("image", kind, pieces[:-1])
