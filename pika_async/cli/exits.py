"""Exit codes, and the errors that a user can fix. Prints nothing."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from pika_async.cli.faults import InputFault, fault_lines
from pika_async.cli.words import counted
from pika_async.errors import (
    AccountStopped,
    ConfigurationError,
    GatewayInTrouble,
    InvalidRequest,
    NoAccountLeft,
    PikaError,
    RefusedAlike,
)

__all__ = [
    "ExitCode", "InputErrors", "Interrupted", "UsageError", "error_text", "exit_code_for", "no_account_lines",
    "stops_account",
]  # fmt: skip


class ExitCode(enum.IntEnum):
    """Exit code of a command."""

    #: Every job succeeded and, unless downloads are off, its video is on disk.
    OK = 0
    #: Some job did not succeed.
    INCOMPLETE = 1
    #: Usage or input error; nothing was sent.
    USAGE = 2
    #: The account is stopped: wrong key, no balance, the same refusal for every row, or a gateway in trouble.
    ACCOUNT_STOPPED = 3
    #: Interrupted by Ctrl-C, SIGTERM or a closed terminal.
    INTERRUPTED = 130


class UsageError(Exception):
    """The command cannot run as given; the text says why and how to fix it."""


class InputErrors(UsageError):  # noqa: N818 - holds several errors
    """Rows of the input that cannot be sent, and why; equal faults of several rows are one line."""

    def __init__(self, faults: Sequence[InputFault]) -> None:
        self.faults = tuple(faults)
        rows = len({fault.location for fault in faults})
        super().__init__("\n".join([*fault_lines(faults), f"{counted(rows, 'row')} cannot be sent; nothing was sent"]))


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """Ctrl-C or SIGTERM ended the work; the text says what has been submitted."""


def stops_account(error: BaseException | None) -> bool:
    """Return whether a person must mend something at the gateway, or wait for it, before any row can be sent."""
    return isinstance(error, AccountStopped | RefusedAlike | GatewayInTrouble)


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the exit code of a command that ended with `error`."""
    match error:
        case UsageError() | ConfigurationError() | InvalidRequest():
            return ExitCode.USAGE
        case _ if stops_account(error):
            return ExitCode.ACCOUNT_STOPPED
        case Interrupted() | KeyboardInterrupt():
            return ExitCode.INTERRUPTED
        case _:
            return ExitCode.INCOMPLETE


def error_text(error: BaseException) -> str:
    """Return the text of `error` for the command line: settings of the client appear as options."""
    match error:
        case ConfigurationError(setting="api_key"):
            return error.reason.replace("give api_key or api_key_file", "give --api-key-file")
        case ConfigurationError(setting="budget"):
            return f"--budget: {error.reason.replace('give price', 'give --price as well')}"
        case ConfigurationError(setting="download_to"):
            return f"--videos: {error.reason}"
        case ConfigurationError(setting="journal"):
            return error.reason
        case ConfigurationError(setting="public_url"):
            return f"--callbacks: {error.reason.replace('this receiver', 'this machine')}"
        case ConfigurationError(setting="host" | "port"):  # a proxy forwards to this port: it cannot be any free one
            return f"--listen: {error.reason.replace(', or 0 for any free one', '')}"
        case ConfigurationError() if not error.setting.isupper():  # an upper-case setting is an environment variable
            return f"--{error.setting.removeprefix('limits.').replace('_', '-')}: {error.reason}"
        case NoAccountLeft():
            return "\n".join(no_account_lines(error, "this"))
        case PikaError():
            return error.message
        case _:
            return str(error)


def no_account_lines(error: NoAccountLeft, jobs: str) -> list[str]:
    """Return why no account took jobs, with a line for each account.

    :param jobs: "this", or "the rest".
    """
    reasons = [f"  {name}: {reason}" for name, reason in error.reasons.items()]
    return [f"no account is left that can take {jobs}; mend one of these, then run the same again:", *reasons]
