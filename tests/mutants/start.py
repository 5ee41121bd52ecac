"""Mutants of what a start loads, and of its interruption."""

from __future__ import annotations

from typing import Final

from tests.mutants.catalog import Mutant

_START: Final = ("tests/contracts/test_start.py",)

MUTANTS: Final = (
    Mutant(
        "package-loads-its-client",
        "__init__.py",
        '__version__ = "0.1.0"\n',
        '__version__ = "0.1.0"\nimport pika_async.errors\n',
        "`import pika_async` takes as long as all that it may be used for",
        _START,
        only="loads_nothing",
    ),
    Mutant(
        "name-looked-up-each-time",
        "__init__.py",
        "        globals()[name] = value\n",
        "",
        "each use of a public name asks for its module again",
        _START,
        only="kept",
    ),
    Mutant(
        "version-from-the-parser",
        "__main__.py",
        '[*arguments] == ["--version"]',
        "False",
        "`--version` loads every command",
        _START,
        only="version",
    ),
    Mutant(
        "help-from-the-commands",
        "cli/__init__.py",
        'if [*argv] in ([], ["--help"], ["-h"]):',
        "if False:",
        "`--help` loads every command",
        _START,
        only="loads_no_command",
    ),
    Mutant(
        "summary-of-a-command-differs",
        "cli/overview.py",
        "Serve an emulator of all four gateways until Ctrl-C.",
        "Serve an emulator of the gateways until Ctrl-C.",
        "the help text of all commands and that of one command differ",
        ("tests/cli/test_cli_overview.py",),
        only="that_of_the_commands",
    ),
    Mutant(
        "interrupted-import-prints-a-traceback",
        "__main__.py",
        "    except KeyboardInterrupt:  # Ctrl-C before the command has begun\n",
        "    except MemoryError:\n",
        "Ctrl-C before a command has begun prints a traceback",
        ("tests/cli/test_cli_interrupts.py",),
        only="between_two_imports",
    ),
    Mutant(
        "interrupt-lost-in-an-import",
        "__main__.py",
        "    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))\n",
        "    pass\n",
        "Ctrl-C in a callback of an import is printed and ignored",
        ("tests/cli/test_cli_interrupts.py",),
        only="at_once",
    ),
    Mutant(
        "ignored-interrupt-ends-an-import",
        "__main__.py",
        "if handler is not signal.default_int_handler:",
        "if False:",
        "a command behind `nohup` ends by Ctrl-C of another",
        ("tests/cli/test_cli_interrupts.py",),
        only="ignored_interrupt",
    ),
    Mutant(
        "journal-loaded-by-each-client",
        "config/journals.py",
        "\n__all__ = [",
        "\nimport pika_async._journal.sqlite\n\n__all__ = [",
        "a client without a journal loads SQLite",
        _START,
        only="every_client_uses",
    ),
    Mutant(
        "board-loaded-by-each-command",
        "cli/board.py",
        "\n__all__ = [",
        "\nimport pika_async.report.board_servers\n\n__all__ = [",
        "every command loads the board and a server",
        _START,
        only="without_a_board",
    ),
)
