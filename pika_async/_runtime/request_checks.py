"""Checks of requests before they cost: their fields, and which accounts can fulfil them. Sends nothing."""

from __future__ import annotations

from typing import Final

import attrs

from pika_async._planning.media_routes import check_reach
from pika_async._runtime.images import check_request
from pika_async.config.client import AccountConfig, ClientConfig
from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest, RequestFields
from pika_async.models.spelling import did_you_mean
from pika_async.providers._provider import Provider

__all__ = ["capable_accounts", "check_safely", "request_of"]

_FIELDS: Final = tuple(field.name for field in attrs.fields(GenerationRequest))


def request_of(request: GenerationRequest | str, fields: RequestFields) -> GenerationRequest:
    """Return a request for a request or a prompt, with *fields* set.

    :param request: a request, which is returned as it is if *fields* is empty, or a prompt.
    :param fields: fields of `GenerationRequest` by name; they replace those of *request*.
    :raises InvalidRequest: if *request* is neither of the two, or a field has an unknown name or an invalid value.
    """
    for name in fields:
        if name not in _FIELDS:
            reason = f"must be the name of a field of GenerationRequest{did_you_mean(name, _FIELDS)}"
            raise InvalidRequest(field=name, value=name, reason=reason)
    if isinstance(request, str):
        if "prompt" in fields:
            raise InvalidRequest(field="prompt", value=request, reason="must be given once; leave prompt=... out")
        return GenerationRequest(request, **fields)
    if not isinstance(request, GenerationRequest):
        raise InvalidRequest(field="request", value=request, reason="must be a GenerationRequest or a prompt (text)")
    return attrs.evolve(request, **fields) if fields else request


async def check_safely(provider: Provider, request: GenerationRequest, base_url: str, *, can_upload: bool) -> None:
    """Refuse a request that *provider* cannot fulfil, before it costs; also where the provider's own check fails.

    :param base_url: where the request is to be sent.
    :param can_upload: whether there is an uploader for local files.
    :raises InvalidRequest: names the field, the value and the way out.
    """
    try:
        await check_request(provider, request, can_upload=can_upload)
        check_reach(provider, request, base_url)
    except InvalidRequest:
        raise
    except Exception as error:  # third-party providers may raise anything
        reason = f"could not be checked: {error!r}"
        raise InvalidRequest(field="request", value=request.prompt, reason=reason) from error


async def capable_accounts(config: ClientConfig, request: GenerationRequest) -> tuple[str, ...]:
    """Return the names of the accounts that can fulfil *request*, at least one.

    :raises InvalidRequest: if none can; names the field, the value and the way out, of each where they differ.
    """
    refusals: dict[tuple[str, str], InvalidRequest | None] = {}
    names = []
    for account in config.accounts:
        gateway = (account.provider.name, account.base_url)
        if gateway not in refusals:
            refusals[gateway] = await _refusal(account, request, can_upload=config.uploader is not None)
        if refusals[gateway] is None:
            names.append(account.name)
    if names:
        return tuple(names)
    errors = {name: error for (name, _), error in refusals.items() if error is not None}
    texts = {error.message for error in errors.values()}
    if len(texts) == 1:
        raise next(iter(errors.values()))
    reasons = "; ".join(f"{name}: {error.message}" for name, error in errors.items())
    raise InvalidRequest(field="request", value=request.prompt, reason=f"cannot be sent to any account: {reasons}")


async def _refusal(account: AccountConfig, request: GenerationRequest, *, can_upload: bool) -> InvalidRequest | None:
    try:
        await check_safely(account.provider, request, account.base_url, can_upload=can_upload)
    except InvalidRequest as error:
        return error
    return None
