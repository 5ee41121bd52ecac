"""Entry point of `pika-async` and `python -m pika_async`. Without the extra `cli` it only says how to install it.

Imports only what Python has loaded before, so that Ctrl-C meets `main` from almost the first instant on.
"""

from __future__ import annotations

import os
import sys

from pika_async import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

#: Libraries of the extra `cli` without which no command runs.
LIBRARIES = ("cyclopts", "rich", "platformdirs")
PAGE_LIBRARY = "jinja2"
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    :param argv: arguments without the program name; default `sys.argv[1:]`.
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:  # Ctrl-C while the command is imported
        return INTERRUPTED


def open_standard_streams() -> None:
    """Open the null device in place of each standard stream that is closed, as with `<&- >&- 2>&-`.

    Otherwise the journal or a socket would get descriptor 0, 1 or 2, and with it whatever is printed.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _run(argv: Sequence[str] | None) -> int:
    open_standard_streams()
    arguments = sys.argv[1:] if argv is None else list(argv)
    if _is_extra_missing():
        sys.stderr.write('pika-async: the command line needs an extra: python -m pip install "pika_async[cli]"\n')
        return 2
    if arguments == ["--version"] and _print_version():
        return 0
    from pika_async.cli import run  # noqa: PLC0415

    code = run(arguments)
    if argv is None:  # the interpreter would wait for them
        from pika_async.cli.loop import exit_despite_threads  # noqa: PLC0415

        exit_despite_threads(code)
    return code


def _is_extra_missing() -> bool:
    """Return whether a library of the extra `cli` is missing. They are imported by what uses them."""
    from importlib.util import find_spec  # noqa: PLC0415

    try:
        return None in map(find_spec, (*LIBRARIES, PAGE_LIBRARY))
    except ModuleNotFoundError as error:
        if error.name in {*LIBRARIES, PAGE_LIBRARY}:
            return True
        raise


def _print_version() -> bool:
    """Return whether the version is printed; where it cannot be, the command line reports that."""
    from pika_async import __version__  # noqa: PLC0415

    try:
        sys.stdout.write(f"{__version__}\n")
        sys.stdout.flush()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
