"""Signatures of callbacks, where a gateway signs them. Pure: fetches no keys and reads no clock."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import attrs

from pika_async.errors import ConfigurationError
from pika_async.providers._abilities import origin

__all__ = ["CallbackSignature", "SignatureVerdict"]


class SignatureVerdict(enum.Enum):
    """Verdict on the signature of one callback."""

    VALID = "valid"
    #: It lacks a header, or its time is too far away: no key can make it valid.
    INVALID = "invalid"
    #: None of the keys fits: it is forged, or of a key that is not known yet.
    UNKNOWN_KEY = "unknown_key"


@attrs.frozen(kw_only=True)
class CallbackSignature:
    """Signature of a gateway's callbacks with keys that it publishes.

    :param keys_url: the address of the public keys.
    :param keys_path: the path of the keys below a base URL that is not the gateway's own, such as an emulator's.
    :param package: the package that checks the signature.
    :param extra: the extra of this package that installs it.
    :param check: (headers by lower-case name, body, unix seconds, public keys) -> the verdict.
    :param read_keys: (the parsed document at `keys_url`) -> the public keys in it.
    """

    keys_url: str
    keys_path: str
    package: str
    extra: str
    check: Callable[[Mapping[str, str], bytes, float, Sequence[bytes]], SignatureVerdict]
    read_keys: Callable[[object], tuple[bytes, ...]]

    def keys_address(self, base_url: str, own_base_url: str | None) -> str:
        """Return the address of the keys for a client of `base_url`.

        :param own_base_url: the gateway's own, see `Provider.base_url`.
        """
        is_own = own_base_url is not None and origin(base_url) == origin(own_base_url)
        return self.keys_url if is_own else f"{base_url}{self.keys_path}"

    def check_installed(self, title: str) -> None:
        """Check that the package is installed.

        :param title: the name of the gateway, for the message.
        :raises ConfigurationError: if it is not.
        """
        if find_spec(self.package) is None:
            reason = (
                f"must be left out without the package {self.package}, which checks the signatures of {title}; install "
                f'it with pip install "pika-async[{self.extra}]", or let the tasks be polled'
            )
            raise ConfigurationError(setting="callbacks", reason=reason)
