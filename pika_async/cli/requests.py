"""Rows -> checked requests with a key each: everything that can be refused without the provider is refused here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from pika_async._journal.protocol import Journal
from pika_async._planning.keys import KeyAssigner
from pika_async.cli.exits import InputErrors, UsageError
from pika_async.cli.inputs import Row, parse_csv, parse_jsonl, parse_text, parse_unnamed
from pika_async.errors import InvalidRequest, shorten, strip_control
from pika_async.fields import is_url
from pika_async.models import GenerationRequest
from pika_async.providers import Provider

__all__ = ["InputRequest", "assign_keys", "check_local_files", "check_rows", "read_input"]

_PARSERS: Final[dict[str, Callable[[str, bytes], list[Row]]]] = {
    ".jsonl": parse_jsonl,
    ".csv": parse_csv,
    ".txt": parse_text,
}
#: No gateway takes a picture of this size in a request, in bytes: it is not even read.
_MAX_IMAGE_BYTES: Final = 64 << 20


@attrs.frozen
class InputRequest:
    """A request, its 0-based position among the rows of the input, and where it was written."""

    request: GenerationRequest
    index: int
    location: str

    @property
    def key(self) -> str:
        """The key of the job; a row that was written without one has it from `with_keys`."""
        assert self.request.key is not None  # noqa: S101 - every use comes after
        return self.request.key


def read_input(source: str) -> tuple[str, list[Row]]:
    """The name and the rows of a file, or of standard input for `-`.

    :raises UsageError: if it cannot be read, is no file, or its suffix is not known.
    :raises InputErrors: if it is not UTF-8, or its header is wrong.
    """
    if source == "-":
        if sys.stdin is None:
            raise UsageError("-: standard input is closed")
        return "stdin", parse_unnamed("stdin", sys.stdin.buffer.read())
    path = Path(source)
    parse = _PARSERS.get(path.suffix.lower())
    name = strip_control(source)
    if parse is None:
        raise UsageError(
            f"{name}: has no suffix that is known; give a .jsonl, .csv or .txt file, or - for standard input"
        )
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return name, parse(name, data)


def check_rows(name: str, rows: Sequence[Row], provider: Provider) -> list[InputRequest]:
    """The requests of `rows`, checked against `provider`. Rows that are equal in key and content are one request.

    :raises InputErrors: lists every row that cannot be sent; nothing was sent.
    """
    planned: list[InputRequest] = []
    by_key: dict[str, InputRequest] = {}
    problems: list[str] = []
    for index, row in enumerate(rows):
        where = f"{name}:{row.line}"
        try:
            found = _check_row(row, index, where, provider)
        except InvalidRequest as error:
            problems.append(f"{where}: {error.message}")
            continue
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        other = found if found.request.key is None else by_key.setdefault(found.key, found)
        if other is found:
            planned.append(found)
        elif other.request.fingerprint() != found.request.fingerprint():
            reason = f"is the key of {other.location} too, which has another content; give each its own"
            problems.append(f"{where}: {InvalidRequest(field='key', value=found.key, reason=reason).message}")
    if problems:
        raise InputErrors(problems)
    if not planned:
        raise UsageError(f"{name}: holds no request; nothing was sent")
    return planned


def assign_keys(inputs: Sequence[InputRequest], journal: Journal, again: Container[str]) -> list[InputRequest]:
    """The same with a key each: jobs that are known are found again. Those of `again` may have another content now.

    :raises InputErrors: lists every row whose key belongs to a known job with another content; nothing was sent.
    """

    def fingerprint_of(key: str) -> str | None:
        job = journal.get(key)
        return None if job is None else job.request.fingerprint()

    keys = KeyAssigner(journal.keys(), fingerprint_of)
    given = {one.request.key for one in inputs}
    named, problems = [], []
    for one in inputs:
        key = keys.of(one.request, one.index)
        while one.request.key is None and key in given:  # another row says that it is this job
            key = keys.of(one.request, one.index)
        request = attrs.evolve(one.request, key=key)
        job = journal.get(key)
        if job is None or job.request.fingerprint() == request.fingerprint():
            pass
        elif key not in again:
            problems.append(
                f"{one.location}: key: {shorten(key)} belongs to a job with other content ({job.status}); give the new "
                f"content its own key, or add --again {key} to pay for it in place of the other"
            )
        elif job.is_in_flight:
            problems.append(
                f"{one.location}: key: {shorten(key)} belongs to a job in flight with other content; give the new "
                f"content a key of its own, or wait for the other before --again {key}"
            )
        named.append(attrs.evolve(one, request=request))
    if problems:
        raise InputErrors(problems)
    return named


def _check_row(row: Row, index: int, location: str, provider: Provider) -> InputRequest:
    if row.problem is not None:
        raise ValueError(strip_control(row.problem))
    request = make_request(row.fields)
    provider.check(request)
    check_local_files(provider, request)
    return InputRequest(request, index, location)


def make_request(fields: Any) -> GenerationRequest:
    """The request of `fields`.

    :raises InvalidRequest: if one is wrong.
    :raises ValueError: if there is no prompt, or a value is beyond every range.
    """
    if "prompt" not in fields:
        raise ValueError("prompt: is missing; every request needs one")
    try:
        return GenerationRequest(**fields)
    except OverflowError as error:
        raise ValueError(f"a number is beyond every range ({error})") from None


def check_local_files(provider: Provider, request: GenerationRequest) -> None:
    """See that the local image of `request` can be read and fits into a request.

    :raises InvalidRequest: says what is wrong with it.
    """
    image = request.image
    if image is None or isinstance(image, bytes) or is_url(image):
        return
    path = Path(os.fspath(image))
    try:
        if not path.is_file():
            raise _image_error(path, "is no file; give an existing one, or an URL")
        if path.stat().st_size > _MAX_IMAGE_BYTES:
            raise _image_error(path, "is too large for a request; upload it and give its URL")
        data = path.read_bytes()
    except OSError as error:
        raise _image_error(path, f"cannot be read: {error.strerror}") from None
    provider.check(attrs.evolve(request, image=data))


def _image_error(path: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(field="image", value=str(path), reason=reason)
