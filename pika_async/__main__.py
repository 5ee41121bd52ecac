"""Entry point of `pika-async` and `python -m pika_async`. Without the extra `cli` it only says how to install it.

Imports only what Python has loaded before, so that Ctrl-C meets `main` from almost the first instant on.
"""

from __future__ import annotations

import os
import sys

from pika_async import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    #: Runs a command line that it was loaded for, and returns the exit code.
    Command = Callable[[Sequence[str]], int]

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
        open_standard_streams()
        if argv is not None:
            return _load(argv)(argv)
        arguments = sys.argv[1:]
        code = _load_or_end(arguments)(arguments)
        if "pika_async.cli.loop" in sys.modules:
            from pika_async.cli.loop import exit_despite_threads  # noqa: PLC0415

            # The interpreter would wait for them.
            exit_despite_threads(code)
    except KeyboardInterrupt:  # Ctrl-C before the command has begun
        return INTERRUPTED
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


def _load_or_end(arguments: Sequence[str]) -> Command:
    """Load a command of this process, which ends at once on Ctrl-C.

    An exception would not do: Python ignores it, with a traceback, where it is raised in a callback of an import lock.
    """
    import signal  # noqa: PLC0415

    handler = signal.getsignal(signal.SIGINT)
    if handler is not signal.default_int_handler:  # ignored, as behind `nohup`, or another's
        return _load(arguments)
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        return _load(arguments)
    finally:
        signal.signal(signal.SIGINT, handler)


def _load(arguments: Sequence[str]) -> Command:
    """Import what runs a command."""
    if _is_extra_missing():
        return _advise_extra
    if [*arguments] == ["--version"]:
        return _print_version
    from pika_async.cli import load  # noqa: PLC0415

    return load(arguments)


def _is_extra_missing() -> bool:
    """Return whether a library of the extra `cli` is missing. They are imported by what uses them."""
    from importlib.util import find_spec  # noqa: PLC0415

    try:
        return None in map(find_spec, (*LIBRARIES, PAGE_LIBRARY))
    except ModuleNotFoundError as error:
        if error.name in {*LIBRARIES, PAGE_LIBRARY}:
            return True
        raise


def _advise_extra(_arguments: Sequence[str]) -> int:
    sys.stderr.write('pika-async: the command line needs an extra: python -m pip install "pika_async[cli]"\n')
    return 2


def _print_version(arguments: Sequence[str]) -> int:
    from pika_async import __version__  # noqa: PLC0415

    try:
        sys.stdout.write(f"{__version__}\n")
        sys.stdout.flush()
    except OSError:  # reported by the command line, as of every command
        from pika_async.cli import load  # noqa: PLC0415

        return load(arguments)(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
