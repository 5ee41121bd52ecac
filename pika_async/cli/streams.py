"""Standard streams of a command, whatever their encoding."""

from __future__ import annotations

import contextlib
from typing import TextIO

__all__ = ["escape_unencodable"]


def escape_unencodable(stream: TextIO) -> None:
    """Let a stream escape the characters that its encoding does not have, where it can."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
