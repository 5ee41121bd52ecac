"""Rows of an input to checked requests with keys. Refuses whatever can be refused without asking the provider."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from pika_async._journal.protocol import Journal
from pika_async._planning.keys import KeyAssigner
from pika_async._runtime.images import check_request_blocking
from pika_async._runtime.pacing import paced
from pika_async.cli.exits import InputErrors, UsageError
from pika_async.cli.inputs import Row, parse_csv, parse_jsonl, parse_text, parse_unnamed
from pika_async.errors import InvalidRequest, shorten, strip_control
from pika_async.models import GenerationRequest, evolve_unchecked
from pika_async.providers import Provider

__all__ = ["InputRequest", "assign_keys", "check_rows", "read_input"]

_PARSERS: Final[dict[str, Callable[[str, bytes], list[Row]]]] = {
    ".jsonl": parse_jsonl,
    ".csv": parse_csv,
    ".txt": parse_text,
}


@attrs.frozen
class InputRequest:
    """A request, its 0-based position among the rows of the input, and its location as `FILE:LINE`."""

    request: GenerationRequest
    index: int
    location: str

    @property
    def key(self) -> str:
        """Key of the job; `assign_keys` gives one to a row without."""
        assert self.request.key is not None  # noqa: S101 - used only after `assign_keys`
        return self.request.key


def read_input(source: str) -> tuple[str, list[Row]]:
    """Return the name and the rows of an input.

    :param source: path of a .jsonl, .csv or .txt file, or `-` for standard input.
    :raises UsageError: if the input cannot be read or its suffix is unknown.
    :raises InputErrors: if the input is not UTF-8 or its header is wrong.
    """
    if source == "-":
        if sys.stdin is None:
            raise UsageError("-: standard input must be open, but is closed")
        return "stdin", parse_unnamed("stdin", sys.stdin.buffer.read())
    path = Path(source)
    parse = _PARSERS.get(path.suffix.lower())
    name = strip_control(source)
    if parse is None:
        raise UsageError(f"{name}: must be a .jsonl, .csv or .txt file, or - for standard input")
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return name, parse(name, data)


def check_rows(name: str, rows: Sequence[Row], provider: Provider, *, can_upload: bool = False) -> list[InputRequest]:
    """Return the requests of `rows`, checked against `provider`. Rows with equal key and content are one request.

    :param name: name of the input in error texts.
    :param can_upload: whether there is an uploader for local files.
    :raises InputErrors: lists every row that cannot be sent; nothing was sent.
    """
    requests: list[InputRequest] = []
    by_key: dict[str, InputRequest] = {}
    problems: list[str] = []
    for index, row in enumerate(rows):
        location = f"{name}:{row.line}"
        try:
            checked = _check_row(row, index, location, provider, can_upload=can_upload)
        except InvalidRequest as error:
            problems.append(f"{location}: {error.message}")
            continue
        except ValueError as error:
            problems.append(f"{location}: {error}")
            continue
        other = checked if checked.request.key is None else by_key.setdefault(checked.key, checked)
        if other is checked:
            requests.append(checked)
        elif other.request.fingerprint() != checked.request.fingerprint():
            reason = f"must be unique, but {other.location} has it with other content; give each its own key"
            problems.append(f"{location}: {InvalidRequest(field='key', value=checked.key, reason=reason).message}")
    if problems:
        raise InputErrors(problems)
    if not requests:
        raise UsageError(f"{name}: must hold at least one request; nothing was sent")
    return requests


async def assign_keys(inputs: Sequence[InputRequest], journal: Journal, again: Container[str]) -> list[InputRequest]:
    """Return `inputs` with a key each, such that a request that the journal holds gets the key of its job.

    :param again: keys that may have other content than their job.
    :raises InputErrors: lists every row whose key belongs to a job with other content; nothing was sent.
    """

    def fingerprint_of(key: str) -> str | None:
        job = journal.get(key)
        return None if job is None else job.request.fingerprint()

    keys = KeyAssigner(fingerprint_of)
    async for key in paced(journal.keys()):
        keys.add_existing(key)
    given = {one.request.key for one in inputs}
    keyed, problems = [], []
    async for one in paced(inputs):
        key = keys.key_for(one.request, one.index)
        while one.request.key is None and key in given:  # another row claims this key
            key = keys.key_for(one.request, one.index)
        request = evolve_unchecked(one.request, key=key)
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
        keyed.append(attrs.evolve(one, request=request))
    if problems:
        raise InputErrors(problems)
    return keyed


def _check_row(row: Row, index: int, location: str, provider: Provider, *, can_upload: bool) -> InputRequest:
    if row.problem is not None:
        raise ValueError(strip_control(row.problem))
    request = make_request(row.fields)
    check_request_blocking(provider, request, can_upload=can_upload)
    return InputRequest(request, index, location)


def make_request(fields: Any) -> GenerationRequest:
    """Return the request with these `fields`.

    :raises InvalidRequest: if a field is wrong.
    :raises ValueError: if the prompt is missing or a number is out of range.
    """
    if "prompt" not in fields:
        raise ValueError("prompt: must be given; every request needs one")
    try:
        return GenerationRequest(**fields)
    except OverflowError as error:
        raise ValueError(f"a number is out of range ({error})") from None
