"""The command line, `pika-async`. Needs the extra `cli`; every command returns an exit code and shows no traceback."""

from pika_async.cli.commands import run

__all__ = ["run"]
