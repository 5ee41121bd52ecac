"""Options that several commands share, as records for the parser, and the client and request built from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import attrs
from cyclopts import Parameter, Token, validators

from pika_async._planning.limits import Limits
from pika_async.cli.batch_folder import BatchOptions
from pika_async.cli.cells import parse_camera
from pika_async.cli.exits import UsageError
from pika_async.cli.help_groups import COMMON, GATEWAY, REQUEST
from pika_async.cli.paths import expand_home
from pika_async.cli.provider_keys import only_provider
from pika_async.cli.row_checks import make_request
from pika_async.cli.uploaders import load_uploader
from pika_async.client import PikaClient
from pika_async.config.accounts import Account, Routing
from pika_async.errors import ConfigurationError, InvalidRequest
from pika_async.models import GenerationRequest

__all__ = [
    "AmbiguousMode",
    "CommonOptions",
    "CredentialOptions",
    "Integer",
    "JsonFlag",
    "LogLevel",
    "OpenFlag",
    "Port",
    "PositiveInteger",
    "ProviderOptions",
    "RequestOptions",
    "UserPath",
    "account_fault",
    "build_request",
    "create_accounts_client",
    "create_client",
    "is_of_account",
]

LogLevel = Literal["debug", "info", "warning", "error"]


def _parse_integer(_type: Any, tokens: Sequence[Token]) -> int:
    """Parse an integer. The parser's own conversion would round 1.7, and a rounded limit would be paid for."""
    if not re.fullmatch(r"[+-]?[0-9]{1,40}", tokens[0].value):
        raise ValueError(f'"{tokens[0].value}" must be an integer')
    return int(tokens[0].value)


def _parse_path(_type: Any, tokens: Sequence[Token]) -> Path:
    """Parse a path. A shell does not expand the home folder in `--out=~/clips`."""
    return expand_home(Path(tokens[0].value))


AmbiguousMode = Literal["strict", "lenient"]
Integer = Annotated[int, Parameter(converter=_parse_integer)]
PositiveInteger = Annotated[int, Parameter(converter=_parse_integer, validator=validators.Number(gte=1))]
Port = Annotated[int, Parameter(converter=_parse_integer, validator=validators.Number(gte=0, lte=65_535))]
UserPath = Annotated[Path, Parameter(converter=_parse_path)]
OpenFlag = Annotated[bool, Parameter(name="--open", negative=())]
JsonFlag = Annotated[bool, Parameter(name="--json", negative=())]


@Parameter(name="*", group=COMMON)
@attrs.frozen(kw_only=True)
class CommonOptions:
    """Options of every command."""

    log_level: LogLevel = "warning"
    "Least level of log records printed to standard error."


@Parameter(name="*", group=GATEWAY)
@attrs.frozen(kw_only=True)
class CredentialOptions:
    """API key, proxy and uploader. No option takes the key itself, because other users can see a command line."""

    api_key_file: UserPath | None = None
    "File with the API key. [default: the provider's environment variable]"
    allow_results: Annotated[tuple[Literal["http", "tunnel"], ...], Parameter(negative=(), show_default=False)] = ()
    "Also download results from http addresses (http), or from those of a TUN proxy on this machine (tunnel)."
    proxy: str | None = None
    "HTTP proxy: a URL, or HOST:PORT. [default: the environment's]"
    uploader: str | None = None
    "Your MODULE:FUNCTION that uploads local files where the provider takes URLs only; see docs/command-line.md."
    upload_lifetime: float | None = None
    "Seconds for which the URL of an uploaded file is used again. [default: 86400]"


@Parameter(name="*", group=GATEWAY)
@attrs.frozen(kw_only=True)
class ProviderOptions(CredentialOptions):
    """Provider, its base URL and its API key."""

    given_provider: Annotated[str | None, Parameter(name="--provider", show_default=False)] = None
    "Provider: cometapi, yescale, gptge, native or a registered one. [default: the only one whose key is set]"
    base_url: str | None = None
    "Base URL of the gateway. [default: the provider's]"

    @property
    def provider(self) -> str:
        """The provider that is given, else the only one whose key is set.

        :raises UsageError: if it is left out, and no key or several are set.
        """
        if self.given_provider is not None:
            return self.given_provider
        return only_provider(has_key_file=self.api_key_file is not None)


