"""Command line `pika-async`. Needs the extra `cli`; every command returns an exit code and prints no traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

__all__ = ["run"]


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code; nothing of the commands is imported for the help text of them all.

    :param argv: arguments without the program name.
    """
    if [*argv] in ([], ["--help"], ["-h"]):
        from pika_async.cli.overview import print_overview  # noqa: PLC0415

        with contextlib.suppress(OSError):  # reported below
            print_overview()
            return 0
    from pika_async.cli.commands import run as run_command  # noqa: PLC0415

    return run_command(argv)
