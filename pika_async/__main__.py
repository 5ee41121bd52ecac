"""`pika-async` and `python -m pika_async`: the command line where its extra is installed, else a hint how to get it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command (`sys.argv` unless given) and return its exit code."""
    try:
        for library in ("cyclopts", "rich"):
            importlib.import_module(library)
    except ImportError as error:
        if (error.name or "").split(".")[0] not in {"cyclopts", "rich"}:
            raise
        sys.stderr.write('pika-async: the command line is an extra: python -m pip install "pika_async[cli]"\n')
        return 2
    except KeyboardInterrupt:
        return 130
    from pika_async.cli import run  # noqa: PLC0415

    return run(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
