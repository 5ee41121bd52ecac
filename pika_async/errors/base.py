"""Root of the tree of errors, and the errors of input: found before anything is sent."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Literal, Self, TypeAlias

import attrs

__all__ = [
    "ConfigurationError",
    "ErrorKind",
    "InvalidRequest",
    "JournalInUse",
    "JournalUnusable",
    "PikaError",
    "shorten",
    "strip_control",
]

#: A failure in people's terms: content that was refused, a balance or a plan that does not suffice, something that the
#: caller gave (a field, an option, a key, an address), the provider's own trouble, time that ran out, the network.
ErrorKind: TypeAlias = Literal["moderation", "balance", "invalid", "provider", "timeout", "network", "other"]

#: How much of a value that a user or a provider wrote is repeated in a message, in characters.
QUOTE_LIMIT = 120


def shorten(value: object) -> str:
    """Return the `repr` of `value`, about `QUOTE_LIMIT` of its characters, for a message.

    A longer one loses its middle: a path ends with the name of the file, and a size stands behind that.
    """
    half = QUOTE_LIMIT // 2 + 1
    shown: Any = value
    if isinstance(value, str | bytes) and len(value) > QUOTE_LIMIT:
        shown = shown[:half] + shown[-half:]
    text = repr(shown)
    return text if len(text) <= 2 * half + 1 else f"{text[:half]}…{text[-half:]}"


#: Joiners of emoji and of the letters of Persian and Indic scripts: between two such characters alone, and only one.
#: In Latin or Cyrillic text they would be invisible.
_JOINED = "[\u0620-\u06ff\u0750-\u077f\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]"
_JOINER = re.compile(f"(?<={_JOINED})[\u200c\u200d](?={_JOINED})")


def strip_control(text: str) -> str:
    """Return `text` without control characters or lone surrogates, so that no provider steers a terminal with it.

    Joiners within an emoji, or between letters of a script that needs them, are kept.
    """
    if text.isprintable():
        return text
    joiners = {match.start() for match in _JOINER.finditer(text)}
    return "".join(
        c if c.isprintable() or place in joiners else " " if c.isspace() else "\ufffd" for place, c in enumerate(text)
    )


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class PikaError(Exception):
    """Root of all errors that pika_async raises on purpose.

    :param kind: the failure in people's terms; "other" where no document lists the provider's code or words.
    """

    kind: ErrorKind = "other"

    @property
    def type(self) -> str:
        """The class name, as `results.jsonl` gives it."""
        return type(self).__name__

    @property
    def charged(self) -> bool | None:
        """Whether the generation counts as charged: True if it was accepted, False if provably not, None in doubt."""
        return False

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later, with nothing changed and without paying for one video twice."""
        return False

    @property
    def message(self) -> str:
        """The problem and the way out, in one sentence or two, without control characters."""
        return strip_control(self._text())

    def _text(self) -> str:
        """Build the whole message from the facts; may hold control characters."""
        return self.type

    def copy(self) -> Self:
        """Return an equal error to raise, so that the error that is stored with a job gathers no tracebacks."""
        return type(self)(**{field.name: getattr(self, field.name) for field in attrs.fields(type(self))})

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{self.type}({self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **{field.name: getattr(self, field.name) for field in attrs.fields(type(self))}), ()


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ConfigurationError(PikaError):
    """An argument or option that cannot work: `setting` names it, `reason` says why and gives the way out."""

    setting: str
    reason: str
    kind: ErrorKind = "invalid"

    def _text(self) -> str:
        return f"{self.setting}: {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalInUse(ConfigurationError):  # noqa: N818
    """A journal that another client has open: a second client would pay for the jobs of the first."""

    kind: ErrorKind = "other"

    @property
    def retryable(self) -> bool:
        return True


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class JournalUnusable(ConfigurationError):  # noqa: N818
    """A file that is not a journal of pika_async, is damaged, is of a newer version, or cannot be opened.

    The file is left as it is, because it may hold task ids.
    """


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class ClusterUnusable(ConfigurationError):  # noqa: N818
    """A database that is not one of a cluster, is of a newer version, or cannot be reached."""


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class InvalidRequest(PikaError, ValueError):  # noqa: N818 - the public name by contract
    """A field that cannot be sent, found before it costs: `field`, its `value`, and `reason` with the way out."""

    field: str
    value: Any
    reason: str
    kind: ErrorKind = "invalid"

    def _text(self) -> str:
        return f"{self.field}: {shorten(self.value)} {self.reason}"


@attrs.define(kw_only=True, eq=False, slots=False, repr=False)
class UnknownJob(InvalidRequest, KeyError):  # noqa: N818
    """A key that no job of this client has; `value` is the key."""

    field: str = "key"
    reason: str = "is not the key of a job in this journal"

    def _text(self) -> str:
        return f"{super()._text()}: this client has no job {shorten(self.value)}; `jobs()` lists those it has"
