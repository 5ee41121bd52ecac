"""Command line `pika-async`. Needs the extra `cli`; every command returns an exit code and prints no traceback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

__all__ = ["load", "run"]


def run(argv: Sequence[str]) -> int:
    """Run one command and return its exit code.

    :param argv: arguments without the program name.
    """
    return load(argv)(argv)


def load(argv: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """Import what runs a command, and return it; nothing of the commands for the help text of them all.

    :param argv: arguments without the program name.
    """
    if [*argv] in ([], ["--help"], ["-h"]):
        # The parser would import these two while it prints, when Ctrl-C no longer ends the process at once.
        import rich.console  # noqa: PLC0415
        import rich.markdown  # noqa: F401, PLC0415

        from pika_async.cli.overview import print_overview  # noqa: PLC0415

        return partial(_print_or_report, print_overview)
    from pika_async.cli.commands import run as run_command  # noqa: PLC0415

    return run_command


def _print_or_report(print_overview: Callable[[], None], argv: Sequence[str]) -> int:
    try:
        print_overview()
    except OSError:  # reported by the commands, which cannot print it either
        from pika_async.cli.commands import run as run_command  # noqa: PLC0415

        return run_command(argv)
    return 0
