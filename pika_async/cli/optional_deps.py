"""Whether an optional part is installed, and the one line that says how to get it."""

from __future__ import annotations

import importlib

from pika_async.cli.exits import UsageError

__all__ = ["require_emulator"]


def require_emulator() -> None:
    """:raises UsageError: if the libraries that draw the emulator's videos are not installed."""
    try:
        for library in ("av", "PIL"):
            importlib.import_module(library)
    except ImportError:
        raise UsageError(
            'the emulator draws real videos, which is an extra: python -m pip install "pika_async[cli,emulator]"'
        ) from None
