"""Support of a provider for the fields of a request, and what their values may be on any wire. Sends nothing."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Final

import attrs

from pika_async.models.fields import Media, is_url

__all__ = ["VERSION", "Capability", "inline", "with_younger_fields"]

#: A model as the pages write it. A version that a gateway does not list yet can be sent, a mistyped one cannot.
VERSION: Final = re.compile(r"[1-9][0-9]?(\.[0-9]{1,3})?")


@attrs.frozen
class Capability:
    """Support of a provider for one field of a request."""

    #: The field's spelling on the wire; None if the provider has no such field.
    wire: str | None
    #: The range or the limit; why the provider has no such field.
    note: str = ""

    @property
    def supported(self) -> bool:
        """Whether the field can be sent."""
        return self.wire is not None


#: Rows of the fields that records of other packages may not have yet.
_YOUNGER_FIELDS: Final = {
    field: Capability(None, f"its record documents no {field.replace('_', ' ')}")
    for field in ("duration", "resolution", "last_image")
}


def with_younger_fields(rows: Mapping[str, Capability]) -> Mapping[str, Capability]:
    """Return the rows of a record, with those of the fields that it does not have."""
    return {**rows, **{field: row for field, row in _YOUNGER_FIELDS.items() if field not in rows}}


def inline(media: Media) -> str:
    """Return a URL as it is, bytes as base64: the two forms that a JSON body can hold."""
    if isinstance(media, bytes):
        return base64.b64encode(media).decode()
    if not is_url(media):
        raise TypeError("a local file must be read into bytes before it is encoded")
    scheme, _, rest = str(media).partition("://")
    return f"{scheme.lower()}://{rest}"
