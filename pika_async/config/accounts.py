"""Accounts: providers with a key, limits and prices, given in Python or listed in a file. Connects to nothing."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args
from urllib.parse import urlsplit

import attrs
from attrs.validators import optional

from pika_async._planning.money import checked_amount, is_amount
from pika_async._planning.prices import Prices
from pika_async.errors import ConfigurationError, shorten
from pika_async.models.spelling import did_you_mean
from pika_async.providers import Provider, ProviderName, find_provider, provider_names
from pika_async.providers._wire import Credential

__all__ = ["Account", "Routing", "checked_accounts", "load_accounts"]

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME_RULE: Final = "1 to 64 letters, digits, dots, hyphens or underscores"
#: A variable as they are written: a key that stands in its place by mistake is thus not repeated in an error.
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]*")
#: A name whose value may be a secret.
_SECRET: Final = re.compile(r"(^|[-_.])(api)?(key|token|secret|password|credential)s?$", re.IGNORECASE)
#: The fields of which one at most may say where the key is.
_KEY_FIELDS: Final = ("api_key", "api_key_file", "api_key_env")

Strategy = Literal["capacity", "cheapest", "fastest"]


def _error(field: str, reason: str) -> ConfigurationError:
    return ConfigurationError(setting=field, reason=reason)


def _number(_account: Account, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not is_amount(value):
        raise _error(attribute.name, f"must be a number above 0, not {shorten(value)}")


def _count(_account: Account, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _error(attribute.name, f"must be an integer >= 1, not {shorten(value)}")


def _variable(_account: Account, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        reason = "must be the name of a variable in capitals, such as COMETAPI_API_KEY, not the key itself"
        raise _error(attribute.name, reason)


def _url(_account: Account, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, str) and "@" in value:  # the text is not repeated: it holds a credential
        raise _error(attribute.name, "holds a user; give the bare address, and the key apart")
    way_out = 'give an address such as "https://gateway.example"'
    if isinstance(value, str) and (not value.isprintable() or any(mark in value for mark in " ?#")):
        raise _error(attribute.name, f"{value!r} holds white space, a query or a fragment; {way_out}")
    if not _is_url(value):
        raise _error(attribute.name, f"{shorten(value)} must be an http(s) URL; {way_out}")


def _is_url(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number, or the brackets of an IPv6 address are not closed
        return False


def _checked_key(field: str, key: Any) -> Credential:
    """Return a key without the white space around it; errors do not show it."""
    if not isinstance(key, str) or not key.strip():
        raise _error(field, "is empty; give the provider's key")
    key = key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise _error(field, "holds white space, control or non-ASCII characters; copy it anew")
    return Credential(key)


def _to_provider(value: ProviderName | str | Provider) -> Provider:
    return value if isinstance(value, Provider) else find_provider(value)


def _to_credential(value: str | None) -> Credential | None:
    given: Any = value
    return given if given is None or isinstance(given, Credential) else _checked_key("api_key", given)


def _to_path(value: str | os.PathLike[str] | None) -> Path | None:
    given: Any = value
    if given is not None and (not isinstance(given, str | os.PathLike) or not os.fspath(given)):
        raise _error("api_key_file", f"must be the path of a text file that holds the key, not {shorten(given)}")
    return None if given is None else Path(given)


def _to_name(value: str | None) -> str:
    """Return the name as it is: the account replaces None by the name of its provider."""
    return value  # type: ignore[return-value]


def _to_budget(value: float | None) -> float | None:
    return checked_amount("budget", value)


def _to_prices(value: float | Sequence[Mapping[str, Any]] | None) -> Prices | None:
    return Prices.create(value)


@attrs.frozen
class Account:
    """A provider with one key, its limits and its prices.

    :param provider: the name of a provider in any case, its title, or a `Provider`.
    :param name: the name of the account, by which jobs remember it: at most 64 letters, digits, `.`, `_` and `-`
        (default: the provider's name).
    :param api_key: the key itself; no `repr`, error or pickle shows it (default: from `api_key_file` or the
        environment).
    :param api_key_file: a text file that holds the key alone (default: none).
    :param base_url: where the provider is reached (default: its own address).
    :param max_in_flight: maximum number of accepted jobs that are polled (default: that of the client's limits).
    :param submits_per_second: maximum rate of submissions (default: that of the client's limits).
    :param polls_per_second: maximum rate of polls (default: that of the client's limits).
    :param max_charges: maximum number of submissions that are accepted or in doubt, over the life of the journal
        (default: no limit).
    :param budget: money for these, in the unit of `price`, which it needs (default: no limit).
    :param price: the price of one charge, above 0, in any unit that all accounts share; or a table, that is a list of
        mappings with `price` and any of `model`, `duration` (seconds), `resolution`, `effect` (with one or without) and
        `kind`, of which the row with most facts that fits a request counts (default: unknown).
    :param weight: share of the jobs beside other accounts that have room, a number above 0 (default 1).
    :param api_key_env: the environment variable that holds the key (default: the provider's own).
    :raises ConfigurationError: names the field, its value and the way out. A key is not shown.
    """

    provider: Provider = attrs.field(converter=_to_provider, hash=False, repr=lambda provider: repr(provider.name))
    name: str = attrs.field(default=None, kw_only=True, converter=_to_name)
    api_key: Credential | None = attrs.field(default=None, kw_only=True, converter=_to_credential)
    api_key_file: Path | None = attrs.field(default=None, kw_only=True, converter=_to_path)
    base_url: str | None = attrs.field(default=None, kw_only=True, validator=optional(_url))
    max_in_flight: int | None = attrs.field(default=None, kw_only=True, validator=optional(_count))
    submits_per_second: float | None = attrs.field(default=None, kw_only=True, validator=optional(_number))
    polls_per_second: float | None = attrs.field(default=None, kw_only=True, validator=optional(_number))
    max_charges: int | None = attrs.field(default=None, kw_only=True, validator=optional(_count))
    budget: float | None = attrs.field(default=None, kw_only=True, converter=_to_budget)
    price: Prices | None = attrs.field(default=None, kw_only=True, converter=_to_prices)
    weight: float = attrs.field(default=1, kw_only=True, validator=_number)
    api_key_env: str | None = attrs.field(default=None, kw_only=True, validator=optional(_variable))

    def __attrs_post_init__(self) -> None:
        name: Any = self.name
        if name is None:
            name = self.provider.name
            object.__setattr__(self, "name", name)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _error("name", f"must be {_NAME_RULE}, not {shorten(name)}; give name=...")
        given = [field for field in _KEY_FIELDS if getattr(self, field) is not None]
        if len(given) > 1:
            raise _error(given[1], f"must not be given with {given[0]}; leave one of them out")
        if self.budget is not None and self.price is None:
            raise _error("budget", "needs the price of each charge; give price")
        if self.base_url is None and self.provider.base_url is None:
            raise _error("base_url", f"{self.provider.title} has no address of its own; give the host that serves it")

    @property
    def title(self) -> str:
        """The name for messages: that of the provider, unless the account has its own."""
        return self.provider.title if self.name == self.provider.name else f"{self.name} ({self.provider.title})"

    @property
    def address(self) -> str:
        """The base URL of the account, or that of its provider, without a slash at its end."""
        url = self.base_url or self.provider.base_url
        assert url is not None  # noqa: S101 - checked above
        return url.rstrip("/")

    def is_at(self, provider: str, base_url: str) -> bool:
        """Whether the account is at that provider and base URL."""
        return (provider, base_url) == (self.provider.name, self.address)

    def read_credential(self) -> Credential:
        """Return the key: the given one, else that in the file, else that in the environment.

        :raises ConfigurationError: if there is no key, or it holds what a header cannot hold. The key is not shown.
        """
        if self.api_key is not None:
            return self.api_key
        if self.api_key_file is not None:
            try:
                return _checked_key("api_key_file", self.api_key_file.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is not text"
                raise _error("api_key_file", f"{self.api_key_file} cannot be read: {why}") from None
        variable = self.api_key_env or self.provider.api_key_env
        key = os.environ.get(variable, "")
        if not key.strip():
            reason = f"no key for {self.title}; set {variable}, or give api_key or api_key_file"
            raise _error("api_key", reason)
        return _checked_key(variable, key)


def _strategy(_routing: Routing, attribute: attrs.Attribute[Any], value: Any) -> None:
    strategies = get_args(Strategy)
    if value not in strategies:
        reason = f"must be one of {', '.join(strategies)}, not {shorten(value)}{did_you_mean(value, strategies)}"
        raise _error(attribute.name, reason)


@attrs.frozen
class Routing:
    """Choice between several accounts that can take a job and have room for it.

    :param strategy: `"capacity"` (the default): the one with most room for its weight; `"cheapest"`: the one with the
        lowest price; `"fastest"`: the one whose tasks have the shortest median duration.
    :raises ConfigurationError: for another strategy.
    """

    strategy: Strategy = attrs.field(default="capacity", validator=_strategy)


def checked_accounts(accounts: Iterable[Account]) -> tuple[Account, ...]:
    """Return the accounts of one client.

    :raises ConfigurationError: if there is none, one is not an `Account`, or two have the same name.
    """
    checked = tuple(accounts)
    strangers: list[Any] = [account for account in checked if not isinstance(account, Account)]
    if strangers:
        reason = f"must be records of Account, not {shorten(strangers[0])}; give Account(PROVIDER, ...)"
        raise _error("provider", reason)
    if not checked:
        raise _error("provider", "must be at least one; give Account(PROVIDER, ...)")
    twice = [name for name, count in Counter(account.name for account in checked).items() if count > 1]
    if twice:
        reason = f"must have different names, but several are {', '.join(map(shorten, twice))}; give each name=..."
        raise _error("provider", reason)
    return checked


# --- files ----------------------------------------------------------------------------------------------------------

_COLUMNS: Final[Mapping[str, attrs.Attribute[Any]]] = {
    field.name: field for field in attrs.fields(Account) if field.name not in {"name", "api_key"}
}
_FIELDS: Final = ", ".join(_COLUMNS)
_KEY_ADVICE: Final = "must not be in this file; name a variable with api_key_env, or a file with api_key_file"


def load_accounts(path: str | os.PathLike[str]) -> list[Account]:
    """Return the accounts of a TOML file, in its order.

    Each is a table `[accounts.NAME]` with the fields of `Account`, which documents them. A key must not be in the file:
    `api_key_env` names a variable, `api_key_file` a file, relative to this one. A price of several rows is written as
    tables `[[accounts.NAME.price]]`.

    :param path: the file.
    :raises ConfigurationError: if the file cannot be read, or is not valid: all its faults are named at once.
    """
    file = Path(path)
    tables = _read_tables(file)
    faults = list(_stray_entries(tables))
    accounts = []
    named = tables.get("accounts", {})
    for name, table in named.items() if isinstance(named, dict) else ():
        place = f"[accounts.{_shown(name)}]"
        found = list(_faults_of(name, table, file.parent))
        if not found:
            try:
                accounts.append(Account(name=name, **_located(table, file.parent)))
            except ConfigurationError as error:
                found = [error.message]
        faults += [f"{place} {fault}" for fault in found]
    if not faults and not accounts:
        faults = ["must list at least one account; add a table [accounts.NAME] with provider = PROVIDER"]
    if faults:
        numbered = "; ".join(f"({number}) {fault}" for number, fault in enumerate(faults, 1))
        reason = faults[0] if len(faults) == 1 else f"{len(faults)} faults: {numbered}"
        raise ConfigurationError(setting=str(file), reason=reason)
    return accounts


def _read_tables(file: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - most clients are given no file

    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(setting=str(file), reason=f"cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigurationError(setting=str(file), reason=f"is not valid TOML: {error}") from None


def _stray_entries(tables: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not valid above the tables of the accounts."""
    for name, value in tables.items():
        if name != "accounts":
            yield f"{_shown(name)} must be a table [accounts.NAME]{did_you_mean(name, ['accounts'])}"
        elif not isinstance(value, dict):
            yield "accounts must be tables [accounts.NAME]"


def _faults_of(name: str, table: Any, folder: Path) -> Iterator[str]:
    """Yield what is not valid in the table of one account, field by field. Values of unknown fields are not shown."""
    if not isinstance(table, dict):
        yield "must be a table"
        return
    if not _NAME.fullmatch(name):
        yield f"must have a name of {_NAME_RULE}"
    if "provider" not in table:
        yield f"provider: must be given; choose one of {', '.join(provider_names())}"
    for field, value in _located(table, folder).items():
        if field in _COLUMNS:
            yield from _faults_in(_COLUMNS[field], value)
        elif _SECRET.search(field):
            yield f"{_shown(field)}: a key {_KEY_ADVICE}"
        elif field == "name":
            yield "name: must be left out; the name is that of the table"
        else:
            hint = did_you_mean(field, _COLUMNS)
            yield f"{_shown(field)}: must be {f'a field of an account{hint}' if hint else f'one of {_FIELDS}'}"


def _faults_in(field: attrs.Attribute[Any], value: Any) -> Iterator[str]:
    """Yield the error of one field, if it has one."""
    convert: Any = field.converter
    check: Any = field.validator
    try:
        converted = value if convert is None else convert(value)
        if check is not None:
            check(None, field, converted)
    except ConfigurationError as error:
        yield error.message


def _shown(name: str) -> str:
    return name if _NAME.fullmatch(name) else shorten(name)


def _located(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the fields of an account with the path of its key file as seen from here."""
    key_file = table.get("api_key_file")
    return dict(table) | ({"api_key_file": folder / key_file} if isinstance(key_file, str) and key_file else {})
