"""Command line `pika-async`. Needs the extra `cli`; every command returns an exit code and prints no traceback."""

from pika_async.cli.commands import run

__all__ = ["run"]
