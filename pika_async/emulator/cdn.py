"""The pure side of the emulator's CDN: what a path names, and an answer with ranges and a strong ETag."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

import attrs

from pika_async.emulator.fault_effects import damaged
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import Answer, Task
from pika_async.emulator.replies import slug

__all__ = ["Media", "MediaKind", "expired", "media_files", "serve_media", "split_media_path"]

MediaKind = Literal["video", "poster", "thumbnail"]
#: Headers that are the API's business and must never reach a CDN.
CREDENTIALS = ("Authorization", "Cookie", "Proxy-Authorization")


@attrs.frozen
class Media:
    """A file that the CDN has, and the fault that strikes its delivery."""

    task: Task
    kind: MediaKind
    deed: Fault | None = None


def media_files(origin: str, task: Task, expires_at: float | None, name: str | None = None) -> dict[str, str]:
    """The URLs of a finished task's files: ``video share poster thumbnail``; ``name`` replaces the video's."""
    root = f"{origin}/v1/{task.id}"
    stem = f"{slug(task.prompt)}_seed{task.seed}"
    query = "" if expires_at is None else f"?expires={expires_at:.3f}"
    video = f"{stem}.mp4" if name is None else quote(name, safe="")
    return {
        "video": f"{root}/{video}{query}",
        "share": f"{root}/{stem}_share.mp4{query}",
        "poster": f"{root}/poster.jpg{query}",
        "thumbnail": f"{root}/thumbnail.jpg{query}",
    }


def split_media_path(path: str) -> tuple[str, MediaKind, float | None] | None:
    """The task, the kind of file and the time at which a CDN path expires; ``None`` when it names no file."""
    parts = urlsplit(path)
    match = re.fullmatch(r"/v1/([^/]+)/([^/]+)", parts.path)
    if match is None:
        return None
    try:
        expires = float(parse_qs(parts.query).get("expires", ["inf"])[0])
    except ValueError:
        return None
    name = match[2]
    kind: MediaKind = "poster" if name == "poster.jpg" else "thumbnail" if name == "thumbnail.jpg" else "video"
    return match[1], kind, expires


def expired(status: int) -> Answer:
    """What the CDN says when a URL has lived too long."""
    page = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    return Answer(status, {"Content-Type": "application/xml"}, page)


def serve_media(
    media: Media, content: bytes, headers: Mapping[str, str], *, count: int = 0, time_scale: float = 1.0
) -> Answer:
    """The CDN's answer for a file's content: the whole of it, a range, or what the script makes of it.

    ``headers`` are looked up in lower case. ``count`` makes a changed ETag differ from the one before.
    """
    deed = media.deed
    fault = deed.fault if deed else ""
    tag = hashlib.sha256(content).hexdigest()[:32]
    if fault == "etag":
        tag = f"{tag}-{count}"
    type_ = "video/mp4" if media.kind == "video" else "image/jpeg"
    base = {"Content-Type": type_, "ETag": f'"{tag}"', "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
    wanted = None if fault == "no-range" else _range(headers, len(content), f'"{tag}"')
    if wanted == ():
        answer = Answer(416, {**base, "Content-Range": f"bytes */{len(content)}"}, b"")
    elif wanted:
        start, end = wanted
        if deed and fault == "wrong-range":
            start = max(0, min(start + deed["shift"], end - 1))
        base["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        answer = Answer(206, base, content[start:end])
    else:
        answer = Answer(200, base, content)
    if deed is None:
        return answer
    return damaged(answer, deed, provider=media.task.provider, time_scale=time_scale)


def _range(headers: Mapping[str, str], size: int, tag: str) -> tuple[int, int] | tuple[()] | None:
    """The half-open range that is asked for: ``None`` for the whole, ``()`` for one that cannot be met."""
    condition = headers.get("if-range")
    # A weak or other validator means: send the whole (RFC 9110, section 13.1.5).
    if condition is not None and condition.strip() != tag:
        return None
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", headers.get("range", "").strip())
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        length = int(match[2])
        return (max(0, size - length), size) if length else ()
    start = int(match[1])
    end = min(size, int(match[2]) + 1) if match[2] else size
    if start >= size:
        return ()
    return (start, end) if start < end else None
