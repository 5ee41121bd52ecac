"""The options that several commands share, as records that the parser fills; `client` makes a client of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Parameter, Token

from pika_async._planning.limits import Limits
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.exits import UsageError
from pika_async.cli.inputs import parse_camera
from pika_async.cli.requests import make_request
from pika_async.client import PikaClient
from pika_async.errors import InvalidRequest
from pika_async.models import GenerationRequest

__all__ = [
    "AmbiguousMode",
    "CommonOptions",
    "CredentialOptions",
    "JsonFlag",
    "LogLevel",
    "ProviderOptions",
    "RequestOptions",
    "WholeNumber",
    "build_request",
    "create_client",
]

LogLevel = Literal["debug", "info", "warning", "error"]


def _parse_whole_number(_type: Any, tokens: Sequence[Token]) -> int:
    """A whole number as it is written: the parser's own conversion would round 1.7, which is then paid for."""
    if not re.fullmatch(r"[+-]?[0-9]{1,40}", tokens[0].value):
        raise ValueError(f'"{tokens[0].value}" is no whole number')
    return int(tokens[0].value)


AmbiguousMode = Literal["strict", "lenient"]
WholeNumber = Annotated[int, Parameter(converter=_parse_whole_number)]
JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class CommonOptions:
    """What every command takes."""

    log_level: LogLevel = "warning"
    "What is logged to standard error."


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class CredentialOptions:
    """Whose key, and the way out. No option takes the key itself: others see a command line."""

    api_key_file: Path | None = None
    "A file that holds the key; otherwise the provider's environment variable."
    proxy: str | None = None
    "A proxy's address; otherwise the environment's."


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ProviderOptions(CredentialOptions):
    """Which gateway, at which address, with whose key."""

    provider: str
    "cometapi, yescale, gptge, native, or a registered one (see: pika-async providers)."
    base_url: str | None = None
    "The gateway's address, instead of the provider's own."


def create_client(account: ProviderOptions, *, options: BatchOptions = BatchOptions(), **more: Any) -> PikaClient:  # noqa: B008 - frozen
    """The client of `account`, not yet open.

    :raises ConfigurationError: names the option that cannot work.
    """
    return PikaClient(
        account.provider,
        base_url=account.base_url,
        api_key_file=account.api_key_file,
        proxy=account.proxy,
        limits=Limits(max_in_flight=options.max_in_flight, max_charges=options.max_charges),
        deadline=options.deadline,
        polling=options.polling,
        ambiguous=options.ambiguous,
        **more,
    )


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class RequestOptions:
    """The fields of a request, named as in `GenerationRequest`."""

    image: str | None = None
    "An address, or a file where the provider takes one."
    video: str | None = None
    "The address of a video."
    ingredient: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    "The address of an ingredient; give it once for each."
    ingredients_mode: str | None = None
    "precise or creative."
    effect: str | None = None
    "One of the provider's effects, in any case."
    aspect_ratio: str | None = None
    "16:9, or width by height as a number, 0.4 to 2.5."
    frame_rate: WholeNumber | None = None
    "8 to 24."
    camera: str | None = None
    "Such as pan=left,zoom=in (pan, tilt, rotate, zoom)."
    guidance_scale: WholeNumber | None = None
    "5 to 25."
    motion: WholeNumber | None = None
    "0 to 4."
    negative_prompt: str | None = None
    "What should not be seen."
    seed: WholeNumber | None = None
    "0 to 2**63 - 1."
    sfx: bool | None = None
    "Sound."
    extend: Annotated[bool, Parameter(negative=())] = False
    "Extend the video."
    model: str | None = None
    "The provider's model."
    strict: Annotated[bool, Parameter(negative="--no-strict")] = True
    "Refuse effects that the provider does not document."


def build_request(prompt: str, fields: RequestOptions | None) -> GenerationRequest:
    """The request of a command line.

    :raises InvalidRequest: if a field is wrong.
    :raises UsageError: if the camera cannot be read, or a number is beyond every range.
    """
    given = attrs.asdict(fields or RequestOptions(), recurse=False)
    ingredients, camera = given.pop("ingredient"), given.pop("camera")
    try:
        moves = None if camera is None else parse_camera(camera)
        return make_request({**given, "prompt": prompt, "ingredients": ingredients, "camera": moves})
    except InvalidRequest:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from None
