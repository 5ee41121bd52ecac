"""Help text of the whole command line, printed without the code of the commands."""

from __future__ import annotations

import sys
from typing import Final

from cyclopts import App

from pika_async import __version__
from pika_async.cli.help_groups import OPTIONS, group_commands
from pika_async.cli.streams import escape_unencodable

__all__ = ["SUMMARIES", "finish_app", "new_app", "print_overview"]

#: The first sentence of the help text of each command.
SUMMARIES: Final = {
    "generate": "Generate one video and print its URL, or its file with --out.",
    "batch": "Generate every request of a file, many at once, into a folder with results and videos.",
    "estimate": "Print what `batch` would be charged and how long it would take; send nothing.",
    "resume": "Continue every unfinished job of a folder: submit, poll and download.",
    "retry": "Pay again, on purpose, for jobs of a folder that ended without a video.",
    "fetch": "Follow tasks to their ends by their bare ids, and download their videos; costs nothing.",
    "status": "Show the jobs of a folder by status, and how to resolve those in doubt.",
    "board": "Serve the live page of a folder until Ctrl-C, also while its batch runs.",
    "resolve": "Record what became of jobs in doubt, after checking at the provider. Sends nothing.",
    "export": "Copy the journal of a folder into one whole file, also while a batch runs there.",
    "worker": "Drive the jobs of a database until Ctrl-C, beside any number of other workers on other machines.",
    "workers": "Show the workers of a database and the jobs that each has.",
    "prune": "Delete the records of jobs of a database that were settled long ago.",
    "providers": "Show what each provider can do, and whether its key is set; of one, how it spells each field.",
    "effects": "Show the effects, and which provider documents each.",
    "demo": "Run 200 prompts through all four providers on a local emulator; needs no key and no network.",
    "emulate": "Serve an emulator of all four gateways until Ctrl-C.",
    "doctor": "Compare a provider's actual replies with its documentation; free unless --spend is given.",
}


def new_app() -> App:
    """Return the command line without commands."""
    return App(
        name="pika-async",
        help="Generate Pika videos through four gateways: one video, or hundreds at once.",
        version=__version__,
        help_format="markdown",
        group_parameters=OPTIONS,
    )


def finish_app(app: App) -> None:
    """Add to an app with all its commands the one that installs completion, and group them."""
    app.register_install_completion_command(
        help="Install completion for bash, zsh or fish, for the shell that runs this."
    )
    group_commands(app)


def print_overview() -> None:
    """Print the help text of the whole command line.

    :raises OSError: if standard output cannot be written.
    """
    escape_unencodable(sys.stdout)
    app = new_app()
    for name, summary in SUMMARIES.items():
        app.command(App(name=name, help=summary))
    finish_app(app)
    app.help_print([])