def create_client(
    account: ProviderOptions,
    accounts: Sequence[Account] = (),
    *,
    options: BatchOptions = BatchOptions(),  # noqa: B008 - frozen
    **more: Any,
) -> PikaClient:
    """Create a client, not yet open.

    :param account: provider, base URL and key; of several accounts only proxy and uploader.
    :param accounts: see `create_accounts_client`; default none.
    :param options: limits, deadline and polling; default none.
    :param more: further arguments of `PikaClient`.
    :raises ConfigurationError: names the option that cannot work.
    :raises UsageError: see `create_accounts_client`.
    """
    if accounts:
        return create_accounts_client(accounts, account, options=options, **more)
    return PikaClient(
        account.provider, base_url=account.base_url, api_key_file=account.api_key_file, price=options.price,
        **_arguments(account, options), **more,
    )  # fmt: skip


def create_accounts_client(
    accounts: Sequence[Account], credentials: CredentialOptions, *, options: BatchOptions, **more: Any
) -> PikaClient:
    """Create a client of several accounts, not yet open.

    :param accounts: those of the file that `options` name.
    :param credentials: proxy and uploader.
    :param more: further arguments of `PikaClient`.
    :raises ConfigurationError: names the option that cannot work.
    :raises UsageError: names the account whose key is missing or whose address cannot work, and the file.
    """
    without_price = [account.name for account in accounts if account.price is None]
    if options.budget is not None and without_price:
        raise UsageError(
            f"--budget: needs a price of each account; give {', '.join(without_price)} one in {options.accounts}"
        )
    try:
        return PikaClient(
            accounts, routing=Routing(options.routing or "capacity"), **_arguments(credentials, options), **more
        )
    except ConfigurationError as error:
        if is_of_account(error):
            raise UsageError(f"--accounts: {options.accounts}: {account_fault(error)}; nothing was sent") from None
        raise


def is_of_account(error: ConfigurationError) -> bool:
    """Return whether an error is about the key or the address of an account."""
    return error.setting.isupper() or error.setting in {"api_key", "api_key_file", "base_url"}


def account_fault(error: ConfigurationError) -> str:
    """Return the text of an error about an account, with the fields of a file of accounts."""
    return error.reason.replace(
        "give api_key or api_key_file", "name another variable with api_key_env, or a file with api_key_file"
    )


def _arguments(credentials: CredentialOptions, options: BatchOptions) -> dict[str, Any]:
    """Return the arguments of a client that do not depend on its accounts."""
    limits = Limits(max_in_flight=options.max_in_flight, max_charges=options.max_charges)
    return {
        "allow_results": credentials.allow_results,
        "proxy": credentials.proxy,
        "limits": limits if options.grace is None else attrs.evolve(limits, grace=options.grace),
        "deadline": options.deadline,
        "polling": options.polling,
        "ambiguous": options.ambiguous,
        "uploader": None if credentials.uploader is None else load_uploader(credentials.uploader),
        "upload_lifetime": credentials.upload_lifetime,
        "budget": options.budget,
    }


@Parameter(name="*", group=REQUEST)
@attrs.frozen(kw_only=True)
class RequestOptions:
    """Fields of a request, named as in `GenerationRequest`."""

    image: str | None = None
    "URL of an image, or a local file if the provider takes one."
    video: str | None = None
    "URL of a video."
    ingredient: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = ()
    "URL of an ingredient; may be given several times."
    ingredients_mode: str | None = None
    "How ingredients are used: precise or creative."
    effect: str | None = None
    "Name of an effect, in any case; see `pika-async providers`."
    aspect_ratio: str | None = None
    "Width to height, such as 16:9, or as a number from 0.4 to 2.5."
    frame_rate: Integer | None = None
    "Frames per second, 8 to 24."
    camera: str | None = None
    "Camera moves, such as pan=left,zoom=in; axes: pan, tilt, rotate, zoom."
    guidance_scale: Integer | None = None
    "How closely to follow the prompt, 5 to 25."
    motion: Integer | None = None
    "Amount of motion, 0 to 4."
    negative_prompt: str | None = None
    "What the video must not show."
    seed: Integer | None = None
    "Seed, 0 to 2**63 - 1."
    sfx: bool | None = None
    "Add sound effects."
    extend: Annotated[bool, Parameter(negative=())] = False
    "Extend the video."
    model: str | None = None
    "Model. [default: the provider's]"
    duration: float | None = None
    "Length of the video in seconds, if the provider lets you choose. [default: the provider's]"
    resolution: str | None = None
    "480p, 720p, 768p, 1080p, 2k or 4k, if the provider lets you choose. [default: the provider's]"
    last_image: str | None = None
    "URL of the image to end on, or a local file, if the provider takes one."
    strict: Annotated[bool, Parameter(negative="--no-strict")] = True
    "Refuse effects, models and resolutions that the provider does not document."


def build_request(prompt: str, fields: RequestOptions | None) -> GenerationRequest:
    """Build the request of a command line.

    :raises InvalidRequest: if a field is wrong.
    :raises UsageError: if the camera cannot be parsed, or a number is out of range.
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
