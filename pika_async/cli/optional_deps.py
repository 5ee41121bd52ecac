"""Check for optional dependencies; the error says how to install them."""

from __future__ import annotations

import importlib
import importlib.util

from pika_async.cli.exits import UsageError

__all__ = ["require_emulator", "require_engines"]


def require_emulator() -> None:
    """Raise unless the libraries that draw the emulator's videos are installed.

    :raises UsageError: says how to install them.
    """
    try:
        for library in ("av", "PIL"):
            importlib.import_module(library)
    except ImportError:
        raise UsageError(
            'the emulator draws real videos, which needs an extra: python -m pip install "pika_async[cli,emulator]"'
        ) from None


def require_engines() -> None:
    """Raise unless the libraries of a database that many processes share are installed; imports none of them.

    :raises UsageError: says how to install them.
    """
    if not all(importlib.util.find_spec(library) for library in ("dbos", "psycopg", "sqlalchemy")):
        raise UsageError('--database: needs an extra: python -m pip install "pika_async[cli,dbos]"')
