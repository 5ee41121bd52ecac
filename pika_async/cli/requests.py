"""Rows of an input to checked requests with keys. Refuses whatever can be refused without asking the provider."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from pika_async._journal.protocol import Journal
from pika_async._planning.keys import KeyAssigner
from pika_async._runtime.pacing import paced
from pika_async.cli.exits import InputErrors, UsageError
from pika_async.cli.faults import InputFault
from pika_async.cli.inputs import INPUT_SUFFIXES, parse_input
from pika_async.cli.paths import expand_home
from pika_async.cli.row_checks import check_any, check_fields, request_faults
from pika_async.cli.sweeps import SweepPlan
from pika_async.cli.tables import Row, Table
from pika_async.errors import InvalidRequest, shorten, strip_control
from pika_async.models import GenerationRequest, evolve_unchecked
from pika_async.providers import Provider

__all__ = ["InputRequest", "assign_keys", "check_rows", "input_notes", "read_input"]

#: Most bytes of an input.
MAX_INPUT_BYTES: Final = 64_000_000
_FORMATS: Final = f"{', '.join(INPUT_SUFFIXES[:-1])} or {INPUT_SUFFIXES[-1]}"


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


def read_input(source: str, template_columns: frozenset[str] = frozenset()) -> Table:
    """Return the rows of an input.

    :param source: path of a file of one of the formats, or `-` for standard input.
    :param template_columns: letters of the columns that a template names; they may have any name.
    :raises UsageError: if the input cannot be read, is too large, or its suffix is unknown.
    :raises InputErrors: if its encoding cannot be known or its header is wrong.
    """
    if source == "-":
        if sys.stdin is None:
            raise UsageError("-: standard input must be open, but is closed")
        return parse_input("stdin", "", _bounded("stdin", sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)), template_columns)
    name = strip_control(source)
    try:
        path = expand_home(Path(source))
        if path.is_dir():
            way_out = f"give the {_FORMATS} file; to continue the batch of a folder, use resume"
            raise UsageError(f"{name}: must be a file, but is a folder, and cannot be read; {way_out}")
        if path.suffix.lower() not in INPUT_SUFFIXES:
            raise UsageError(f"{name}: must be a {_FORMATS} file, or - for standard input")
        with path.open("rb") as file:
            data = _bounded(name, file.read(MAX_INPUT_BYTES + 1))
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse_input(name, path.suffix.lower(), data, template_columns)


def _bounded(name: str, data: bytes) -> bytes:
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError(f"{name}: must be at most {MAX_INPUT_BYTES // 10**6} MB; split it; nothing was sent")
    return data


def input_notes(table: Table) -> Iterator[str]:
    """Yield what the user should know of an input: guesses, comments, and columns that are kept as metadata."""
    yield from table.notes
    fields = {field.name for field in attrs.fields(GenerationRequest)}
    columns = [column for column in table.columns if column not in fields and column not in table.mistyped]
    if more := [shorten(column) for column in columns]:
        yield f"{table.name}: not fields of a request, kept as metadata: {', '.join(more)}"


def check_rows(
    table: Table,
    provider: Provider,
    *others: Provider,
    plan: SweepPlan = SweepPlan(),  # noqa: B008 - frozen
    can_upload: bool = False,
) -> list[InputRequest]:
    """Return the requests of an input, checked against `provider`. Rows with equal key and content are one request.

    :param others: further providers, of which one may fulfil a row that `provider` cannot.
    :param plan: template and variations of each row; default none.
    :param can_upload: whether there is an uploader for local files.
    :raises InputErrors: names every fault of every row that cannot be sent; nothing was sent.
    :raises UsageError: if there is no row, or the template names a column that the input does not have.
    """
    needs_prompt = plan.check_columns(table)
    plan.check_count(len(table.rows))
    check = partial(check_any, list({one.name: one for one in (provider, *others)}.values()), can_upload=can_upload)
    faults = list(table.faults) + _prompt_faults(table, needs_prompt=needs_prompt)
    requests: list[InputRequest] = []
    by_key: dict[str, InputRequest] = {}
    index = 0
    for row in table.rows:
        location = f"{table.name}:{row.number}"
        made, problems = _check_row(row, location, check, plan)
        faults += problems
        for request in made:
            one = InputRequest(request, index, location)
            index += 1
            other = one if request.key is None else by_key.setdefault(one.key, one)
            if other is one:
                requests.append(one)
            elif other.request.fingerprint() != request.fingerprint():
                reason = f"must be unique, but {other.location} has it with other content; give each its own key"
                faults.append(InputFault.of(location, InvalidRequest(field="key", value=one.key, reason=reason)))
    if faults:
        has_prompts = not table.header or "prompt" in table.columns  # else the header has the fault, not each row
        raise InputErrors([fault for fault in faults if has_prompts or fault.field != "prompt"])
    if not requests:
        raise UsageError(f"{table.name}: must hold at least one request; nothing was sent")
    return requests


def _prompt_faults(table: Table, *, needs_prompt: bool) -> list[InputFault]:
    if not needs_prompt or not table.header or "prompt" in table.columns:
        return []
    if "prompt" in table.mistyped.values():
        return []
    reason = "must be a column, with its name in the first row; every request needs one"
    return [InputFault(f"{table.name}:{table.header}", f'"prompt": {reason}')]


def _check_row(
    row: Row, location: str, check: Callable[[GenerationRequest], object], plan: SweepPlan
) -> tuple[list[GenerationRequest], list[InputFault]]:
    """Return the requests of a row, and its faults, each once."""
    faults = {(fault.field, fault.reason): fault for fault in row.faults}
    made: list[GenerationRequest] = []

    def add(error: InvalidRequest) -> None:
        fault = InputFault.of(location, error)
        faults.setdefault((fault.field, fault.reason), fault)

    if row.faults and not row.fields:
        return [], list(faults.values())
    fields = dict(row.fields)
    try:
        fields = plan.with_prompt(fields)
    except InvalidRequest as error:
        add(error)
        fields.setdefault("prompt", "a prompt")
    request, refused = check_fields(fields, check)
    for one in refused:
        add(one)
    if request is not None:
        try:
            for variation in plan.variations(request):
                made.append(variation)
                if variation is not request:
                    for one in request_faults(variation, check):
                        add(plan.named(one))
        except InvalidRequest as error:
            add(plan.named(error))
    return made, list(faults.values())


async def assign_keys(inputs: Sequence[InputRequest], journal: Journal, again: Container[str]) -> list[InputRequest]:
    """Return `inputs` with a key each, such that a request that the journal holds gets the key of its job.

    :param again: keys that may have other content than their job.
    :raises InputErrors: lists every row whose key belongs to a job with other content; nothing was sent.
    """

    def answers(key: str, content: str) -> bool:
        job = journal.get(key)
        return job is not None and job.answers(content)

    keys = KeyAssigner(answers)
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
        if job is None or job.answers(request.fingerprint()):
            pass
        elif key not in again:
            problems.append(InputFault(
                one.location, f"{shorten(key)} belongs to a job with other content ({job.status.label}); give the new "
                f"content its own key, or add --again {key} to pay for it in place of the other", "key",
            ))  # fmt: skip
        elif job.is_in_flight:
            problems.append(InputFault(
                one.location, f"{shorten(key)} belongs to a job in flight with other content; give the new "
                f"content a key of its own, or wait for the other before --again {key}", "key",
            ))  # fmt: skip
        keyed.append(attrs.evolve(one, request=request))
    if problems:
        raise InputErrors(problems)
    return keyed
