"""First bytes of files: the kind that they are the mark of. One table for results and for files to send. Reads nothing.

The marks are those of the formats' own documents, as `file` and the WHATWG's "MIME Sniffing" list them too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import attrs

__all__ = [
    "FOREIGN_KINDS",
    "GIF",
    "JPEG",
    "MARK_BYTES",
    "MP4",
    "PICTURE_KINDS",
    "PNG",
    "QUICKTIME",
    "VIDEO_KINDS",
    "WEBM",
    "WEBP",
    "FileKind",
    "is_page",
    "recognize",
]  # fmt: skip

#: Bytes that are enough for every mark of the table; those of a result need the first 16.
MARK_BYTES: Final = 512
EBML_ID: Final = b"\x1a\x45\xdf\xa3"
#: First byte of a page or a JSON document, after white space and a byte order mark.
PAGE_MARKS: Final = (b"<", b"{")
#: Sizes of the second header of a BMP, one for each version of the format.
BMP_HEADER_SIZES: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
#: The first characters of a PNG, a JPEG, a GIF and a WebP in base64.
BASE64_MARKS: Final = (b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR")
HTML_PATTERN: Final = re.compile(rb"(<!--.*?-->\s*)*<(!doctype html|html|head|body|script|title|meta|p|div|h1)\b")

_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIF_BRANDS: Final = frozenset({b"mif1", b"msf1", b"mif2"})

Match = Callable[[bytes], bool]


@attrs.frozen
class FileKind:
    """Kind of file, and whether the first bytes of a file are its mark."""

    #: With an article, for a sentence: "a PNG".
    title: str
    matches: Match
    #: Ending of file names; "" for a kind that is neither sent nor fetched.
    suffix: str = ""
    content_type: str = "application/octet-stream"
    #: What to do with a file of this kind where a picture is expected.
    way_out: str = "give a PNG or JPEG picture"

    @property
    def name(self) -> str:
        """The title without its article."""
        return self.title.partition(" ")[2]


def _begins(*marks: bytes) -> Match:
    return lambda head: head.startswith(marks)


def _riff(form: bytes) -> Match:
    return lambda head: head[:4] == b"RIFF" and head[8:12] == form


def _brands(head: bytes) -> frozenset[bytes]:
    """Return the brands of an ISO file: the major one and those that it is compatible with; empty for other files."""
    if head[4:8] != b"ftyp":
        return frozenset()
    size = int.from_bytes(head[:4], "big")
    return frozenset({head[8:12], *(head[at : at + 4] for at in range(16, min(size, len(head)), 4))})


def _has_brand(brands: frozenset[bytes]) -> Match:
    """Match ISO files of which one of `brands` is the major brand, or stands beside a brand of all HEIF files."""
    return lambda head: (
        head[8:12] in brands & _brands(head) or bool(_brands(head) & brands and head[8:12] in _HEIF_BRANDS)
    )


def _text(head: bytes) -> bytes:
    """Return the beginning of a text in lower case, without a byte order mark and white space."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()


def _is_svg(head: bytes) -> bool:
    text = _text(head)
    return text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in text)


def _is_html(head: bytes) -> bool:
    return HTML_PATTERN.match(_text(head)) is not None


