"""How a command may end: the exit codes, and the errors that are a user's to mend. Prints nothing."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from pika_async.errors import AccountStopped, ConfigurationError, InvalidRequest, PikaError

__all__ = ["ExitCode", "InputErrors", "Interrupted", "UsageError", "error_text", "exit_code_for"]

#: How many faulty rows are listed.
MAX_LISTED_ROWS = 20


class ExitCode(enum.IntEnum):
    """What the shell is told."""

    #: All succeeded, and is on disk where that was asked for.
    OK = 0
    #: Some did not.
    INCOMPLETE = 1
    #: The command or its input is wrong; nothing was sent.
    USAGE = 2
    #: The account is stopped.
    ACCOUNT_STOPPED = 3
    #: Ctrl-C or SIGTERM.
    INTERRUPTED = 130


class UsageError(Exception):
    """The command cannot do what it was asked; the text says why and the way out."""


class InputErrors(UsageError):  # noqa: N818 - it holds many
    """Rows of the input that cannot be sent, each as `FILE:LINE: what`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - MAX_LISTED_ROWS
        shown = [*self.problems[:MAX_LISTED_ROWS], *([f"... and {more} more"] if more > 0 else [])]
        count = "1 row" if len(self.problems) == 1 else f"{len(self.problems)} rows"
        super().__init__("\n".join([*shown, f"{count} cannot be sent; nothing was sent"]))


class Interrupted(Exception):  # noqa: N818 - no error: the user's wish
    """The first Ctrl-C or SIGTERM ended the work; the text says what stands where."""


def exit_code_for(error: BaseException) -> ExitCode:
    """The code of a command that ended with `error`."""
    match error:
        case UsageError() | ConfigurationError() | InvalidRequest():
            return ExitCode.USAGE
        case AccountStopped():
            return ExitCode.ACCOUNT_STOPPED
        case Interrupted() | KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case _:
            return ExitCode.INCOMPLETE


def error_text(error: BaseException) -> str:
    """What the user reads of `error`; settings of the client by the names of their options."""
    match error:
        case ConfigurationError(setting="api_key"):
            return error.reason.replace("give api_key or api_key_file", "give --api-key-file")
        case ConfigurationError(setting="journal"):
            return error.reason
        case ConfigurationError(setting="public_url"):
            return f"--callbacks: {error.reason.replace('this receiver', 'this machine')}"
        case ConfigurationError(setting="host" | "port"):  # of a receiver; whoever forwards to it must know which
            return f"--listen: {error.reason.replace(', or 0 for any free one', '')}"
        case ConfigurationError() if not error.setting.isupper():  # else it is a variable
            return f"--{error.setting.removeprefix('limits.').replace('_', '-')}: {error.reason}"
        case PikaError():
            return error.message
        case _:
            return str(error)
