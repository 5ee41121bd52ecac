"""Decoding of text files as people have them: UTF-8, UTF-16 or, where nothing else fits, Windows-1252."""

from __future__ import annotations

import codecs
import re
from typing import Final

import attrs

from pika_async.cli.exits import InputErrors
from pika_async.cli.faults import InputFault
from pika_async.errors import shorten

__all__ = ["DecodedText", "decode_text"]

_UTF_16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: Bytes from which UTF-16 without a mark is guessed.
SAMPLE_BYTES: Final = 4096
#: Share of NUL bytes at the odd or even positions of UTF-16 without a mark, at least.
NUL_SHARE: Final = 0.4
#: A character of several bytes in UTF-8.
_UTF_8_CHARACTER: Final = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_HIGH_BYTES: Final = re.compile(rb"[\x80-\xff]+")
#: So many letters with marks in a row are a text of another alphabet, not one of Western Europe.
_OTHER_ALPHABET: Final = re.compile(rb"[\x80-\xff]{4}")
_WORD: Final = re.compile(r"\S*[^\x00-\x7f]\S*")


@attrs.frozen
class DecodedText:
    """A text, and a note for the user where its encoding was guessed."""

    text: str
    note: str | None = None


def decode_text(name: str, data: bytes) -> DecodedText:
    """Decode `data`, which is UTF-8 or UTF-16 with or without a mark, or Windows-1252.

    Windows-1252 gives a character for nearly every byte, so it is taken only where the text does not seem to be a
    damaged UTF-8 or one of another alphabet: a wrong guess would be paid for.

    :param name: name of the input, for the note and the error.
    :raises InputErrors: if the encoding cannot be known; names the line.
    """
    if data.startswith(codecs.BOM_UTF8):
        return DecodedText(_decode(name, data[len(codecs.BOM_UTF8) :], "utf-8"))
    if data.startswith(_UTF_16_MARKS):
        return DecodedText(_decode(name, data, "utf-16"))
    guessed = _utf_16_without_mark(data)
    if guessed is not None:
        return DecodedText(_decode(name, data, guessed), f"{name}: read as UTF-16, which was guessed")
    try:
        return DecodedText(data.decode())
    except UnicodeDecodeError:
        if _seems_damaged_utf_8(data) or _OTHER_ALPHABET.search(data):
            return DecodedText(_decode(name, data, "utf-8"))  # raises
    text = _decode(name, data, "cp1252")
    word = _WORD.search(text)
    example = f" (such as {shorten(word[0][:30])})" if word else ""
    return DecodedText(text, f"{name}: not UTF-8; read as Windows-1252, which was guessed{example}")


def _utf_16_without_mark(data: bytes) -> str | None:
    head = data[:SAMPLE_BYTES]
    if len(head) < 4 or len(data) % 2:
        return None
    odd, even = head[1::2], head[::2]
    if odd.count(0) > NUL_SHARE * len(odd) and not even.count(0):
        return "utf-16-le"
    return "utf-16-be" if even.count(0) > NUL_SHARE * len(even) and not odd.count(0) else None


def _seems_damaged_utf_8(data: bytes) -> bool:
    """Whether at least as many characters are in UTF-8 as bytes are not."""
    characters = _UTF_8_CHARACTER.findall(data)
    others = sum(map(len, _HIGH_BYTES.findall(data))) - sum(map(len, characters))
    return len(characters) >= others


def _decode(name: str, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-16"):
            raise InputErrors([InputFault(f"{name}:1", "must be whole UTF-16; save the file as UTF-8")]) from None
        line = data.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise InputErrors([InputFault(f"{name}:{line}", wrong)]) from None
