"""Entry point of `pika-async` and `python -m pika_async`. Without the extra `cli` it only says how to install it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]

#: Libraries of the extra `cli` without which no command runs.
LIBRARIES = ("cyclopts", "rich", "platformdirs")
PAGE_LIBRARY = "jinja2"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    :param argv: arguments without the program name; default `sys.argv[1:]`.
    """
    open_standard_streams()
    try:
        for library in LIBRARIES:
            importlib.import_module(library)
        if importlib.util.find_spec(PAGE_LIBRARY) is None:  # imported by the commands that write a page
            raise ModuleNotFoundError(name=PAGE_LIBRARY)
    except ImportError as error:
        if (error.name or "").split(".")[0] not in {*LIBRARIES, PAGE_LIBRARY}:
            raise
        sys.stderr.write('pika-async: the command line needs an extra: python -m pip install "pika_async[cli]"\n')
        return 2
    except KeyboardInterrupt:
        return 130
    try:
        from pika_async.cli import run  # noqa: PLC0415
        from pika_async.cli.loop import exit_despite_threads  # noqa: PLC0415
    except KeyboardInterrupt:  # Ctrl-C at once
        return 130

    code = run(sys.argv[1:] if argv is None else argv)
    if argv is None:  # the interpreter would wait for them
        exit_despite_threads(code)
    return code


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


if __name__ == "__main__":
    sys.exit(main())
