"""Checks of one row: every field that cannot be sent, not only the first. Sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from pika_async._runtime.images import check_request_blocking
from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest
from pika_async.providers import Provider

__all__ = ["can_take", "check_any", "check_fields", "make_request", "request_faults"]

#: Stands in for a prompt that is missing, so that the other fields are checked all the same.
_ANY_PROMPT: Final = "a prompt"
#: Fields whose checks depend on one another: once one of them is refused, the others are not judged.
_INPUT_FIELDS: Final = frozenset({"image", "video", "last_image", "ingredients", "ingredients_mode", "extend", "model"})


def check_any(providers: Sequence[Provider], request: GenerationRequest, *, can_upload: bool) -> None:
    """Check that one of `providers` can fulfil a request.

    :param can_upload: whether there is an uploader for local files.
    :raises InvalidRequest: if none can; gives the reason of each where they differ.
    """
    errors: dict[str, InvalidRequest] = {}
    for provider in providers:
        try:
            check_request_blocking(provider, request, can_upload=can_upload)
        except InvalidRequest as error:
            errors[provider.name] = error
        else:
            return
    first, *others = errors.values()
    if all(error.message == first.message for error in others):
        raise first
    is_one_field = all((error.field, error.value) == (first.field, first.value) for error in others)
    reasons = "; ".join(f"{name}: {error.reason if is_one_field else error.message}" for name, error in errors.items())
    field = first.field if is_one_field else "request"
    raise InvalidRequest(field=field, value=first.value, reason=f"cannot be sent to any account: {reasons}")


def can_take(provider: Provider, request: GenerationRequest, *, can_upload: bool) -> bool:
    """Return whether a provider can fulfil a request; see `check_any`."""
    try:
        check_request_blocking(provider, request, can_upload=can_upload)
    except InvalidRequest:
        return False
    return True


def make_request(fields: Mapping[str, Any]) -> GenerationRequest:
    """Return the request with these `fields`.

    :raises InvalidRequest: if a field is wrong, the prompt is missing, or a number is out of range.
    """
    if "prompt" not in fields:
        raise InvalidRequest(field="prompt", value=None, reason="must be given; every request needs one")
    try:
        return GenerationRequest(**fields)
    except OverflowError as error:
        raise InvalidRequest(field="a number", value=None, reason=f"is out of range ({error})") from None


def check_fields(
    fields: Mapping[str, Any], check: Callable[[GenerationRequest], object]
) -> tuple[GenerationRequest | None, list[InvalidRequest]]:
    """Return the request with these `fields`, if there is one, and everything that is wrong with it.

    :param check: the check of a provider.
    """
    try:
        request = make_request(fields)
    except InvalidRequest:
        pass
    else:
        return request, request_faults(request, check)
    faults, sound = _peel(dict(fields), make_request)
    if sound is not None:
        more, _ = _peel(sound, lambda rest: check(make_request(rest)))
        entangled = any(_root(error) in _INPUT_FIELDS for error in faults)
        faults += [error for error in more if not (entangled and _root(error) in _INPUT_FIELDS)]
    return None, faults


def request_faults(request: GenerationRequest, check: Callable[[GenerationRequest], object]) -> list[InvalidRequest]:
    """Return every field of a request that `check` refuses."""
    try:
        check(request)
    except InvalidRequest:
        faults, _ = _peel(attrs.asdict(request, recurse=False), lambda rest: check(make_request(rest)))
        return faults
    return []


def _peel(
    fields: dict[str, Any], check: Callable[[dict[str, Any]], object]
) -> tuple[list[InvalidRequest], dict[str, Any] | None]:
    """Check `fields`, again and again without the one that was refused; return the errors, and the sound fields.

    The latter are None if the checks cannot go on without a field.
    """
    faults: list[InvalidRequest] = []
    while True:
        try:
            check(fields)
        except InvalidRequest as error:
            root = _root(error)
            is_entangled = root in _INPUT_FIELDS and any(_root(fault) in _INPUT_FIELDS for fault in faults)
            if not is_entangled:
                faults.append(error)
            if root == "prompt" and fields.get("prompt") != _ANY_PROMPT:
                fields = {**fields, "prompt": _ANY_PROMPT}
            elif fields.get(root) not in (None, (), False):
                fields = {name: value for name, value in fields.items() if name != root}
            else:
                return faults, None
        else:
            return faults, fields


def _root(error: InvalidRequest) -> str:
    return error.field.partition(".")[0].partition("[")[0]
