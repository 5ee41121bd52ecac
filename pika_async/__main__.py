"""Entry point of `pika-async` and `python -m pika_async`. Without the extra `cli` it only says how to install it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    :param argv: arguments without the program name; default `sys.argv[1:]`.
    """
    try:
        for library in ("cyclopts", "rich"):
            importlib.import_module(library)
    except ImportError as error:
        if (error.name or "").split(".")[0] not in {"cyclopts", "rich"}:
            raise
        sys.stderr.write('pika-async: the command line needs an extra: python -m pip install "pika_async[cli]"\n')
        return 2
    except KeyboardInterrupt:
        return 130
    from pika_async.cli import run  # noqa: PLC0415

    return run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
