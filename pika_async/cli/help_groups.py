"""Groups of commands and of options in the help texts, in the order in which they are shown."""

from __future__ import annotations

from typing import Final

from cyclopts import App, Group

__all__ = ["CLUSTER", "COMMON", "GATEWAY", "MONEY", "OPTIONS", "REQUEST", "group_commands"]

OPTIONS: Final = Group("Options", sort_key=10)
REQUEST: Final = Group("Request", sort_key=11)
MONEY: Final = Group("Before it costs", sort_key=12)
GATEWAY: Final = Group("Provider and key", sort_key=13)
CLUSTER: Final = Group("Many machines", sort_key=14)
COMMON: Final = Group("Everywhere", sort_key=15)

#: Titles of the groups of commands, and the commands in each.
COMMANDS: Final = {
    "Make videos": ("demo", "generate", "estimate", "batch"),
    "Go on with a batch": ("status", "board", "resume", "retry", "fetch", "resolve", "export"),
    "Many machines": ("worker", "workers", "prune"),
    "Providers": ("providers", "effects", "doctor", "emulate"),
}


def group_commands(app: App) -> None:
    """Put every command of an app into its group; `--help` and the like are shown last."""
    for number, (title, names) in enumerate(COMMANDS.items(), 1):
        group = Group(title, sort_key=number)
        for name in names:
            app[name].group = (group,)
    last = Group("This program", sort_key=len(COMMANDS) + 1)
    for name in app:
        if name.startswith("-"):
            app[name].group = (last,)