def is_page(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a web page or a JSON document."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(PAGE_MARKS)


def _is_bmp(head: bytes) -> bool:
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in BMP_HEADER_SIZES


def _is_icon(head: bytes) -> bool:
    return head[:4] in {b"\0\0\1\0", b"\0\0\2\0"} and 0 < int.from_bytes(head[4:6], "little") < 256


_CONVERT: Final = "convert it to PNG or JPEG"
_FRAME: Final = "give a frame of it as PNG or JPEG"
_PAGE: Final = "give the picture itself, as PNG or JPEG"

GIF: Final = FileKind("a GIF", _begins(b"GIF87a", b"GIF89a"), ".gif", "image/gif")
PNG: Final = FileKind("a PNG", _begins(b"\x89PNG\r\n\x1a\n"), ".png", "image/png")
JPEG: Final = FileKind("a JPEG", _begins(b"\xff\xd8\xff"), ".jpg", "image/jpeg")
WEBP: Final = FileKind("a WebP", _riff(b"WEBP"), ".webp", "image/webp")
#: Also of a Matroska file: which of the two it is stands further on.
WEBM: Final = FileKind("a WebM", _begins(EBML_ID), ".webm", "video/webm", _FRAME)
QUICKTIME: Final = FileKind(
    "a QuickTime video", lambda head: head[4:8] in {b"moov", b"mdat", b"wide"} or head[4:12] == b"ftypqt  ",
    ".mov", "video/quicktime", _FRAME,
)  # fmt: skip
#: Every other ISO file that begins with its brands: after those below, which share that mark.
MP4: Final = FileKind("an MP4 video", lambda head: head[4:8] == b"ftyp", ".mp4", "video/mp4", _FRAME)

#: The pictures that a request may hold.
PICTURE_KINDS: Final = (PNG, JPEG, WEBP, GIF)
#: The videos that a request may hold.
VIDEO_KINDS: Final = (MP4, QUICKTIME, WEBM)
#: Kinds that are neither, by name, so that a person finds out what the file is.
FOREIGN_KINDS: Final = (
    FileKind("a HEIC picture", _has_brand(_HEIC_BRANDS), way_out=_CONVERT),
    FileKind("an AVIF picture", _has_brand(_AVIF_BRANDS), way_out=_CONVERT),
    FileKind("a HEIF picture", _has_brand(_HEIF_BRANDS), way_out=_CONVERT),
    FileKind("a camera's raw picture", lambda head: head[4:12] == b"ftypcrx ", way_out=_CONVERT),
    FileKind(
        "a camera's raw picture",
        lambda head: (
            head.startswith((b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0")) or head[:10] == b"II*\0\x10\0\0\0CR"
        ),
        way_out=_CONVERT,
    ),
    FileKind("a TIFF picture", _begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), way_out=_CONVERT),
    FileKind("a BMP picture", _is_bmp, way_out=_CONVERT),
    FileKind("a JPEG XL picture", _begins(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"), way_out=_CONVERT),
    FileKind("a JPEG 2000 picture", _begins(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"), way_out=_CONVERT),
    FileKind("an icon (ICO)", _is_icon, way_out=_CONVERT),
    FileKind("a Photoshop document", _begins(b"8BPS"), way_out=_CONVERT),
    FileKind("a PDF document", _begins(b"%PDF-"), way_out=_CONVERT),
    FileKind("a PostScript document", _begins(b"%!PS", b"\xc5\xd0\xd3\xc6"), way_out=_CONVERT),
    FileKind("an SVG picture", _is_svg, way_out=_CONVERT),
    FileKind("an HTML page", _is_html, way_out=_PAGE),
    FileKind("an XML document", lambda head: _text(head).startswith(b"<"), way_out=_PAGE),
    FileKind("a JSON document", lambda head: _text(head).startswith(b"{"), way_out=_PAGE),
    FileKind("a data URI", lambda head: _text(head).startswith(b"data:"), way_out="give that text itself"),
    FileKind("text in base64", _begins(*BASE64_MARKS), way_out="decode it first"),
    FileKind("a pointer of Git LFS", _begins(b"version https://git-lfs"), way_out="fetch the file with git lfs pull"),
    FileKind("an AVI video", _riff(b"AVI "), way_out=_FRAME),
    FileKind("an MPEG video", _begins(b"\0\0\1\xba", b"\0\0\1\xb3"), way_out=_FRAME),
    FileKind("a Flash video", _begins(b"FLV\1"), way_out=_FRAME),
    FileKind("a Windows Media file", _begins(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), way_out=_FRAME),
    FileKind("a sound file", lambda head: _riff(b"WAVE")(head) or head.startswith((b"ID3", b"fLaC", b"OggS"))),
    FileKind("a ZIP archive", _begins(b"PK\3\4", b"PK\5\6")),
    FileKind("a gzip archive", _begins(b"\x1f\x8b\x08")),
    FileKind("an executable", _begins(b"\x7fELF", b"MZ")),
)


def recognize(head: bytes) -> FileKind | None:
    """Return the kind of a file by its first `MARK_BYTES` bytes, or all of a shorter one; None if it is not known."""
    kinds = (*PICTURE_KINDS, *FOREIGN_KINDS, QUICKTIME, MP4, WEBM)
    return next((kind for kind in kinds if kind.matches(head)), None)
