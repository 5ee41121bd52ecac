"""CDN of the emulator: paths, byte ranges, strong ETags. Pure: does no I/O and renders no files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

import attrs

from pika_async.emulator.fault_effects import apply_fault
from pika_async.emulator.faults import Fault
from pika_async.emulator.records import Answer, Task
from pika_async.emulator.replies import slug

__all__ = ["Media", "MediaKind", "expired_answer", "media_files", "parse_media_path", "serve_media"]

MediaKind = Literal["video", "poster", "thumbnail"]
#: Headers that carry credentials, which must never be sent to a CDN.
CREDENTIALS = ("Authorization", "Cookie", "Proxy-Authorization", "X-API-Key")


@attrs.frozen
class Media:
    """File at the CDN, and the fault of its delivery."""

    task: Task
    kind: MediaKind
    fault: Fault | None = None


def media_files(origin: str, task: Task, expires_at: float | None, name: str | None = None) -> dict[str, str]:
    """Return the URLs of a task's files by kind: ``video share poster thumbnail``.

    *name* replaces the file name of the video.
    """
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


def parse_media_path(path: str) -> tuple[str, MediaKind, float | None] | None:
    """Return the task id, the kind of file and the expiry time of a CDN path, or ``None`` if it names no file."""
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


def expired_answer(status: int) -> Answer:
    """Return the CDN's answer for an expired URL."""
    page = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
    return Answer(status, {"Content-Type": "application/xml"}, page)


def serve_media(
    media: Media, content: bytes, headers: Mapping[str, str], *, count: int = 0, time_scale: float = 1.0
) -> Answer:
    """Return the CDN's answer for a file: the whole content, a range of it, or the effect of the media's fault.

    :param headers: headers of the request, with names in lower case.
    :param count: a number that differs for each request, for the fault ``etag``.
    """
    fault = media.fault
    name = fault.name if fault else ""
    tag = hashlib.sha256(content).hexdigest()[:32]
    if name == "etag":
        tag = f"{tag}-{count}"
    type_ = "video/mp4" if media.kind == "video" else "image/jpeg"
    base = {"Content-Type": type_, "ETag": f'"{tag}"', "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
    span = None if name == "no-range" else _parse_range(headers, len(content), f'"{tag}"')
    if span == ():
        answer = Answer(416, {**base, "Content-Range": f"bytes */{len(content)}"}, b"")
    elif span:
        start, end = span
        if fault and name == "wrong-range":
            start = max(0, min(start + fault["shift"], end - 1))
        base["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        answer = Answer(206, base, content[start:end])
    else:
        answer = Answer(200, base, content)
    if fault is None:
        return answer
    return apply_fault(answer, fault, provider=media.task.provider, time_scale=time_scale)


def _parse_range(headers: Mapping[str, str], size: int, tag: str) -> tuple[int, int] | tuple[()] | None:
    """Return the requested half-open range, ``None`` for the whole content, or ``()`` if it cannot be satisfied."""
    condition = headers.get("if-range")
    # With a weak or different validator the whole content is sent (RFC 9110, section 13.1.5).
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
